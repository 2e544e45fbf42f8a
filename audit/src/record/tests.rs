//! A record and its line, against the long way round: a checked line, a map of JSON values, and serde_json's own reading of them.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde_json::{Map, Value};

use super::*;
use crate::algorithm::Algorithm;
use crate::event::*;
use crate::timing::Timing;

/// What a line means, found out without the reader that is tested.
fn long_way(line: &[u8]) -> Option<Record> {
    json::check_record(line).ok()?;
    let mut members: Map<String, Value> = serde_json::from_slice(line).ok()?;
    if members.values().any(Value::is_null) {
        return None;
    }
    let names = ["v", "log", "seq", "time", "prev", "durable", "node", "boot", "caller", "src", "agent", "request"];
    let head = names.into_iter().filter_map(|name| members.remove_entry(name)).collect();
    let head: Head<String> = serde_json::from_value(Value::Object(head)).ok()?;
    let name = members.remove("event")?;
    let event = Event::read(name.as_str()?, Value::Object(members)).ok()?;
    let asked = Asked { caller: head.caller, src: head.src, agent: head.agent, request: head.request };
    let Head { v, log, seq, time, prev, durable, node, boot, .. } = head;
    let record = Record { log, seq, time, prev, durable, node, boot, asked, event };
    (v == FORMAT_VERSION && record.event.belongs_to(log)).then_some(record)
}

/// The line of a record, made of JSON values.
fn long_line(record: &Record) -> Vec<u8> {
    let mut members = serde_json::to_value(&record.event).unwrap();
    let object = members.as_object_mut().unwrap();
    let head = [
        ("v", FORMAT_VERSION.into()),
        ("log", record.log.name().into()),
        ("seq", record.seq.into()),
        ("time", record.time.to_string().into()),
        ("prev", record.prev.to_string().into()),
        ("durable", record.durable.into()),
        ("node", record.node.as_str().into()),
        ("boot", record.boot.as_str().into()),
        ("caller", record.asked.caller.clone().into()),
        ("src", record.asked.src.clone().into()),
        ("agent", record.asked.agent.clone().into()),
        ("request", record.asked.request.clone().into()),
    ];
    object.extend(head.map(|(name, value): (&str, Value)| (name.to_owned(), value)));
    object.retain(|_, value| !value.is_null());
    json::canonical(&members).unwrap()
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![4 => "[ -~]{0,12}", 1 => "[a-z\"\\\\\u{1}-\u{1f}\u{7f}\u{e9}\u{2028}]{0,20}"]
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..3_u64, 0..=json::MAX_INTEGER]
}

fn seconds() -> impl Strategy<Value = i64> {
    prop_oneof![-3..3_i64, 1_700_000_000..1_900_000_000_i64, -9_007_199_254_740_991..=9_007_199_254_740_991_i64]
}

fn hash() -> impl Strategy<Value = Hash> {
    any::<[u8; 32]>().prop_map(Hash::from_bytes)
}

fn signs() -> impl Strategy<Value = Event> {
    let what = (text(), text(), proptest::sample::select(&Algorithm::ALL[..]), hash());
    let token = (option::of(text()), option::of(hash()), option::of(text()), option::of(seconds()), seconds());
    (what, token, number(), vec(text(), 0..3), option::of(text())).prop_map(|(what, token, size, policy, backend_request)| {
        let ((keyring, kid, alg, input), (typ, jti, subject, iat, exp)) = (what, token);
        Event::Sign(Sign { keyring, kid, alg, input, typ, jti, subject, iat, exp, size, policy, backend_request })
    })
}

fn events() -> impl Strategy<Value = Event> {
    let timing = Timing {
        jwks_max_age_ms: 300_000,
        jwks_stale_ms: 0,
        verifier_poll_ms: 1,
        propagation_ms: 2,
        token_ttl_ms: 3,
        clock_skew_ms: 4,
        signing_lease_ms: 5,
        deadline_ms: 6,
        rotate_every_ms: 7,
        provisioning_budget_ms: 8,
        max_exposure_ms: 9,
        destroy_after_ms: 10,
    };
    let jwk = crate::jwk::PublicKey::from_ed25519(&[1; 32]);
    let key = crate::names::KeyName::new("prod", "access", 1, 7).unwrap();
    let created = (text(), text(), proptest::collection::btree_map("[ !#-\\[\\]-~]{0,4}", text(), 0..4), option::of(text()));
    let created = created.prop_map(move |(kid, locator, attributes, backend_request): (_, _, BTreeMap<_, _>, Option<String>)| {
        let self_test = backend_request.clone();
        Event::KeyCreated(KeyCreated { key: key.clone(), kid, jwk: jwk.clone(), locator, attributes, backend_request, self_test })
    });
    prop_oneof![
        6 => signs(),
        1 => Just(Event::LogHeartbeat(LogHeartbeat {})),
        1 => (number(), hash()).prop_map(|(size, leaf)| Event::KeysSeen(KeysSeen { size, leaf })),
        1 => (text(), text(), option::of(text())).prop_map(|(keyring, code, reason)| Event::SignDenied(SignDenied { keyring, code, reason })),
        1 => (text(), option::of(number())).prop_map(|(text, of)| {
            Event::SignFailed(SignFailed { keyring: text.clone(), kid: text.clone(), code: text.clone(), reason: None, of, backend_request: Some(text) })
        }),
        1 => (any::<bool>(), number()).prop_map(|(unclean, in_flight)| {
            Event::DaemonStart(DaemonStart { version: "1".into(), unclean, in_flight })
        }),
        1 => text().prop_map(move |keyring| Event::KeyringTiming(KeyringTiming { keyring, timing })),
        2 => created,
    ]
}

