//! Model verifiers: every view of a set that a well-behaved verifier can hold, whatever the phase of its polls.
//!
//! In scope: what each node served and when, how long caches and pollers go on with it, and every token against every such view. The
//! slowest kind is a poller behind a shared cache that was filled just before a change; one that asks again on an unknown kid is met too,
//! but no property leans on it. Out of scope: signatures, and verifiers that keep a set for longer than the settings say.
//!
//! A body that was served during `[from, until)` can be filled into a cache as late as `until`, leave the cache A + S later, reach a poller
//! R after that and be trusted for another V: it is a possible view during `[from, until + A + S + V + R)`. No phase is sampled and none
//! is missed.

use std::rc::Rc;

use super::*;

/// One body of one set at one node, for as long as it was served with one cache life.
pub(super) struct Segment {
    pub(super) node: usize,
    pub(super) set: SetName,
    pub(super) from: Timestamp,
    pub(super) until: Option<Timestamp>,
    pub(super) kids: Rc<BTreeSet<String>>,
    pub(super) max_age: Duration,
    /// The settings of each keyring while it was served.
    pub(super) timings: [Timing; RINGS.len()],
    /// Of the log that it was first made from.
    pub(super) size: u64,
    /// Whether the node's clock was right, so that its cache life can be.
    pub(super) clock_is_right: bool,
}

/// A signature that left.
#[derive(Debug)]
pub(super) struct Token {
    pub(super) ring: usize,
    pub(super) kid: String,
    pub(super) released: Timestamp,
    /// The last moment at which a verifier whose clock is slow accepts it.
    pub(super) dies: Timestamp,
}

/// What verifiers can have seen.
#[derive(Default)]
pub(super) struct Views {
    segments: Vec<Segment>,
    places: BTreeMap<(usize, SetName), Place>,
}

/// One set at one node.
#[derive(Default)]
struct Place {
    /// The segment that is served now.
    open: Option<usize>,
    size: u64,
    kids: Rc<BTreeSet<String>>,
    gone: BTreeSet<String>,
}

/// A body as a node serves it.
pub(super) struct Served<'a> {
    pub(super) body: &'a [u8],
    pub(super) max_age: Duration,
    pub(super) size: u64,
    pub(super) clock_is_right: bool,
}

impl Views {
    /// The node serves this from now on. Never an older set than before, and no kid that left comes back (I7).
    pub(super) fn serve(
        &mut self,
        place: (usize, SetName),
        now: Timestamp,
        served: &Served<'_>,
        timings: [Timing; RINGS.len()],
    ) -> Result<(), Caught> {
        let known = self.places.entry(place.clone()).or_default();
        let before = std::mem::replace(&mut known.size, served.size);
        holds(served.size >= before, "I7: an older set", || format!("made from {} records after {before}", served.size))?;
        let kids = Rc::new(kids_in(served.body));
        if let Some(last) = known.open.and_then(|index| self.segments.get_mut(index)) {
            if last.kids == kids
                && (last.max_age, last.clock_is_right) == (served.max_age, served.clock_is_right)
                && last.timings == timings
            {
                return Ok(());
            }
            last.until = Some(now);
        }
        known.gone.extend(known.kids.difference(&kids).cloned());
        let back = kids.iter().find(|kid| known.gone.contains(*kid));
        holds(back.is_none(), "I7: a kid came back", || format!("{back:?}"))?;
        (known.open, known.kids) = (Some(self.segments.len()), Rc::clone(&kids));
        let ((node, set), &Served { max_age, size, clock_is_right, .. }) = (place, served);
        self.segments.push(Segment { node, set, from: now, until: None, kids, max_age, timings, size, clock_is_right });
        Ok(())
    }

    /// The node serves nothing from now on.
    pub(super) fn stop(&mut self, node: usize, now: Timestamp) {
        let places = self.places.iter_mut().filter(|((of, _), _)| *of == node);
        for index in places.filter_map(|(_, place)| place.open.take()) {
            self.segments[index].until = Some(now);
        }
    }

