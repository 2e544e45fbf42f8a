//! The invariants of rotation, checked from the event log alone.
//!
//! In scope: I1, I3, I9, I10, I11, one signer at a time, and liveness, each recomputed here from events and their times. Out of scope: the
//! machine's own fields; nothing here asks `Keyrings`, so a mistake there cannot hide itself.

use std::collections::{BTreeMap, BTreeSet};

use claviger_audit::event::{KeyCompromised, KeyRotated, RotationReason};

use super::super::timing::TICK;
use super::*;

/// A key as the events tell it.
#[derive(Default)]
struct KeySeen {
    number: u32,
    jwk: String,
    published: bool,
    /// When each node first served it in each set.
    served: BTreeMap<(String, String), Timestamp>,
    activated: Option<Timestamp>,
    stopped: Option<Timestamp>,
    /// When it must have left the sets, if nothing else ends it.
    leaves: Option<Timestamp>,
    /// Whether it may be destroyed.
    ended: bool,
}

/// A keyring as the events tell it.
#[derive(Default)]
struct RingSeen {
    sets: Vec<String>,
    timings: Vec<(Timestamp, Timing)>,
    keys: BTreeMap<String, KeySeen>,
    signer: Option<String>,
    suspended: bool,
    due: Option<Timestamp>,
    resumed: Timestamp,
    retired: bool,
}

#[derive(Default)]
struct Seen {
    rings: BTreeMap<String, RingSeen>,
    kids: BTreeMap<String, String>,
    names: BTreeMap<KeyName, String>,
    served: BTreeSet<String>,
    nodes: Nodes,
}

/// Every node that ever started; a date where it stopped in order.
type Nodes = BTreeMap<String, Option<Timestamp>>;

/// A time in which the node did not run, or did not trust its clock (I12); or in which a keystore did not answer, which excuses nothing but
/// rotations.
pub(super) struct Outage {
    /// Its begin.
    pub(super) from: Timestamp,
    /// Dates up to here wait for its end.
    pub(super) held: Timestamp,
    /// Its end.
    pub(super) until: Timestamp,
    /// Whether it was only that of a keystore.
    pub(super) of_keystore: bool,
}

impl Outage {
    /// Everything waits.
    pub(super) fn of_all(from: Timestamp, held: Timestamp, until: Timestamp) -> Self {
        Self { from, held, until, of_keystore: false }
    }

    /// A rotation to a key of this keystore waits.
    pub(super) fn of_keystore(from: Timestamp, until: Timestamp) -> Self {
        Self { from, held: Timestamp::default(), until, of_keystore: true }
    }
}

/// Not before this may anything happen because of the date.
fn counts_from(date: Timestamp, outages: &[Outage]) -> Timestamp {
    let held = |at: Timestamp, outage: &Outage| if at > outage.from && date <= outage.held { at.max(outage.until) } else { at };
    outages.iter().fold(date, held)
}

/// The first moment, from the date on, outside of every outage.
fn awake(date: Timestamp, outages: &[Outage]) -> Timestamp {
    outages.iter().fold(date, |at, outage| if at >= outage.from { at.max(outage.until) } else { at })
}

/// The same for what needs no keystore: records alone.
fn awake_for_records(date: Timestamp, outages: &[Outage]) -> Timestamp {
    let all = outages.iter().filter(|outage| !outage.of_keystore);
    all.fold(date, |at, outage| if at >= outage.from { at.max(outage.until) } else { at })
}

/// Checks every record. With `all_sign`, as after a long time without faults, each living keyring must sign then and not be behind its
/// schedule.
pub(super) fn check(records: &[Record], outages: &[Outage], all_sign: Option<Timestamp>) -> Result<(), String> {
    let mut seen = Seen::default();
    for record in records {
        seen.event(record, outages).map_err(|why| format!("record {} ({}) at {}: {why}", record.seq, record.event.name(), record.time))?;
    }
    let end = all_sign.or(records.last().map(|record| record.time)).unwrap_or_default();
    seen.rings.values().try_for_each(|ring| ring.nothing_is_late(end, outages))?;
    let mut living = seen.rings.values().filter(|ring| !ring.retired && all_sign.is_some());
    living.try_for_each(|ring| ring.signs_on_time(end))
}

fn need(holds: bool, why: impl Into<String>) -> Result<(), String> {
    if holds { Ok(()) } else { Err(why.into()) }
}

