//! The example of C2SP tlog-policy, and each mistake with its line.

use proptest::prelude::*;

use super::PolicyErrorKind as Kind;
use super::*;
use crate::jwk::PublicKey;

fn public(seed: u8) -> PublicKey {
    PublicKey::from_ed25519(ed25519_dalek::SigningKey::from_bytes(&[seed; 32]).verifying_key().as_bytes())
}

pub(super) fn log_key(name: &str, seed: u8) -> String {
    VerifierKey::from_jwk(name, &public(seed)).unwrap().to_string()
}

/// A cosigner's verifier key, written by hand from C2SP tlog-cosignature.
pub(super) fn witness_key(name: &str, seed: u8) -> String {
    use base64::Engine as _;
    let key = [&[4], public(seed).raw_point().unwrap().as_slice()].concat();
    let id = crate::merkle::Hash::digest(&[name.as_bytes(), b"\n", &key].concat()).to_string();
    format!("{name}+{}+{}", &id[..8], base64::engine::general_purpose::STANDARD.encode(key))
}

/// The example of the specification.
fn example() -> String {
    let mut lines = vec![format!("log {}", log_key("log.example", 1)), String::new()];
    for (group, k, seeds) in [("X", "2", [2, 3, 4]), ("Y", "any", [5, 6, 7])] {
        for (number, seed) in seeds.iter().enumerate() {
            lines.push(format!("witness {group}{} {}", number + 1, witness_key(&format!("{group}{number}.example"), *seed)));
        }
        lines.push(format!("group {group}-witnesses {k} {group}1 {group}2 {group}3"));
        lines.push(String::new());
    }
    lines.join("\n") + "group X-and-Y all X-witnesses Y-witnesses\nquorum X-and-Y\n"
}

fn refusal(text: impl AsRef<[u8]>) -> (usize, Kind) {
    let error = Policy::parse(text.as_ref()).unwrap_err();
    (error.line, error.kind)
}

#[test]
fn the_example_of_the_specification() {
    let policy: Policy = example().parse().unwrap();
    assert_eq!((policy.logs().len(), policy.witnesses().len(), policy.groups().len()), (1, 6, 3));
    assert_eq!(policy.quorum(), Some(Member::Group(2)));
    assert_eq!(policy.groups()[0].threshold, 2);
    assert_eq!(policy.groups()[1].threshold, 1);
    assert_eq!(policy.groups()[1].members, [Member::Witness(3), Member::Witness(4), Member::Witness(5)]);
    assert_eq!(policy.groups()[2], Group { name: "X-and-Y".into(), threshold: 2, members: vec![Member::Group(0), Member::Group(1)] });
    assert_eq!(policy.keys().len(), 7);
}

#[test]
fn white_space_comments_and_urls() {
    let (log, witness) = (log_key("log.example", 1), witness_key("w.example", 2));
    let text = format!(
        "# caf\u{e9}\n \t# indented\n\n \t\n\tlog  {log}\thttps://log.example/ \nwitness all {witness} https://w.example\nquorum all\n"
    );
    let policy: Policy = text.parse().unwrap();
    assert_eq!(policy.logs()[0].url.as_deref(), Some("https://log.example/"));
    assert_eq!(policy.witnesses()[0].url.as_deref(), Some("https://w.example"));
    assert_eq!(policy.quorum(), Some(Member::Witness(0)));
    let bare: Policy = "quorum none\n".parse().unwrap();
    assert_eq!((bare.quorum(), bare.logs().len(), bare.witnesses().len()), (None, 0, 0));
}

