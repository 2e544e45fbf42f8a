//! Our own records, read beside the other checks: each signature that they name is looked for in the backends' records.
//!
//! In scope: `sign`, `sign.failed` and the self-tests of new keys, what counts as an allowance, and how far each log reaches. Out of scope: judging
//! (`settle`), because how much of a log is signed is known only at its end.

use std::io;
use std::time::Duration;

use super::keys::Keys;
use super::ledger::{Claim, Ledger};
use super::{APART, Absent, Allowance, BackendLog};
use crate::event::{DaemonStart, Event, LogAdopted, LogKind, SignFailed};
use crate::merkle::Hash;
use crate::record::Record;
use crate::time::Timestamp;
use crate::verify::chain::Visit;
use crate::verify::{Findings, Location, MOST_FINDINGS};

/// The longest pause between two records of a log whose daemon lives, and after which a kill is later than its last record by no more.
const HEARTBEAT: Duration = Duration::from_mins(1);

/// How far one of our logs reaches.
#[derive(Default)]
pub(super) struct Reach {
    pub(super) origin: Option<String>,
    pub(super) kind: Option<LogKind>,
    /// Records from this one on count no more, where another log goes on.
    end: Option<u64>,
    pub(super) pruned: bool,
    /// The very first record that was read.
    pub(super) begun: Option<Timestamp>,
    /// The first record that is here, where older ones were pruned.
    pub(super) first: Option<Timestamp>,
    /// The last record that counts.
    pub(super) last: Option<Timestamp>,
    /// How many records somebody signed for, and the time of the last of them.
    pub(super) signed: u64,
    pub(super) signed_time: Option<Timestamp>,
    pub(super) former: bool,
}

/// The last record of one process, and whether it said that it stopped.
struct Run {
    node: String,
    boot: String,
    last: Timestamp,
    stopped: bool,
}

/// A start after which some signatures of the run before may have no record.
pub(super) struct Unclean {
    node: String,
    boot: String,
    time: Timestamp,
    in_flight: u64,
    seq: u64,
}

/// Everything that is read of our logs.
pub(in crate::verify) struct Account {
    pub(super) ledger: Ledger,
    pub(super) keys: Keys,
    pub(super) logs: Vec<Reach>,
    pub(super) allowances: Vec<Allowance>,
    pub(super) absent: Vec<Absent>,
    /// How many more there are than are kept.
    pub(super) more_absent: u64,
    pub(super) outside: u64,
    unclean: Vec<Unclean>,
    /// In the order in which they were first met; the records of one come together.
    runs: Vec<Run>,
}

impl Account {
    /// Reads the backends' records first: our own are only streamed past them.
    pub(in crate::verify) fn open(backends: &[BackendLog<'_>], margin: Option<Duration>) -> io::Result<Self> {
        let ledger = Ledger::read(backends, margin)?;
        let mut keys = Keys::default();
        ledger.named.iter().for_each(|(key, name)| keys.named(key, name));
        let (logs, allowances, absent) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self { ledger, keys, logs, allowances, absent, more_absent: 0, outside: 0, unclean: Vec::new(), runs: Vec::new() })
    }

    /// Another log begins; of one that ended, records from `end` on count no more.
    pub(in crate::verify) fn begin(&mut self, end: Option<u64>) {
        self.logs.push(Reach { end, ..Reach::default() });
    }

    /// It was read: so many of its records somebody signed for.
    pub(in crate::verify) fn end(&mut self, signed: u64, signed_time: Option<Timestamp>, former: bool) {
        if let Some(log) = self.logs.last_mut() {
            (log.signed, log.signed_time, log.former) = (signed, signed_time, former);
        }
    }

    /// A record of ours names a request of a backend.
    fn claim(&mut self, request: &str, kid: &str, record: &Record, at: &Location) {
        let log = self.logs.len() - 1;
        let text = match self.ledger.find(request) {
            Some(signed) if signed.claim.is_none() => {
                signed.claim = Some(Claim { log, seq: record.seq, kid: kid.to_owned() });
                return;
            }
            Some(_) => "two records name one signature of the keystore, so one of them has none",
            None => "the keystore's own record shows no signature of this request",
        };
        let Some((key, keystore)) = self.keys.home(kid).filter(|(key, keystore)| self.ledger.has(key.backend(), keystore)) else { return };
        if !self.ledger.covers(key, keystore, record.time) {
            self.outside += 1;
        } else if self.absent.len() < MOST_FINDINGS {
            let (at, time, request, kid) = (at.clone(), record.time, request.to_owned(), kid.to_owned());
            self.absent.push(Absent { at, log, time, request, kid, text });
        } else {
            self.more_absent += 1;
        }
    }

