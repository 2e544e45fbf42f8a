//! The world: one true time, nodes with clocks of their own, one shared log, keystores, operators and faults.
//!
//! In scope: when everything happens. Every node hears of a record by a notification that may be late, and by polling at the latest; one
//! that is cut off hears nothing. Out of scope: what a node does then (`super::node`).

use super::*;

const NAMES: [&str; 3] = ["a", "b", "c"];

/// A fault that ends by itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Heal {
    Start(usize),
    Connect(usize),
    Clock(usize),
    Store(usize),
}

pub(super) struct World<'m> {
    pub(super) machine: &'m dyn Machine,
    /// The true time, and the store's.
    pub(super) now: Timestamp,
    pub(super) records: Vec<Record>,
    /// The true time of each record.
    pub(super) times: Vec<Timestamp>,
    pub(super) nodes: Vec<Node>,
    pub(super) stores: Keystores,
    wishes: Vec<KeyringWish>,
    pub(super) caller: Option<&'static str>,
    pub(super) views: Views,
    pub(super) tokens: Vec<Token>,
    pub(super) outages: Vec<Outage>,
    heals: BTreeSet<(Timestamp, Heal)>,
    pub(super) counts: Counts,
}

impl<'m> World<'m> {
    /// Two keyrings of one issuer, just configured; nothing has happened yet.
    pub(super) fn new(machine: &'m dyn Machine, offsets_ms: &[i64]) -> Result<Self, Caught> {
        let now: Timestamp = "2026-01-01T00:00:00.000Z".parse().expect("a time");
        let replicas = offsets_ms.len() > 1;
        let wish =
            |(ring, store): (&&str, &&str)| KeyringWish { timing: variant(0, replicas), keystore: (*store).to_owned(), ..wish(ring) };
        let mut world = Self {
            machine,
            now,
            records: Vec::new(),
            times: Vec::new(),
            nodes: offsets_ms.iter().zip(NAMES).map(|(offset_ms, name)| Node::new(name, *offset_ms, now)).collect(),
            stores: Keystores::default(),
            wishes: RINGS.iter().zip(STORES.iter()).map(wish).collect(),
            caller: None,
            views: Views::default(),
            tokens: Vec::new(),
            outages: Vec::new(),
            heals: BTreeSet::new(),
            counts: Counts::default(),
        };
        world.write(0, log_created())?;
        for node in 0..world.nodes.len() {
            world.write(node, started())?;
        }
        world.reconcile()?;
        world.run(Duration::ZERO)?;
        Ok(world)
    }

    /// Every monotonic clock, for simplicity one.
    pub(super) fn monotonic(&self) -> Monotonic {
        Monotonic::at(Duration::from_millis(u64::try_from(self.now.millis()).expect("after 1970")))
    }

    /// The settings that verifiers live by now.
    pub(super) fn timings(&self) -> [Timing; RINGS.len()] {
        std::array::from_fn(|ring| self.wishes[ring].timing)
    }

    /// Writes as soon as the node knows the newest record.
    fn write(&mut self, node: usize, event: Event) -> Result<(), Caught> {
        if self.append(node, event.clone())? == Appended::Stale {
            self.append(node, event)?;
        }
        Ok(())
    }

    /// Lets time pass, waking each node whenever something of it is due.
    pub(super) fn run(&mut self, span: Duration) -> Result<(), Caught> {
        let end = self.now + span;
        loop {
            self.wake_all()?;
            let next = self.next();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.pass(next.max(self.now));
        }
        self.pass(end);
        self.wake_all()
    }

    /// Nothing happens in between, but nodes go on polling.
    fn pass(&mut self, to: Timestamp) {
        self.now = to;
        (0..self.nodes.len()).filter(|node| self.nodes[*node].alive).collect::<Vec<_>>().into_iter().for_each(|node| self.confirm(node));
    }

    /// The next moment at which anything is due.
    fn next(&self) -> Option<Timestamp> {
        let heal = self.heals.first().map(|(at, _)| *at);
        let nodes = (0..self.nodes.len()).filter(|node| self.nodes[*node].alive).flat_map(|node| {
            let this = &self.nodes[node];
            let notice = this.notice.filter(|_| this.connected);
            [notice, this.wake].into_iter().flatten().chain(self.lease_ends(node))
        });
        heal.into_iter().chain(nodes).filter(|at| *at > self.now || self.is_due(*at)).min()
    }

