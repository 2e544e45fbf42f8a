//! What a forger with the run of the machine does to the logs: edit, cut, and write a history that never was, signed by the real log key.
//!
//! In scope: copies of the log folder. Out of scope: what the verifier says of them (the test asks it).

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use claviger::clock::{Clock, SystemClock};
use claviger::config::Config;
use claviger::daemon::{log_key, setup};
use claviger::journal::LogKey;
use claviger_audit::checkpoint::Checkpoint;
use claviger_audit::event::{Event, KeyRotated, LogCreated, RotationReason};
use claviger_audit::merkle::{Frontier, leaf_hash};
use claviger_audit::note::{VerifierKey, signed_note};
use claviger_audit::record::Record;
use tokio::runtime::Runtime;

use crate::harness::Place;
use crate::harness::receipts::lines;

/// A copy of the log folder, beside it.
pub(crate) fn copy(place: &Place<'_>, name: &str) -> PathBuf {
    let copy = place.root().join(name);
    for log in ["keys", "uses"] {
        let from = place.log().join(log);
        fs::create_dir_all(copy.join(log)).expect("a new folder");
        for entry in fs::read_dir(from).expect("the log's folder") {
            let path = entry.expect("a readable folder").path();
            let bytes = fs::read(&path).expect("a readable file");
            fs::write(copy.join(log).join(path.file_name().expect("a file has a name")), bytes).expect("a new file");
        }
    }
    copy
}

/// Changes the text of the last segment of a log.
pub(crate) fn edit(copy: &Path, log: &str, change: impl FnOnce(Vec<&str>) -> Vec<String>) {
    let path = segment(&copy.join(log));
    let text = fs::read_to_string(&path).expect("a readable segment");
    let lines = change(text.lines().collect());
    fs::write(&path, lines.join("\n") + "\n").expect("our own copy");
}

/// The key log as it would be if the last scheduled key had begun to sign a millisecond after it was first served: every hash and every
/// date fits, and the log's own key has signed. The use log is left out; it would have to be forged too.
pub(crate) fn early_activation(place: &Place<'_>, name: &str) -> PathBuf {
    let mut records: Vec<Record> =
        lines(place, "keys").iter().map(|line| Record::parse(line.as_bytes()).expect("a record of ours")).collect();
    let rotated = records.iter().rposition(|record| scheduled(record).is_some()).expect("a scheduled rotation");
    let mut forged = records[rotated].clone();
    let to = scheduled(&forged).expect("that record").to.clone();
    let published = |record: &Record| matches!(&record.event, Event::KeyPublished(event) if event.kid == to);
    let published = records.iter().position(published).expect("published before it was active");
    let is_served = |record: &Record| matches!(record.event, Event::JwksServed(_));
    let last_served = |from: usize| from + records[from..].iter().position(is_served).expect("served after it was published");
    // Both sets that hold the key: its keyring's and its issuer's.
    let kept = last_served(last_served(published) + 1);
    records.truncate(kept + 1);

    let late = forged.time.millis() - records[kept].time.millis() - 1;
    let earlier = |time: claviger_audit::Timestamp| claviger_audit::Timestamp::from_millis(time.millis() - late);
    forged.time = earlier(forged.time);
    forged.seq = records[kept].seq + 1;
    forged.durable = forged.seq;
    if let Event::KeyRotated(event) = &mut forged.event {
        event.reason = RotationReason::OnDemand;
        event.next_rotation = earlier(event.next_rotation);
        event.withdraw_after = event.withdraw_after.map(earlier);
    }
    let last = records[kept].to_line().expect("a record of ours");
    forged.prev = leaf_hash(&last);
    records.push(forged);
    write_signed(place, name, &records)
}

fn scheduled(record: &Record) -> Option<&KeyRotated> {
    match &record.event {
        Event::KeyRotated(event) if event.reason == RotationReason::Scheduled => Some(event),
        _ => None,
    }
}

/// Writes a key log and a checkpoint that the real log key signs, through the adapter, as the daemon does.
fn write_signed(place: &Place<'_>, name: &str, records: &[Record]) -> PathBuf {
    let folder = place.root().join(name).join("keys");
    fs::create_dir_all(&folder).expect("a new folder");
    let lines: Vec<Vec<u8>> = records.iter().map(|record| record.to_line().expect("canonical")).collect();
    let mut tree = Frontier::new();
    tree.extend(lines.iter().map(|line| leaf_hash(line)));
    let mut text = lines.join(&b'\n');
    text.push(b'\n');
    fs::write(folder.join("00000000000000000000.jsonl"), text).expect("a new file");

    let Event::LogCreated(LogCreated { origin, key, keystore, locator, .. }) = &records[0].event else {
        panic!("the first record makes the log")
    };
    let key: VerifierKey = key.parse().expect("our own log's key");
    let holder = LogKey { key: key.clone(), keystore: keystore.clone(), locator: locator.clone() };
    let checkpoint = Checkpoint::new(origin, tree.size(), tree.root()).to_string();
    let runtime = Runtime::new().expect("a runtime");
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
    let config = Config::load(&place.config()).expect("the daemon read it");
    // The adapters of servers work on the runtime in which they are opened.
    let within = runtime.enter();
    let mut keystores = setup::keystores(&config, &clock);
    drop(within);
    let sign = log_key::sign_note(keystores.remove(keystore).expect("the daemon has it"), &holder, clock);
    let signature = crate::harness::until("a signature of the log key", || runtime.block_on(sign(checkpoint.clone().into_bytes())));
    let note = signed_note(&checkpoint, &[(&key, signature.try_into().expect("64 octets"))]).expect("a note");
    fs::write(folder.join("checkpoint"), note.to_string()).expect("a new file");
    folder.parent().expect("the copy").to_owned()
}

fn segment(folder: &Path) -> PathBuf {
    let mut files: Vec<PathBuf> = fs::read_dir(folder).expect("a copy").map(|entry| entry.expect("readable").path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    files.into_iter().max().expect("a segment")
}
