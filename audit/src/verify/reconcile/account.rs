//! Our own records, read beside the other checks: each signature that they name is looked for in the backends' records.
//!
//! In scope: `sign`, `sign.failed` and the self-tests of new keys, what counts as an allowance, and how far each log reaches. Out of scope: judging
//! (`settle`), because how much of a log is signed is known only at its end.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Duration;

use super::keys::Keys;
use super::ledger::{Claim, Ledger};
use super::{APART, Absent, Allowance, BackendLog, Source, Whose};
use crate::backend::Backend;
use crate::event::{DaemonStart, Event, LogAdopted, LogKind, SignFailed};
use crate::merkle::Hash;
use crate::record::Record;
use crate::time::Timestamp;
use crate::verify::chain::Visit;
use crate::verify::{Findings, Location, MOST_FINDINGS};

/// The longest pause between two records of a log whose daemon lives, and after which a kill is later than its last record by no more.
pub(super) const HEARTBEAT: Duration = Duration::from_mins(1);

/// How far one of our logs reaches.
#[derive(Default)]
pub(super) struct Reach {
    pub(super) origin: Option<String>,
    pub(super) kind: Option<LogKind>,
    /// Whose it is.
    node: String,
    /// Records from this one on count no more, where another log goes on.
    end: Option<u64>,
    pub(super) pruned: bool,
    /// The very first record that was read.
    pub(super) begun: Option<Timestamp>,
    /// The first record that is here, where older ones were pruned.
    pub(super) first: Option<Timestamp>,
    /// The last record that counts, and how many there are up to it.
    pub(super) last: Option<Timestamp>,
    size: u64,
    /// How many records somebody signed for, and the time of the last of them.
    pub(super) signed: u64,
    pub(super) signed_time: Option<Timestamp>,
    pub(super) former: bool,
}

/// One process.
struct Run {
    node: String,
    boot: String,
    /// Its last record that somebody signed for.
    last: Option<Timestamp>,
    /// The record that says that it stopped.
    stopped: Option<Source>,
}

/// What the log that is being read has of one process.
struct Here {
    run: usize,
    first: Timestamp,
    last: Timestamp,
}

/// A start after which some signatures of the run before may have no record.
struct Unclean {
    source: Source,
    node: String,
    boot: String,
    time: Timestamp,
    in_flight: u64,
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
    /// Records of signatures outside of what the given records cover.
    pub(super) outside: BTreeMap<Backend, u64>,
    unclean: Vec<Unclean>,
    /// What the last start of each node named.
    in_flight: BTreeMap<String, u64>,
    /// In the order in which they were first met: key logs are read first, and there each run begins with its start.
    runs: Vec<Run>,
    here: Vec<Here>,
    /// Which of `here` wrote the last record: the records of one process come together.
    writer: usize,
}