impl RingSeen {
    /// D + e: the largest that counts at `now`; a longer one counts for its own length after it was replaced.
    fn lead(&self, now: Timestamp) -> Duration {
        let ends = self.timings.iter().skip(1).map(|(since, _)| Some(*since)).chain([None]);
        let counts = self.timings.iter().zip(ends).map(|((_, timing), end)| (timing.lead(), end));
        counts.filter(|(lead, end)| end.is_none_or(|end| now < end + *lead)).map(|(lead, _)| lead).max().unwrap_or_default()
    }

    /// The longest D + e + G that ever was: how long a rotation may wait for a standby of new settings.
    fn patience(&self) -> Duration {
        let spans = self.timings.iter().map(|(_, timing)| timing.lead() + Duration::from_millis(timing.provisioning_budget_ms));
        spans.max().unwrap_or_default()
    }

    /// When the last of the nodes that run served the key, in the last of its sets.
    fn visible(&self, kid: &str, nodes: &Nodes) -> Option<Timestamp> {
        let served = &self.keys[kid].served;
        let in_set = |set: &String| {
            served.keys().find(|(_, served)| served == set)?;
            let first = |node: &String| served.get(&(node.clone(), set.clone())).copied();
            let times: Option<Vec<Timestamp>> = nodes.iter().map(|(node, stopped)| first(node).or(*stopped)).collect();
            times?.into_iter().max()
        };
        let times: Option<Vec<Timestamp>> = self.sets.iter().map(in_set).collect();
        times?.into_iter().max()
    }

    fn i1(&self, kid: &str, now: Timestamp, nodes: &Nodes) -> Result<(), String> {
        let visible = self.visible(kid, nodes).ok_or("I1: signs, but was not served by every node in each of its sets")?;
        need(now >= visible + self.lead(now), format!("I1: signs {:?} after it became visible", now.since(visible)))
    }

    fn start(&mut self, kid: &str, now: Timestamp) -> Result<(), String> {
        need(self.signer.is_none(), "two keys sign")?;
        need(!self.retired, "a retired keyring signs")?;
        let key = self.keys.get_mut(kid).ok_or("unknown key")?;
        need(key.published, "I11: signs before it is published, or after")?;
        need(key.activated.is_none(), "I11: starts twice")?;
        key.activated = Some(now);
        (self.signer, self.suspended) = (Some(kid.to_owned()), false);
        Ok(())
    }

    /// The signer stops; it must stay published for the overlap, and not much longer.
    fn stop(&mut self, now: Timestamp) {
        let Some(key) = self.signer.take().and_then(|kid| self.keys.get_mut(&kid)) else { return };
        let activated = key.activated.unwrap_or(now);
        let ends = self.timings.iter().skip(1).map(|(since, _)| *since).chain([now]);
        let in_force: Vec<&Timing> = self.timings.iter().zip(ends).filter(|(_, end)| *end >= activated).map(|((_, t), _)| t).collect();
        let largest = |part: fn(&Timing) -> Duration| in_force.iter().map(|timing| part(timing)).max().unwrap_or_default();
        let overlap = largest(Timing::release_window) + largest(Timing::token_life) + 2 * largest(Timing::skew);
        (key.stopped, key.leaves) = (Some(now), Some(now + overlap));
    }

    fn signs_on_time(&self, end: Timestamp) -> Result<(), String> {
        let on_time = self.due.is_some_and(|due| end <= due + self.patience() + TICK);
        need(self.signer.is_some() && !self.suspended && on_time, "liveness: at the end nobody signs, or a rotation is overdue")
    }

    fn nothing_is_late(&self, end: Timestamp, outages: &[Outage]) -> Result<(), String> {
        let staying = self.keys.iter().filter(|(_, key)| key.published);
        for (kid, date) in staying.filter_map(|(kid, key)| Some((kid, key.leaves?))) {
            need(
                end <= awake_for_records(date, outages) + TICK,
                format!("liveness: {kid} should have left at {date}, and the log goes on to {end}"),
            )?;
        }
        Ok(())
    }
}

impl Seen {
    fn ring(&mut self, name: &str) -> Result<&mut RingSeen, String> {
        self.rings.get_mut(name).ok_or_else(|| format!("no keyring {name}"))
    }

    fn of(&mut self, kid: &str) -> Result<&mut RingSeen, String> {
        let ring = self.kids.get(kid).cloned().ok_or_else(|| format!("no key {kid}"))?;
        self.ring(&ring)
    }

    fn key(&mut self, kid: &str) -> Result<&mut KeySeen, String> {
        self.of(kid)?.keys.get_mut(kid).ok_or_else(|| format!("no key {kid}"))
    }

