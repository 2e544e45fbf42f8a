//! The loop of one witness: what is due goes out, what comes back is believed as far as it is proved.
//!
//! In scope: the pace (one submission a second, the key log first), waiting longer after each failure, and what an answer means for the log:
//! a larger size or another history is an alarm, and, as the first word since the start, the end of all signing. Out of scope: the protocol's
//! text and transport.

use std::sync::Arc;
use std::time::Duration;

use claviger_audit::event::LogKind;
use claviger_audit::note::VerifierKey;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::client::Client;
use super::submission::{Word, read, request};
use super::{Board, Gathering};
use crate::clock::{Clock, Monotonic};
use crate::journal::{Follower, OpenError, Signed, Standing};

/// At most one submission in this time to one witness, whatever becomes of it. (A second attempt with the size that it named is part of one.)
pub(super) const PACE: Duration = Duration::from_secs(1);
/// How long to wait after failures: at first, and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));
/// A round may end by time alone; so long may that go unnoticed.
const LOOK: Duration = Duration::from_secs(1);

/// One log, as one witness knows it.
pub(super) struct Counter {
    kind: LogKind,
    gathering: Arc<Gathering>,
    standing: Standing,
    follower: Follower,
    newest: watch::Receiver<Option<Arc<Signed>>>,
    turned: watch::Receiver<()>,
    /// What the witness is remembered, or has said, to have cosigned.
    known: u64,
    /// Whether it has cosigned since the start: until then its word decides whether this log is the true one.
    has_answered: bool,
    failures: u32,
    not_before: Option<Monotonic>,
}

impl Counter {
    pub(super) fn new(kind: LogKind, gathering: Arc<Gathering>, standing: Standing, witness: usize) -> Self {
        let (follower, known) = (gathering.follower(), gathering.remembered(witness));
        let (newest, turned) = (gathering.newest(), gathering.turned());
        Self { kind, gathering, standing, follower, newest, turned, known, has_answered: false, failures: 0, not_before: None }
    }

    /// What this witness is to cosign now.
    fn due(&self, witness: usize, now: Monotonic) -> Option<Arc<Signed>> {
        if self.not_before.is_some_and(|date| date > now) {
            return None;
        }
        let checkpoint = self.gathering.candidate(now)?;
        let wanted = !self.has_answered || !self.gathering.has(witness, checkpoint.size);
        (checkpoint.size >= self.known && wanted).then_some(checkpoint)
    }

    fn wait_longer(&mut self, now: Monotonic) {
        let longest = BACKOFF.0.saturating_mul(1 << self.failures.min(16)).min(BACKOFF.1);
        self.failures = self.failures.saturating_add(1);
        let mut random = [0];
        // Without randomness all witnesses are asked again at the same time, and nothing worse.
        let _ = getrandom::fill(&mut random);
        // Between half and all of it, so that many logs do not come back to one witness at once.
        self.not_before = Some(now.plus(longest / 2 + longest / 2 * u32::from(random[0]) / 255));
    }
}

/// What became of a submission.
enum Outcome {
    Cosigned,
    /// It knows a newer checkpoint than the one that was sent, and one of ours.
    Later,
    /// It knows more records than there are.
    Ahead(u64, u64),
    /// What it knows is not the beginning of this log.
    Forked(String),
    /// It answered something of no use.
    Failed(String),
    /// It did not answer.
    Unreachable(String),
    Stopped,
}

/// One witness.
pub(super) struct Desk {
    pub(super) index: usize,
    pub(super) name: String,
    pub(super) key: VerifierKey,
    pub(super) counters: [Counter; 2],
    pub(super) client: Client,
    pub(super) board: Arc<Board>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) stop: CancellationToken,
}

impl Desk {
    /// Runs until the stop.
    pub(super) fn run(mut self, runtime: &Handle) {
        let mut earliest = self.clock.monotonic();
        while !self.stop.is_cancelled() {
            let now = self.clock.monotonic();
            let pause = earliest.since(now);
            if !pause.is_zero() {
                runtime.block_on(async {
                    tokio::select! { () = self.stop.cancelled() => {}, () = tokio::time::sleep(pause) => {} }
                });
                continue;
            }
            // Seen before it is looked what is due, so that nothing new is missed.
            for counter in &mut self.counters {
                counter.newest.mark_unchanged();
                counter.turned.mark_unchanged();
            }
            let due = (0..self.counters.len()).find_map(|log| Some((log, self.counters[log].due(self.index, now)?)));
            let Some((log, checkpoint)) = due else {
                self.pass_over_empty();
                runtime.block_on(self.rest());
                continue;
            };
            earliest = now.plus(PACE);
            let outcome = self.submit(log, &checkpoint, runtime);
            self.conclude(log, &checkpoint, outcome);
        }
    }

    /// A log without any checkpoint yet has nothing to be asked about.
    fn pass_over_empty(&self) {
        let now = self.clock.monotonic();
        for (log, counter) in self.counters.iter().enumerate().filter(|(_, counter)| !counter.has_answered) {
            if counter.gathering.candidate(now).is_none() {
                self.board.update(self.index, |status| status.tried[log] = true);
            }
        }
    }