    fn is_due(&self, at: Timestamp) -> bool {
        at <= self.now && self.nodes.iter().any(|node| node.alive && node.connected && node.notice.is_some_and(|notice| notice <= self.now))
    }

    /// When a node that is cut off must stop signing, and serving.
    fn lease_ends(&self, node: usize) -> Vec<Timestamp> {
        if self.nodes[node].connected && !self.nodes[node].stepped || self.nodes.len() == 1 {
            return Vec::new();
        }
        let asked = self.nodes[node].lease_from;
        let ends = self
            .timings_of(node)
            .into_iter()
            .flat_map(|timing| [Duration::from_millis(timing.signing_lease_ms), lease::serve_lease(&timing)]);
        ends.map(|span| asked + span + MILLISECOND).filter(|at| *at > self.now).collect()
    }

    /// Everything that is due now, on every node, until nothing is.
    fn wake_all(&mut self) -> Result<(), Caught> {
        while let Some((at, heal)) = self.heals.first().cloned().filter(|(at, _)| *at <= self.now) {
            self.heals.remove(&(at, heal.clone()));
            self.heal(&heal)?;
        }
        for _ in 0..MOST_STEPS {
            let mut quiet = true;
            for node in 0..self.nodes.len() {
                if !self.nodes[node].alive {
                    continue;
                }
                let hears = self.nodes[node].connected && self.nodes[node].notice.is_some_and(|notice| notice <= self.now);
                if hears {
                    self.learn(node)?;
                    quiet = false;
                }
                self.settle(node)?;
                if self.nodes[node].alive {
                    self.watch_signers(node);
                }
            }
            if quiet {
                return Ok(());
            }
        }
        Err(Caught::new("I9: a busy loop", format!("at {}: nodes answer each other without end", self.now)))
    }

    /// A node that hears and knows all confirms the head again and again, unless its clock is in doubt.
    pub(super) fn confirm(&mut self, node: usize) {
        let (now, monotonic, knows_all) = (self.now, self.monotonic(), self.known(node) == self.records.len());
        let this = &mut self.nodes[node];
        if this.connected && this.step_ms == 0 && knows_all {
            (this.lease, this.lease_from) = (Lease::confirmed(monotonic), now);
        }
    }

    pub(super) fn perform(&mut self, action: &Action) -> Result<(), Caught> {
        let nodes = self.nodes.len();
        match *action {
            Action::Wait(seconds) => self.run(Duration::from_secs(seconds))?,
            Action::ToNextDate(before) => {
                let next = self.next().unwrap_or(self.now);
                self.run(next.since(self.now + Duration::from_millis(before)))?;
            }
            Action::Store { store, .. } if self.stores.lost == Some(STORES[store]) => {}
            Action::Store { store, trouble, seconds } => self.trouble(store, trouble, Duration::from_secs(seconds)),
            // While its clock is in doubt an operator's node ends no key's signing by a date.
            Action::Rotate { .. } | Action::Retire if (0..nodes).any(|node| self.answers(node) && self.gate(node) == DateGate::Paused) => {}
            Action::Rotate { ring, force } => {
                self.order(|keyrings, now| verbs::rotate(keyrings, now, RINGS[ring], force.then_some("drill")))?;
            }
            Action::Compromise { ring, key } => {
                self.order(|keyrings, now| verbs::compromise(keyrings, now, &nth(keyrings, RINGS[ring], key), now, "leaked"))?;
            }
            Action::Suspend(ring) => self.order(|keyrings, _| verbs::suspend(keyrings, &current(keyrings, RINGS[ring]), "doubt"))?,
            Action::Resume(ring) => self.order(|keyrings, _| verbs::resume(keyrings, &current(keyrings, RINGS[ring]), "cleared"))?,
            Action::Abandon { ring, key } => {
                self.order(|keyrings, _| verbs::abandon(keyrings, &nth(keyrings, RINGS[ring], key), "unwanted"))?;
            }
            // A replica that is cut off goes on with the old A, and the log does not know that: settings do not change meanwhile.
            Action::Settings { .. } if self.nodes.iter().any(|node| !node.connected) => {}
            Action::Settings { ring, variant: index } => self.wish(ring, |wish| wish.timing = variant(index, nodes > 1))?,
            Action::Move { keystore, .. } if self.stores.lost == Some(STORES[keystore]) => {}
            Action::Move { ring, keystore } => self.wish(ring, |wish| {
                let before = std::mem::replace(&mut wish.keystore, STORES[keystore].to_owned());
                wish.standby_keystore = wish.standby_keystore.take().map(|other| if other == wish.keystore { before } else { other });
            })?,
            Action::Standby(_) | Action::Lose(_) if self.stores.lost.is_some() => {}
            Action::Standby(ring) => self.wish(ring, |wish| {
                let other = STORES.into_iter().find(|other| *other != wish.keystore);
                wish.standby_keystore = if wish.standby_keystore.is_some() { None } else { other.map(str::to_owned) };
            })?,
            Action::Lose(store) => self.lose(STORES[store])?,
            Action::Retire => self.order(|keyrings, now| verbs::retire(keyrings, now, "other", "done"))?,
            Action::Crash { node, effects, before, seconds } => {
                self.nodes[node % nodes].doom.get_or_insert((effects, before, Duration::from_secs(seconds)));
            }
            Action::Stop { node, seconds } => self.stop(node % nodes, Duration::from_secs(seconds))?,
            Action::CutOff { node, seconds } => self.cut_off(node % nodes, Duration::from_secs(seconds)),
            Action::Deaf { node, late_ms } => self.nodes[node % nodes].late = Duration::from_millis(late_ms),
            Action::Step { node, seconds, lasts } => self.step_clock(node % nodes, seconds, Duration::from_secs(lasts))?,
        }
        self.run(Duration::ZERO)
    }

