//! Upkeep of the logs themselves: another key for their checkpoints, the end of a year's pseudonyms, and the end of old use records.
//!
//! In scope: these stories, each with its durable intent first, so that a crash in between is found at the next start. Out of scope: when
//! a checkpoint carries which signature (`journal`), how a log key is made (`daemon::log_key`), and old keys: nothing here destroys one.

use std::sync::Arc;
use std::time::Duration;

use claviger_audit::Timestamp;
use claviger_audit::event::{Event, LogKeyRotated, LogKind, SubjectErased, UsesPruned};
use claviger_audit::names::{KeyName, LOG_KEYRING};
use claviger_audit::record::Asked;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, MutexGuard};

use crate::daemon::log_key;
use crate::journal::prune::{Order, Prunable, Pruner};
use crate::journal::pseudonym::{Pseudonyms, year_of};
use crate::journal::state::{Intent, StateDir};
use crate::journal::{AppendError, Checkpointer, Draft, LogKey, Receipt, Tenure};
use crate::keystore::{Keystore, KeystoreError};
use crate::operator::{Done, Operator, asked};
use crate::policy::Action;
use crate::refusal::{Code, Refusal};
use crate::rotator::uses_head;
use crate::signer::{Ask, append_refusal};

/// The number of the first log key that a rotation makes: `init` made 1 and 2.
const FIRST_NUMBER: u32 = 3;

/// Keeps the logs in order. One per daemon.
pub struct Upkeep {
    /// Authorises, and has the logs and the keystores.
    pub operator: Arc<Operator>,
    /// Where intents are written down.
    pub state: Arc<StateDir>,
    /// Which keys are in force, and what is covered: keys, uses.
    pub checkpoints: [Checkpointer; 2],
    /// The keys of the years.
    pub pseudonyms: Arc<Pseudonyms>,
    /// The keystore of the next log key.
    pub log_keystore: String,
    /// Part of every key's name.
    pub installation: String,
    /// Deletes old records of the use log.
    pub pruner: Pruner,
    /// How long they must stay.
    pub retention: Duration,
    /// One story at a time.
    pub turn: Mutex<()>,
}

/// A rotation that was recorded.
#[derive(Clone, Debug)]
pub struct Turned {
    /// The record.
    pub done: Done,
    /// The key before; it may be destroyed by hand once every verifier knows the new one.
    pub old: LogKey,
    /// The key from now on.
    pub new: LogKey,
    /// Whether a checkpoint with both signatures covers the record.
    pub covered: bool,
}

/// What was deleted of the use log, or would be.
#[derive(Clone, Debug)]
pub struct Pruned {
    /// The segments, and what is left.
    pub old: Prunable,
    /// The latest time before which records may go now, whatever was asked.
    pub before: Timestamp,
    /// The record; `None` if nothing was deleted.
    pub done: Option<Done>,
}

/// Written down before a log key is made. The record comes after `after`, or never came.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NextKey {
    key: KeyName,
    keystore: String,
    /// The size of the log before.
    after: u64,
}

impl Upkeep {
    /// Makes the next key of a log and hands the log over to it.
    pub async fn rotate_key(&self, ask: &Ask, log: LogKind, reason: Option<&str>) -> Result<Turned, Refusal> {
        let _turn = self.begin(ask).await?;
        let checkpoints = self.checkpoints_of(log);
        let Tenure { since, holder: old } = checkpoints.tenure();
        if checkpoints.covered() < since {
            return Err(Refusal::new(Code::NotNow, uncovered(log, since - 1, &old)));
        }
        let next = match self.unfinished(log)? {
            Some(next) => next,
            None => self.intend(log).await?,
        };
        // From here on the name is durable: whatever ends this, the same key is found by the next try.
        let keystore = self.keystore(&next.keystore)?;
        let made = log_key::make(keystore.as_ref(), &next.key, old.key.name()).await;
        let (key, made) = made.map_err(|error| unavailable(&next.keystore, &error))?;
        let new = LogKey { key, keystore: next.keystore, locator: made.locator.as_str().to_owned() };
        let signers = log_key::signers(self.operator.keystores.clone(), self.operator.clock.clone());
        log_key::prove(&signers, &new).await.map_err(|error| unavailable(&new.keystore, &error))?;
        let event = Event::LogKeyRotated(LogKeyRotated {
            old: old.key.to_string(),
            new: new.key.to_string(),
            keystore: new.keystore.clone(),
            locator: new.locator.clone(),
        });
        let receipt = self.append(asked(ask), log, event.clone()).await.map_err(|error| append_refusal(&error))?;
        // Commit point: the new key is the log's. What follows can only be late.
        self.forget(log);
        let seq = receipt.seq;
        tracing::info!(log = log.name(), seq, old = %old.key, new = %new.key, key = %next.key, reason, "the log key was rotated");
        let covered = checkpoints.checkpoint_now().await.is_ok_and(|size| size > seq);
        Ok(Turned { done: Done { events: vec![event], receipts: vec![receipt] }, old, new, covered })
    }