    async fn rest(&mut self) {
        let [keys, uses] = &mut self.counters;
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = tokio::time::sleep(LOOK) => {}
            _ = keys.newest.changed() => {}
            _ = keys.turned.changed() => {}
            _ = uses.newest.changed() => {}
            _ = uses.turned.changed() => {}
        }
    }

    fn submit(&mut self, log: usize, checkpoint: &Signed, runtime: &Handle) -> Outcome {
        let counter = &mut self.counters[log];
        let mut again = true;
        loop {
            let proof = match counter.follower.prove(counter.known, checkpoint.size, checkpoint.root) {
                Ok(proof) => proof,
                Err(error) => return Outcome::Failed(error.to_string()),
            };
            let exchange = self.client.add_checkpoint(request(counter.known, &proof, &checkpoint.note));
            let stop = &self.stop;
            let answer = runtime.block_on(async {
                tokio::select! { () = stop.cancelled() => None, answer = exchange => Some(answer) }
            });
            let answer = match answer {
                None => return Outcome::Stopped,
                Some(Err(why)) => return Outcome::Unreachable(why),
                Some(Ok(answer)) => answer,
            };
            match read(&answer, checkpoint, &self.key) {
                Word::Cosigned(line) => {
                    counter.known = checkpoint.size;
                    return match counter.follower.settle(checkpoint.size, checkpoint.root) {
                        Ok(place) => {
                            counter.gathering.add(self.index, checkpoint, &line, &place);
                            Outcome::Cosigned
                        }
                        Err(error) => Outcome::Failed(error.to_string()),
                    };
                }
                Word::Knows(theirs) => {
                    let have = counter.newest.borrow().as_ref().map_or(checkpoint.size, |newest| newest.size);
                    if theirs > have {
                        return Outcome::Ahead(theirs, have);
                    }
                    if theirs == counter.known || !again {
                        return Outcome::Failed(format!("it refuses the size {theirs} that it names itself"));
                    }
                    counter.known = theirs;
                    if theirs > checkpoint.size {
                        return Outcome::Later;
                    }
                    again = false;
                }
                Word::Inconsistent(text) => return Outcome::Forked(text),
                Word::Nothing(why) => return Outcome::Failed(why),
            }
        }
    }

    fn conclude(&mut self, log: usize, checkpoint: &Signed, outcome: Outcome) {
        let now = self.clock.monotonic();
        let witness = self.name.clone();
        match outcome {
            Outcome::Stopped => return,
            Outcome::Cosigned | Outcome::Later => {
                let counter = &mut self.counters[log];
                counter.has_answered |= matches!(outcome, Outcome::Cosigned);
                (counter.failures, counter.not_before) = (0, None);
                let known = counter.known;
                self.board.update(self.index, |status| {
                    if status.failure.take().is_some() {
                        tracing::info!(witness, "the witness cosigns again");
                    }
                    (status.up, status.sizes[log]) = (true, known);
                });
            }
            Outcome::Ahead(known, have) => {
                self.alarm(log, now, OpenError::BehindWitness { witness, known, have });
            }
            Outcome::Forked(text) => {
                let text = format!("it refuses the checkpoint of {} records ({text})", checkpoint.size);
                self.alarm(log, now, OpenError::Forked { witness, text });
            }
            Outcome::Failed(why) => self.failed(&[log], now, &why),
            Outcome::Unreachable(why) => {
                // It will not answer for the other log either; the start need not wait for that.
                self.failed(&[0, 1], now, &why);
                self.board.update(self.index, |status| status.tried = [true; 2]);
            }
        }
        self.board.update(self.index, |status| status.tried[log] = true);
    }

    fn failed(&mut self, logs: &[usize], now: Monotonic, why: &str) {
        for log in logs {
            self.counters[*log].wait_longer(now);
        }
        let witness = &self.name;
        self.board.update(self.index, |status| {
            // Once per outage; the count goes on.
            if status.failure.as_deref() != Some(why) {
                tracing::warn!(witness, why, "a witness does not cosign; it is asked again, ever more slowly");
            }
            status.up = false;
            status.failures += 1;
            status.failure = Some(why.to_owned());
        });
    }

    /// Somebody else extended this log, or the log key signed two histories. Never taken back without a restart.
    fn alarm(&mut self, log: usize, now: Monotonic, error: OpenError) {
        let counter = &mut self.counters[log];
        counter.failures = u32::MAX;
        counter.wait_longer(now);
        let (text, log_name) = (error.to_string(), counter.kind.name());
        tracing::error!(witness = self.name, log = log_name, "{text}");
        self.board.update(self.index, |status| status.alarm = Some(format!("{log_name} log: {text}")));
        if !counter.has_answered {
            let kind = counter.kind;
            // One log alone goes no further: what the other says would hang in the air.
            self.counters.iter().for_each(|counter| counter.standing.refute(&text));
            self.board.refute(kind, error);
        }
    }
}
