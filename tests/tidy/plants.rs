//! Breaks each rule at least once, and shows beside it what is allowed: a rule that cannot fail is no rule.
//!
//! The planted sources are text; the scanner reads this file too and must see nothing in its literals.

use std::collections::BTreeSet;

use crate::rules::{HEADER, HOSTS, IMPORT_RULES, LENGTH, LINES_PER_FILE, WORD_RULES, judge, judge_hosts};
use crate::source::Source;

/// Rule, file, and the line that breaks it there.
const BROKEN: &[(&str, &str, &str)] = &[
    ("pure rooms import no port and no shell", "src/rotation/plan.rs", "use crate::keystore::Keystore;"),
    ("pure rooms import no port and no shell", "src/policy/mod.rs", "use crate::{clock::Clock, jose};"),
    ("pure rooms import no port and no shell", "src/jose/jws.rs", "use super::super::signer;"),
    ("pure rooms import no port and no shell", "src/jose.rs", "use crate::*;"),
    ("pure rooms import no port and no shell", "src/rotation.rs", "fn f() { let x = crate::journal::append(); }"),
    ("pure rooms do no I/O, async, tracing or randomness", "src/policy/profile.rs", "use std::{fmt, fs::File};"),
    ("pure rooms do no I/O, async, tracing or randomness", "src/rotation/timeline.rs", "fn f() { tracing::info!(\"x\"); }"),
    ("pure rooms do no I/O, async, tracing or randomness", "src/jose/mod.rs", "use tokio as t;"),
    ("pure rooms do no I/O, async, tracing or randomness", "src/jose/mod.rs", "use std::net::*;"),
    ("audit knows no runtime, no socket and no environment", "audit/src/verify.rs", "use std::net::TcpStream;"),
    ("only clock reads time", "src/signer.rs", "use std::time::{Duration, Instant};"),
    ("only clock reads time", "audit/src/report.rs", "fn f() { std::time::SystemTime::now(); }"),
    ("only clock reads time", "src/http/mod.rs", "use std::time::*;"),
    ("http calls the shell, never a keystore or a journal", "src/http/sign.rs", "use crate::journal::Receipt;"),
    ("cli reaches keystores through inspect", "src/cli/doctor.rs", "use crate::keystore::pkcs11;"),
    ("cli reaches keystores through inspect", "src/cli/doctor.rs", "use claviger::keystore::pkcs11;"),
    ("the shell imports no edge", "src/signer.rs", "use crate::http::Problem;"),
    ("keystore adapters and journals know no story", "src/journal/file.rs", "use crate::signer::Signer;"),
    ("adapters never import each other", "src/keystore/pkcs11/queue.rs", "use super::super::vault::Login;"),
    ("adapters never import each other", "src/keystore/vault.rs", "use super::pkcs11;"),
    ("adapters never import each other", "src/keystore/aws_kms.rs", "use crate::keystore::{Made, vault};"),
    ("vendor types stay in their adapter", "src/keystore/mod.rs", "pub fn f(s: cryptoki::session::Session) {}"),
    ("vendor types stay in their adapter", "src/config.rs", "use aws_config::Region;"),
    ("vendor types stay in their adapter", "src/keystore/pkcs11/mod.rs", "use vaultrs::client;"),
    ("vendor types stay in their adapter", "src/signer.rs", "use ::cedar_policy::Context;"),
    ("only config, main and secret read arguments and environment", "src/cli/sign.rs", "fn f() { let a = std::env::args(); }"),
    ("only journal, config and secret open files", "src/keystore/pkcs11/worker.rs", "use std::fs;"),
    ("only journal and secret write files", "src/config.rs", "fn f() { std::fs::File::create(p); }"),
    ("no unwrap outside tests", "src/signer.rs", "fn f() { g().unwrap(); }"),
    ("no private key has a type here", "src/signer.rs", "fn f(key: &ed25519_dalek::SigningKey) {}"),
    ("no unfinished code", "audit/src/merkle.rs", "fn f() { todo!() }"),
    ("no unfinished code", "tests/daemon.rs", "fn f() { unimplemented!() }"),
    ("no ignored test", "tests/daemon.rs", "#[ignore = \"slow\"]"),
    ("no ignored test", "src/clock.rs", "#[cfg(test)]\nmod tests { #[test] #[ignore] fn f() {} }"),
    ("no sleep in tests", "tests/daemon.rs", "fn f() { std::thread::sleep(second); }"),
    ("no sleep in tests", "src/rotator.rs", "#[cfg(test)]\nmod tests { fn f() { if a { b } tokio::time::sleep(second); } }"),
    ("no sleep in tests", "src/keystore/tests.rs", "fn f() { sleep(second); }"),
    ("no unsafe code", "src/secret.rs", "unsafe fn f() {}"),
    ("no globals", "src/http/mod.rs", "static ROUTES: std::sync::OnceLock<u8> = std::sync::OnceLock::new();"),
    ("no shared blocking pool, no exit behind main's back", "src/cli/serve.rs", "fn f() { std::process::exit(1); }"),
    ("no unbounded queue", "src/rotator.rs", "fn f() { let (s, r) = tokio::sync::mpsc::unbounded_channel(); }"),
];