    /// Destroys the key of a year's pseudonyms: recorded first, then done.
    pub async fn erase(&self, ask: &Ask, year: u64, reason: String) -> Result<Done, Refusal> {
        let _turn = self.begin(ask).await?;
        let operator = &self.operator;
        let (snapshot, node) = (operator.keys.snapshot(), operator.node.clone());
        // Records never go back behind the last one, so its year counts as well as the clock's.
        let current = year_of(operator.clock.wall().max(snapshot.keyrings.last_time()));
        if year >= current {
            return Err(not_over(year, current));
        }
        let is_erased = snapshot.keyrings.erased_years(&node).any(|erased| erased == year);
        if !self.pseudonyms.has_key(year) {
            return Err(if is_erased {
                Refusal::new(Code::NotNow, format!("{year} was erased before; `claviger audit show --event subject.erased` says when"))
            } else {
                let detail = format!("there is no key of {year}: nothing was recorded under a pseudonym then, or it was removed by hand");
                Refusal::new(Code::NotFound, detail)
            });
        }
        // A key that is still there although the log says otherwise could not be removed; one record is enough.
        let events = if is_erased { Vec::new() } else { vec![Event::SubjectErased(SubjectErased { of: node, year, reason })] };
        let records = events.clone();
        let appended = operator.keys.append(asked(ask), move |_, _| Ok(records.clone())).await;
        let receipts = appended.map_err(|error| append_refusal(&error))?;
        // Commit point: the log says that the year is erased. A crash from here on is completed at the next start.
        match self.pseudonyms.erase(year) {
            Ok(_) => tracing::info!(year, "the key of a year's pseudonyms was destroyed"),
            Err(error) => {
                tracing::error!(year, %error, "the key of an erased year is still there");
                let detail =
                    format!("the erasure of {year} is recorded, but its key could not be removed: {error}; the next start tries again");
                return Err(Refusal::new(Code::NotReady, detail));
            }
        }
        Ok(Done { events, receipts })
    }

    /// Deletes whole segments of the use log whose records, and the tokens that they name, are older than `before` and than the retention; or
    /// only says which, without a `reason`.
    pub async fn prune(&self, ask: &Ask, before: Timestamp, reason: Option<String>) -> Result<Pruned, Refusal> {
        let _turn = self.begin(ask).await?;
        let operator = &self.operator;
        let before = before.min(operator.clock.wall() - self.retention);
        let order = Order { before, covered: self.checkpoints_of(LogKind::Uses).covered(), keep: reason.is_some() };
        // Hashes that are kept of segments that nothing deletes are no part of the log.
        let old = self.pruner.look(order).await.map_err(|error| state_refusal(&error))?;
        let Some(reason) = reason.filter(|_| !old.segments.is_empty()) else { return Ok(Pruned { old, before, done: None }) };
        let origin = operator.uses.origin().to_string();
        let pruned = UsesPruned { of: operator.node.clone(), origin, first: old.first, root: old.root, before, reason };
        let events = vec![Event::UsesHead(uses_head(&operator.uses, &operator.node)), Event::UsesPruned(pruned)];
        let records = events.clone();
        let appended = operator.keys.append(asked(ask), move |_, _| Ok(records.clone())).await;
        let receipts = appended.map_err(|error| append_refusal(&error))?;
        // Commit point: the key log says that they are gone. A crash from here on is completed at the next start.
        if let Err(error) = self.checkpoints_of(LogKind::Keys).checkpoint_now().await {
            tracing::warn!(%error, "until a checkpoint covers the record of the pruning, verifiers miss the segments");
        }
        if let Err(error) = self.pruner.delete(old.first).await {
            tracing::error!(first = old.first, %error, "segments that were pruned are still there");
            let detail = format!("the pruning is recorded, but a segment could not be deleted: {error}; the next start tries again");
            return Err(Refusal::new(Code::NotReady, detail));
        }
        tracing::info!(segments = old.segments.len(), first = old.first, "old records of the use log were deleted");
        Ok(Pruned { old, before, done: Some(Done { events, receipts }) })
    }

    /// Completes what a crash cut off and the log already says; reports what only an operator can finish. For the start.
    pub fn resume(&self) {
        for year in self.operator.keys.snapshot().keyrings.erased_years(&self.operator.node) {
            match self.pseudonyms.erase(year) {
                Ok(false) => {}
                Ok(true) => tracing::warn!(year, "the key of an erased year was still there; it is destroyed now"),
                Err(error) => tracing::error!(year, %error, "the key of an erased year is still there"),
            }
        }
        for log in self.cut_off() {
            tracing::warn!(
                log,
                "a rotation of this log's key was cut off; `claviger audit rotate-key {log}` finishes it with the same key"
            );
        }
    }

