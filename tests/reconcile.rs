//! A real daemon with its keys in a real Vault, whose audit device is held against the logs: an honest pair differs in nothing, whatever befell
//! it, and one entry more or less is told.
//!
//! In scope: answers that are lost after Vault signed, kills under load, and a key that is made exportable. Out of scope: every other way in which the two may differ (unit
//! tests and golden files of `claviger-audit`), and CloudTrail, which no emulator writes.

mod harness;
#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/vault.rs"]
mod vault;

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use harness::receipts::lines;
use harness::{Client, Daemon, Keyring, Place, Setup, on_softhsm, until, wait};
use http::Method;
use proxy::{Act, Match, Proxy, Rule};
use serde_json::{Value, json};
use vault::{MOUNT, Vault};

const KEYRING: &str = "access";
/// How often the daemon is killed under load; each time its keystore's answers are lost for a while first.
const KILLS: usize = 6;
const CLIENTS: usize = 8;
/// Tokens before anything happens, and after it.
const TOKENS: usize = 40;
/// Answers that are lost each time.
const LOST: u64 = 5;

/// Asks until the daemon is gone; counts the tokens. It may refuse while answers are lost.
fn ask_until_death(mut client: Client, tokens: &AtomicUsize) {
    while let Ok(answer) = client.sign(KEYRING) {
        match answer.status {
            200 => drop(tokens.fetch_add(1, Ordering::SeqCst)),
            _ => assert!(["keystore_unavailable", "overloaded"].contains(&answer.problem(503).as_str())),
        }
    }
}

/// How many records count calls without an answer.
fn counted(place: &Place<'_>) -> usize {
    lines(place, "uses").iter().filter(|line| line.contains("\"event\":\"sign.unanswered\"")).count()
}

/// Under load, loses some of Vault's answers, and then kills the daemon: before it could count them, or after.
fn suffer(place: &Place<'_>, mut daemon: Daemon, proxy: &Proxy, is_counted: bool) {
    let (tokens, before) = (AtomicUsize::new(0), counted(place));
    let reached = |count: usize| {
        until("tokens", || match tokens.load(Ordering::SeqCst) {
            reached if reached >= count => Ok(()),
            reached => Err(reached.to_string()),
        });
    };
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            let (client, tokens) = (daemon.demo(), &tokens);
            scope.spawn(move || ask_until_death(client, tokens));
        }
        reached(TOKENS);
        let signing = Match::any().method(Method::POST).path("/v1/transit/sign/");
        let rule = proxy.add(Rule::new(signing, Act::LoseAnswer).times(LOST));
        until("lost answers", || if rule.acted() == LOST { Ok(()) } else { Err(rule.acted().to_string()) });
        if is_counted {
            until("their count", || if counted(place) > before { Ok(()) } else { Err(before.to_string()) });
        }
        reached(tokens.load(Ordering::SeqCst) + TOKENS);
        daemon.kill();
    });
}

/// The verdict of reconciling with this text as the file of the audit device, and the report.
fn reconciled(place: &Place<'_>, audited: &str) -> (i32, Value) {
    let file = place.root().join("audited.log");
    fs::write(&file, audited).expect("our own file");
    let plain = |path: std::path::PathBuf| path.to_str().expect("a plain path").to_owned();
    let (trust, heads, backend) = (plain(place.trust()), plain(place.heads()), format!("vault:{}", file.display()));
    let arguments = ["--trust", &trust, "--head", &heads, "--reconcile", &backend, "--reconcile-margin", "0s", "--format", "json"];
    let (code, report) = place.verify(&arguments);
    (code, serde_json::from_str(&report).unwrap_or_else(|error| panic!("{error}: {report}")))
}