    /// A keystore fails for a while, and every node notices.
    fn trouble(&mut self, store: usize, trouble: Trouble, lasts: Duration) {
        let until = self.now + lasts;
        self.stores.troubles.insert(STORES[store].to_owned(), trouble);
        self.heals.insert((until, Heal::Store(store)));
        // Who is told at once that it is back may be a tick away from looking.
        self.outages.push(Outage::of_keystore(self.now - SKEW, until + SKEW));
        self.notice();
    }

    /// Every node asks each keystore every few seconds whether it answers.
    pub(super) fn notice(&mut self) {
        for node in 0..self.nodes.len() {
            let now = self.wall(node).max(self.nodes[node].keyrings.last_time());
            for store in self.stores.down() {
                let again = now + self.stores.pause(store);
                self.nodes[node].unavailable.entry(store.to_owned()).or_insert(again);
            }
        }
    }

    /// A keystore is gone for good. An operator rotates what signed with it, where a standby elsewhere may sign; then every keyring does
    /// without it.
    fn lose(&mut self, store: &'static str) -> Result<(), Caught> {
        self.stores.lost = Some(store);
        self.stores.troubles.insert(store.to_owned(), Trouble::Down);
        self.outages.push(Outage::of_keystore(self.now - SKEW, Timestamp::LATEST));
        self.notice();
        for ring in RINGS {
            let Some(node) = (0..self.nodes.len()).find(|node| self.answers(*node)) else { break };
            self.learn(node)?;
            let now = self.wall(node).max(self.nodes[node].keyrings.last_time());
            let saved = |keyrings: &Keyrings| {
                let keyring = keyrings.keyring(ring)?;
                keyring.current().filter(|key| key.keystore == store)?;
                keyrings.eligible_standby(keyring, now).filter(|key| key.keystore != store).map(drop)
            };
            if saved(&self.nodes[node].keyrings).is_none() || self.gate(node) == DateGate::Paused {
                continue;
            }
            self.order(|keyrings, now| verbs::rotate(keyrings, now, ring, None))?;
            if let Some(keyring) = self.nodes[node].keyrings.keyring(ring).filter(|_| self.answers(node)) {
                let signs = keyring.active().is_some_and(|key| key.keystore != store);
                holds(signs, "keystores: a loss was not survived", || format!("{ring} without {store}"))?;
                self.counts.rescues += 1;
            }
        }
        self.do_without_lost()
    }

    /// Every keyring is to have its keys in the keystore that is left.
    fn do_without_lost(&mut self) -> Result<(), Caught> {
        let Some(left) = self.stores.lost.and_then(|lost| STORES.into_iter().find(|store| *store != lost)) else { return Ok(()) };
        (0..RINGS.len()).try_for_each(|ring| {
            self.wish(ring, |wish| {
                wish.standby_keystore = None;
                left.clone_into(&mut wish.keystore);
            })
        })
    }

