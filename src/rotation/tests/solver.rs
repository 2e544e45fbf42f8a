//! The solver's remedies: whoever follows them all is done, and whoever stops a millisecond short is not.
//!
//! The words themselves are read here, as an operator reads them. Golden files have the messages of each impossible configuration
//! (`src/config/tests/impossible`).

use proptest::prelude::*;

use super::super::duration::parse_duration;
use super::super::timing::{Impossible, SignatureLife, solve_set};
use super::*;

const MILLISECOND: Duration = Duration::from_millis(1);

/// One remedy: these settings become this long.
#[derive(Clone, Debug)]
struct Change {
    rises: bool,
    settings: Vec<String>,
    to: Duration,
}

impl Change {
    fn read(text: &str) -> Self {
        let (verb, rest) = text.split_once(' ').expect("a verb");
        let (names, to) = rest.split_once(" to ").expect("a length");
        let settings = names.split(" and ").map(str::to_owned).collect();
        Self { rises: verb == "raise", settings, to: parse_duration(to).expect(text) }
    }

    /// A millisecond less than it asks for.
    fn stops_short(&self) -> Self {
        Self { to: if self.rises { self.to.saturating_sub(MILLISECOND) } else { self.to + MILLISECOND }, ..self.clone() }
    }

    fn apply(&self, settings: &mut Settings) {
        for name in &self.settings {
            *setting(settings, name) = self.to;
        }
    }
}

/// The first remedy, and the other way out if there is one.
fn ways_out(impossible: &Impossible) -> Vec<Change> {
    impossible.remedy.split(", or ").map(Change::read).collect()
}

fn setting<'a>(settings: &'a mut Settings, name: &str) -> &'a mut Duration {
    match name {
        "token_ttl" | "verify_within" => {
            let (SignatureLife::TokenTtl(life) | SignatureLife::VerifyWithin(life)) = &mut settings.life;
            life
        }
        "jwks_max_age" => &mut settings.jwks_max_age,
        "jwks_stale" => &mut settings.jwks_stale,
        "verifier_poll" => &mut settings.verifier_poll,
        "propagation" => &mut settings.propagation,
        "clock_skew" => &mut settings.clock_skew,
        "signing_lease" => &mut settings.signing_lease,
        "deadline" => &mut settings.deadline,
        "rotate_every" => &mut settings.rotate_every,
        "provisioning_budget" => &mut settings.provisioning_budget,
        "max_exposure" => &mut settings.max_exposure,
        "destroy_after" => &mut settings.destroy_after,
        other => panic!("no setting is called {other}"),
    }
}

fn changed(settings: &Settings, changes: &[Change]) -> Settings {
    let mut settings = *settings;
    for change in changes {
        change.apply(&mut settings);
    }
    settings
}

/// From nothing to a month, every order of magnitude as likely as another.
fn span() -> impl Strategy<Value = Duration> {
    let upper = prop_oneof![Just(20_u64), Just(2_000), Just(60_000), Just(3_600_000), Just(86_400_000), Just(30 * 86_400_000)];
    upper.prop_flat_map(|upper| (0..upper).prop_map(Duration::from_millis))
}

/// One of them may be longer than a hundred years, but no part of a sum, which could not be reached then.
fn settings() -> impl Strategy<Value = Settings> {
    let long = prop_oneof![9 => span(), 1 => (36_499_u64..36_502).prop_map(|days| DAY * u32::try_from(days).expect("small"))];
    let life = (any::<bool>(), long.clone());
    let life = life.prop_map(|(jwt, life)| if jwt { SignatureLife::TokenTtl(life) } else { SignatureLife::VerifyWithin(life) });
    let caches = (span(), span(), span(), span());
    ((life, long, caches), (span(), span(), span(), span(), span(), span())).prop_map(|((life, destroy_after, caches), rest)| Settings {
        life,
        destroy_after,
        jwks_max_age: caches.0,
        jwks_stale: caches.1,
        verifier_poll: caches.2,
        propagation: caches.3,
        clock_skew: rest.0,
        signing_lease: rest.1,
        deadline: rest.2,
        rotate_every: rest.3,
        provisioning_budget: rest.4,
        max_exposure: rest.5,
    })
}

proptest! {
    #[test]
    fn every_remedy_is_enough_and_none_is_too_much(settings in settings()) {
        let Err(impossible) = solve(&settings) else { return Ok(()) };
        let first: Vec<Change> = impossible.iter().map(|impossible| ways_out(impossible).remove(0)).collect();
        prop_assert!(solve(&changed(&settings, &first)).is_ok(), "{impossible:?}");
        for (index, problem) in impossible.iter().enumerate() {
            for way in ways_out(problem) {
                // The other problems are solved the first way.
                let mut others = first.clone();
                others.remove(index);
                let enough = [others.clone(), vec![way.clone()]].concat();
                prop_assert!(solve(&changed(&settings, &enough)).is_ok(), "{way:?} of {impossible:?}");
                let short = changed(&settings, &[others, vec![way.stops_short()]].concat());
                let still = solve(&short).expect_err("a millisecond matters");
                prop_assert!(still.iter().any(|other| other.rule == problem.rule), "{way:?} of {impossible:?}: {still:?}");
            }
        }
    }

    #[test]
    fn a_set_has_the_shortest_period_that_it_can_have(lives in prop::collection::vec((1_u64..60 * 86_400, 1_800_000_u64..86_400_000), 1..40)) {
        let timings: Vec<Timing> = lives.iter().map(|(life, every)| timing(|settings| {
            settings.life = SignatureLife::TokenTtl(Duration::from_secs(*life));
            settings.rotate_every = Duration::from_millis(*every);
        })).collect();
        let set = SetName::Issuer("main".to_owned());
        let Err(impossible) = solve_set(&set, &timings) else { return Ok(()) };
        let Some(change) = impossible.remedy.strip_suffix(" where it is shorter").map(Change::read) else {
            // Three keys for each are too many, however rarely they rotate.
            prop_assert!(timings.len() * 3 > 100, "{impossible:?}");
            prop_assert_eq!(impossible.remedy, "spread the keyrings over several issuers, at most 33 in one");
            return Ok(());
        };
        let raised = |to: Duration| -> Vec<Timing> {
            let least = u64::try_from(to.as_millis()).expect("small");
            timings.iter().map(|timing| Timing { rotate_every_ms: timing.rotate_every_ms.max(least), ..*timing }).collect()
        };
        prop_assert_eq!(solve_set(&set, &raised(change.to)), Ok(()));
        prop_assert!(solve_set(&set, &raised(change.to.saturating_sub(MILLISECOND))).is_err(), "{:?}", change);
    }
}
