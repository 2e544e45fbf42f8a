//! Each rule by example, and the agreement of writer, checkers, serde and an independent RFC 8785 implementation.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;

fn request(text: impl AsRef<[u8]>) -> Option<DefectKind> {
    check_request(text.as_ref()).err().map(|defect| defect.kind)
}

fn record(text: impl AsRef<[u8]>) -> Option<DefectKind> {
    check_record(text.as_ref()).err().map(|defect| defect.kind)
}

#[test]
fn requests_with_one_reading_pass() {
    for good in [
        "{}",
        " [ 1 , \"a\" , { \"b\" : [ ] } ] \r\n",
        r#"{"a":1,"A":2,"\u00e9":3,"e":4}"#,
        r#""\ud83d\ude00 \/ \b\f\n\r\t \u001f""#,
        "0",
        "9007199254740991",
        "-9007199254740991",
        "0.1",
        "1.50",
        "1e5",
        "1E+22",
        "0.0",
        "0e9999",
        "123456789.012345",
        "0.30000000000000004",
        "1.7976931348623157e308",
        "5e-324",
        "100.0e-2",
    ] {
        assert_eq!(check_request(good.as_bytes()), Ok(()), "{good}");
        assert!(serde_json::from_str::<Value>(good).is_ok(), "{good}");
    }
}