#[test]
fn an_honest_log_with_lost_answers_and_kills_agrees_with_vault() {
    on_softhsm("an_honest_log_with_lost_answers_and_kills_agrees_with_vault", |hsm| {
        let vault = Vault::plain(&["test"]);
        let proxy = Proxy::before(vault.address.trim_start_matches("http://").parse().expect("a host and a port"));
        let table = vault.table().replace(&vault.address, &proxy.url());
        let place = Place::new(hsm, Setup::new().keystore("vault", &table).keyring(Keyring::jwt(KEYRING, "ES256").keystore("vault")));
        for kill in 0..KILLS {
            let mut daemon = place.spawn();
            daemon.ready();
            suffer(&place, daemon, &proxy, kill % 2 == 0);
        }
        // It stops in order, so that the logs are judged to their end.
        let mut daemon = place.start();
        let mut client = daemon.demo();
        for _ in 0..TOKENS {
            client.sign(KEYRING).expect("an answer").ok();
        }
        place.check(daemon);

        let honest = fs::read_to_string(vault.audit_log()).expect("it audits");
        let (code, report) = reconciled(&place, &honest);
        assert_eq!(code, 0, "{report:#}");
        let told = &report["reconciliation"];
        let count = |name: &str| told[name].as_u64().unwrap_or_else(|| panic!("no {name} in {report:#}"));
        assert!(count("matched") >= u64::try_from(TOKENS * (2 * KILLS + 1)).expect("few"), "{told:#}");
        assert_eq!((count("too_new"), count("too_old"), count("outside"), count("differing")), (0, 0, 0, 0), "{told:#}");
        // Each of the lost answers is explained, and so is what the kills cut off.
        assert!(count("allowed_count") >= LOST * KILLS as u64, "{told:#}");
        let because = |text: &str| {
            told["allowed"].as_array().is_some_and(|all| all.iter().any(|one| one["because"].as_str().is_some_and(|b| b.contains(text))))
        };
        assert!(because("without an answer") && because("in flight at the kill"), "{told:#}");

        // A thief signs past Claviger, after all that was allowed: nothing can be on its way any more.
        let key: Value =
            serde_json::from_str(lines(&place, "keys").iter().find(|line| line.contains("\"event\":\"key.created\"")).expect("a key"))
                .expect("JSON");
        let body = json!({ "input": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "prehashed": true, "hash_algorithm": "sha2-256" });
        let name = key["key"].as_str().expect("a name");
        let answer = vault.must("POST", &format!("{MOUNT}/sign/{name}"), &body);
        let request = answer["request_id"].as_str().expect("an id");
        let all = fs::read_to_string(vault.audit_log()).expect("it audits");
        let theft = later(all.lines().filter(|line| line.contains(request)));
        let (code, report) = reconciled(&place, &format!("{honest}{theft}"));
        assert_eq!(code, 17, "{report:#}");
        assert!(report.to_string().contains(request), "{report:#}");
        let exposed = made_exportable(&vault, name);
        let (code, report) = reconciled(&place, &format!("{honest}{exposed}"));
        let told = &report["reconciliation"];
        assert_eq!((code, told["exposed"].as_u64(), told["differing"].as_u64()), (17, Some(1), Some(1)), "{report:#}");
    });
}

/// What Vault writes down when somebody makes a key exportable.
fn made_exportable(vault: &Vault, name: &str) -> String {
    let before = fs::read_to_string(vault.audit_log()).expect("it audits");
    vault.must("POST", &format!("{MOUNT}/keys/{name}/config"), &json!({ "exportable": true }));
    let after = fs::read_to_string(vault.audit_log()).expect("it audits");
    after.strip_prefix(&before).expect("it only grows").to_owned()
}

/// Entries of an audit device, an hour after they were written: away from every kill, each of which leaves room for what was in flight.
fn later<'l>(entries: impl Iterator<Item = &'l str>) -> String {
    let moved = entries.map(|line| {
        let mut entry: Value = serde_json::from_str(line).expect("an entry is JSON");
        let time = chrono::DateTime::parse_from_rfc3339(entry["time"].as_str().expect("a text")).expect("a time");
        entry["time"] = json!((time + chrono::TimeDelta::hours(1)).to_rfc3339());
        format!("{entry}\n")
    });
    moved.collect()
}
