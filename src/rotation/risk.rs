//! What is late, or will be: which keyrings are at risk, why, since when, and until when it can be put right without harm.
//!
//! In scope: every reason for which the next rotation, or the next key, would not come in time, as one pure function over the keyrings and
//! what the shell knows beside them. Nothing that is only under way is told: a standby that still ripens on schedule is no risk. Out of
//! scope: acting on it (the plan does), what refuses a signature now (`readiness`), and who reads the list.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use claviger_audit::Timestamp;
use claviger_audit::jwks::{self, MOST_KEYS_IN_SET, SetName};
use claviger_audit::keyrings::{Drift, Key, Keyring, Keyrings, State};
use claviger_audit::timing::Timing;

use super::duration::Human;
use super::timing::TICK;

/// From this many keys on a set is nearly full (I6): at [`MOST_KEYS_IN_SET`] no further key is published, so every rotation in it stops.
pub const NEARLY_FULL: usize = MOST_KEYS_IN_SET * 9 / 10;
/// A checkpoint is tried every second; a log that stood uncovered for this long has a keystore that does not sign for it.
pub const UNCOVERED_FOR: Duration = Duration::from_mins(1);

/// What kind of risk it is; its name is part of the API and a label of the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Code {
    /// No key signs, and none may yet.
    NoSigner,
    /// No standby may take over now (I5).
    NoStandby,
    /// The scheduled rotation is due and has not happened.
    RotationOverdue,
    /// The active key is older than L + D + e + G: a whole new key could have been made meanwhile.
    KeyTooOld,
    /// A key that should have left the JWKS is still there.
    WithdrawalOverdue,
    /// A key in its keystore is not what was recorded of it.
    KeyDrifted,
    /// The keystore of the next key does not answer, and a key is needed within D + e + G.
    KeystoreLost,
    /// The keystore of the key that signs does not answer, and a standby that lives in another one could sign now.
    SignerAway,
    /// The key that should sign is suspended, and scheduled rotation waits for an operator.
    Suspended,
    /// The wall clock is in doubt (I12): no dated transition happens.
    ClockPaused,
    /// A set will soon take no more keys (I6).
    SetNearlyFull,
    /// The disk of the logs is nearly full.
    DiskLow,
    /// Records of a log are covered by no checkpoint.
    LogUncovered,
    /// A log takes no records any more.
    LogDead,
}

impl Code {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::NoSigner,
        Self::NoStandby,
        Self::RotationOverdue,
        Self::KeyTooOld,
        Self::WithdrawalOverdue,
        Self::KeyDrifted,
        Self::KeystoreLost,
        Self::SignerAway,
        Self::Suspended,
        Self::ClockPaused,
        Self::SetNearlyFull,
        Self::DiskLow,
        Self::LogUncovered,
        Self::LogDead,
    ];

    /// The name that answers and metrics use.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoSigner => "no_signer",
            Self::NoStandby => "no_standby",
            Self::RotationOverdue => "rotation_overdue",
            Self::KeyTooOld => "key_too_old",
            Self::WithdrawalOverdue => "withdrawal_overdue",
            Self::KeyDrifted => "key_drifted",
            Self::KeystoreLost => "keystore_lost",
            Self::SignerAway => "signer_away",
            Self::Suspended => "suspended",
            Self::ClockPaused => "clock_paused",
            Self::SetNearlyFull => "set_nearly_full",
            Self::DiskLow => "disk_low",
            Self::LogUncovered => "log_uncovered",
            Self::LogDead => "log_dead",
        }
    }
}

/// Something that is late, or will be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Risk {
    /// The keyring; `None` for what endangers all of them, or all of a set.
    pub keyring: Option<String>,
    /// What kind it is.
    pub code: Code,
    /// What it is, and what to do, for people who may be strangers: no word of a keystore's or the system's own.
    pub detail: String,
    /// Since when it is so, where that is known.
    pub since: Option<Timestamp>,
    /// Until when it can be put right before it does harm; `None` where it harms already, or nobody can tell.
    pub until: Option<Timestamp>,
}