impl Account {
    /// Reads the backends' records first: our own are only streamed past them.
    pub(in crate::verify) fn open(backends: &[BackendLog<'_>], margin: Option<Duration>) -> io::Result<Self> {
        let ledger = Ledger::read(backends, margin)?;
        let mut keys = Keys::default();
        ledger.named.iter().for_each(|(key, name)| keys.named(key, name));
        Ok(Self {
            ledger,
            keys,
            logs: Vec::new(),
            allowances: Vec::new(),
            absent: Vec::new(),
            more_absent: 0,
            outside: BTreeMap::new(),
            unclean: Vec::new(),
            in_flight: BTreeMap::new(),
            runs: Vec::new(),
            here: Vec::new(),
            writer: 0,
        })
    }

    /// Another log begins; of one that ended, records from `end` on count no more.
    pub(in crate::verify) fn begin(&mut self, end: Option<u64>) {
        self.logs.push(Reach { end, ..Reach::default() });
    }

    /// It was read: so many of its records somebody signed for.
    pub(in crate::verify) fn end(&mut self, signed: u64, signed_time: Option<Timestamp>, former: bool) {
        let here = std::mem::take(&mut self.here);
        let Some(log) = self.logs.last_mut() else { return };
        (log.signed, log.former) = (signed, former);
        log.signed_time = signed_time.or(log.last.filter(|_| log.size > 0 && log.size <= signed));
        // A line that nobody signed for must not move the end of a run, and the time of its kill with it.
        let Some(end) = log.signed_time else { return };
        for Here { run, last, .. } in here.into_iter().filter(|here| here.first <= end) {
            let run = &mut self.runs[run];
            run.last = run.last.max(Some(last.min(end)));
        }
    }

    /// Where a record of the log that is being read stands.
    fn source(&self, record: &Record) -> Source {
        Source { log: self.logs.len() - 1, seq: record.seq }
    }

    /// A record of ours names a request of a backend.
    fn claim(&mut self, request: &str, kid: &str, record: &Record, at: &Location) {
        let (source, time) = (self.source(record), record.time);
        let text = match self.ledger.find(request) {
            Some(signed) if signed.claim.is_none() => {
                signed.claim = Some(Claim { source, time, kid: kid.to_owned() });
                return;
            }
            Some(_) => "two records name one signature of the keystore, so one of them has none",
            None => "the keystore's own record shows no signature of this request",
        };
        let Some((key, keystore)) = self.keys.home(kid).filter(|(key, keystore)| self.ledger.has(key.backend(), keystore)) else { return };
        if !self.ledger.covers(key, keystore, time) {
            *self.outside.entry(key.backend()).or_default() += 1;
        } else if self.absent.len() < MOST_FINDINGS {
            let (at, backend, request, kid) = (at.clone(), key.backend(), request.to_owned(), kid.to_owned());
            self.absent.push(Absent { at, source, backend, time, request, kid, text });
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
                self.allowances.push(Allowance::near(record.time, 1, (keyring, kid), self.source(record), because));
            }
            None => {}
        }
    }

    /// A start names what its own keystores may show; those that the killed run had are what the start of that run named.
    fn start(&mut self, event: &DaemonStart, record: &Record) {
        let before = self.in_flight.insert(record.node.clone(), event.in_flight);
        let in_flight = event.in_flight.max(before.unwrap_or_default());
        if event.unclean && in_flight > 0 {
            let (source, node, boot) = (self.source(record), record.node.clone(), record.boot.clone());
            self.unclean.push(Unclean { source, node, boot, time: record.time, in_flight });
        }
    }

    fn adopted(&mut self, event: &LogAdopted, record: &Record) {
        let before = self.logs.iter().find(|log| log.origin.as_deref() == Some(&event.origin)).and_then(|log| log.last);
        let because = format!("log.adopted says that {} records were lost", event.lost);
        // Where the log before is not here, nothing says when it lost its records; that it is missing is a finding already.
        let from = before.unwrap_or(record.time) - APART;
        let (to, count, source) = (record.time + APART, event.lost, self.source(record));
        self.allowances.push(Allowance { from, to, count, whose: Whose::Any, source, because });
    }

    /// The allowances of all unclean starts, once the last records of all runs are known. A call that was in flight when its process was killed
    /// began before the kill, and the log of a living process is never silent for longer than its heartbeat.
    pub(super) fn kills(&mut self) {
        for Unclean { source, node, boot, time, in_flight } in std::mem::take(&mut self.unclean) {
            let own = self.runs.iter().position(|run| run.node == node && run.boot == boot).unwrap_or_default();
            let before = self.runs[..own].iter().filter(|run| run.node == node);
            let Some(last) = before.filter_map(|run| run.last).max() else { continue };
            // Each log keeps its own times in order, so a use log may be ahead of the key log for a while.
            let last = last.min(time);
            let because = format!(
                "daemon.start in record {} of the key log says that up to {in_flight} calls were in flight at the kill",
                source.seq
            );
            let (from, to) = (last - APART, (last + HEARTBEAT).min(time) + APART);
            self.allowances.push(Allowance { from, to, count: in_flight, whose: Whose::Signing, source, because });
        }
    }

