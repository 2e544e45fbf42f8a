//! The shipped policies keep their own tables, and a table that is wrong says so.

use super::*;

pub(in crate::policy) fn shipped() -> Vec<(String, String)> {
    [
        ("guardrails.cedar", include_str!("../../../policies/guardrails.cedar")),
        ("issuers.cedar", include_str!("../../../policies/issuers.cedar")),
        ("operators.cedar", include_str!("../../../policies/operators.cedar")),
    ]
    .map(|(name, text)| (name.to_owned(), text.to_owned()))
    .to_vec()
}

fn run(text: &str, files: &[(String, String)]) -> Result<Vec<CaseResult>, TableError> {
    Table::parse(text)?.run(files, &Vocabulary::default(), &BTreeMap::new(), Timestamp::from_seconds(1_800_000_000))
}

#[test]
fn the_shipped_policies_keep_their_tables() {
    let tables = [
        include_str!("../../../policies/tests/guardrails.toml"),
        include_str!("../../../policies/tests/issuers.toml"),
        include_str!("../../../policies/tests/operators.toml"),
    ];
    let mut decided = BTreeSet::new();
    for table in tables {
        for result in run(table, &shipped()).unwrap() {
            assert_eq!(result.difference, None, "{}", result.name);
            decided.extend(result.decision.determining);
        }
    }
    let shipped: BTreeSet<String> = shipped()
        .iter()
        .flat_map(|(_, text)| text.split("@id(\"").skip(1))
        .map(|rest| rest[..rest.find('"').unwrap()].to_owned())
        .collect();
    assert_eq!(decided, shipped, "every shipped policy must decide some case");
}

const HEAD: &str = "[keyring.k]\n[[case]]\nas = \"dns:a.example\"\naction = \"rotate\"\nkeyring = \"k\"\n";

fn permit() -> Vec<(String, String)> {
    vec![("a.cedar".into(), "@id(\"p\") permit (principal, action, resource);".into())]
}

#[test]
fn differences_are_told() {
    let difference = |rest: &str, files: &[(String, String)]| run(&format!("{HEAD}{rest}"), files).unwrap().remove(0).difference;
    assert_eq!(difference("expect = \"allow\"", &permit()), None);
    assert_eq!(difference("expect = \"deny\"", &permit()).unwrap(), "expected deny, got allow (p)");
    assert_eq!(difference("expect = \"allow\"", &[]).unwrap(), "expected allow, got deny (no permit matched)");
    assert_eq!(difference("expect = \"allow\"\nby = [\"q\"]", &permit()).unwrap(), "expected to be decided by [q], was by [p]");
    assert_eq!(difference("expect = \"deny\"\ncode = \"policy_error\"", &[]).unwrap(), "expected code policy_error, got denied");
}

#[test]
fn a_wrong_table_does_not_pass() {
    let wrong = [
        "",
        "[[case]]",
        "[[case]]\nas = \"dns:a.example\"\naction = \"rotate\"\nexpect = \"maybe\"",
        "[[case]]\nas = \"dns:a.example\"\naction = \"rotat\"\nexpect = \"deny\"",
        "[[case]]\nas = \"alice\"\naction = \"rotate\"\nexpect = \"deny\"",
        "[[case]]\nas = \"dns:a.example\"\naction = \"rotate\"\nkeyring = \"k\"\nexpect = \"deny\"",
        "[[case]]\nas = \"dns:a.example\"\naction = \"readLog\"\nexpect = \"deny\"\nexpcet = 1",
        "[keyring.k]\npolicy_claims = { a = \"string\" }\n[[case]]\nas = \"dns:a.example\"\naction = \"readLog\"\nexpect = \"deny\"",
        "[caller.\"dns:a.example\"]\nkind = \"x\"\n[[case]]\nas = \"dns:a.example\"\naction = \"readLog\"\nexpect = \"deny\"",
    ];
    for text in wrong {
        assert!(run(text, &permit()).is_err(), "{text}");
    }
}
