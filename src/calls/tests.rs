//! Calls over a real use log: what is counted, and when there is room again.

use std::path::Path;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use claviger_audit::event::{LogCreated, LogKind};
use claviger_audit::jwk::PublicKey;
use claviger_audit::names::KeyName;
use claviger_audit::note::VerifierKey;
use claviger_audit::record::Record;
use claviger_audit::{Algorithm, Timestamp};

use super::*;
use crate::clock::SystemClock;
use crate::journal::{KeyLog, Opening, create};
use crate::keystore::{BoxFuture, Condition, Input, Keystore, KeystoreError, Locator, Made, Seen, Signature, Terms};

/// A keystore of which nothing is asked.
struct Silent {
    keeps_record: bool,
}

fn silent<'a, T: Send + 'a>() -> BoxFuture<'a, Result<T, KeystoreError>> {
    Box::pin(async { Err(KeystoreError::Unanswered) })
}

impl Keystore for Silent {
    fn create<'a>(&'a self, _: &'a KeyName, _: Algorithm) -> BoxFuture<'a, Result<Made, KeystoreError>> {
        silent()
    }

    fn sign<'a>(&'a self, _: &'a Locator, _: Algorithm, _: Input, _: Terms) -> BoxFuture<'a, Result<Signature, KeystoreError>> {
        silent()
    }

    fn destroy<'a>(&'a self, _: &'a Locator) -> BoxFuture<'a, Result<Option<Timestamp>, KeystoreError>> {
        silent()
    }

    fn inspect<'a>(&'a self, _: &'a Locator) -> BoxFuture<'a, Result<Seen, KeystoreError>> {
        silent()
    }

    fn health(&self) -> BoxFuture<'_, Result<(), KeystoreError>> {
        silent()
    }

    fn inventory<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Vec<(KeyName, Locator)>, KeystoreError>> {
        silent()
    }

    fn condition(&self) -> Condition {
        Condition::default()
    }

    fn keeps_record(&self) -> bool {
        self.keeps_record
    }
}

fn keystores() -> Keystores {
    let silent = |keeps_record| Arc::new(Silent { keeps_record }) as Arc<dyn Keystore>;
    [("vault", true), ("hsm", false)].map(|(name, keeps_record)| (name.to_owned(), silent(keeps_record))).into()
}

fn opened(folder: &Path, kind: LogKind) -> Opening {
    Opening::local(kind, folder.join(kind.name()), Arc::new(SystemClock::start()), "n1".to_owned(), "b00t".to_owned())
}

fn calls(folder: &Path) -> Arc<Calls> {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
    for kind in [LogKind::Keys, LogKind::Uses] {
        let origin = format!("test.example/{}", kind.name());
        let key = VerifierKey::from_jwk(&origin, &PublicKey::from_ed25519(pair.public_key().as_ref().try_into().unwrap())).unwrap();
        let (keystore, locator) = ("hsm".to_owned(), "1".to_owned());
        let (installation, version) = ("test".to_owned(), "0".to_owned());
        let created = LogCreated { origin, key: key.to_string(), keystore, locator, installation, version };
        create(&opened(folder, kind), kind, Asked::default(), created).unwrap();
    }
    let keys = KeyLog::open(&opened(folder, LogKind::Keys)).unwrap().log;
    let uses = crate::journal::UseLog::open(&opened(folder, LogKind::Uses), keys).unwrap().log;
    Arc::new(Calls::new(uses, &keystores()))
}

/// The counts in the log.
fn counted(folder: &Path) -> Vec<(String, u64)> {
    let lines = std::fs::read(folder.join("uses/00000000000000000000.jsonl")).unwrap();
    let records = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(|line| Record::parse(line).unwrap());
    let counted = records.filter_map(|record| match record.event {
        Event::SignUnanswered(event) => Some((event.kid, event.count)),
        _ => None,
    });
    counted.collect()
}