    fn event(&mut self, record: &Record, outages: &[Outage]) -> Result<(), String> {
        let now = record.time;
        match &record.event {
            Event::KeyringCreated(e) => {
                let own = format!("keyring/{}", e.keyring);
                let sets = e.issuer.iter().map(|issuer| format!("issuer/{issuer}")).chain([own]).collect();
                self.rings.insert(e.keyring.clone(), RingSeen { sets, ..RingSeen::default() });
            }
            Event::KeyringTiming(e) => self.ring(&e.keyring)?.timings.push((now, e.timing)),
            Event::KeyringRetired(e) => {
                let ring = self.ring(&e.keyring)?;
                ring.stop(now);
                (ring.retired, ring.due) = (true, None);
            }
            Event::KeyCreated(e) => self.created(e)?,
            Event::KeyPublished(e) => self.key(&e.kid)?.published = true,
            Event::KeyRotated(e) => self.rotated(e, now, outages)?,
            Event::KeySuspended(e) => self.of(&e.kid)?.suspended = true,
            Event::KeyResumed(e) => {
                let ring = self.of(&e.kid)?;
                (ring.suspended, ring.resumed) = (false, now);
            }
            Event::KeyCompromised(e) => self.compromised(e, now)?,
            Event::DaemonStart(_) => drop(self.nodes.insert(record.node.clone(), None)),
            Event::DaemonStop(_) => drop(self.nodes.insert(record.node.clone(), Some(now))),
            Event::KeyWithdrawn(e) => {
                let key = self.key(&e.kid)?;
                let leaves = key.leaves.ok_or("I11: leaves before it stopped signing")?;
                need(now >= leaves, format!("I3: leaves before {leaves}"))?;
                need(now >= counts_from(leaves, outages), format!("I12: leaves although {leaves} does not count yet"))?;
                need(now <= awake_for_records(leaves, outages) + TICK, format!("liveness: leaves after {leaves}"))?;
                (key.published, key.ended) = (false, true);
            }
            Event::KeyAbandoned(e) => self.ended(&e.key, |key| {
                let signed = key.activated.is_some();
                (key.published, key.ended) = (false, true);
                need(!signed, "I11: abandons a key that signed")
            })?,
            Event::KeyDestroyed(e) => self.ended(&e.key, |key| need(key.ended, "I11: destroyed before it was withdrawn"))?,
            Event::JwksServed(e) => self.jwks_served(&record.node, &e.set, e.sha256, now)?,
            _ => {}
        }
        Ok(())
    }

    fn created(&mut self, e: &KeyCreated) -> Result<(), String> {
        let jwk = jwks::jwk_text(&e.kid, Algorithm::EdDSA, &e.jwk);
        let key = KeySeen { number: e.key.number(), jwk, ..KeySeen::default() };
        self.ring(e.key.keyring())?.keys.insert(e.kid.clone(), key);
        self.kids.insert(e.kid.clone(), e.key.keyring().to_owned());
        self.names.insert(e.key.clone(), e.kid.clone());
        Ok(())
    }

    /// What is asked of a key by name, if it ever came to be.
    fn ended(&mut self, name: &KeyName, ask: impl FnOnce(&mut KeySeen) -> Result<(), String>) -> Result<(), String> {
        self.names.get(name).cloned().map_or(Ok(()), |kid| ask(self.key(&kid)?))
    }

    fn compromised(&mut self, e: &KeyCompromised, now: Timestamp) -> Result<(), String> {
        let nodes = self.nodes.clone();
        let ring = self.of(&e.kid)?;
        if ring.signer.as_ref() == Some(&e.kid) {
            ring.stop(now);
            ring.due = e.next_rotation;
        }
        if let Some(to) = &e.to {
            ring.i1(to, now, &nodes)?;
            ring.start(to, now)?;
        }
        let key = self.key(&e.kid)?;
        (key.published, key.ended) = (false, true);
        Ok(())
    }