    /// The logs whose rotation was begun and not recorded.
    pub fn cut_off(&self) -> Vec<&'static str> {
        // While a rotation is under way it is not cut off.
        let Ok(_turn) = self.turn.try_lock() else { return Vec::new() };
        let is_cut_off = |log: &LogKind| !matches!(self.unfinished(*log), Ok(None));
        [LogKind::Keys, LogKind::Uses].into_iter().filter(is_cut_off).map(LogKind::name).collect()
    }

    async fn begin(&self, ask: &Ask) -> Result<MutexGuard<'_, ()>, Refusal> {
        self.operator.authorise_installation(ask, Action::MaintainLog).await?;
        self.turn.try_lock().map_err(|_| Refusal::new(Code::NotNow, "another verb of this kind is under way; ask again when it has ended"))
    }

    fn checkpoints_of(&self, log: LogKind) -> &Checkpointer {
        match log {
            LogKind::Keys => &self.checkpoints[0],
            LogKind::Uses => &self.checkpoints[1],
        }
    }

    /// The intent of an earlier try whose record never came. One whose record did come is forgotten.
    fn unfinished(&self, log: LogKind) -> Result<Option<NextKey>, Refusal> {
        let Some(bytes) = self.state.intent(Intent::LogKey(log)).map_err(|error| state_refusal(&error))? else { return Ok(None) };
        let strange = |error| format!("{}: {error}; look at it, and remove it if no log key was made by the name in it", self.file(log));
        let next: NextKey = serde_json::from_slice(&bytes).map_err(|error| state_refusal(&strange(error)))?;
        if self.checkpoints_of(log).tenure().since <= next.after {
            return Ok(Some(next));
        }
        self.forget(log);
        Ok(None)
    }

    /// Writes down, durably, which key will be made.
    async fn intend(&self, log: LogKind) -> Result<NextKey, Refusal> {
        let number = self.next_number().await?;
        let mut claim = [0; 4];
        getrandom::fill(&mut claim).map_err(|_| Refusal::new(Code::NotReady, "the system has no randomness to give"))?;
        let key = log_key::name(&self.installation, number, u32::from_be_bytes(claim));
        let key = key.ok_or_else(|| Refusal::new(Code::NotNow, format!("log keys have no number after {number}")))?;
        let after = match log {
            LogKind::Keys => self.operator.keys.head().size,
            LogKind::Uses => self.operator.uses.head().size,
        };
        let next = NextKey { key, keystore: self.log_keystore.clone(), after };
        let text = serde_json::to_vec(&next).unwrap_or_default();
        self.state.intend(Intent::LogKey(log), &text).map_err(|error| state_refusal(&error))?;
        Ok(next)
    }

    /// One more than any log key has in a keystore that answers; the random part of the name keeps those apart that another one holds.
    async fn next_number(&self) -> Result<u32, Refusal> {
        let mut highest = FIRST_NUMBER - 1;
        for (name, keystore) in &self.operator.keystores {
            match keystore.inventory(&self.installation).await {
                Ok(held) => {
                    let numbers = held.iter().filter(|(key, _)| key.keyring() == LOG_KEYRING).map(|(key, _)| key.number());
                    highest = numbers.fold(highest, u32::max);
                }
                Err(error) if *name == self.log_keystore => return Err(unavailable(name, &error)),
                Err(error) => tracing::debug!(keystore = name, %error, "not asked for log keys"),
            }
        }
        Ok(highest.saturating_add(1))
    }

    fn keystore(&self, name: &str) -> Result<&Arc<dyn Keystore>, Refusal> {
        let missing =
            || format!("the new log key is to be made in keystore {name:?}, which is not configured any more: configure it again");
        self.operator.keystores.get(name).ok_or_else(|| Refusal::new(Code::KeystoreUnavailable, missing()))
    }

    async fn append(&self, asked: Asked, log: LogKind, event: Event) -> Result<Receipt, AppendError> {
        match log {
            LogKind::Keys => {
                let mut receipts = self.operator.keys.append(asked, move |_, _| Ok(vec![event.clone()])).await?;
                receipts.pop().ok_or(AppendError::Stopped)
            }
            LogKind::Uses => self.operator.uses.append(Draft { asked, event }).await,
        }
    }

    fn forget(&self, log: LogKind) {
        if let Err(error) = self.state.forget(Intent::LogKey(log)) {
            tracing::warn!(file = self.file(log), %error, "an intent that was carried out could not be removed; the log says that it was");
        }
    }

    fn file(&self, log: LogKind) -> String {
        self.state.path().join(Intent::LogKey(log).file()).display().to_string()
    }
}

fn uncovered(log: LogKind, seq: u64, key: &LogKey) -> String {
    format!(
        "the log key was rotated with record {seq} of the {} log, and no checkpoint covers it yet: the key before {} must sign once more, \
         so its keystore must answer",
        log.name(),
        key.key
    )
}

fn not_over(year: u64, current: u64) -> Refusal {
    let mut refusal = Refusal::new(
        Code::NotNow,
        format!("{year} is not over: its key is, or will be, in use; the last year that can be erased is {}", current - 1),
    );
    refusal.until = year.checked_add(1).and_then(|next| format!("{next:04}-01-01T00:00:00.000Z").parse::<Timestamp>().ok());
    refusal
}

fn unavailable(keystore: &str, error: &KeystoreError) -> Refusal {
    Refusal::new(Code::KeystoreUnavailable, format!("keystore {keystore:?}: {error}"))
}

fn state_refusal(error: &dyn std::fmt::Display) -> Refusal {
    Refusal::new(Code::NotReady, error.to_string())
}
