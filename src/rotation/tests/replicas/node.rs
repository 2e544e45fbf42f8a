//! One replica: what it knows, and what it does when it wakes.
//!
//! In scope: planning and carrying out, compare-and-append, serving, and what a crash leaves. Out of scope: when it wakes
//! (`super::world`), and whether what it does is right (`super::properties`).

use claviger_audit::event::{ClockSettled, ClockStepped};

use super::*;

pub(super) struct Node {
    pub(super) name: &'static str,
    pub(super) alive: bool,
    pub(super) connected: bool,
    /// What it knows of the log: the first `size` records.
    pub(super) keyrings: Keyrings,
    pub(super) offset_ms: i64,
    pub(super) step_ms: i64,
    /// Both clocks at the start: wall and true.
    pub(super) started: (Timestamp, Timestamp),
    pub(super) stepped: bool,
    pub(super) lease: Lease,
    /// The true time of the last confirmation.
    pub(super) lease_from: Timestamp,
    pub(super) late: Duration,
    pub(super) notice: Option<Timestamp>,
    pub(super) wake: Option<Timestamp>,
    pub(super) unavailable: BTreeMap<String, Timestamp>,
    pub(super) refused: BTreeMap<KeyName, Timestamp>,
    /// Keystores in which a step of this node is under way; here a step takes no time.
    pub(super) busy: BTreeSet<String>,
    pub(super) bodies: BTreeMap<SetName, Vec<u8>>,
    /// For each keyring the key that may sign, T, and the deadline.
    pub(super) signing: [Option<(String, Duration, Duration)>; RINGS.len()],
    /// The latest time in its use log.
    pub(super) last_use: Timestamp,
    /// It dies at this effect, before (or after) it, and is back after a while.
    pub(super) doom: Option<(u32, bool, Duration)>,
    pub(super) down_since: Option<Timestamp>,
    /// A keystore keeps it waiting until then.
    pub(super) hangs_until: Timestamp,
}

impl Node {
    pub(super) fn new(name: &'static str, offset_ms: i64, now: Timestamp) -> Self {
        Self {
            name,
            alive: true,
            connected: true,
            keyrings: Keyrings::default(),
            offset_ms,
            step_ms: 0,
            started: (Timestamp::from_millis(now.millis() + offset_ms), now),
            stepped: false,
            lease: Lease::confirmed(Monotonic::at(Duration::ZERO)),
            lease_from: Timestamp::default(),
            late: Duration::ZERO,
            notice: None,
            wake: None,
            unavailable: BTreeMap::new(),
            refused: BTreeMap::new(),
            busy: BTreeSet::new(),
            bodies: BTreeMap::new(),
            signing: Default::default(),
            last_use: Timestamp::default(),
            doom: None,
            down_since: None,
            hangs_until: now,
        }
    }
}

/// What became of an append.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Appended {
    Yes,
    /// Others were faster: plan again.
    Stale,
    /// The log cannot be reached, or the process has died.
    No,
}