    fn rotated(&mut self, e: &KeyRotated, now: Timestamp, outages: &[Outage]) -> Result<(), String> {
        let (served, nodes) = (self.served.clone(), self.nodes.clone());
        let ring = self.ring(&e.keyring)?;
        need(ring.signer == e.from, "the signer is not the key that stops")?;
        match (e.reason, e.forced) {
            (RotationReason::Bootstrap, _) => {
                need(!ring.sets.iter().any(|set| served.contains(set)), "I1: starts with age zero although a set was served")?;
            }
            (_, true) => need(e.note.is_some(), "I1: forced without a reason")?,
            (_, false) => ring.i1(&e.to, now, &nodes)?,
        }
        if let (RotationReason::Scheduled, Some(due), Some(visible)) = (e.reason, ring.due, ring.visible(&e.to, &nodes)) {
            need(!ring.suspended && now >= due, "a scheduled rotation before its date, or of a suspended key")?;
            let longest_lead = ring.timings.iter().map(|(_, timing)| timing.lead()).max().unwrap_or_default();
            let ready = awake(due, outages).max(awake(visible + longest_lead, outages)).max(awake(ring.resumed, outages));
            need(now >= counts_from(due, outages), format!("I12: rotates although {due} does not count yet"))?;
            // A standby of former settings is only taken after some patience, and that date can fall into an outage too.
            need(now <= awake(ready + ring.patience(), outages) + TICK, format!("liveness: due at {due}, visible at {visible}"))?;
        }
        ring.stop(now);
        ring.start(&e.to, now)?;
        ring.due = Some(e.next_rotation);
        Ok(())
    }

    fn jwks_served(&mut self, node: &str, set: &str, sha256: Hash, now: Timestamp) -> Result<(), String> {
        let mut jwks: Vec<&str> = Vec::new();
        for ring in self.rings.values_mut().filter(|ring| ring.sets.iter().any(|name| name == set)) {
            let signer = ring.signer.as_ref().map(|kid| ring.keys[kid].published);
            need(signer != Some(false), "I10: served without the key that signs")?;
            let mut keys: Vec<&mut KeySeen> = ring.keys.values_mut().filter(|key| key.published).collect();
            keys.sort_by_key(|key| key.number);
            for key in &mut keys {
                key.served.entry((node.to_owned(), set.to_owned())).or_insert(now);
            }
            jwks.extend(keys.into_iter().map(|key| key.jwk.as_str()));
        }
        need(self.served.contains(set) || !jwks.is_empty(), "I10: the first set is empty")?;
        let body = format!(r#"{{"keys":[{}]}}"#, jwks.join(","));
        need(sha256 == Hash::from(<[u8; 32]>::from(Sha256::digest(body))), "I9: another body than the events make")?;
        self.served.insert(set.to_owned());
        Ok(())
    }
}

/// The checker can fail: each mistake, put into a good log by hand, is named.
#[test]
fn each_planted_mistake_is_found() {
    let mut story = Story::with(&[wish("tokens")]);
    story.settle();
    story.run(32 * DAY);
    let good = story.records;
    let verdict = |records: &[Record]| check(records, &[], None);
    assert_eq!(verdict(&good), Ok(()));
    let nth = |name: &str, nth: usize| good.iter().enumerate().filter(|(_, r)| r.event.name() == name).nth(nth).expect("there").0;
    let with = |change: &dyn Fn(&mut Vec<Record>)| {
        let mut records = good.clone();
        change(&mut records);
        verdict(&records).expect_err("a mistake").split(": ").nth(1).map(str::to_owned)
    };
    let (second_rotation, withdrawal, destruction) = (nth("key.rotated", 1), nth("key.withdrawn", 0), nth("jwks.served", 0));
    let early = |records: &mut Vec<Record>| records[withdrawal].time = records[withdrawal].time - Duration::from_millis(1);
    let late = |records: &mut Vec<Record>| records[withdrawal].time = records[withdrawal].time + 2 * TICK;
    let never = |records: &mut Vec<Record>| drop(records.remove(withdrawal));
    let unserved = |records: &mut Vec<Record>| records.retain(|r| r.event.name() != "jwks.served" || r.time > good[destruction].time);
    let young = |records: &mut Vec<Record>| {
        let start = records[nth("key.published", 0)].time;
        let mut rotation = records.remove(second_rotation);
        rotation.time = start + 15 * MINUTE;
        if let Event::KeyRotated(e) = &mut rotation.event {
            e.reason = RotationReason::OnDemand;
        }
        records.insert(nth("jwks.served", 3) + 1, rotation);
    };
    assert_eq!(with(&early).as_deref(), Some("I3"));
    assert_eq!(with(&late).as_deref(), Some("liveness"));
    assert_eq!(with(&never).as_deref(), Some("I9"));
    assert_eq!(with(&unserved).as_deref(), Some("I1"));
    assert_eq!(with(&young).as_deref(), Some("I1"));
}