fn records() -> impl Strategy<Value = Record> {
    let asked = (option::of(text()), option::of(text()), option::of(text()), option::of(text()));
    let place = (number(), 0..=253_402_300_799_999_i64, hash(), number());
    (place, text(), text(), asked, events()).prop_map(|((seq, time, prev, durable), node, boot, (caller, src, agent, request), event)| {
        let log = if event.belongs_to(LogKind::Uses) { LogKind::Uses } else { LogKind::Keys };
        let asked = Asked { caller, src, agent, request };
        Record { log, seq, time: Timestamp::from_millis(time), prev, durable, node, boot, asked, event }
    })
}

/// One small change of a line: a byte changed, added or taken away, or something with a meaning put in its place.
fn changed(line: &[u8], place: proptest::sample::Index, (kind, byte): (u8, u8)) -> Vec<u8> {
    const WORDS: [&str; 12] = ["null", "true", "0", "-1", "01", "\"\"", "[]", "{}", "\\n", "\\u0041", "\"v\":1", "9007199254740992"];
    let at = place.index(line.len());
    let mut bytes = line.to_vec();
    match kind {
        0 => bytes[at] = byte,
        1 => bytes.insert(at, byte),
        2 => drop(bytes.remove(at)),
        3 => drop(bytes.splice(at..at, WORDS[usize::from(byte) % WORDS.len()].bytes())),
        // In place of the value or the name that begins here.
        _ => {
            let begin = line[at..].iter().position(|byte| matches!(byte, b':' | b',')).map_or(at, |more| at + more + 1);
            let end = line[begin..].iter().position(|byte| matches!(byte, b':' | b',' | b'}')).map_or(begin, |more| begin + more);
            drop(bytes.splice(begin..end, WORDS[usize::from(byte) % WORDS.len()].bytes()));
        }
    }
    bytes
}