    /// When the last verifier lets go of a segment, and whether it is only because nobody answered.
    fn held_until(&self, segment: &Segment, ring: usize, end: Timestamp) -> (Timestamp, bool) {
        let timing = &segment.timings[ring];
        let until = segment.until.unwrap_or(end);
        let millis = timing.jwks_stale_ms + timing.verifier_poll_ms + timing.propagation_ms;
        let held = until + segment.max_age + Duration::from_millis(millis);
        let others = || self.segments.iter().filter(|other| other.set == segment.set);
        if segment.until.is_none() || others().any(|other| other.from <= until && other.until.is_none_or(|end| end > until)) {
            return (held, false);
        }
        // Nobody answered: pollers keep what they have, and ask again every V.
        let again = others().map(|other| other.from).filter(|from| *from > until).min().unwrap_or(end);
        (held.max(again + Duration::from_millis(timing.verifier_poll_ms + timing.propagation_ms)), true)
    }

    /// Every token against every view that a verifier may hold during its life. Returns how many were compared.
    pub(super) fn check(&self, tokens: &[Token], tale: &Tale, end: Timestamp) -> Result<u64, Caught> {
        let mut met = 0;
        for (ring, name) in RINGS.into_iter().enumerate() {
            let sets = [SetName::Issuer("main".to_owned()), SetName::Keyring(name.to_owned())];
            let mut segments: Vec<_> = self.segments.iter().filter(|segment| sets.contains(&segment.set)).collect();
            segments.sort_by_key(|segment| segment.from);
            let held: Vec<_> = segments.iter().map(|segment| (*segment, self.held_until(segment, ring, end))).collect();
            for token in tokens.iter().filter(|token| token.ring == ring) {
                let possible = held.iter().take_while(|(segment, _)| segment.from <= token.dies);
                for (segment, (_, silent)) in possible.filter(|(_, (until, _))| *until > token.released) {
                    met += 1;
                    tale.accepts(token, segment, *silent)?;
                }
            }
            held.iter().try_for_each(|(segment, (until, silent))| tale.forgets(segment, *until, *silent))?;
        }
        Ok(met)
    }
}

/// What the log says of keys, by its records' places and true times.
#[derive(Default)]
pub(super) struct Tale {
    rings: BTreeMap<String, String>,
    published: BTreeMap<String, u64>,
    forced: BTreeSet<String>,
    /// Place, true time, and the earlier of it and the recorded one.
    compromised: BTreeMap<String, (u64, Timestamp, Timestamp)>,
    stopped: BTreeMap<String, Timestamp>,
    /// From when, and until when if it was resumed.
    suspended: Vec<(String, Timestamp, Option<Timestamp>)>,
    /// The longest exposure that was ever allowed, and the longest Q.
    exposure: Duration,
    window: Duration,
    shortest_lead: Duration,
}

impl Tale {
    pub(super) fn of(records: &[Record], times: &[Timestamp]) -> Self {
        let mut tale = Self::default();
        let mut timings: Vec<Timing> = Vec::new();
        for (record, time) in records.iter().zip(times) {
            match &record.event {
                Event::KeyringTiming(e) => timings.push(e.timing),
                Event::KeyCreated(e) => drop(tale.rings.insert(e.kid.clone(), e.key.keyring().to_owned())),
                Event::KeyPublished(e) => drop(tale.published.insert(e.kid.clone(), record.seq)),
                Event::KeyRotated(e) => {
                    tale.stopped.extend(e.from.iter().map(|kid| (kid.clone(), *time)));
                    tale.forced.extend(e.forced.then(|| e.to.clone()));
                }
                Event::KeySuspended(e) => tale.suspended.push((e.kid.clone(), *time, None)),
                Event::KeyResumed(e) => tale.suspended.iter_mut().filter(|(kid, ..)| *kid == e.kid).for_each(|(_, _, until)| {
                    until.get_or_insert(*time);
                }),
                Event::KeyCompromised(e) => {
                    // A compromise never waits: while the log's time is wrong it promotes by that time, as if it were forced.
                    tale.forced.extend(e.to.clone().filter(|_| record.time.since(*time) > SKEW));
                    tale.compromised.insert(e.kid.clone(), (record.seq, *time, record.time.min(*time)));
                    tale.stopped.entry(e.kid.clone()).or_insert(*time);
                }
                _ => {}
            }
        }
        let longest = |part: fn(&Timing) -> Duration| timings.iter().map(part).max().unwrap_or_default();
        // A replica that is cut off while the settings grow serves for as long as its old ones allow.
        let serving = longest(lease::serve_lease);
        tale.exposure = longest(|timing| Duration::from_millis(timing.max_exposure_ms)).max(serving + longest(Timing::lead));
        tale.window = longest(Timing::release_window);
        tale.shortest_lead = timings.iter().map(Timing::seen_by_all).min().unwrap_or_default();
        tale
    }