    /// A verb goes to the first node that answers; one that is refused changes nothing, one that is allowed must be legal.
    fn order(&mut self, verb: impl FnOnce(&Keyrings, Timestamp) -> Result<Vec<Event>, Illegal>) -> Result<(), Caught> {
        let Some(node) = (0..self.nodes.len()).find(|node| self.answers(*node)) else { return Ok(()) };
        self.learn(node)?;
        let now = self.wall(node).max(self.nodes[node].keyrings.last_time());
        let events = verb(&self.nodes[node].keyrings, now).unwrap_or_default();
        self.caller = Some("operator");
        for event in events {
            self.append(node, event)?;
        }
        self.caller = None;
        Ok(())
    }

    fn answers(&self, node: usize) -> bool {
        let this = &self.nodes[node];
        this.alive && this.connected && (self.nodes.len() == 1 || this.step_ms == 0)
    }

    fn wish(&mut self, ring: usize, change: impl FnOnce(&mut KeyringWish)) -> Result<(), Caught> {
        let before = self.wishes.clone();
        change(&mut self.wishes[ring]);
        let size = self.records.len();
        self.reconcile()?;
        if self.records.len() == size {
            self.wishes = before;
        }
        Ok(())
    }

    fn reconcile(&mut self) -> Result<(), Caught> {
        let Some(node) = (0..self.nodes.len()).find(|node| self.answers(*node)) else { return Ok(()) };
        self.learn(node)?;
        let keyrings = &self.nodes[node].keyrings;
        let living = |wish: &&KeyringWish| keyrings.keyring(&wish.name).is_none_or(|keyring| keyring.retired.is_none());
        let living: Vec<KeyringWish> = self.wishes.iter().filter(living).cloned().collect();
        for event in reconcile(keyrings, &living).expect("no conflict") {
            self.append(node, event)?;
        }
        Ok(())
    }

    pub(super) fn crash(&mut self, node: usize, seconds: Duration) {
        self.last_tokens(node);
        self.counts.crashes += 1;
        self.fall(node, seconds);
    }

    fn stop(&mut self, node: usize, seconds: Duration) -> Result<(), Caught> {
        if !self.answers(node) || self.nodes[node].stepped {
            return Ok(());
        }
        self.write(node, Event::DaemonStop(DaemonStop { reason: "test".to_owned() }))?;
        if self.nodes[node].alive {
            self.last_tokens(node);
            self.fall(node, seconds);
        }
        Ok(())
    }

    fn fall(&mut self, node: usize, seconds: Duration) {
        self.views.stop(node, self.now);
        let this = &mut self.nodes[node];
        (this.alive, this.doom, this.wake, this.down_since) = (false, None, None, Some(self.now));
        this.signing = Default::default();
        self.heals.insert((self.now + seconds, Heal::Start(node)));
    }

    fn cut_off(&mut self, node: usize, seconds: Duration) {
        if self.nodes.len() > 1 && self.nodes[node].connected {
            self.nodes[node].connected = false;
            self.outage(self.now, self.now + seconds);
            self.heals.insert((self.now + seconds, Heal::Connect(node)));
        }
    }

    fn step_clock(&mut self, node: usize, seconds: i64, lasts: Duration) -> Result<(), Caught> {
        if !self.nodes[node].alive || self.nodes[node].step_ms != 0 {
            return Ok(());
        }
        self.last_tokens(node);
        self.nodes[node].step_ms = seconds * 1000;
        let ahead = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
        self.outage(self.now, self.now + lasts + ahead + SKEW);
        self.heals.insert((self.now + lasts, Heal::Clock(node)));
        self.settle(node)
    }

    fn heal(&mut self, heal: &Heal) -> Result<(), Caught> {
        match *heal {
            Heal::Start(node) => self.start(node)?,
            Heal::Connect(node) => self.nodes[node].connected = true,
            Heal::Clock(node) => {
                if self.nodes[node].alive {
                    self.last_tokens(node);
                }
                self.nodes[node].step_ms = 0;
            }
            Heal::Store(store) if self.stores.lost == Some(STORES[store]) => {}
            Heal::Store(store) => {
                self.stores.troubles.remove(STORES[store]);
                for node in &mut self.nodes {
                    node.unavailable.remove(STORES[store]);
                }
            }
        }
        let (now, connected) = (self.now, matches!(heal, Heal::Connect(_)));
        for node in self.nodes.iter_mut().filter(|_| connected) {
            node.notice = Some(now);
        }
        Ok(())
    }