/// What the shell knows and the log does not.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Keystores that do not answer, and since when.
    pub away: BTreeMap<String, Timestamp>,
    /// Since when the wall clock is in doubt.
    pub clock_paused: Option<Timestamp>,
    /// How much of the logs' disk is free, in percent, if that is so little that an operator should make room.
    pub disk_low: Option<u8>,
    /// Logs with records that no checkpoint covers, and since when there was no progress.
    pub uncovered: BTreeMap<&'static str, Timestamp>,
    /// Logs that take no records any more.
    pub dead_logs: BTreeSet<&'static str>,
}

/// Everything that is at risk at `now`: what endangers all keyrings first, then each keyring by name.
pub fn risks(keyrings: &Keyrings, now: Timestamp, facts: &Facts) -> Vec<Risk> {
    let mut found = common(keyrings, now, facts);
    for keyring in keyrings.all() {
        found.extend(overdue_withdrawals(keyring, now));
        found.extend(drifted(keyring).map(|(key, drift)| not_as_made(keyring, key, drift)));
        if let Some(in_force) = keyring.timing().filter(|_| keyring.retired.is_none()) {
            let look = Look { keyrings, keyring, timing: &in_force.timing, now };
            let rules = [
                look.nobody_signs(),
                look.signer_away(facts),
                look.suspended(),
                look.no_standby(),
                look.overdue(),
                look.too_old(),
                look.keystore_lost(facts),
            ];
            found.extend(rules.into_iter().flatten());
        }
    }
    found
}

/// What moves signing to a keystore that answers, where the key that signs lives in one that does not: a sentence with the command. `None`
/// where all is well, and where nothing would help.
pub fn rescue<T>(keyrings: &Keyrings, keyring: &Keyring, now: Timestamp, away: &BTreeMap<String, T>) -> Option<String> {
    let is_away = |key: &Key| away.contains_key(&key.keystore);
    keyring.active().filter(|key| is_away(key))?;
    let standby = keyrings.eligible_standby(keyring, now).filter(|key| !is_away(key))?;
    let name = &keyring.name;
    Some(format!("the standby in keystore {} may sign: `claviger keyring rotate {name}` moves signing there now", standby.keystore))
}

/// When the standby of a keyring was first published, if it has one: the oldest that is.
pub fn standby_since(keyring: &Keyring) -> Option<Timestamp> {
    keyring.pending().filter(|key| key.state == State::Published).map(Key::entered).min()
}

/// The keys of a keyring that should be in their keystore as they were made, and were last found not to be.
pub fn drifted(keyring: &Keyring) -> impl Iterator<Item = (&Key, &Drift)> {
    keyring.keys.iter().filter(|key| key.is_to_conform()).filter_map(|key| Some((key, key.drift.as_ref()?)))
}

/// How long the scheduled rotation of a keyring is overdue; zero if it is not due, or waits for an operator because the key is suspended.
pub fn overdue(keyring: &Keyring, now: Timestamp) -> Duration {
    let waits = keyring.retired.is_some() || keyring.current().is_none_or(|key| key.state == State::Suspended);
    keyring.next_rotation.filter(|_| !waits).map(|due| now.since(due)).unwrap_or_default()
}

fn common(keyrings: &Keyrings, now: Timestamp, facts: &Facts) -> Vec<Risk> {
    let risk = |code, detail: String, since| Risk { keyring: None, code, detail, since, until: None };
    let dead = facts.dead_logs.iter().map(|log| {
        let detail = format!("the log {log} takes no more records: nothing is signed and no key changes until the cause is gone and the daemon is started again");
        risk(Code::LogDead, detail, None)
    });
    let paused = facts.clock_paused.map(|since| {
        let detail =
            "the wall clock was stepped: no key comes, rotates or leaves until it is right again; see to the time service of the machine";
        risk(Code::ClockPaused, detail.to_owned(), Some(since))
    });
    let disk = facts.disk_low.map(|percent| {
        risk(Code::DiskLow, format!("{percent} % of the disk of the logs is free: make room, nothing is signed when it is full"), None)
    });
    let long = facts.uncovered.iter().filter(|(_, since)| now.since(**since) >= UNCOVERED_FOR);
    let uncovered = long.map(|(log, since)| {
        let detail =
            format!("the newest records of the log {log} are covered by no checkpoint: see whether the keystore of the log's key signs");
        risk(Code::LogUncovered, detail, Some(*since))
    });
    let full = sets(keyrings).into_iter().filter(|(_, (held, lives))| *held >= NEARLY_FULL && *lives).map(|(set, (held, _))| {
        let detail = format!(
            "the set {set} holds {held} keys of at most {MOST_KEYS_IN_SET}: at that size no next key is published in it; rotate less often, or \
             spread its keyrings over several issuers"
        );
        risk(Code::SetNearlyFull, detail, None)
    });
    dead.chain(paused).chain(disk).chain(uncovered).chain(full).collect()
}