#[test]
fn each_mistake_is_named_with_its_line() {
    let (log, witness) = (log_key("log.example", 1), witness_key("w.example", 2));
    let with = |lines: &str| format!("log {log}\nwitness w {witness}\n{lines}\n");
    let other = witness_key("other.example", 3);
    let unknown = |name: &str| Kind::UnknownName(name.into());
    for (lines, kind) in [
        ("logs x", Kind::Keyword("logs".into())),
        ("Quorum none", Kind::Keyword("Quorum".into())),
        ("log", Kind::Usage("log <verifier key> [<url>]")),
        ("log a b c", Kind::Usage("log <verifier key> [<url>]")),
        ("witness v", Kind::Usage("witness <name> <verifier key> [<url>]")),
        ("group g", Kind::Usage("group <name> <number>|all|any <member>...")),
        ("group g any", Kind::Usage("group <name> <number>|all|any <member>...")),
        ("quorum", Kind::Usage("quorum <name>|none")),
        ("quorum w w", Kind::Usage("quorum <name>|none")),
        ("log nonsense", Kind::Key(VerifierKeyError::Form)),
        (&format!("log {other}"), Kind::NotALogKey),
        (&format!("witness v {}", log_key("v.example", 4)), Kind::NotAWitnessKey),
        (&format!("log {}", log_key("renamed.example", 1)), Kind::DuplicateKey(1)),
        (&format!("witness v {}", witness_key("renamed.example", 2)), Kind::DuplicateKey(2)),
        (&format!("witness w {other}"), Kind::DuplicateName("w".into())),
        ("group w any w", Kind::DuplicateName("w".into())),
        (&format!("witness none {other}"), Kind::ReservedName),
        ("group none any w", Kind::ReservedName),
        ("group g any none", Kind::ReservedName),
        ("group g any v", unknown("v")),
        ("group g any g", unknown("g")),
        ("quorum v", unknown("v")),
        ("quorum W", unknown("W")),
        ("group g all w w", Kind::SecondMembership("w".into())),
        ("group g 0 w", Kind::Threshold("0".into())),
        ("group g 2 w", Kind::Threshold("2".into())),
        ("group g 01 w", Kind::Threshold("01".into())),
        ("group g +1 w", Kind::Threshold("+1".into())),
        ("group g most w", Kind::Threshold("most".into())),
        ("quorum none\r", Kind::ControlCharacter(0x0d)),
        ("# \u{7f}", Kind::ControlCharacter(0x7f)),
        ("# no quorum", Kind::NoQuorum),
    ] {
        let line = if kind == Kind::NoQuorum { 4 } else { 3 };
        assert_eq!(refusal(with(lines)), (line, kind), "{lines}");
    }
    assert_eq!(refusal(with("group g any w\ngroup h any w")), (4, Kind::SecondMembership("w".into())));
    assert_eq!(refusal(with("quorum none\n\nquorum none")), (5, Kind::SecondQuorum(3)));
    assert_eq!(refusal(""), (1, Kind::NoQuorum));
    assert_eq!(refusal("quorum none"), (1, Kind::NoLineFeed));
    assert_eq!(refusal(b"\n# \xe9\n"), (2, Kind::NotUtf8));
    assert_eq!(refusal(vec![b'\n'; MAX_POLICY + 1]), (1, Kind::TooLong(MAX_POLICY + 1)));
    let text = Policy::parse(with("quorum v").as_bytes()).unwrap_err().to_string();
    assert_eq!(text, "trust file, line 3: no witness or group above this line is called \"v\"");
}

#[test]
fn the_number_of_groups_is_limited() {
    let witness = format!("witness g0 {}\n", witness_key("w.example", 2));
    let groups: Vec<String> = (1..=MAX_ENTRIES + 1).map(|n| format!("group g{n} any g{}\n", n - 1)).collect();
    let text = witness + &groups.concat();
    assert_eq!(refusal(text), (MAX_ENTRIES + 2, Kind::TooMany));
}

proptest! {
    #[test]
    fn a_line_less_is_another_policy_or_none(cut in 0_usize..15) {
        let text = example();
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        let cut = cut % lines.len();
        let without = [&lines[..cut], &lines[cut + 1..]].concat().concat();
        let blank = lines[cut] == "\n";
        let same = Policy::parse(without.as_bytes()).is_ok_and(|policy| policy == text.parse().unwrap());
        prop_assert_eq!(same, blank);
    }

    #[test]
    fn groups_refer_only_to_what_stands_above(text in "((witness|group|quorum|log)( [a-d#]| none| all| 1| 2){0,4}\n){0,12}") {
        if let Ok(policy) = text.parse::<Policy>() {
            for (index, group) in policy.groups().iter().enumerate() {
                prop_assert!((1..=group.members.len()).contains(&group.threshold));
                prop_assert!(group.members.iter().all(|m| !matches!(m, Member::Group(g) if *g >= index)));
            }
        }
    }
}
