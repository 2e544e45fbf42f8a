//! Every interleaving of a small world: one keyring, two replicas, at most one crash and one compromise, a handful of ticks.
//!
//! In scope: a breadth-first walk over cloned states, with the safety properties asked in each. Anything may happen in any order and as
//! late as it likes: a node hears, plans, makes a key, records it, serves, records what it serves, dies and starts again; the compromise
//! comes; time passes. Out of scope: clocks that differ, slow keystores and liveness, which the random schedules cover.

use std::collections::{HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::rc::Rc;

use super::mutants::Mutant;
use super::*;

/// How far time goes at once: half the life of a key, and more than half of its lead and of its overlap.
const STEP: Duration = Duration::from_secs(86);
/// Enough for a rotation and the withdrawal that follows it.
const LAST_TICK: u32 = 4;
/// More states than the model has; more of them would mean that it is not bounded.
const MOST_STATES: usize = 200_000;

type Kids = Rc<BTreeSet<String>>;

#[derive(Clone)]
struct Replica {
    alive: bool,
    knows: Rc<Keyrings>,
    past: u64,
    /// When the first record was written that it does not know.
    behind_since: Option<u32>,
    served: Option<(Rc<Vec<u8>>, Kids)>,
    /// A key that its keystore has made, and no record says so yet.
    made: Option<KeyName>,
}

#[derive(Clone)]
struct Model {
    last_tick: u32,
    tick: u32,
    log: Rc<Keyrings>,
    /// The summary of the log.
    past: u64,
    replicas: [Replica; 2],
    /// What verifiers may still hold, and until when.
    held: Vec<(Kids, Timestamp)>,
    /// Until when a token of each key lives.
    tokens: BTreeMap<String, Timestamp>,
    crashes_left: u32,
    compromised: Option<String>,
}

/// What can happen next.
#[derive(Clone, Copy, Debug)]
enum Move {
    Hear(usize),
    Step(usize),
    Serve(usize),
    Die(usize),
    Start(usize),
    Compromise(usize),
    Tick,
}

const MOVES: [Move; 12] = [
    Move::Hear(0),
    Move::Hear(1),
    Move::Step(0),
    Move::Step(1),
    Move::Serve(0),
    Move::Serve(1),
    Move::Die(0),
    Move::Start(0),
    Move::Start(1),
    Move::Compromise(0),
    Move::Compromise(1),
    Move::Tick,
];

fn small() -> KeyringWish {
    let timing = timing(|s| {
        (s.jwks_max_age, s.verifier_poll, s.propagation) = (MINUTE, MINUTE, Duration::from_secs(10));
        (s.provisioning_budget, s.rotate_every) = (Duration::from_secs(10), 2 * STEP);
        (s.life, s.signing_lease) = (super::super::super::timing::SignatureLife::TokenTtl(MINUTE), Duration::from_secs(10));
        s.destroy_after = DAY;
    });
    KeyringWish { purpose: Purpose::Jws, issuer: None, issuer_url: None, typ: None, timing, ..wish("tokens") }
}

fn set() -> SetName {
    SetName::Keyring("tokens".to_owned())
}

impl Model {
    /// Both replicas have started, and know of a keyring without keys.
    fn new() -> Self {
        let mut story = Story::new();
        for node in ["a", "b"] {
            story.node = node;
            story.start();
        }
        story.reconcile(&[small()]);
        let log = Rc::new(story.keyrings);
        let replica = Replica { alive: true, knows: Rc::clone(&log), past: 0, behind_since: None, served: None, made: None };
        let replicas = [replica.clone(), replica];
        let (held, tokens) = (Vec::new(), BTreeMap::new());
        Self { last_tick: LAST_TICK, tick: 0, log, past: 0, replicas, held, tokens, crashes_left: 1, compromised: None }
    }

    /// The same, after both have done all that is due at once.
    fn settled() -> Self {
        let mut model = Self::new();
        let calm = MOVES.into_iter().filter(|step| !matches!(step, Move::Die(_) | Move::Compromise(_) | Move::Tick)).collect::<Vec<_>>();
        while let Some(next) = calm.iter().find_map(|step| model.after(*step, &Honest).expect("safe")) {
            model = next;
        }
        model
    }

    fn now(&self) -> Timestamp {
        let start: Timestamp = "2026-01-01T00:00:00.000Z".parse().expect("a time");
        start + STEP * self.tick
    }

    /// What makes two states the same.
    fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.tick, self.past, self.crashes_left).hash(&mut hasher);
        for replica in &self.replicas {
            let served = replica.served.as_ref().map(|(body, _)| body.as_slice());
            (replica.alive, replica.past, replica.knows.size() == self.log.size(), replica.behind_since, served, replica.made.is_some())
                .hash(&mut hasher);
        }
        let held: BTreeSet<(&Kids, i64)> = self.held.iter().map(|(kids, until)| (kids, until.millis())).collect();
        held.hash(&mut hasher);
        self.tokens.iter().for_each(|(kid, dies)| (kid, dies.millis()).hash(&mut hasher));
        hasher.finish()
    }

    /// The state after a move; `None` where it changes nothing or cannot be.
    fn after(&self, step: Move, machine: &dyn Machine) -> Result<Option<Self>, Caught> {
        let mut next = self.clone();
        let changed = match step {
            Move::Tick => self.tick < self.last_tick && next.pass(),
            Move::Start(node) => !self.replicas[node].alive && next.start(node)?,
            Move::Hear(node) | Move::Step(node) | Move::Serve(node) | Move::Die(node) | Move::Compromise(node)
                if !self.replicas[node].alive =>
            {
                false
            }
            Move::Hear(node) => next.hear(node),
            Move::Step(node) => next.step(node, machine)?,
            // A node that knows the newest record says at once what it serves; one that is behind serves and says nothing.
            Move::Serve(node) => {
                let changed = next.serve(node, machine);
                if changed {
                    next.record(node)?;
                }
                changed
            }
            Move::Die(node) => next.die(node),
            Move::Compromise(node) => next.compromise(node)?,
        };
        if !changed {
            return Ok(None);
        }
        next.sign(machine);
        next.check()?;
        Ok(Some(next))
    }

    fn pass(&mut self) -> bool {
        self.tick += 1;
        let now = self.now();
        self.held.retain(|(_, until)| *until > now);
        self.tokens.retain(|_, dies| *dies > now);
        true
    }

    fn hear(&mut self, node: usize) -> bool {
        let changed = self.replicas[node].knows.size() < self.log.size();
        self.replicas[node].knows = Rc::clone(&self.log);
        (self.replicas[node].behind_since, self.replicas[node].past) = (None, self.past);
        changed
    }

    /// One planned step. A node that does not know the newest record is refused.
    fn step(&mut self, node: usize, machine: &dyn Machine) -> Result<bool, Caught> {
        if let Some(name) = self.replicas[node].made.take() {
            let jwk = public_key(&name);
            let (kid, locator) = (jwk.thumbprint(), name.to_string());
            let created = KeyCreated { key: name, kid, jwk, locator, attributes: BTreeMap::new(), backend_request: None, self_test: None };
            let wanted = self.log.key_named(&created.key).is_some_and(|(_, key)| key.state == State::Requested);
            // Others recorded it meanwhile: this node is refused, and plans again.
            return if wanted { self.append(node, Event::KeyCreated(created)).map(|_| true) } else { Ok(true) };
        }
        let (unavailable, refused) = (BTreeMap::new(), BTreeMap::new());
        let conditions =
            Conditions { unavailable: &unavailable, refused: &refused, busy: &BTreeSet::new(), dates: DateGate::Open, claim: 7 };
        let knows = Rc::clone(&self.replicas[node].knows);
        match machine.plan(&Knows { keyrings: &knows, now: self.now().max(knows.last_time()), conditions }) {
            // Two keys are the whole world; nobody asks for a third.
            Plan::Append(Event::KeyRequested(_)) if knows.keyring("tokens").is_some_and(|ring| ring.keys.len() >= 2) => Ok(false),
            Plan::Append(event) => self.append(node, event),
            Plan::Create { name, .. } => {
                self.replicas[node].made = Some(name);
                Ok(true)
            }
            Plan::Destroy { name, .. } => self.append(node, Event::KeyDestroyed(KeyDestroyed { key: name, deleted_on: None })),
            Plan::SleepUntil(wake) => {
                let late = wake.filter(|wake| *wake <= self.now());
                holds(late.is_none(), "I9: a wake that is not in the future", || format!("{late:?}"))?;
                Ok(false)
            }
        }
    }

    fn append(&mut self, node: usize, event: Event) -> Result<bool, Caught> {
        if self.replicas[node].knows.size() < self.log.size() {
            return Ok(false);
        }
        let record = Record {
            log: LogKind::Keys,
            seq: self.log.size(),
            time: self.now().max(self.log.last_time()),
            prev: Hash::from([0; 32]),
            durable: 0,
            node: ["a", "b"][node].to_owned(),
            boot: "test".to_owned(),
            asked: Asked::default(),
            event,
        };
        let mut log = (*self.log).clone();
        log.apply(&record).map_err(|illegal| Caught::illegal(&illegal))?;
        self.past = summary(&log);
        self.log = Rc::new(log);
        self.replicas[node].knows = Rc::clone(&self.log);
        self.replicas[node].past = self.past;
        self.replicas[1 - node].behind_since.get_or_insert(self.tick);
        Ok(true)
    }

    fn serve(&mut self, node: usize, machine: &dyn Machine) -> bool {
        let knows = Rc::clone(&self.replicas[node].knows);
        if !knows.was_served(&set()) && knows.published_in(&set()) == 0
            || knows.keyring("tokens").is_some_and(|ring| knows.may_bootstrap(ring))
        {
            return false;
        }
        let served = self.replicas[node].served.as_ref();
        let body = machine.body(["a", "b"][node], &knows, &set(), served.map(|(body, _)| body.as_slice()));
        if served.is_some_and(|(served, _)| **served == body) {
            return false;
        }
        self.let_go(node);
        let kids = Rc::new(verifiers::kids_in(&body));
        self.replicas[node].served = Some((Rc::new(body), kids));
        true
    }

    /// Caches filled just before go on with what the node served.
    fn let_go(&mut self, node: usize) {
        let until = self.now() + small().timing.seen_by_all();
        let Some((_, kids)) = self.replicas[node].served.take() else { return };
        self.held.retain(|(held, _)| *held != kids);
        self.held.push((kids, until));
    }

    fn record(&mut self, node: usize) -> Result<bool, Caught> {
        let Some((body, _)) = &self.replicas[node].served else { return Ok(false) };
        let sha256 = Hash::from(<[u8; 32]>::from(Sha256::digest(body.as_slice())));
        let knows = &self.replicas[node].knows;
        let is_newest = jwks::body(knows, &set()).as_ref() == Some(&**body);
        if !is_newest || knows.served(["a", "b"][node], &set()).is_some_and(|served| served.sha256 == sha256) {
            return Ok(false);
        }
        self.append(node, Event::JwksServed(JwksServed { set: set().to_string(), size: self.replicas[node].knows.size(), sha256 }))
    }

    fn die(&mut self, node: usize) -> bool {
        if self.crashes_left == 0 {
            return false;
        }
        self.crashes_left -= 1;
        self.let_go(node);
        (self.replicas[node].alive, self.replicas[node].made) = (false, None);
        true
    }

    fn start(&mut self, node: usize) -> Result<bool, Caught> {
        self.hear(node);
        self.replicas[node].alive = true;
        self.append(node, Event::DaemonStart(DaemonStart { version: "0".to_owned(), unclean: true, in_flight: 0 }))
    }

    fn compromise(&mut self, node: usize) -> Result<bool, Caught> {
        let kid = self.log.keyring("tokens").and_then(Keyring::active).and_then(|key| key.kid.clone());
        let Some(kid) = kid.filter(|_| self.compromised.is_none()) else { return Ok(false) };
        if self.replicas[node].knows.size() < self.log.size() {
            return Ok(false);
        }
        let now = self.now().max(self.log.last_time());
        for event in verbs::compromise(&self.log, now, &kid, now, "leaked").expect("allowed") {
            self.append(node, event)?;
        }
        self.compromised = Some(kid);
        Ok(true)
    }

    /// Every node that may sign does, and its token leaves as late and lives as long as it may.
    fn sign(&mut self, machine: &dyn Machine) {
        let timing = small().timing;
        let dies = self.now() + machine.deadline(&timing) + machine.token_life(&timing);
        for replica in self.replicas.iter().filter(|replica| replica.alive && replica.behind_since.is_none_or(|since| since == self.tick)) {
            let signer = replica.knows.keyring("tokens").and_then(|ring| machine.signer(ring));
            self.tokens.extend(signer.and_then(|key| key.kid.clone()).map(|kid| (kid, dies)));
        }
    }

    /// No view that a verifier may hold lacks the key of a live token, but a compromised one's.
    fn check(&self) -> Result<(), Caught> {
        let served = self.replicas.iter().filter_map(|replica| replica.served.as_ref()).map(|(_, kids)| kids);
        let mut views = served.chain(self.held.iter().map(|(kids, _)| kids));
        let lacks = |kids: &Kids| self.tokens.keys().find(|kid| !kids.contains(*kid) && self.compromised.as_ref() != Some(*kid)).cloned();
        let lost = views.find_map(lacks);
        holds(lost.is_none(), "verifiers: a live token's kid is unknown", || format!("{lost:?} at tick {}", self.tick))
    }
}

