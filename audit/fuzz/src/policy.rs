//! Trust files.
//!
//! Out of scope: the keys in them (`note`), and whether cosignatures reach a quorum.

use claviger_audit::trust::{MAX_ENTRIES, Member, Policy};

/// Every name in a trust file is resolved to something that stands before it, and comments and line ends mean nothing or are errors.
pub fn check(data: &[u8]) {
    let Ok(policy) = Policy::parse(data) else { return };
    let counts = [policy.logs().len(), policy.witnesses().len(), policy.groups().len()];
    assert!(counts.iter().all(|count| *count <= MAX_ENTRIES), "more entries than are allowed: {counts:?}");
    assert_eq!(policy.keys().len(), counts[0] + counts[1], "a key is missing");
    for (index, group) in policy.groups().iter().enumerate() {
        assert!((1..=group.members.len()).contains(&group.threshold), "a group that nobody or anybody can satisfy");
        assert!(group.members.iter().all(|member| exists(&policy, *member, index)), "a group of members that are not there");
    }
    assert!(policy.quorum().is_none_or(|member| exists(&policy, member, policy.groups().len())), "a quorum that is not there");
    let with = |text: &[u8]| Policy::parse(&[data, text].concat());
    if data.len() + 16 < claviger_audit::trust::MAX_POLICY {
        assert_eq!(with(b"# a comment\n \t\n").as_ref(), Ok(&policy), "a comment means something");
        assert!(with(b"quorum none\n").is_err() && with(b"quorum none").is_err(), "a second quorum");
        assert!(with(b"#\r\n").is_err(), "a carriage return");
    }
}

/// Whether a witness is there, or a group before group `before`.
fn exists(policy: &Policy, member: Member, before: usize) -> bool {
    match member {
        Member::Witness(index) => index < policy.witnesses().len(),
        Member::Group(index) => index < before,
    }
}
