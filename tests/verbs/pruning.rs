//! `audit prune`: old segments of the use log are deleted by the running daemon, and what is left verifies.
//!
//! In scope: the verb, its refusals, a restart, the verifier. Out of scope: which segments may go, and crashes (the journal's own tests).

use std::fs;
use std::sync::Arc;

use claviger::clock::SystemClock;
use claviger::journal::{Draft, KeyLog, Opening, UseLog};
use claviger_audit::event::{Event, LogKind, SignDenied};
use claviger_audit::record::Asked;
use serde_json::json;

use crate::harness::{Keyring, Place, Setup, on_softhsm, until};
use crate::{DATA, USAGE, fails, json, records};

/// Fills the use log with segments of a few records each, as years would do with larger ones.
fn fill(place: &Place<'_>) {
    let opening = |kind: LogKind| {
        let folder = place.log().join(kind.name());
        let opening = Opening::local(kind, folder, Arc::new(SystemClock::start()), "a".to_owned(), "b00t".to_owned());
        Opening { segment_bytes: 2000, ..opening }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let keys = KeyLog::open(&opening(LogKind::Keys)).expect("a key log").log;
        let uses = UseLog::open(&opening(LogKind::Uses), keys.clone()).expect("a use log").log;
        for number in 0..20 {
            let denied = SignDenied { keyring: "access".to_owned(), code: format!("number-{number}"), reason: None };
            uses.append(Draft { asked: Asked::default(), event: Event::SignDenied(denied) }).await.expect("a record");
        }
        uses.stop().await;
        keys.stop().await;
    });
}

fn segments(place: &Place<'_>) -> usize {
    let names = fs::read_dir(place.log().join("uses")).expect("a folder").map(|entry| entry.expect("a file").path());
    names.filter(|path| path.extension().is_some_and(|extension| extension == "jsonl")).count()
}

#[test]
fn old_segments_go_and_the_rest_verifies() {
    on_softhsm("pruning::old_segments_go_and_the_rest_verifies", |hsm| {
        let setup = Setup::new().keyring(Keyring::jwt("access", "ES256")).more("\n[audit]\nretention = \"1s\"\n");
        let place = Place::new(hsm, setup);
        fill(&place);
        let all = segments(&place);
        assert!(all > 3, "{all} segments");
        let mut daemon = place.start();
        let reply = daemon.demo().sign("access").expect("an answer").ok();

        let prune = ["audit", "prune", "--before", "2100-01-01"];
        fails(&place, USAGE, &prune);
        fails(&place, USAGE, &["audit", "prune", "--before", "yesterday", "--reason", "r"]);
        fails(&place, DATA, &[&prune[..], &["--reason", " ", "--yes"]].concat());
        assert!(place.command(&["audit", "prune", "--before", "2020-01-01", "--reason", "old", "--yes"]).contains("Nothing to delete"));
        // Nothing younger than the retention goes, whatever the date is: the last of the old records has to age, and be covered.
        let would = until("records that are old enough", || {
            let would = json(&place, &[&prune[..], &["--dry-run"]].concat());
            let count = would["segments"].as_array().map_or(0, Vec::len);
            if count + 1 == all { Ok(would) } else { Err(would.to_string()) }
        });
        assert_eq!((segments(&place), &would["deleted"], records(&place, "uses.pruned").len()), (all, &json!(false), 0));
        let done = json(&place, &[&prune[..], &["--reason", "older than we need", "--yes"]].concat());
        assert_eq!((&done["deleted"], &done["segments"], &done["first_left"]), (&json!(true), &would["segments"], &would["first_left"]));
        assert_eq!(segments(&place), 1);
        let recorded = records(&place, "uses.pruned").pop().expect("a record");
        assert_eq!((&recorded["first"], &recorded["reason"]), (&done["first_left"], &json!("older than we need")));
        assert!(place.command(&[&prune[..], &["--reason", "again", "--yes"]].concat()).contains("Nothing to delete"));

        // A receipt of what is left holds, before and after a restart.
        let receipt = place.root().join("receipt.json");
        fs::write(&receipt, reply["receipt"].to_string()).expect("a new file");
        assert!(daemon.stop().success());
        let mut daemon = place.start();
        daemon.demo().sign("access").expect("an answer").ok();
        let (trust, receipt) = (place.trust(), receipt.to_str().expect("a plain path").to_owned());
        let arguments = ["--trust", trust.to_str().expect("a plain path"), "--receipt", &receipt, "--format", "json"];
        let report = until("a checkpoint that covers it", || {
            let (code, report) = place.verify(&arguments);
            if code == 0 { Ok(report) } else { Err(report) }
        });
        let report: serde_json::Value = serde_json::from_str(&report).expect("a report");
        assert_eq!(report["logs"][1]["first"], done["first_left"], "{report}");
        place.check(daemon);
    });
}