#[test]
fn requests_with_two_readings_or_none_are_refused() {
    use DefectKind::*;
    for (bad, kind) in [
        ("", UnexpectedEnd),
        ("{", UnexpectedEnd),
        ("tru", UnexpectedEnd),
        ("1.", UnexpectedEnd),
        ("\"\\", UnexpectedEnd),
        ("\u{feff}{}", ByteOrderMark),
        ("{} {}", TrailingBytes),
        ("1 1", TrailingBytes),
        ("{\"a\":1,}", UnexpectedByte(b'}')),
        ("[1,]", UnexpectedByte(b']')),
        ("[1 2]", UnexpectedByte(b'2')),
        ("{a:1}", UnexpectedByte(b'a')),
        ("{\"a\" 1}", UnexpectedByte(b'1')),
        ("'a'", UnexpectedByte(b'\'')),
        ("True", UnexpectedByte(b'T')),
        ("/**/1", UnexpectedByte(b'/')),
        ("\u{a0}1", UnexpectedByte(0xc2)),
        (r#"{"a":1,"a":1}"#, DuplicateName),
        (r#"{"a":1,"b":2,"\u0061":1}"#, DuplicateName),
        (r#"[{"x":{"\ud83d\ude00":1,"😀":1}}]"#, DuplicateName),
        (r#"{"":1,"":2}"#, DuplicateName),
        (r#""\ud83d""#, LoneSurrogate),
        (r#""\ude00\ud83d""#, LoneSurrogate),
        (r#""\ud83d\u0041""#, LoneSurrogate),
        (r#""\u0000""#, Nul),
        ("\"\0\"", Nul),
        ("\"\n\"", ControlCharacter),
        (r#""\x41""#, BadEscape),
        (r#""\u12g4""#, BadEscape),
        ("01", BadNumber),
        ("-a", BadNumber),
        ("1.e5", BadNumber),
        ("+1", UnexpectedByte(b'+')),
        (".5", UnexpectedByte(b'.')),
        ("NaN", UnexpectedByte(b'N')),
        ("-0", MinusZero),
        ("-0.0e7", MinusZero),
        ("9007199254740992", InexactNumber),
        ("-9007199254740993", InexactNumber),
        ("123456789012345678901234567890", InexactNumber),
        ("0.1000000000000000055", InexactNumber),
        ("9007199254740993.0", InexactNumber),
        ("1e400", InexactNumber),
        ("1e-400", InexactNumber),
        ("1e99999999999999999999", InexactNumber),
    ] {
        assert_eq!(request(bad), Some(kind), "{bad:?}");
    }
    assert_eq!(check_request(b"[\"a\xff\"]"), Err(JsonDefect { offset: 3, kind: NotUtf8 }));
    assert_eq!(request(b"\"\xed\xa0\x80\""), Some(NotUtf8), "a surrogate in UTF-8");
    let defect = check_request(br#"{"a":1,"a":1}"#).unwrap_err();
    assert_eq!(defect.to_string(), "the object has two members of this name; parsers disagree on which one counts (at byte 7)");
}

#[test]
fn depth_is_limited_alike_everywhere() {
    let nested = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
    assert_eq!(request(nested(MAX_DEPTH)), None);
    assert_eq!(request(nested(MAX_DEPTH + 1)), Some(DefectKind::TooDeep));
    assert_eq!(request("[".repeat(1_000_000)), Some(DefectKind::TooDeep));
    let member = |n: usize| format!("{{\"a\":{}}}", nested(n));
    for (levels, fits) in [(MAX_DEPTH - 1, true), (MAX_DEPTH, false)] {
        assert_eq!(record(member(levels)).is_none(), fits);
        assert_eq!(canonical::<Value>(&serde_json::from_str(&member(levels)).unwrap()).is_ok(), fits);
    }
}

#[test]
fn records_have_one_form() {
    use DefectKind::*;
    for good in [
        "{}",
        r#"{"":0,"A":-1,"a":[],"b":{"x":null,"y":[true,false,{}]}}"#,
        r#"{"a":"\"\\\b\f\n\r\t\u0001\u001f / é😀","b":9007199254740991}"#,
    ] {
        assert_eq!(check_record(good.as_bytes()), Ok(()), "{good}");
        assert_eq!(check_request(good.as_bytes()), Ok(()), "{good}");
    }
    for (bad, kind) in [
        ("", UnexpectedEnd),
        ("[]", NotAnObject),
        ("1", NotAnObject),
        ("\u{feff}{}", ByteOrderMark),
        (" {}", WhiteSpace),
        ("{} ", WhiteSpace),
        ("{}\r", WhiteSpace),
        ("{}\n", WhiteSpace),
        ("{ }", WhiteSpace),
        (r#"{"a" :1}"#, WhiteSpace),
        (r#"{"a": 1}"#, WhiteSpace),
        (r#"{"a":1, "b":1}"#, WhiteSpace),
        (r#"{"a":[1 ]}"#, WhiteSpace),
        ("{}{}", TrailingBytes),
        (r#"{"a":1,"a":1}"#, DuplicateName),
        (r#"{"b":1,"a":1}"#, UnsortedName),
        (r#"{"a":{"b":1,"B":1}}"#, UnsortedName),
        (r#"{"aa":1,"a":1}"#, UnsortedName),
        (r#"{"é":1}"#, NameForm),
        (r#"{"\u0061":1}"#, NameForm),
        (r#"{"a\"":1}"#, NameForm),
        ("{\"\u{7f}\":1}", NameForm),
        (r#"{"a":"\/"}"#, EscapeForm),
        (r#"{"a":"\u0041"}"#, EscapeForm),
        (r#"{"a":"\u000a"}"#, EscapeForm),
        (r#"{"a":"\u001F"}"#, EscapeForm),
        (r#"{"a":"\ud83d\ude00"}"#, EscapeForm),
        (r#"{"a":"\u0000"}"#, Nul),
        ("{\"a\":\"\0\"}", Nul),
        ("{\"a\":\"12345678\n\"}", ControlCharacter),
        (r#"{"a":"\q"}"#, BadEscape),
        (r#"{"a":1.0}"#, NotAnInteger),
        (r#"{"a":1e2}"#, NotAnInteger),
        (r#"{"a":-0}"#, MinusZero),
        (r#"{"a":01}"#, BadNumber),
        (r#"{"a":9007199254740992}"#, InexactNumber),
        (r#"{"a":-99999999999999999999}"#, InexactNumber),
        (r#"{"a":1,}"#, UnexpectedByte(b'}')),
        (r#"{"a":"#, UnexpectedEnd),
        (r#"{"a":"bcdefghij"#, UnexpectedEnd),
    ] {
        assert_eq!(record(bad), Some(kind), "{bad:?}");
    }
    assert_eq!(check_record(b"{\"a\":\"12345678\xc3\"}"), Err(JsonDefect { offset: 14, kind: NotUtf8 }));
}

#[test]
fn what_has_no_canonical_form_is_refused() {
    for (bad, error) in [
        (json!({"é": 1}), NotCanonical::Name("é".into())),
        (json!({"a": 1.5}), NotCanonical::Number("1.5".into())),
        (json!({"a": 1.0}), NotCanonical::Number("1.0".into())),
        (json!({"a": 9_007_199_254_740_992_u64}), NotCanonical::Number("9007199254740992".into())),
        (json!({"a": i64::MIN}), NotCanonical::Number("-9223372036854775808".into())),
        (json!({"a": "\0"}), NotCanonical::Nul),
    ] {
        assert_eq!(canonical(&bad), Err(error));
    }
}

/// Any value that has a canonical form.
fn values() -> impl Strategy<Value = Value> {
    let integer = -9_007_199_254_740_991_i64..=9_007_199_254_740_991;
    let text = prop_oneof![any::<String>().prop_map(|s| s.replace('\0', "")), "[a-z\"\\\\\u{1}-\u{1f}\u{7f}\u{e9}\u{2028}]{0,20}",];
    let leaf =
        prop_oneof![Just(Value::Null), any::<bool>().prop_map(Value::from), integer.prop_map(Value::from), text.prop_map(Value::from)];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from), objects_of(inner)]
    })
}

fn objects_of(member: impl Strategy<Value = Value>) -> impl Strategy<Value = Value> {
    proptest::collection::vec(("[ !#-\\[\\]-~]{0,4}", member), 0..6).prop_map(|members| members.into_iter().collect::<Map<_, _>>().into())
}

/// The same value with insignificant differences: one of them in each variant.
fn variants(line: &str) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let mut in_string = false;
    let bytes = line.as_bytes();
    for (i, byte) in bytes.iter().enumerate() {
        if *byte == b'"' && (!in_string || bytes[..i].iter().rev().take_while(|b| **b == b'\\').count() % 2 == 0) {
            in_string = !in_string;
        } else if !in_string && matches!(byte, b'{' | b'}' | b'[' | b']' | b',' | b':') {
            all.extend([" ", "\n", "\r\n", "\t"].map(|space| format!("{}{space}{}", &line[..i], &line[i..])));
        }
    }
    all.extend([format!("{line}\n"), format!(" {line}"), format!("\u{feff}{line}")]);
    all
}

proptest! {
    #[test]
    fn the_canonical_form_passes_and_is_the_oracles(value in objects_of(values())) {
        let line = canonical(&value).unwrap();
        prop_assert_eq!(check_record(&line), Ok(()));
        prop_assert_eq!(check_request(&line), Ok(()));
        prop_assert_eq!(&serde_json::from_slice::<Value>(&line).unwrap(), &value);
        prop_assert_eq!(serde_json_canonicalizer::to_vec(&value).unwrap(), line);
    }

    #[test]
    fn every_other_spelling_is_refused(value in objects_of(values())) {
        let line = String::from_utf8(canonical(&value).unwrap()).unwrap();
        for variant in variants(&line) {
            prop_assert!(check_record(variant.as_bytes()).is_err(), "{variant:?}");
        }
    }

    #[test]
    fn duplicated_and_unsorted_members_are_refused(value in objects_of(values()), first in 0_usize..6, second in 0_usize..6) {
        let mut members: Vec<(String, Value)> = value.as_object().unwrap().clone().into_iter().collect();
        members.sort_by(|a, b| a.0.as_bytes().cmp(b.0.as_bytes()));
        prop_assume!(first < members.len() && second < members.len());
        let write = |members: &[(String, Value)]| {
            let one = |(name, value): &(String, Value)| format!("\"{name}\":{}", String::from_utf8(canonical(value).unwrap()).unwrap());
            format!("{{{}}}", members.iter().map(one).collect::<Vec<_>>().join(","))
        };
        let mut swapped = members.clone();
        swapped.swap(first, second);
        prop_assert_eq!(record(write(&swapped)).is_none(), first == second);
        prop_assert_eq!(request(write(&swapped)), None);
        members.insert(second, members[first].clone());
        prop_assert!(record(write(&members)).is_some());
        prop_assert_eq!(request(write(&members)), Some(DefectKind::DuplicateName));
    }

    #[test]
    fn a_record_that_passes_is_its_own_canonical_form(line in "\\{(\"[ab]\":(1|-1|0|\"[a\\\\n\"]{0,3}\"|\\[1\\]|\\{\\}),?){0,3}\\}") {
        if check_record(line.as_bytes()).is_ok() {
            let value: Value = serde_json::from_str(&line).unwrap();
            prop_assert_eq!(canonical(&value).unwrap(), line.into_bytes());
        }
    }

    #[test]
    fn what_passes_is_json_and_nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..40), text in "[\\[\\]{}:,\"\\\\u0-9a-f.eE+ -]{0,30}") {
        for candidate in [bytes.as_slice(), text.as_bytes()] {
            let (request, record) = (check_request(candidate), check_record(candidate));
            if request.is_ok() {
                prop_assert!(serde_json::from_slice::<Value>(candidate).is_ok());
            }
            prop_assert!(record.is_err() || request.is_ok());
        }
    }

    #[test]
    fn fifteen_digits_are_always_enough(digits in 1_u64..1_000_000_000_000_000, exponent in -280_i32..280) {
        prop_assert_eq!(request(format!("{digits}e{exponent}")), None);
    }

    #[test]
    fn every_double_can_be_sent_in_its_shortest_form(bits: u64) {
        let double = f64::from_bits(bits);
        prop_assume!(double.is_finite() && double != 0.0);
        prop_assert_eq!(request(format!("{double:e}")), None);
    }
}
