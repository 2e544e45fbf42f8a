//! Records, and the two JSON scanners that stand before every parser.
//!
//! Out of scope: whether a record is legal, and its place in a chain (`log`).

use claviger_audit::json::{canonical, check_record, check_request};
use claviger_audit::line::Lines;
use claviger_audit::record::Record;
use serde_json::Value;

/// Both scanners accept only what every parser reads alike; what is a record is written again byte for byte.
pub fn check(data: &[u8]) {
    let value = serde_json::from_slice::<Value>(data);
    if check_request(data).is_ok() {
        assert!(value.is_ok(), "a request that no parser reads");
    }
    let canonical_form = check_record(data).is_ok();
    if canonical_form {
        assert!(check_request(data).is_ok(), "a record that would be refused as a request");
        let written = canonical(value.as_ref().expect("what the scanner of requests accepts is JSON"));
        assert_eq!(written.as_deref(), Ok(data), "a record has one spelling");
        check_line(data);
    }
    if let Ok(record) = Record::parse(data) {
        assert!(canonical_form, "a record that is not in canonical form");
        assert_eq!(record.to_line().as_deref(), Ok(data), "a record that is written in another way than it was read");
    }
}

/// Canonical text may stand in a file: it is one line there, and comes back as it is.
fn check_line(data: &[u8]) {
    let file = [data, b"\n"].concat();
    let mut lines = Lines::new(file.as_slice());
    match lines.next() {
        Some(Ok(line)) => assert_eq!(line.bytes, data, "a line that changes in a file"),
        Some(Err(error)) => assert!(data.len() > claviger_audit::line::MAX_LINE, "a record that is no line: {error}"),
        None => panic!("a record that is not in its file"),
    }
    assert!(lines.next().is_none(), "a record of several lines");
}