    /// The record of a signature: with a request id, or without one where the backend told none.
    fn signature(&mut self, request: Option<&str>, (keyring, kid): (&str, &str), record: &Record, at: &Location) {
        match request {
            Some(request) => self.claim(request, kid, record, at),
            None if self.keys.home(kid).is_some() => {
                let because = format!("record {} of this key names no request", record.seq);
                self.allowances.push(Allowance::near(record.time, 1, (keyring, kid), because));
            }
            None => {}
        }
    }

    fn start(&mut self, event: &DaemonStart, record: &Record) {
        if event.unclean && event.in_flight > 0 {
            let (node, boot) = (record.node.clone(), record.boot.clone());
            self.unclean.push(Unclean { node, boot, time: record.time, in_flight: event.in_flight, seq: record.seq });
        }
    }

    fn adopted(&mut self, event: &LogAdopted, record: &Record) {
        let before = self.logs.iter().find(|log| log.origin.as_deref() == Some(&event.origin)).and_then(|log| log.last);
        let because = format!("log.adopted says that {} records were lost", event.lost);
        let from = before.unwrap_or_default() - APART;
        self.allowances.push(Allowance { from, to: record.time + APART, count: event.lost, key: None, because });
    }

    /// The allowances of all unclean starts, once the last records of all runs are known. A call that was in flight when its process was killed
    /// began before the kill, and the log of a living process is never silent for longer than its heartbeat.
    pub(super) fn kills(&mut self) {
        for Unclean { node, boot, time, in_flight, seq } in std::mem::take(&mut self.unclean) {
            let before = self.runs.iter().filter(|run| run.node == node && run.boot != boot && run.last <= time);
            let Some(last) = before.map(|run| run.last).max() else { continue };
            let because =
                format!("daemon.start in record {seq} of the key log says that up to {in_flight} calls were in flight at the kill");
            let to = (last + HEARTBEAT).min(time) + APART;
            self.allowances.push(Allowance { from: last - APART, to, count: in_flight, key: None, because });
        }
    }

    /// Whether a process may still have records to write. One that stopped wrote all of them first, or counted what it could not name; for one
    /// that was killed, the next start of its node counts.
    pub(super) fn is_unfinished(&self) -> bool {
        let goes_on = |run: &Run| !run.stopped && !self.runs.iter().any(|next| next.node == run.node && next.last > run.last);
        self.runs.iter().any(goes_on)
    }

    fn place(&mut self, record: &Record) {
        let Some(log) = self.logs.last_mut() else { return };
        log.kind = Some(record.log);
        log.begun.get_or_insert(record.time);
        if let Event::LogCreated(event) = &record.event {
            log.origin = Some(event.origin.clone());
        } else if log.pruned {
            log.first.get_or_insert(record.time);
        }
        log.last = Some(record.time);
        let stopped = matches!(record.event, Event::DaemonStop(_));
        match self.runs.iter_mut().rev().find(|run| run.boot == record.boot && run.node == record.node) {
            Some(run) => (run.last, run.stopped) = (run.last.max(record.time), run.stopped || stopped),
            None => self.runs.push(Run { node: record.node.clone(), boot: record.boot.clone(), last: record.time, stopped }),
        }
    }
}

impl Visit for Account {
    fn line(&mut self, _leaf: Hash) {}

    fn pruned(&mut self) {
        if let Some(log) = self.logs.last_mut() {
            log.pruned = true;
        }
    }

    fn record(&mut self, record: &Record, at: &Location, _findings: &mut Findings) {
        if self.logs.last().is_none_or(|log| log.end.is_some_and(|end| record.seq >= end)) {
            return;
        }
        match &record.event {
            Event::LogCreated(event) => {
                self.keys.installation(&event.installation);
                self.keys.log_key(&event.locator);
            }
            Event::LogKeyRotated(event) => self.keys.log_key(&event.locator),
            Event::LogAdopted(event) => self.adopted(event, record),
            Event::DaemonStart(event) => self.start(event, record),
            Event::KeyRequested(event) => self.keys.requested(&event.key, &event.keystore),
            Event::KeyCreated(event) => {
                self.keys.created(&event.kid, &event.key, &event.locator);
                if let Some(request) = &event.self_test {
                    self.claim(request, &event.kid, record, at);
                }
            }
            Event::Sign(event) => self.signature(event.backend_request.as_deref(), (&event.keyring, &event.kid), record, at),
            Event::SignFailed(SignFailed { backend_request: Some(request), kid, .. }) => self.claim(request, kid, record, at),
            // Of a key whose keystore keeps no record there is nothing to cover.
            Event::SignUnanswered(event) if self.keys.home(&event.kid).is_some() || !self.keys.has_kid(&event.kid) => {
                let because = format!("record {} counts {} calls of this key without an answer", record.seq, event.count);
                self.allowances.push(Allowance::near(record.time, event.count, (&event.keyring, &event.kid), because));
            }
            _ => {}
        }
        self.place(record);
    }
}
