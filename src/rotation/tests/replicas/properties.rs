//! What must hold of a world: read from the event log and from what verifiers saw, never from the machine's own fields.
//!
//! In scope: one verdict over a whole story. The log is read by [`check`] (I1, I3, I9 to I11, one signer, liveness), views and tokens by
//! `super::verifiers` (I1 to I4, I7, Q and E as verifiers feel them), keystores here. Out of scope: making the story.

use super::*;

/// Who found a mistake, and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Caught {
    /// The property, or the rule of the table.
    pub(super) by: String,
    pub(super) why: String,
}

impl Caught {
    pub(super) fn new(by: &str, why: impl Into<String>) -> Self {
        Self { by: by.to_owned(), why: why.into() }
    }

    pub(super) fn illegal(illegal: &Illegal) -> Self {
        Self::new(&format!("the table, {}", illegal.rule.name()), illegal.to_string())
    }
}

pub(super) fn holds(holds: bool, by: &str, why: impl FnOnce() -> String) -> Result<(), Caught> {
    if holds { Ok(()) } else { Err(Caught::new(by, why())) }
}

/// How much was looked at, so that nobody trusts an empty check.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) schedules: u64,
    pub(super) events: u64,
    pub(super) rotations: u64,
    pub(super) withdrawals: u64,
    pub(super) compromises: u64,
    pub(super) tokens: u64,
    /// Tokens times the views that met them.
    pub(super) met: u64,
    /// Appends that the store refused because others were faster.
    pub(super) stale: u64,
    pub(super) crashes: u64,
    /// Keyrings whose keystore was lost, and which signed on by a rotation.
    pub(super) rescues: u64,
}

impl Counts {
    pub(super) fn add(&mut self, other: &Self) {
        self.schedules += 1;
        self.events += other.events;
        self.rotations += other.rotations;
        self.withdrawals += other.withdrawals;
        self.compromises += other.compromises;
        self.tokens += other.tokens;
        self.met += other.met;
        self.stale += other.stale;
        self.crashes += other.crashes;
        self.rescues += other.rescues;
    }
}

/// Plays a schedule with a machine; the first property that is broken, or what was looked at.
pub(super) fn play(machine: &dyn Machine, schedule: &Schedule) -> Result<Counts, Caught> {
    let mut world = World::new(machine, &schedule.offsets_ms)?;
    for action in &schedule.actions {
        world.perform(action)?;
    }
    world.recover()?;
    judge(world)
}

fn judge(mut world: World<'_>) -> Result<Counts, Caught> {
    world.outages.sort_by_key(|outage| outage.from);
    let tale = Tale::of(&world.records, &world.times);
    let met = world.views.check(&world.tokens, &tale, world.now)?;
    tale.released_in_time(&world.tokens)?;
    let end = world.records.last().map_or(world.now, |record| record.time.max(world.now));
    check(&world.records, &world.outages, Some(end)).map_err(|why| {
        let by = why.split(": ").find(|part| part.starts_with('I') || *part == "liveness").unwrap_or("the log").to_owned();
        Caught { by: format!("the log, {by}"), why }
    })?;
    standbys_are_kept(&world.records)?;
    standbys_live_elsewhere(&world)?;
    keystores_are_tidy(&world)?;
    let named = |name: &str| world.records.iter().filter(|record| record.event.name() == name).count() as u64;
    Ok(Counts {
        events: world.records.len() as u64,
        rotations: named("key.rotated"),
        withdrawals: named("key.withdrawn"),
        compromises: named("key.compromised"),
        tokens: world.tokens.len() as u64,
        met,
        ..world.counts
    })
}

/// I5: after a long quiet time every keyring that goes on has a standby in its sets.
fn standbys_are_kept(records: &[Record]) -> Result<(), Caught> {
    let mut standbys: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut names: BTreeMap<&KeyName, (&str, &str)> = BTreeMap::new();
    for record in records {
        match &record.event {
            Event::KeyringCreated(e) => drop(standbys.insert(&e.keyring, BTreeSet::new())),
            Event::KeyringRetired(e) => drop(standbys.remove(e.keyring.as_str())),
            Event::KeyCreated(e) => drop(names.insert(&e.key, (e.key.keyring(), &e.kid))),
            Event::KeyPublished(e) => names.values().filter(|(_, kid)| *kid == e.kid).for_each(|(ring, kid)| {
                standbys.entry(ring).or_default().insert(kid);
            }),
            Event::KeyRotated(e) => drop(standbys.entry(&e.keyring).or_default().remove(e.to.as_str())),
            Event::KeyCompromised(e) => standbys.values_mut().for_each(|kids| {
                kids.remove(e.kid.as_str());
                kids.remove(e.to.as_deref().unwrap_or_default());
            }),
            Event::KeyAbandoned(e) => {
                let abandoned = names.get(&e.key).map(|(_, kid)| *kid);
                for kids in standbys.values_mut() {
                    kids.retain(|kid| Some(*kid) != abandoned);
                }
            }
            _ => {}
        }
    }
    let without: Vec<_> = standbys.iter().filter(|(_, kids)| kids.is_empty()).map(|(ring, _)| ring).collect();
    holds(without.is_empty(), "the log, I5", || format!("no standby: {without:?}"))
}

/// After a long quiet time every keyring with two keystores has its standby in the one in which the key that signs is not.
fn standbys_live_elsewhere(world: &World<'_>) -> Result<(), Caught> {
    let keyrings = &world.nodes[0].keyrings;
    for keyring in keyrings.all().filter(|keyring| keyring.retired.is_none() && keyring.standby_keystore.is_some()) {
        let signs = keyring.active().map(|key| &key.keystore);
        let elsewhere = |key: &Key| key.state == State::Published && Some(&key.keystore) != signs;
        holds(keyring.pending().any(elsewhere), "keystores: the standby lives beside the key that signs", || keyring.name.clone())?;
    }
    Ok(())
}

/// After a long quiet time no keystore holds a key that is compromised, abandoned, or withdrawn for longer than its grace; of one that is
/// lost nobody knows.
fn keystores_are_tidy(world: &World<'_>) -> Result<(), Caught> {
    let mut names: BTreeMap<&str, &KeyName> = BTreeMap::new();
    let (mut gone, mut lost): (BTreeSet<&KeyName>, BTreeSet<&KeyName>) = (BTreeSet::new(), BTreeSet::new());
    for record in &world.records {
        match &record.event {
            Event::KeyCreated(e) => drop(names.insert(&e.kid, &e.key)),
            Event::KeyAbandoned(e) => drop(gone.insert(&e.key)),
            Event::KeyCompromised(e) => gone.extend(names.get(e.kid.as_str()).copied()),
            Event::KeyWithdrawn(e) if e.destroy_after + HOUR < world.now => gone.extend(names.get(e.kid.as_str()).copied()),
            Event::KeyDestroyed(e) => gone.extend([&e.key]),
            Event::KeyRequested(e) if world.stores.lost == Some(e.keystore.as_str()) => drop(lost.insert(&e.key)),
            _ => {}
        }
    }
    let left: Vec<_> = world.stores.keys.iter().filter(|key| gone.contains(key) && !lost.contains(key)).collect();
    holds(left.is_empty(), "orphans: a key that should be gone", || format!("{left:?}"))
}