/// A record, read alone. A [`Reader`] must find the same, whatever it read before.
fn read(line: &[u8]) -> Option<Record> {
    let record = Record::parse(line).ok();
    if let Ok(line) = str::from_utf8(line) {
        let full = sign_line(r#","src":"s","subject":"s""#, r#""p","q","r""#);
        let bare = sign_line("", "");
        for before in [None, Some(full), Some(bare)] {
            let mut reader = Reader::default();
            if let Some(before) = before {
                assert!(reader.read(&before).is_ok(), "{before}");
            }
            assert_eq!(reader.read(line).ok(), record.as_ref(), "{line}");
            // Nor is anything left of this line in the next record.
            let after = sign_line(r#","src":"t""#, r#""u""#);
            assert_eq!(reader.read(&after).ok(), Record::parse(after.as_bytes()).ok().as_ref(), "after {line}");
        }
    }
    record
}

fn sign_line(others: &str, policy: &str) -> String {
    let hash = "0".repeat(64);
    format!(
        r#"{{"alg":"ES256","boot":"b","durable":0,"event":"sign","exp":1,"input":"{hash}","keyring":"k","kid":"i","log":"uses","node":"n","policy":[{policy}],"prev":"{hash}","seq":0,"size":1{others},"time":"2026-01-31T12:00:00.000Z","v":1}}"#
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn a_record_comes_back_from_its_line(record in records()) {
        let line = record.to_line().unwrap();
        prop_assert_eq!(String::from_utf8(line.clone()), String::from_utf8(long_line(&record)));
        prop_assert_eq!(long_way(&line), Some(record.clone()));
        prop_assert_eq!(read(&line), Some(record));
    }

    #[test]
    fn a_changed_line_means_what_the_long_way_finds(
        record in records(),
        changes in vec((any::<proptest::sample::Index>(), (0..5_u8, any::<u8>())), 1..3),
    ) {
        let mut line = record.to_line().unwrap();
        for (place, change) in changes {
            line = changed(&line, place, change);
        }
        let found = read(&line);
        prop_assert_eq!(&found, &long_way(&line), "{}", String::from_utf8_lossy(&line));
        // Whatever is a record has this one spelling.
        if let Some(record) = found {
            prop_assert_eq!(record.to_line().unwrap(), line);
        }
    }

    #[test]
    fn left_out_doubled_and_swapped_members_are_seen(record in records(), first: proptest::sample::Index, second: proptest::sample::Index) {
        let line = record.to_line().unwrap();
        let members = json::members(&line).unwrap();
        let texts: Vec<String> = members.iter().map(|(name, value)| format!("\"{name}\":{}", value.text())).collect();
        let (first, second) = (first.index(texts.len()), second.index(texts.len()));
        let written = |texts: &[String]| format!("{{{}}}", texts.join(",")).into_bytes();
        let mut swapped = texts.clone();
        swapped.swap(first, second);
        prop_assert_eq!(read(&written(&swapped)).is_some(), first == second);
        let mut doubled = texts.clone();
        doubled.insert(first, texts[first].clone());
        prop_assert_eq!(read(&written(&doubled)), None);
        let mut short = texts.clone();
        short.remove(first);
        prop_assert_eq!(read(&written(&short)), long_way(&written(&short)));
        // The value of another member.
        let mut mixed = texts;
        mixed[first] = format!("\"{}\":{}", members[first].0, members[second].1.text());
        prop_assert_eq!(read(&written(&mixed)), long_way(&written(&mixed)));
    }
}

/// Every member of a signature's record with every value of another form, or of the same form that just does or does not fit.
#[test]
fn each_member_of_a_signature_with_each_value() {
    let numbers = ["", "0", "-0", "-1", "00", "01", "7", "9007199254740991", "9007199254740992", "9999999999999999", "10000000000000000"];
    let others = ["99999999999999999999999", "1.0", "1e3", "+1", "null", "true", "{}", "[", "[]", "[1]", "[,]", r#"["a",]"#, r#"["a""b"]"#];
    let lists = [r#"["a"]"#, r#"["a","b"]"#, r#"["a", "b"]"#, r#"["\n"]"#, r#"["a","b","c"#, r#"[["a"]]"#];
    let texts = [
        "\"",
        "\"\"",
        "\"a",
        "a\"",
        "\"a\"b\"",
        "\"\u{1}\"",
        "\"\u{7f}\"",
        "\"\u{e9}\"",
        r#""\n""#,
        r#""\"""#,
        r#""\u0041""#,
        r#""\u0001""#,
    ];
    let words = [r#""ES256""#, r#""ES257""#, r#""es256""#, r#""sign""#, r#""sign.denied""#, r#""uses""#, r#""keys""#];
    let hash = |digit: &str, count: usize| format!("\"{}\"", digit.repeat(count));
    let hashes = [
        hash("a", 64),
        hash("A", 64),
        hash("g", 64),
        hash("0", 63),
        hash("0", 65),
        hash("\u{e9}", 32),
        hash(":", 64),
        hash("/", 64),
        hash("`", 64),
    ];
    let times = ["2026-02-28T23:59:59.999Z", "2026-02-29T00:00:00.000Z", "2026-01-31T12:00:00.000z", "2026-01-31T12:00:00Z"]
        .map(|time| format!("\"{time}\""));
    let values = numbers.iter().chain(&others).chain(&lists).chain(&texts).chain(&words).map(|text| (*text).to_owned());
    let values: Vec<String> = values.chain(hashes).chain(times).collect();
    let hash = "0".repeat(64);
    let line = sign_line(r#","src":"s","subject":"s""#, r#""p","q""#);
    let line =
        line.replace(r#"{"alg":"ES256","boot":"b","#, r#"{"agent":"a","alg":"ES256","backend_request":"r","boot":"b","caller":"c","#);
    let line = line.replace(r#""exp":1,"#, r#""exp":1,"iat":1,"#).replace(r#""keyring""#, &format!(r#""jti":"{hash}","keyring""#));
    let line = line.replace(r#""seq""#, r#""request":"r","seq""#).replace(r#","v":1"#, r#","typ":"t","v":1"#);
    let members = json::members(line.as_bytes()).unwrap();
    assert_eq!(members.len(), 25, "{line}");
    let mut taken = 0;
    for (index, _) in members.iter().enumerate() {
        for value in &values {
            let text = |(at, (name, own)): (usize, &(&str, json::Raw<'_>))| {
                let value = if at == index { value } else { own.text() };
                format!("\"{name}\":{value}")
            };
            let changed = format!("{{{}}}", members.iter().enumerate().map(text).collect::<Vec<_>>().join(","));
            let found = read(changed.as_bytes());
            assert_eq!(found, long_way(changed.as_bytes()), "{changed}");
            taken += usize::from(found.is_some());
        }
    }
    assert!(taken > 200, "only {taken} of the lines were records");
}

#[test]
fn second_spellings_that_other_readers_take_are_refused() {
    let sign = sign_line("", "");
    assert!(read(sign.as_bytes()).is_some());
    assert!(read(sign.replace(r#""ES256""#, r#"{"ES256":null}"#).as_bytes()).is_none());
    assert!(read(sign.replace(r#","v""#, r#","typ":null,"v""#).as_bytes()).is_none());
    let timing = |timing: &str| {
        let prev = "0".repeat(64);
        format!(
            r#"{{"boot":"b","durable":0,"event":"keyring.timing","keyring":"k","log":"keys","node":"n","prev":"{prev}","seq":0,"time":"2026-01-31T12:00:00.000Z","timing":{timing},"v":1}}"#
        )
    };
    assert!(read(timing("[1,2,3,4,5,6,7,8,9,10,11,12]").as_bytes()).is_none());
}