/// How many keys each set holds, and whether some keyring of it is not retired; in one pass, for there may be ten thousand keyrings.
fn sets(keyrings: &Keyrings) -> BTreeMap<SetName, (usize, bool)> {
    let mut sets: BTreeMap<SetName, (usize, bool)> = BTreeMap::new();
    for keyring in keyrings.all() {
        for set in jwks::sets_of(keyring) {
            let (held, lives) = sets.entry(set).or_default();
            *held += keyring.published().count();
            *lives |= keyring.retired.is_none();
        }
    }
    sets
}

/// Keys that the plan should have withdrawn a tick ago.
fn overdue_withdrawals(keyring: &Keyring, now: Timestamp) -> Vec<Risk> {
    let late = |date: &Timestamp| now > *date + TICK;
    let dates = keyring.keys.iter().filter(|key| key.state == State::Retiring).filter_map(|key| key.withdraw_after);
    let risk = |due: Timestamp| Risk {
        keyring: Some(keyring.name.clone()),
        code: Code::WithdrawalOverdue,
        detail: format!("a key was to leave the JWKS at {due} and is still there"),
        since: Some(due),
        until: None,
    };
    dates.filter(late).min().map(risk).into_iter().collect()
}

/// What was found is the keystore's own words, and not for strangers.
fn not_as_made(keyring: &Keyring, key: &Key, drift: &Drift) -> Risk {
    let (kid, name) = (key.kid.as_deref().unwrap_or_default(), &keyring.name);
    let detail = format!(
        "key {kid} of {name} is not in its keystore what it was made as, or not there; it is used as before. `claviger key explain` says what \
         differs: find out who did it, and rotate or compromise the key"
    );
    Risk { keyring: Some(name.clone()), code: Code::KeyDrifted, detail, since: Some(drift.since), until: None }
}

/// One keyring that is not retired.
struct Look<'a> {
    keyrings: &'a Keyrings,
    keyring: &'a Keyring,
    timing: &'a Timing,
    now: Timestamp,
}