async fn begin(calls: &Arc<Calls>, keystore: &str) -> Option<Call> {
    calls.begin(keystore, ("access", "kid"), || Duration::from_millis(1)).await.ok()
}

#[tokio::test]
async fn a_call_is_settled_or_counted() {
    let folder = tempfile::tempdir().unwrap();
    let calls = calls(folder.path());
    for keystore in ["vault", "hsm"] {
        begin(&calls, keystore).await.unwrap().settle();
        drop(begin(&calls, keystore).await.unwrap());
    }
    calls.flush().await;
    calls.flush().await;
    assert_eq!(counted(folder.path()), [("kid".to_owned(), 2)]);
}

/// A signature that our record cannot name is counted where the keystore's own record shows it.
#[tokio::test]
async fn a_record_without_a_request_id_settles_only_what_nobody_else_records() {
    let folder = tempfile::tempdir().unwrap();
    let calls = calls(folder.path());
    begin(&calls, "vault").await.unwrap().recorded(Some("8d0b35e0"));
    begin(&calls, "hsm").await.unwrap().recorded(None);
    calls.flush().await;
    assert_eq!(counted(folder.path()), []);
    begin(&calls, "vault").await.unwrap().recorded(None);
    calls.flush().await;
    assert_eq!(counted(folder.path()), [("kid".to_owned(), 1)]);
}

/// Whoever names a deadline of no time makes no counts, which could explain other signatures, and takes no room.
#[tokio::test]
async fn a_call_past_its_deadline_is_not_counted() {
    let folder = tempfile::tempdir().unwrap();
    let calls = calls(folder.path());
    for _ in 0..2 * MOST_UNRECORDED {
        for keystore in ["vault", "hsm"] {
            let late = calls.begin(keystore, ("access", "kid"), || Duration::ZERO).await;
            assert_eq!(late.err(), Some(NotBegun::TooLate), "{keystore}");
        }
    }
    calls.flush().await;
    assert_eq!(counted(folder.path()), []);
    assert!(begin(&calls, "vault").await.is_some());
}

#[tokio::test]
async fn what_no_record_names_takes_room() {
    let folder = tempfile::tempdir().unwrap();
    let calls = calls(folder.path());
    assert_eq!(most_in_flight(&keystores()), u64::from(MOST_UNRECORDED));
    for _ in 0..MOST_UNRECORDED {
        drop(begin(&calls, "vault").await.unwrap());
    }
    assert!(begin(&calls, "vault").await.is_none(), "more calls are without a word in the log than a start would name");
    assert!(begin(&calls, "hsm").await.is_some(), "a keystore without a record of its own has nothing to be compared with");
    calls.flush().await;
    assert!(begin(&calls, "vault").await.is_some());
    assert_eq!(counted(folder.path())[0].1, u64::from(MOST_UNRECORDED) + 1);
}

#[tokio::test]
async fn a_stop_counts_what_does_not_end_once() {
    let folder = tempfile::tempdir().unwrap();
    let calls = calls(folder.path());
    let hangs = begin(&calls, "vault").await.unwrap();
    let ends = begin(&calls, "vault").await.unwrap();
    ends.settle();
    calls.finish(Duration::ZERO).await;
    drop(hangs);
    calls.flush().await;
    assert_eq!(counted(folder.path()), [("kid".to_owned(), 1)]);
    assert!(begin(&calls, "vault").await.is_none(), "nothing begins after the stop");
}

#[tokio::test]
async fn a_stop_waits_for_what_ends() {
    let folder = tempfile::tempdir().unwrap();
    let calls = calls(folder.path());
    let call = begin(&calls, "vault").await.unwrap();
    let stop = tokio::spawn({
        let calls = calls.clone();
        async move { calls.finish(Duration::from_mins(5)).await }
    });
    tokio::task::yield_now().await;
    call.settle();
    stop.await.unwrap();
    assert_eq!(counted(folder.path()), []);
}