    /// The nodes of which a record may still be on its way. A process that stopped wrote all of them first, or counted what it could not name;
    /// for one that was killed, the next start of its node counts. Neither counts before it is signed for, nor while records of the node are not.
    pub(super) fn unfinished(&self) -> BTreeSet<&str> {
        // By time, not by place: `init` may be one process in the key log and another one in the use log.
        let goes_on = |run: &&Run| {
            let is_stopped = run.stopped.is_some_and(|stop| stop.is_signed(&self.logs));
            let is_followed = run.last.is_some() && self.runs.iter().any(|next| next.node == run.node && next.last > run.last);
            !is_stopped && !is_followed
        };
        let running = self.runs.iter().filter(goes_on).map(|run| run.node.as_str());
        let unsigned = self.logs.iter().filter(|log| log.kind == Some(LogKind::Uses) && log.size > log.signed);
        running.chain(unsigned.map(|log| log.node.as_str())).collect()
    }

    /// When a use log ends whose node may still have records to write.
    pub(super) fn open_ends(&self) -> Vec<Timestamp> {
        let unfinished = self.unfinished();
        let uses = self.logs.iter().filter(|log| log.kind == Some(LogKind::Uses) && !log.former);
        uses.filter(|log| unfinished.contains(log.node.as_str())).filter_map(|log| log.signed_time.or(log.begun)).collect()
    }

    fn place(&mut self, record: &Record) {
        let source = self.source(record);
        let log = &mut self.logs[source.log];
        log.kind = Some(record.log);
        log.begun.get_or_insert(record.time);
        if let Event::LogCreated(event) = &record.event {
            log.origin = Some(event.origin.clone());
        } else if log.pruned {
            log.first.get_or_insert(record.time);
        }
        (log.last, log.size) = (Some(record.time), record.seq + 1);
        if log.node != record.node {
            log.node.clone_from(&record.node);
        }
        let here = self.run_of(record);
        here.last = here.last.max(record.time);
        if matches!(record.event, Event::DaemonStop(_)) {
            let run = here.run;
            self.runs[run].stopped.get_or_insert(source);
        }
    }

    /// The process that wrote the record, in the log that is being read.
    fn run_of(&mut self, record: &Record) -> &mut Here {
        let is_of = |run: &Run| run.boot == record.boot && run.node == record.node;
        let same = self.here.get(self.writer).is_some_and(|here| is_of(&self.runs[here.run]));
        if !same {
            let run = self.runs.iter().rposition(is_of).unwrap_or_else(|| {
                self.runs.push(Run { node: record.node.clone(), boot: record.boot.clone(), last: None, stopped: None });
                self.runs.len() - 1
            });
            let known = self.here.iter().rposition(|here| here.run == run);
            self.writer = known.unwrap_or_else(|| {
                self.here.push(Here { run, first: record.time, last: record.time });
                self.here.len() - 1
            });
        }
        &mut self.here[self.writer]
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
                self.keys.log_key(&event.locator, &event.keystore);
            }
            Event::LogKeyRotated(event) => self.keys.log_key(&event.locator, &event.keystore),
            Event::LogAdopted(event) => self.adopted(event, record),
            Event::DaemonStart(event) => self.start(event, record),
            Event::KeyRequested(event) => self.keys.requested(&event.key, &event.keystore, record.time),
            Event::KeyCreated(event) => {
                self.keys.created(&event.kid, &event.key, &event.locator, record.time);
                if let Some(request) = &event.self_test {
                    self.claim(request, &event.kid, record, at);
                }
            }
            Event::Sign(event) => self.signature(event.backend_request.as_deref(), (&event.keyring, &event.kid), record, at),
            Event::SignFailed(SignFailed { backend_request: Some(request), kid, .. }) => self.claim(request, kid, record, at),
            // Of a key whose keystore keeps no record there is nothing to cover.
            Event::SignUnanswered(event) if self.keys.home(&event.kid).is_some() || !self.keys.has_kid(&event.kid) => {
                let because = format!("record {} counts {} calls of this key without an answer", record.seq, event.count);
                let key = (event.keyring.as_str(), event.kid.as_str());
                self.allowances.push(Allowance::near(record.time, event.count, key, self.source(record), because));
            }
            other => self.keys.lives(other, record.time),
        }
        self.place(record);
    }
}