    fn accepts(&self, token: &Token, segment: &Segment, silent: bool) -> Result<(), Caught> {
        if segment.kids.contains(&token.kid) {
            return Ok(());
        }
        let knows_key = self.published.get(&token.kid).is_some_and(|seq| segment.size > *seq);
        let is_revoked = self.compromised.get(&token.kid).is_some_and(|(seq, ..)| segment.size > *seq);
        // I1 counts from when a key was served, and not again after a time in which no node answered anybody: a poller that then failed
        // may be a V behind. That is known, and no mistake here.
        if is_revoked || (!knows_key && (silent || self.forced.contains(&token.kid))) {
            return Ok(());
        }
        let by = if knows_key { "verifiers: the kid of a live token left (I3)" } else { "verifiers: unknown kid (I1)" };
        let (node, from, until, size) = (segment.node, segment.from, segment.until, segment.size);
        Err(Caught::new(by, format!("{token:?} meets a set of node {node}, served {from} to {until:?} from {size} records")))
    }

    /// The exposure of compromised keys, and the shorter cache life after them.
    fn forgets(&self, segment: &Segment, until: Timestamp, silent: bool) -> Result<(), Caught> {
        let holds_keys_of = |kid: &str| match &segment.set {
            SetName::Issuer(_) => true,
            SetName::Keyring(ring) => self.rings.get(kid) == Some(ring),
        };
        for (kid, (seq, time, recorded)) in self.compromised.iter().filter(|(kid, _)| holds_keys_of(kid)) {
            let trusted = segment.kids.contains(kid) && !silent;
            holds(!trusted || until <= *time + self.exposure, "verifiers: trust a compromised key for too long (E)", || {
                format!(
                    "{kid}, compromised at {time}, is trusted until {until}: {:?} served {} to {:?}",
                    segment.node, segment.from, segment.until
                )
            })?;
            let hurries = segment.clock_is_right
                && segment.size > *seq
                && segment.from >= *time
                && segment.from + SKEW < *recorded + self.shortest_lead;
            let slow = hurries && segment.max_age > Duration::from_secs(30);
            holds(!slow, "I4: no shorter cache life after a compromise", || format!("{:?} at {}", segment.max_age, segment.from))?;
        }
        Ok(())
    }

    /// Q: nothing leaves later than the release window after the record that stopped its key.
    pub(super) fn released_in_time(&self, tokens: &[Token]) -> Result<(), Caught> {
        tokens.iter().try_for_each(|token| {
            let resting =
                self.suspended.iter().filter(|(kid, ..)| *kid == token.kid).find(|(_, from, until)| {
                    token.released > *from + self.window + SLACK && until.is_none_or(|until| token.released < until)
                });
            holds(resting.is_none(), "I2: a suspended key signs", || format!("{token:?}: {resting:?}"))?;
            let stopped = self.stopped.get(&token.kid);
            let late = stopped.is_some_and(|stopped| token.released > *stopped + self.window + SLACK);
            holds(!late, "I2: released after Q", || format!("{token:?}, stopped at {stopped:?}"))
        })
    }
}

/// Every kid of a JWKS body, read from its text.
pub(super) fn kids_in(body: &[u8]) -> BTreeSet<String> {
    let text = String::from_utf8_lossy(body);
    text.split(r#""kid":""#).skip(1).filter_map(|rest| rest.split('"').next()).map(str::to_owned).collect()
}