/// What of a log decides what can follow: two logs with the same keys and dates are one state, in whatever order their records came.
fn summary(log: &Keyrings) -> u64 {
    let mut hasher = DefaultHasher::new();
    log.last_time().millis().hash(&mut hasher);
    for ring in log.all() {
        (ring.next_rotation.map(Timestamp::millis), ring.was_active).hash(&mut hasher);
        for key in &ring.keys {
            let dates = [key.earliest_activation, key.activated, key.stopped, key.withdraw_after, key.destroy_after];
            (key.state, dates.map(|date| date.map(Timestamp::millis)), key.entered().millis()).hash(&mut hasher);
            key.served.iter().for_each(|(place, time)| (place, time.millis()).hash(&mut hasher));
        }
    }
    for node in ["a", "b"] {
        (log.is_running(node), log.served(node, &set()).map(|served| served.sha256.to_string())).hash(&mut hasher);
    }
    hasher.finish()
}

/// Walks through every state; how many there are, and how many moves lead to them.
fn walk(machine: &dyn Machine, first: Model) -> Result<(usize, usize), Caught> {
    let (mut seen, mut queue, mut moves) = (HashSet::from([first.digest()]), VecDeque::from([first]), 0);
    while let Some(model) = queue.pop_front() {
        for step in MOVES {
            if let Some(next) = model.after(step, machine)? {
                moves += 1;
                if seen.insert(next.digest()) {
                    queue.push_back(next);
                }
            }
        }
        assert!(seen.len() <= MOST_STATES, "the model is not bounded");
    }
    Ok((seen.len(), moves))
}

/// From the first record: who makes the first two keys, and serves them when.
#[test]
fn every_start_of_the_small_world_is_safe() {
    let first = Model { last_tick: 0, ..Model::new() };
    let (states, moves) = walk(&Honest, first).unwrap_or_else(|caught| panic!("{}: {}", caught.by, caught.why));
    report(&format!("{states} states, {moves} moves"));
    assert!(states > 1000, "an empty walk");
}

/// From the moment at which both replicas serve two keys: a rotation, a compromise and a withdrawal.
#[test]
fn every_rotation_of_the_small_world_is_safe() {
    let (states, moves) = walk(&Honest, Model::settled()).unwrap_or_else(|caught| panic!("{}: {}", caught.by, caught.why));
    report(&format!("{states} states, {moves} moves"));
    assert!(states > 1000, "an empty walk");
}

#[test]
fn the_walk_finds_a_planted_mistake() {
    let start = Model { last_tick: 0, ..Model::new() };
    for (name, first) in [("a standby that signs", start), ("half a lead", Model::settled())] {
        assert!(walk(&Mutant::named(name), first).is_err(), "{name}");
    }
}