impl Look<'_> {
    fn risk(&self, code: Code, detail: String, since: Option<Timestamp>, until: Option<Timestamp>) -> Risk {
        Risk { keyring: Some(self.keyring.name.clone()), code, detail, since, until: until.filter(|date| *date > self.now) }
    }

    /// D + e + G: how long it takes to have a key that may sign, from nothing.
    fn provision(&self) -> Duration {
        self.keyring.lead_at(self.now).saturating_add(Duration::from_millis(self.timing.provisioning_budget_ms))
    }

    /// A new keyring has G for its first key; one that lost its key by a compromise has nobody from that moment on.
    fn nobody_signs(&self) -> Option<Risk> {
        if self.keyring.current().is_some() {
            return None;
        }
        let stopped = self.keyring.keys.iter().filter_map(|key| key.stopped).max();
        let created = self.keyring.timings.first()?.since + Duration::from_millis(self.timing.provisioning_budget_ms);
        let since = stopped.unwrap_or(created);
        let may_sign = self
            .next_eligible()
            .map_or_else(|| "no key that could is visible everywhere yet".to_owned(), |date| format!("the next key may from {date} on"));
        (self.now >= since)
            .then(|| self.risk(Code::NoSigner, format!("no key of {} signs; {may_sign}", self.keyring.name), Some(since), None))
    }

    fn signer_away(&self, facts: &Facts) -> Option<Risk> {
        let keystore = &self.keyring.active()?.keystore;
        let since = facts.away.get(keystore)?;
        let rescue = rescue(self.keyrings, self.keyring, self.now, &facts.away)?;
        let detail = format!("keystore {keystore} holds the key that signs for {} and does not answer; {rescue}", self.keyring.name);
        Some(self.risk(Code::SignerAway, detail, Some(*since), None))
    }

    fn suspended(&self) -> Option<Risk> {
        let key = self.keyring.current().filter(|key| key.state == State::Suspended)?;
        let detail = format!(
            "a key of {} is suspended: nothing is signed, and scheduled rotation waits; resume it, rotate or compromise it",
            self.keyring.name
        );
        Some(self.risk(Code::Suspended, detail, Some(key.entered()), None))
    }

    /// I5. The successor is requested at activation, so D + e + G later it must be there; one that an operator abandoned is missed at once.
    fn no_standby(&self) -> Option<Risk> {
        let current = self.keyring.current()?;
        if self.keyrings.eligible_standby(self.keyring, self.now).is_some() {
            return None;
        }
        let expected = current.activated? + self.provision();
        let histories = self.keyring.keys.iter().flat_map(|key| &key.history);
        let abandoned = histories.filter(|(_, _, state)| *state == State::Abandoned).map(|(_, date, _)| *date);
        let since = abandoned.fold(expected, Timestamp::max);
        if self.now < expected {
            return None;
        }
        let name = &self.keyring.name;
        let why = match (self.next_eligible(), standby_since(self.keyring)) {
            (Some(date), _) => format!("the standby may sign from {date} on"),
            (None, Some(_)) => "the standby is not yet served by every node".to_owned(),
            (None, None) => format!("keystore {} has not made one", self.keyring.next_keystore()),
        };
        Some(self.risk(
            Code::NoStandby,
            format!("no standby of {name} could take over now: {why}"),
            Some(since),
            self.keyring.next_rotation,
        ))
    }

    fn overdue(&self) -> Option<Risk> {
        let due = self.keyring.next_rotation?;
        if overdue(self.keyring, self.now) <= TICK {
            return None;
        }
        let detail = format!("the rotation of {} was due at {due} and has not happened; the old key signs on", self.keyring.name);
        Some(self.risk(Code::RotationOverdue, detail, Some(due), self.oldest()))
    }

    fn too_old(&self) -> Option<Risk> {
        let limit = self.oldest().filter(|limit| self.now > *limit)?;
        let age = self.now.since(self.keyring.active()?.activated?);
        let (age, due) = (Human(Duration::from_secs(age.as_secs())), Human(self.timing.rotate_every()));
        let detail = format!("the active key of {} signs for {age}, rotate_every is {due}; see why it was not rotated", self.keyring.name);
        Some(self.risk(Code::KeyTooOld, detail, Some(limit), None))
    }

    /// When the active key is older than L and the time in which a new one could have been made.
    fn oldest(&self) -> Option<Timestamp> {
        Some(self.keyring.active()?.activated? + self.timing.rotate_every() + self.provision())
    }

    fn keystore_lost(&self, facts: &Facts) -> Option<Risk> {
        let keystore = self.keyring.next_keystore();
        let since = facts.away.get(keystore)?;
        // Without a date the next key is needed now.
        let due = self.keyring.next_rotation;
        if due.is_some_and(|due| due > self.now + self.provision()) {
            return None;
        }
        let what = due.map_or_else(|| "and no key signs".to_owned(), |due| format!("and the next rotation is due at {due}"));
        let detail =
            format!("keystore {keystore} does not answer, {what}: no next key of {} can be made there, or sign", self.keyring.name);
        Some(self.risk(Code::KeystoreLost, detail, Some(*since), due))
    }

    /// When the first of the pending keys may sign.
    fn next_eligible(&self) -> Option<Timestamp> {
        self.keyring.pending().filter_map(|key| self.keyrings.eligible_at(self.keyring, key, self.now)).min()
    }
}