    /// The node reads the whole log, says that it started, and serves what was served before.
    fn start(&mut self, node: usize) -> Result<(), Caught> {
        // Clocks are right again after a boot: nothing could tell a wrong one from the log.
        self.nodes[node].step_ms = 0;
        let (wall, now) = (self.wall(node), self.now);
        let down_since = self.nodes[node].down_since.take().unwrap_or(now);
        let this = &mut self.nodes[node];
        (this.alive, this.stepped, this.started, this.hangs_until) = (true, false, (wall, now), now);
        (this.unavailable, this.refused) = (BTreeMap::new(), BTreeMap::new());
        self.notice();
        let this = &mut self.nodes[node];
        if !this.connected {
            // Without the store there is no log to start from.
            self.fall(node, POLL);
            self.nodes[node].down_since = Some(down_since);
            return Ok(());
        }
        self.learn(node)?;
        self.nodes[node].bodies = self.served_before(node);
        self.write(node, started())?;
        // The hold goes by the settings in force, which may change meanwhile: never less than the shortest lead, never more than the longest.
        let (least, most) = leads(self.nodes.len() > 1);
        let started = self.wall(node).max(self.nodes[node].keyrings.last_time());
        let down_since = Timestamp::from_millis(down_since.millis() + self.nodes[node].offset_ms);
        // Others go on without this node, on clocks of their own; alone, what fell due in the gap is held (I12).
        let alone = self.nodes.len() == 1;
        let (from, held) = if alone { (down_since, self.wall(node)) } else { (down_since - SKEW, Timestamp::default()) };
        self.outages.push(Outage::of_all(from, held, self.wall(node) + least));
        self.outages.push(Outage::of_all(from, Timestamp::default(), started + most));
        self.settle(node)
    }

    fn served_before(&self, node: usize) -> BTreeMap<SetName, Vec<u8>> {
        let keyrings = &self.nodes[node].keyrings;
        let sets = keyrings.sets().into_iter().filter(|set| keyrings.was_served(set));
        let old = &self.nodes[node].bodies;
        sets.map(|set| (set.clone(), old.get(&set).cloned().unwrap_or_default())).collect()
    }

    /// In this time, and until the dates that were held count again, nothing has to happen on time.
    fn outage(&mut self, from: Timestamp, until: Timestamp) {
        let (_, lead) = leads(self.nodes.len() > 1);
        self.outages.push(Outage::of_all(from - SKEW, Timestamp::default(), until + lead + SKEW));
    }

    /// No more faults, for long enough that every keyring must sign and rotate again.
    pub(super) fn recover(&mut self) -> Result<(), Caught> {
        self.nodes.iter_mut().for_each(|node| node.doom = None);
        while let Some((last, _)) = self.heals.last().cloned() {
            self.run(last.since(self.now))?;
        }
        let ahead = self.records.last().map_or(self.now, |record| record.time);
        self.run(ahead.since(self.now) + POLL)?;
        self.do_without_lost()?;
        (0..RINGS.len()).try_for_each(|ring| self.perform(&Action::Resume(ring)))?;
        self.run(2 * DAY + 2 * HOUR)
    }
}

/// Settings that hold, one of them with a longer lead, one with a longer token life.
pub(super) fn variant(index: usize, replicas: bool) -> Timing {
    timing(|s| {
        s.rotate_every = DAY;
        s.destroy_after = HOUR;
        s.signing_lease = if replicas { Duration::from_secs(10) } else { Duration::ZERO };
        match index {
            1 => s.verifier_poll = 40 * MINUTE,
            2 => s.life = super::super::super::timing::SignatureLife::TokenTtl(120 * MINUTE),
            3 => (s.verifier_poll, s.jwks_max_age, s.jwks_stale, s.rotate_every) = (MINUTE, MINUTE, MINUTE, DAY / 2),
            _ => {}
        }
    })
}

/// The shortest and the longest D + e of all settings here.
fn leads(replicas: bool) -> (Duration, Duration) {
    let leads = (0..4).map(|index| variant(index, replicas).lead());
    leads.fold((Duration::MAX, Duration::ZERO), |(least, most), lead| (least.min(lead), most.max(lead)))
}

fn log_created() -> Event {
    Story::new().records[0].event.clone()
}

fn started() -> Event {
    Event::DaemonStart(DaemonStart { version: "0".to_owned(), unclean: false, in_flight: 0 })
}
