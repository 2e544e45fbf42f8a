//! Which tokens of a key can still be alive: counted at the end of the use log, after a key was compromised.
//!
//! In scope: this node's use log, read line by line from where tokens can be alive, up to what is durable. Out of scope: who asks (`operator`),
//! tokens that another node signed, and those that verifiers still accept after `exp` because they allow for clocks that differ.

use std::collections::BTreeMap;
use std::path::Path;

use claviger_audit::Timestamp;
use claviger_audit::event::{Event, Sign};
use claviger_audit::record::{Reader, Record};
use tokio::sync::oneshot;

use super::disk::Disk;
use super::file::segment_name;
use super::former::segments_in;
use super::lines::{Passed, Spot, pass};
use super::open::{LONGEST_LINE, Opening};

/// Most segments that are read, the newest ones: 2 GiB, a few million signatures. An operator in an emergency waits seconds, not minutes.
pub const MOST_SEGMENTS: usize = 32;
/// Most callers that are told apart.
pub const MOST_CALLERS: usize = 1000;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The key.
    pub kid: String,
    /// A token is alive if its `exp` is later.
    pub now: Timestamp,
    /// No older record names a token that is alive: Q + T + 2e before `now`.
    pub since: Timestamp,
    /// How many records of the use log are durable.
    pub size: u64,
}

/// Tokens that can still be alive. Their signatures were recorded; a few of them may never have been released.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveTokens {
    /// How many.
    pub count: u64,
    /// The latest `exp`.
    pub until: Option<Timestamp>,
    /// How many of them each caller asked for.
    pub callers: BTreeMap<String, u64>,
    /// Whether everything was read and told; if not, there may be more.
    pub complete: bool,
}

/// Counts tokens in one use log, while it is being written.
pub struct TokenCounter {
    opening: Opening,
}

impl TokenCounter {
    /// Of this log.
    pub fn new(opening: Opening) -> Self {
        Self { opening }
    }

    /// Counts. What cannot be read is missing in the answer, which then says that it is not complete.
    pub async fn count(&self, question: Question) -> LiveTokens {
        let (reply, answer) = oneshot::channel();
        let opening = self.opening.clone();
        // Gigabytes may be read here: nobody else may wait for that. Who stopped waiting needs no answer.
        let body = move || drop(reply.send(count(opening.disk.as_ref(), &opening.folder, &question, MOST_SEGMENTS)));
        let nothing = LiveTokens { count: 0, until: None, callers: BTreeMap::new(), complete: false };
        match std::thread::Builder::new().name("count".to_owned()).spawn(body) {
            Ok(_) => answer.await.unwrap_or(nothing),
            Err(error) => {
                tracing::warn!(%error, "live tokens could not be counted");
                nothing
            }
        }
    }
}

/// Reads at most the newest `most` segments.
pub(super) fn count(disk: &dyn Disk, folder: &Path, question: &Question, most: usize) -> LiveTokens {
    let mut live = LiveTokens { count: 0, until: None, callers: BTreeMap::new(), complete: true };
    let begin = match begin(disk, folder, question.since, most) {
        Ok((begin, reaches)) => {
            live.complete = reaches;
            begin
        }
        Err(error) => {
            tracing::warn!(error, "live tokens could not be counted");
            live.complete = false;
            return live;
        }
    };
    let mut reader = Reader::default();
    let (mut spot, mut seq) = (Spot { segment: begin, offset: 0 }, begin);
    let read = pass((disk, folder), &mut spot, &mut seq, question.size, &mut |passed| {
        let Passed::Line { line, .. } = passed else { return };
        match str::from_utf8(line).ok().and_then(|line| reader.read(line).ok()) {
            Some(record) => live.take(record, question),
            None => live.complete = false,
        }
    });
    if read.is_err() {
        tracing::warn!(record = seq, "live tokens were counted up to this record only: the use log could not be read on");
        live.complete = false;
    }
    live
}

/// The segment to begin with, and whether tokens that can be alive were all recorded from there on.
fn begin(disk: &dyn Disk, folder: &Path, since: Timestamp, most: usize) -> Result<(u64, bool), String> {
    let segments = segments_in(disk, folder).map_err(|error| error.to_string())?;
    let mut begin = None;
    for first in segments.iter().rev().take(most) {
        begin = Some(*first);
        let path = folder.join(segment_name(*first));
        let bytes = disk.read(&path, 0, LONGEST_LINE).map_err(|error| format!("{}: {error}", path.display()))?;
        // A segment that is being begun holds nothing durable yet.
        let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else { continue };
        let record = Record::parse(&bytes[..end]).map_err(|error| format!("{}: {error}", path.display()))?;
        if record.time < since {
            return Ok((*first, true));
        }
    }
    // Where everything that is left was looked at, what was pruned names only tokens that are dead.
    begin.map(|first| (first, segments.len() <= most)).ok_or_else(|| "the use log has no segment".to_owned())
}

impl LiveTokens {
    fn take(&mut self, record: &Record, question: &Question) {
        match &record.event {
            Event::Sign(sign) if sign.kid == question.kid && sign.exp > question.now.seconds() => self.add(sign, record),
            // The log before this one is set aside, and not read.
            Event::LogAdopted(_) if record.time >= question.since => self.complete = false,
            _ => {}
        }
    }

    fn add(&mut self, sign: &Sign, record: &Record) {
        self.count += 1;
        self.until = self.until.max(Some(Timestamp::from_seconds(sign.exp)));
        let caller = record.asked.caller.as_deref().unwrap_or_default();
        let has_room = self.callers.len() < MOST_CALLERS;
        match self.callers.get_mut(caller) {
            Some(count) => *count += 1,
            None if has_room => drop(self.callers.insert(caller.to_owned(), 1)),
            None => self.complete = false,
        }
    }
}
