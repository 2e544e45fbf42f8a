//! Records that keystores keep: CloudTrail files and files of Vault's audit devices.
//!
//! Out of scope: what is made of them (`log` has no such files).

use claviger_audit::backend::{Backend, Entry, What};

/// A CloudTrail file is read, or refused.
pub fn check_cloudtrail(data: &[u8]) {
    let entries = read(Backend::CloudTrail, data);
    let numbers: Vec<u64> = entries.iter().flatten().map(|entry| entry.number).collect();
    assert!(numbers.iter().zip(1..).all(|(number, index)| *number == index), "events are numbered as they come");
}

/// A file of an audit device is read, or refused. Each line stands for itself.
pub fn check_vault(data: &[u8]) {
    let entries = read(Backend::Vault, data);
    assert!(entries.iter().flatten().is_sorted_by(|one, next| one.number < next.number), "a line holds one entry");
    let twice = read(Backend::Vault, &[data, b"\n", data].concat());
    let count = |entries: &Option<Vec<Entry>>| entries.as_ref().map_or(0, Vec::len);
    assert_eq!(count(&twice), 2 * count(&entries), "what a line says depends on other lines");
}

fn read(backend: Backend, data: &[u8]) -> Option<Vec<Entry>> {
    let mut entries = Vec::new();
    let read = backend.read(&mut &data[..], &mut |entry| entries.push(entry));
    for entry in &entries {
        if let What::Signature(signature) = &entry.what {
            assert_eq!(signature.key.backend(), backend);
            assert!(!signature.caller.is_empty());
        }
    }
    read.is_ok().then_some(entries)
}