/// What the same rules allow: the neighbours of the lines above.
const SOUND: &[(&str, &str)] = &[
    ("src/rotation/plan.rs", "use claviger_audit::Timestamp;\nuse crate::rotation::timing::Timing;\nuse std::time::Duration;"),
    (
        "src/rotation/plan.rs",
        "// crate::keystore and std::fs are not ours\nconst A: &str = \"std::fs::read\"; const B: char = '\"'; use crate::jose;",
    ),
    (
        "src/rotation/plan.rs",
        "const A: &[u8] = br#\"unsafe \" todo!\"#; /* /* tokio::spawn */ unsafe */ fn f<'a>(x: &'a str) -> char { '\\'' }",
    ),
    ("src/policy/mod.rs", "use crate::keystores_of_policies::X;\nfn f() { tokio_like::run(); }"),
    ("src/policy/request.rs", "use std::net::IpAddr;"),
    ("src/http/mod.rs", "fn f(x: &'static str) -> OnceLock<u8> { OnceLock::new() }"),
    ("src/clock.rs", "use std::time::{Instant, SystemTime};"),
    ("src/http/sign.rs", "use crate::signer::Signer;"),
    ("src/cli/doctor.rs", "use crate::inspect::Report;"),
    ("src/keystore/pkcs11/mod.rs", "use cryptoki::context::Pkcs11;\nuse super::Keystore;"),
    ("src/journal/file.rs", "use std::fs::{File, OpenOptions};"),
    ("src/secret.rs", "fn f() { let v = std::env::var_os(NAME); }"),
    ("src/rotator.rs", "async fn f() { tokio::time::sleep(pause).await; }"),
    ("src/rotator.rs", "#[cfg(test)]\nmod tests;\nfn f() { g().unwrap_or_default(); }"),
    ("src/rotator.rs", "#[cfg(test)]\nmod tests { use std::fs; use crate::http; fn f() { g().unwrap(); } }\nfn g() {}"),
    ("audit/src/main.rs", "use std::time::SystemTime;"),
    ("tests/daemon.rs", "use std::fs::OpenOptions;\nfn f() { g().unwrap(); }"),
];

#[test]
fn each_broken_line_is_found() {
    for (rule, path, line) in BROKEN {
        let findings = judge(&planted(path, line));
        assert!(findings.iter().any(|finding| finding.rule == *rule), "{path}: {line}\nshould break: {rule}\nfound: {findings:?}");
        assert!(findings.iter().all(|finding| !finding.place.ends_with(":1")), "line numbers count from the file's start: {findings:?}");
    }
}

#[test]
fn nothing_sound_is_found() {
    for (path, text) in SOUND {
        assert_eq!(judge(&planted(path, text)), [], "{path}: {text}");
    }
}

#[test]
fn no_rule_is_without_its_plant() {
    let rules: BTreeSet<&str> = IMPORT_RULES.iter().map(|rule| rule.name).chain(WORD_RULES.iter().map(|rule| rule.name)).collect();
    let planted: BTreeSet<&str> = BROKEN.iter().map(|(rule, ..)| *rule).collect();
    assert_eq!(rules, planted);
}

#[test]
fn a_header_is_missed_where_it_is_missing() {
    let rules = |text: &str| judge(&Source::new("src/lib.rs", text)).into_iter().map(|finding| finding.rule).collect::<Vec<_>>();
    assert_eq!(rules("pub mod clock;\n"), [HEADER]);
    assert_eq!(rules("/// An item's comment is not a file's.\npub mod clock;\n"), [HEADER]);
    assert!(rules("//! The map.\n").is_empty());
}

#[test]
fn a_file_may_be_long_but_not_too_long() {
    let of_length =
        |lines: usize| judge(&planted("src/lib.rs", &"\n".repeat(lines - 2))).into_iter().map(|finding| finding.rule).collect::<Vec<_>>();
    assert!(of_length(LINES_PER_FILE).is_empty());
    assert_eq!(of_length(LINES_PER_FILE + 1), [LENGTH]);
}

#[test]
fn a_registry_is_found_in_any_text() {
    let host = ["crates", "io"].join(".");
    let findings = judge_hosts("README.md", &format!("one\nget it from https://{host}/x\n"));
    assert_eq!(findings.iter().map(|finding| (finding.place.as_str(), finding.rule)).collect::<Vec<_>>(), [("README.md:2", HOSTS)]);
    assert_eq!(judge_hosts("README.md", "https://example.org/crates/io\n"), []);
}

fn planted(path: &str, line: &str) -> Source {
    Source::new(path, &format!("//! A planted file.\n{line}\n"))
}
