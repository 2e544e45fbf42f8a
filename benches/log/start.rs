//! The start of a daemon that has written a million signatures: `UseLog::open`, with the frontier that an orderly stop leaves, and without.
//!
//! In scope: opening, by the clock, and checkpoints by the journal itself. Out of scope: keystores and sockets.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use claviger::clock::{Clock as _, SystemClock};
use claviger::journal::{KeyLog, SignNote, UseLog};
use claviger_audit::event::LogKind;
use claviger_audit::merkle::Hash;
use tokio::runtime::{Builder, Runtime};

use crate::append::opening;
use crate::verify::segments_of;
use crate::{Outcome, folder_of, made};

/// How many rounds. Odd, so that a median is something that was measured.
const ROUNDS: usize = 5;

/// Seconds by the clock in one round.
pub(crate) struct Round {
    /// Reading the last segment and its plain SHA-256.
    pub(crate) last_segment: f64,
    /// `UseLog::open` after an orderly stop.
    pub(crate) orderly: f64,
    /// Reading all segments and their plain SHA-256.
    pub(crate) all_segments: f64,
    /// `UseLog::open` where the frontier is missing.
    pub(crate) whole: f64,
}

/// Opens the log as it was made, and stops it in order: from here on it has a checkpoint and a frontier.
pub(crate) fn cover(folder: &Path, clock: &Arc<SystemClock>) -> Outcome<()> {
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    open_and_stop(folder, clock, &runtime).map(drop)
}

/// Starts again and again.
pub(crate) fn rounds(folder: &Path, clock: &Arc<SystemClock>) -> Outcome<Vec<Round>> {
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    let uses = folder_of(folder, LogKind::Uses);
    let mut rounds = Vec::new();
    for number in 1..=ROUNDS {
        eprintln!("start, round {number} of {ROUNDS}");
        let segments = segments_of(&uses)?;
        let last = segments.last().ok_or("the log has no segment")?;
        let (last_segment, all_segments) = (read(std::slice::from_ref(last), clock)?, read(&segments, clock)?);
        let orderly = open_and_stop(folder, clock, &runtime)?;
        fs::remove_file(uses.join("frontier"))?;
        let whole = open_and_stop(folder, clock, &runtime)?;
        rounds.push(Round { last_segment, orderly, all_segments, whole });
    }
    Ok(rounds)
}

/// Seconds until the use log is open; then it is covered by a checkpoint and stopped.
fn open_and_stop(folder: &Path, clock: &Arc<SystemClock>, runtime: &Runtime) -> Outcome<f64> {
    let keys = KeyLog::open(&opening(folder, LogKind::Keys, clock))?.log;
    let opening = opening(folder, LogKind::Uses, clock);
    let begun = clock.monotonic();
    let opened = UseLog::open(&opening, keys.clone())?;
    let seconds = clock.monotonic().since(begun).as_secs_f64();
    if let Some(reason) = opened.log.poisoned() {
        return Err(format!("the log takes no records: {reason}").into());
    }
    let checkpointer = opened.coverage.start(Arc::new(|_| sign_note()), runtime.handle().clone())?;
    runtime.block_on(async {
        opened.log.stop().await;
        keys.stop().await;
        checkpointer.checkpoint_now().await
    })?;
    Ok(seconds)
}

/// Signs with the use log's key.
fn sign_note() -> SignNote {
    Arc::new(|text: Vec<u8>| {
        let signature = made::log_key(LogKind::Uses).map(|key| key.sign(&text).as_ref().to_vec()).map_err(|error| error.to_string());
        Box::pin(async move { signature })
    })
}

/// Seconds for reading the segments and hashing them as they are.
fn read(segments: &[PathBuf], clock: &SystemClock) -> Outcome<f64> {
    let begun = clock.monotonic();
    for segment in segments {
        std::hint::black_box(Hash::digest(&fs::read(segment)?));
    }
    Ok(clock.monotonic().since(begun).as_secs_f64())
}