impl World<'_> {
    pub(super) fn wall(&self, node: usize) -> Timestamp {
        let node = &self.nodes[node];
        Timestamp::from_millis(self.now.millis() + node.offset_ms + node.step_ms)
    }

    pub(super) fn readings(&self, node: usize) -> Readings {
        let (started, since) = self.nodes[node].started;
        Readings { started, passed: self.now.since(since), wall: self.wall(node) }
    }

    fn recorded(&self, node: usize) -> Timestamp {
        self.nodes[node].keyrings.last_time().max(self.nodes[node].last_use)
    }

    pub(super) fn gate(&self, node: usize) -> DateGate {
        if self.nodes[node].stepped {
            return DateGate::Paused;
        }
        let timings = self.nodes[node].keyrings.all().filter_map(Keyring::timing).map(|in_force| in_force.timing.lead());
        self.machine.gate(&self.readings(node), SKEW, timings.max().unwrap_or_default(), self.recorded(node))
    }

    fn knows<T>(&self, node: usize, ask: impl FnOnce(&Knows<'_>) -> T) -> T {
        let dates = self.gate(node);
        let now = self.wall(node).max(self.nodes[node].keyrings.last_time());
        let Node { keyrings, unavailable, refused, busy, .. } = &self.nodes[node];
        let claim = u32::try_from(self.records.len()).unwrap_or_default() * 4 + u32::try_from(node).unwrap_or_default();
        ask(&Knows { keyrings, now, conditions: Conditions { unavailable, refused, busy, dates, claim } })
    }

    /// Reads what others wrote. The answer confirms the head, unless the node's own clock is in doubt.
    pub(super) fn learn(&mut self, node: usize) -> Result<(), Caught> {
        self.nodes[node].notice = None;
        while let Some(record) = self.records.get(self.known(node)) {
            self.nodes[node].keyrings.apply(record).map_err(|illegal| Caught::illegal(&illegal))?;
        }
        self.confirm(node);
        self.watch_signers(node);
        Ok(())
    }

    pub(super) fn known(&self, node: usize) -> usize {
        usize::try_from(self.nodes[node].keyrings.size()).expect("small")
    }

    /// Compare-and-append: the store takes nothing from a node that does not know the newest record, or whose clock is not the store's.
    pub(super) fn append(&mut self, node: usize, event: Event) -> Result<Appended, Caught> {
        let replicas = self.nodes.len() > 1;
        if !self.nodes[node].alive || !self.nodes[node].connected || self.dies(node, true) {
            return Ok(Appended::No);
        }
        if self.known(node) < self.records.len() {
            self.counts.stale += 1;
            self.learn(node)?;
            return Ok(Appended::Stale);
        }
        let time = self.wall(node).max(self.nodes[node].keyrings.last_time());
        if replicas && (time.millis() - self.now.millis()).unsigned_abs() > SKEW_MS {
            return Ok(Appended::No);
        }
        {
            let event = self.machine.event(&self.nodes[node].keyrings, event);
            let record = Record {
                log: LogKind::Keys,
                seq: self.nodes[node].keyrings.size(),
                time,
                prev: Hash::from([0; 32]),
                durable: 0,
                node: self.nodes[node].name.to_owned(),
                boot: "test".to_owned(),
                asked: Asked { caller: self.caller.map(str::to_owned), ..Asked::default() },
                event,
            };
            self.moves_to_a_living_keystore(node, &record.event)?;
            self.nodes[node].keyrings.apply(&record).map_err(|illegal| Caught::illegal(&illegal))?;
            self.records.push(record);
            self.times.push(self.now);
        }
        self.watch_signers(node);
        let (now, name) = (self.now, self.nodes[node].name);
        for other in self.nodes.iter_mut().filter(|other| other.name != name) {
            let notice = now + other.late.min(POLL);
            other.notice = Some(other.notice.map_or(notice, |earlier| earlier.min(notice)));
        }
        self.dies(node, false);
        Ok(Appended::Yes)
    }

    /// Signing never goes by itself from a keystore that answers to one that does not.
    fn moves_to_a_living_keystore(&self, node: usize, event: &Event) -> Result<(), Caught> {
        let Event::KeyRotated(e) = event else { return Ok(()) };
        let keyrings = &self.nodes[node].keyrings;
        let of = |kid: &String| keyrings.key(kid).map(|(_, key)| key.keystore.clone());
        let (from, to) = (e.from.as_ref().and_then(of), of(&e.to));
        let dies = from.is_some_and(|from| !self.stores.is_down(&from)) && to.is_some_and(|to| self.stores.is_down(&to));
        let by_itself = e.reason == claviger_audit::event::RotationReason::Scheduled;
        holds(!(dies && by_itself), "keystores: a rotation into one that does not answer", || e.keyring.clone())
    }

    /// Counts one effect; whether the node is dead now. The process dies between two effects, whatever they are.
    fn dies(&mut self, node: usize, before: bool) -> bool {
        let Some((left, at_begin, seconds)) = self.nodes[node].doom else { return false };
        if at_begin != before {
            return false;
        }
        if left > 0 {
            self.nodes[node].doom = Some((left - 1, at_begin, seconds));
            return false;
        }
        self.crash(node, seconds);
        true
    }

    /// Does everything that is due, as the rotator's loop does: a step, then serve, until there is nothing.
    pub(super) fn settle(&mut self, node: usize) -> Result<(), Caught> {
        if self.now < self.nodes[node].hangs_until {
            self.nodes[node].wake = Some(self.nodes[node].hangs_until);
            return Ok(());
        }
        for _ in 0..MOST_STEPS {
            if !self.nodes[node].alive {
                return Ok(());
            }
            self.watch_clock(node)?;
            let step = self.knows(node, |knows| self.machine.plan(knows));
            let done = match step {
                Plan::SleepUntil(wake) => {
                    let late = wake.filter(|wake| *wake <= self.knows(node, |knows| knows.now));
                    holds(late.is_none(), "I9: a wake that is not in the future", || format!("{late:?}"))?;
                    if self.serve(node)? {
                        continue;
                    }
                    self.rest(node, wake);
                    return Ok(());
                }
                Plan::Append(event) => self.append(node, event)?,
                Plan::Create { name, keystore, .. } => self.create(node, name, &keystore)?,
                Plan::Destroy { name, keystore, .. } => self.destroy(node, name, &keystore)?,
            };
            self.serve(node)?;
            if done == Appended::No {
                let hangs = self.nodes[node].hangs_until;
                self.rest(node, None);
                self.nodes[node].wake = self.nodes[node].wake.into_iter().chain((hangs > self.now).then_some(hangs)).min();
                return Ok(());
            }
        }
        Err(Caught::new(
            "I9: a busy loop",
            format!("node {node} at {}: {:?}", self.now, self.knows(node, |knows| self.machine.plan(knows))),
        ))
    }

    /// Rests until its plan's date, or until the log's time no longer runs ahead of its clock.
    fn rest(&mut self, node: usize, wake: Option<Timestamp>) {
        let shift = self.nodes[node].offset_ms + self.nodes[node].step_ms;
        let moment = |wall: Timestamp| Timestamp::from_millis(wall.millis() - shift);
        let ahead = Some(moment(self.recorded(node) - SKEW)).filter(|at| *at > self.now);
        let plan = wake.map(|wake| moment(wake).max(self.now + MILLISECOND));
        let hurry = self.hurry_until(node).map(moment).filter(|at| *at > self.now);
        self.nodes[node].wake = plan.into_iter().chain(ahead).chain(hurry).min();
        self.watch_signers(node);
    }

    fn watch_clock(&mut self, node: usize) -> Result<(), Caught> {
        let readings = self.readings(node);
        let stepped = self.machine.is_stepped(&readings, SKEW);
        if std::mem::replace(&mut self.nodes[node].stepped, stepped) == stepped {
            return Ok(());
        }
        let difference_ms = readings.difference_ms();
        let event = if stepped {
            Event::ClockStepped(ClockStepped { keyring_skew_ms: SKEW_MS, difference_ms })
        } else {
            Event::ClockSettled(ClockSettled { difference_ms })
        };
        if self.append(node, event.clone())? == Appended::Stale {
            self.append(node, event)?;
        }
        Ok(())
    }

    fn create(&mut self, node: usize, name: KeyName, keystore: &str) -> Result<Appended, Caught> {
        let requested = self.records.iter().any(|record| matches!(&record.event, Event::KeyRequested(e) if e.key == name));
        holds(requested, "orphans: a key that no record names", || name.to_string())?;
        if let Some(refused) = self.is_stale(node)? {
            return Ok(refused);
        }
        if self.dies(node, true) {
            return Ok(Appended::No);
        }
        let answer = self.stores.create(keystore, &name);
        if self.dies(node, false) {
            return Ok(Appended::No);
        }
        if !self.answered(node, keystore, &name, answer) {
            let hangs = self.now < self.nodes[node].hangs_until;
            return Ok(if hangs { Appended::No } else { Appended::Yes });
        }
        let jwk = public_key(&name);
        let (kid, locator) = (jwk.thumbprint(), name.to_string());
        let created = KeyCreated { key: name, kid, jwk, locator, attributes: BTreeMap::new(), backend_request: None, self_test: None };
        self.append(node, Event::KeyCreated(created))
    }

    /// A replica asks a keystore only while it knows the newest record: else it makes keys that others have given up, and nobody would
    /// destroy them.
    fn is_stale(&mut self, node: usize) -> Result<Option<Appended>, Caught> {
        if !self.nodes[node].connected {
            return Ok(Some(Appended::No));
        }
        let stale = self.known(node) < self.records.len();
        if stale {
            self.learn(node)?;
        }
        Ok(stale.then_some(Appended::Stale))
    }

    fn destroy(&mut self, node: usize, name: KeyName, keystore: &str) -> Result<Appended, Caught> {
        if let Some(refused) = self.is_stale(node)? {
            return Ok(refused);
        }
        if self.dies(node, true) {
            return Ok(Appended::No);
        }
        let answer = self.stores.destroy(keystore, &name);
        if self.dies(node, false) {
            return Ok(Appended::No);
        }
        if !self.answered(node, keystore, &name, answer) {
            let hangs = self.now < self.nodes[node].hangs_until;
            return Ok(if hangs { Appended::No } else { Appended::Yes });
        }
        self.append(node, Event::KeyDestroyed(KeyDestroyed { key: name, deleted_on: None }))
    }

    /// What the node makes of a keystore's answer, as the rotator does.
    fn answered(&mut self, node: usize, keystore: &str, name: &KeyName, answer: Answer) -> bool {
        let again = self.knows(node, |knows| knows.now) + self.stores.pause(keystore);
        if self.stores.troubles.get(keystore) == Some(&Trouble::Hangs) {
            self.nodes[node].hangs_until = self.now + HANG;
        }
        let node = &mut self.nodes[node];
        match answer {
            Answer::Done => drop(node.unavailable.remove(keystore)),
            Answer::Refused => drop(node.refused.insert(name.clone(), again)),
            Answer::Nothing => drop(node.unavailable.insert(keystore.to_owned(), again)),
        }
        answer == Answer::Done
    }

    /// Swaps in what the node's newest snapshot says, then records each change; whether something changed.
    pub(super) fn serve(&mut self, node: usize) -> Result<bool, Caught> {
        if !self.nodes[node].alive {
            return Ok(false);
        }
        let lease = self.nodes[node].lease;
        if self.nodes.len() > 1 && !self.timings_of(node).iter().all(|t| self.machine.may_serve(lease, self.monotonic(), t)) {
            self.views.stop(node, self.now);
            return Ok(false);
        }
        let ready = self.knows(node, |knows| self.machine.sets(knows));
        let served: BTreeSet<SetName> = self.nodes[node].bodies.keys().cloned().chain(ready).collect();
        let mut changed = Vec::new();
        for set in served {
            let before = self.nodes[node].bodies.get(&set).map(Vec::as_slice);
            let size = self.nodes[node].keyrings.size();
            let body = self.machine.body(self.nodes[node].name, &self.nodes[node].keyrings, &set, before);
            let clock_is_right = self.nodes[node].step_ms == 0;
            let life = self.machine.cache_life(&self.nodes[node].keyrings, &set);
            let max_age = Duration::from_secs(life.emitted(self.wall(node), 0));
            self.views.serve((node, set.clone()), self.now, &Served { body: &body, max_age, size, clock_is_right }, self.timings())?;
            let sha256 = Hash::from(<[u8; 32]>::from(Sha256::digest(&body)));
            self.nodes[node].bodies.insert(set.clone(), body);
            if self.nodes[node].keyrings.served(self.nodes[node].name, &set).is_none_or(|served| served.sha256 != sha256) {
                changed.push(Event::JwksServed(JwksServed { set: set.to_string(), size, sha256 }));
            }
        }
        let mut recorded = false;
        for event in changed {
            match self.append(node, event)? {
                Appended::Yes => recorded = true,
                // Others wrote meanwhile: the next round serves and records the newer body.
                Appended::Stale => return Ok(true),
                Appended::No => return Ok(false),
            }
        }
        Ok(recorded)
    }

    fn hurry_until(&self, node: usize) -> Option<Timestamp> {
        let keyrings = &self.nodes[node].keyrings;
        keyrings.sets().iter().filter_map(|set| self.machine.cache_life(keyrings, set).hurry_until).max()
    }

    pub(super) fn timings_of(&self, node: usize) -> Vec<Timing> {
        self.nodes[node].keyrings.all().filter_map(Keyring::timing).map(|in_force| in_force.timing).collect()
    }
}
