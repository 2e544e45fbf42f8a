//! The solver: from what an operator knows to settings that can be kept, or to what would have to change.
//!
//! In scope: the settings of one keyring with their defaults, the inequalities I1, I2, I4, I5 and I8, and the size of a set (I6). Each
//! refusal names the inequality, its numbers and the smallest change that would satisfy it. Out of scope: reading the configuration file.
//! The sums themselves are the log's (`claviger_audit::timing`), so that the verifier judges by the same ones.

use std::fmt;
use std::time::Duration;

use claviger_audit::jwks::{MOST_KEYS_IN_SET, SetName};
use claviger_audit::timing::{Broken, Timing};

use super::duration::Human;

/// One tick: how late the rotator may be. It plans again at least this often, whatever it last said about its next date.
pub const TICK: Duration = Duration::from_secs(10);

/// T: how long a signature can matter, under the name that the keyring's purpose gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureLife {
    /// `token_ttl`: the longest life of a token.
    TokenTtl(Duration),
    /// `verify_within`: how long verifiers may go on accepting a signature that carries no date.
    VerifyWithin(Duration),
}

/// What an operator may set for one keyring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// T, `token_ttl` or `verify_within`.
    pub life: SignatureLife,
    /// A: the largest max-age of the JWKS response.
    pub jwks_max_age: Duration,
    /// S: stale allowances of caches in front of us.
    pub jwks_stale: Duration,
    /// V: the slowest verifier's refresh.
    pub verifier_poll: Duration,
    /// R: replicas and content delivery networks.
    pub propagation: Duration,
    /// e: how far two clocks may differ.
    pub clock_skew: Duration,
    /// l: how long a replica may sign without having heard from the key log; zero where the log is a file.
    pub signing_lease: Duration,
    /// The longest time between accepting a request and releasing its signature.
    pub deadline: Duration,
    /// L: how long a key is active.
    pub rotate_every: Duration,
    /// G: time to create a key, retries included.
    pub provisioning_budget: Duration,
    /// E: how long verifiers may go on trusting a compromised key.
    pub max_exposure: Duration,
    /// The grace between withdrawn and destroyed.
    pub destroy_after: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            life: SignatureLife::TokenTtl(Duration::from_mins(15)),
            jwks_max_age: Duration::from_mins(5),
            jwks_stale: Duration::ZERO,
            verifier_poll: Duration::from_mins(10),
            propagation: Duration::from_secs(10),
            clock_skew: Duration::from_secs(30),
            signing_lease: Duration::ZERO,
            deadline: Duration::from_secs(2),
            rotate_every: Duration::from_hours(30 * 24),
            provisioning_budget: Duration::from_mins(10),
            max_exposure: Duration::from_hours(1),
            destroy_after: Duration::from_hours(7 * 24),
        }
    }
}

/// An inequality that does not hold, in words: the numbers, and the smallest change that would satisfy it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{rule}: {problem}; {remedy}")]
pub struct Impossible {
    /// The invariant, e.g. `I5`.
    pub rule: &'static str,
    /// The setting to change first.
    pub setting: &'static str,
    /// What cannot be, with its numbers.
    pub problem: String,
    /// The smallest change that would do.
    pub remedy: String,
}

/// Computes the settings that the log will hold.
///
/// # Errors
///
/// Every inequality that does not hold, not only the first.
pub fn solve(settings: &Settings) -> Result<Timing, Vec<Impossible>> {
    let timing = timing_of(settings);
    let bounds: Vec<Broken> = timing.broken().into_iter().filter(|broken| !is_sum(broken)).collect();
    // A sum is told with the parts that it will have, so that whoever follows every remedy is done.
    let within = within(timing, &bounds);
    let sums: Vec<Broken> = within.broken().into_iter().filter(is_sum).collect();
    if bounds.is_empty() && sums.is_empty() {
        return Ok(timing);
    }
    let hint = if bounds.is_empty() { "" } else { " once all settings are within their bounds" };
    let sums = sums.iter().map(|broken| explain_sum(broken, &within, hint));
    Err(sums.chain(bounds.iter().map(|broken| explain_bound(broken, settings, &timing))).collect())
}

/// I6 for the keyrings of one set: 2 x keyrings + rotations within Q + T + 2e + one tick, at most 100 keys.
///
/// # Errors
///
/// [`Impossible`] with the shortest `rotate_every` that would do for all of them, or the advice to split the issuer.
pub fn solve_set(set: &SetName, keyrings: &[Timing]) -> Result<(), Impossible> {
    let standing = 2 * keyrings.len() as u64;
    let rotations = |least: u64| keyrings.iter().map(|timing| rotations_in_overlap(timing, least)).sum::<u64>();
    let (most, most_rotations) = (MOST_KEYS_IN_SET as u64, rotations(0));
    if standing + most_rotations <= most {
        return Ok(());
    }
    let longest = keyrings.iter().map(|timing| millis(window(timing))).max().unwrap_or_default() + 1;
    let remedy = if standing + rotations(longest) > most {
        format!("spread the keyrings over several issuers, at most {} in one", most / 3)
    } else {
        let (mut too_short, mut enough) = (0, longest);
        while enough - too_short > 1 {
            let middle = too_short.midpoint(enough);
            if standing + rotations(middle) > most { too_short = middle } else { enough = middle }
        }
        format!("raise rotate_every to {} where it is shorter", human(enough))
    };
    let count = keyrings.len();
    let sum = standing + most_rotations;
    let problem = format!(
        "{set} would hold 2 x {count} keyrings + {most_rotations} rotations within Q + T + 2e + one tick = {sum} keys, at most {most} are \
         allowed"
    );
    Err(Impossible { rule: "I6", setting: "rotate_every", problem, remedy })
}

/// How many keys that stopped signing can be published at once, if the keyring rotated no more often than every `least` milliseconds.
fn rotations_in_overlap(timing: &Timing, least: u64) -> u64 {
    millis(window(timing)) / timing.rotate_every_ms.max(least).max(1) + 1
}

fn window(timing: &Timing) -> Duration {
    timing.overlap().saturating_add(TICK)
}

fn timing_of(settings: &Settings) -> Timing {
    let (SignatureLife::TokenTtl(life) | SignatureLife::VerifyWithin(life)) = settings.life;
    Timing {
        jwks_max_age_ms: millis(settings.jwks_max_age),
        jwks_stale_ms: millis(settings.jwks_stale),
        verifier_poll_ms: millis(settings.verifier_poll),
        propagation_ms: millis(settings.propagation),
        token_ttl_ms: millis(life),
        clock_skew_ms: millis(settings.clock_skew),
        signing_lease_ms: millis(settings.signing_lease),
        deadline_ms: millis(settings.deadline),
        rotate_every_ms: millis(settings.rotate_every),
        provisioning_budget_ms: millis(settings.provisioning_budget),
        max_exposure_ms: millis(settings.max_exposure),
        destroy_after_ms: millis(settings.destroy_after),
    }
}

/// Whether other settings decide where the bound lies.
fn is_sum(broken: &Broken) -> bool {
    matches!(broken.setting, "rotate_every" | "max_exposure")
}

/// The settings with these bounds kept.
fn within(timing: Timing, bounds: &[Broken]) -> Timing {
    let bound = |name: &str| bounds.iter().find(|broken| broken.setting == name);
    let most = bound("the longest setting").map_or(u64::MAX, |broken| broken.left_ms);
    let fit = |name: &str, value: u64| value.max(bound(name).map_or(0, |broken| broken.right_ms)).min(most);
    Timing {
        jwks_max_age_ms: fit("jwks_max_age", timing.jwks_max_age_ms),
        jwks_stale_ms: fit("jwks_stale", timing.jwks_stale_ms),
        verifier_poll_ms: fit("verifier_poll", timing.verifier_poll_ms),
        propagation_ms: fit("propagation", timing.propagation_ms),
        token_ttl_ms: fit("token_ttl", timing.token_ttl_ms),
        clock_skew_ms: fit("clock_skew", timing.clock_skew_ms),
        signing_lease_ms: fit("signing_lease", timing.signing_lease_ms),
        deadline_ms: fit("deadline", timing.deadline_ms),
        // These are on the other side of a sum, which has its own words.
        rotate_every_ms: timing.rotate_every_ms.min(most),
        provisioning_budget_ms: fit("provisioning_budget", timing.provisioning_budget_ms),
        max_exposure_ms: timing.max_exposure_ms.min(most),
        destroy_after_ms: fit("destroy_after", timing.destroy_after_ms),
    }
}

fn explain_sum(broken: &Broken, timing: &Timing, hint: &str) -> Impossible {
    let (d, e, g) = (millis(timing.seen_by_all()), timing.clock_skew_ms, timing.provisioning_budget_ms);
    let missing = broken.right_ms.saturating_sub(broken.left_ms);
    let (setting, left, right) = (broken.setting, human(broken.left_ms), human(broken.right_ms));
    let (symbols, sum, (name, value)) = if setting == "rotate_every" {
        ("D + e + G", format!("{} + {} + {}", human(d), human(e), human(g)), ("provisioning_budget", g))
    } else {
        ("D + e", format!("{} + {}", human(d), human(e)), longest_cache(timing))
    };
    let problem = format!("{setting} ({left}) must be at least {symbols} = {sum} = {right}{hint}");
    let remedy = format!("raise {setting} to {right}{}", lower(name, value, missing));
    Impossible { rule: broken.rule, setting, problem, remedy }
}

fn explain_bound(broken: &Broken, settings: &Settings, timing: &Timing) -> Impossible {
    let setting = match (broken.setting, settings.life) {
        ("token_ttl", SignatureLife::VerifyWithin(_)) => "verify_within",
        (setting, _) => setting,
    };
    let (left, right) = (human(broken.left_ms), human(broken.right_ms));
    if setting != "the longest setting" {
        let problem = format!("{setting} ({left}) must be at least {right}");
        return Impossible { rule: broken.rule, setting, problem, remedy: format!("raise {setting} to {right}") };
    }
    let too_long: Vec<(&'static str, u64)> = named(settings, timing).into_iter().filter(|(_, value)| *value > broken.left_ms).collect();
    let found: Vec<String> = too_long.iter().map(|(name, value)| format!("{name} is {}", human(*value))).collect();
    let names: Vec<&str> = too_long.iter().map(|(name, _)| *name).collect();
    let problem = format!("no setting may be longer than {left}, {}", found.join(" and "));
    let remedy = format!("lower {} to {left}", names.join(" and "));
    Impossible { rule: broken.rule, setting: names.first().copied().unwrap_or(setting), problem, remedy }
}

/// Every setting under the name that operators write.
fn named(settings: &Settings, timing: &Timing) -> [(&'static str, u64); 12] {
    let life = if matches!(settings.life, SignatureLife::TokenTtl(_)) { "token_ttl" } else { "verify_within" };
    [
        (life, timing.token_ttl_ms),
        ("jwks_max_age", timing.jwks_max_age_ms),
        ("jwks_stale", timing.jwks_stale_ms),
        ("verifier_poll", timing.verifier_poll_ms),
        ("propagation", timing.propagation_ms),
        ("clock_skew", timing.clock_skew_ms),
        ("signing_lease", timing.signing_lease_ms),
        ("deadline", timing.deadline_ms),
        ("rotate_every", timing.rotate_every_ms),
        ("provisioning_budget", timing.provisioning_budget_ms),
        ("max_exposure", timing.max_exposure_ms),
        ("destroy_after", timing.destroy_after_ms),
    ]
}

/// The other way out, where lowering one setting alone is enough and leaves at least a second of it.
fn lower(name: &str, value: u64, by: u64) -> String {
    match value.checked_sub(by) {
        Some(left) if left >= 1000 => format!(", or lower {name} to {}", human(left)),
        _ => String::new(),
    }
}

/// The largest part of D, which is the one worth lowering.
fn longest_cache(timing: &Timing) -> (&'static str, u64) {
    let parts = [
        ("verifier_poll", timing.verifier_poll_ms),
        ("jwks_max_age", timing.jwks_max_age_ms),
        ("jwks_stale", timing.jwks_stale_ms),
        ("propagation", timing.propagation_ms),
    ];
    parts.into_iter().rev().max_by_key(|(_, value)| *value).unwrap_or(parts[0])
}

fn human(millis: u64) -> impl fmt::Display {
    Human(Duration::from_millis(millis))
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::duration::parse_duration;
    use super::*;

    fn span(text: &str) -> Duration {
        parse_duration(text).expect(text)
    }

    fn refusals(settings: &Settings) -> Vec<String> {
        solve(settings).expect_err("cannot hold").iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_defaults_hold() {
        let timing = solve(&Settings::default()).expect("holds");
        assert_eq!((timing.seen_by_all(), timing.lead()), (span("15m10s"), span("15m40s")));
        assert_eq!(timing.overlap(), span("16m2s"));
        assert_eq!(solve_set(&SetName::Issuer("main".into()), &[timing; 33]), Ok(()));
    }

    #[test]
    fn a_short_period_names_both_ways_out() {
        let minute = Settings { jwks_max_age: span("20s"), verifier_poll: span("30s"), propagation: span("10s"), ..Settings::default() };
        let settings = Settings { clock_skew: span("2s"), rotate_every: span("5m"), provisioning_budget: span("5m"), ..minute };
        let expected = "I5: rotate_every (5m) must be at least D + e + G = 1m + 2s + 5m = 6m 2s; raise rotate_every to 6m 2s, or lower \
                        provisioning_budget to 3m 58s";
        assert_eq!(refusals(&settings), [expected]);
        assert!(solve(&Settings { rotate_every: span("6m2s"), ..settings }).is_ok());
        assert!(solve(&Settings { provisioning_budget: span("3m58s"), ..settings }).is_ok());
        let shorter = Settings { rotate_every: span("1m"), ..settings };
        assert_eq!(
            refusals(&shorter),
            ["I5: rotate_every (1m) must be at least D + e + G = 1m + 2s + 5m = 6m 2s; raise rotate_every to 6m 2s"]
        );
    }

    #[test]
    fn exposure_names_the_longest_cache() {
        let settings = Settings { max_exposure: span("10m"), ..Settings::default() };
        let expected = "I4: max_exposure (10m) must be at least D + e = 15m 10s + 30s = 15m 40s; raise max_exposure to 15m 40s, or lower \
                        verifier_poll to 4m 20s";
        assert_eq!(refusals(&settings), [expected]);
        assert!(solve(&Settings { verifier_poll: span("4m20s"), ..settings }).is_ok());
    }

    #[test]
    fn least_and_most_are_named_all_at_once() {
        let settings = Settings {
            life: SignatureLife::VerifyWithin(Duration::ZERO),
            jwks_max_age: span("500ms"),
            clock_skew: Duration::ZERO,
            deadline: span("1ms"),
            destroy_after: span("36501d"),
            ..Settings::default()
        };
        let expected = [
            "I4: jwks_max_age (500ms) must be at least 1s; raise jwks_max_age to 1s",
            "I1: clock_skew (0s) must be at least 1s; raise clock_skew to 1s",
            "I2: verify_within (0s) must be at least 1s; raise verify_within to 1s",
            "I2: deadline (1ms) must be at least 10ms; raise deadline to 10ms",
            "I8: no setting may be longer than 36500d, destroy_after is 36501d; lower destroy_after to 36500d",
        ];
        assert_eq!(refusals(&settings), expected);
    }

    #[test]
    fn a_set_that_would_grow_too_large_is_refused() {
        let set = SetName::Issuer("main".into());
        let long = Settings { life: SignatureLife::TokenTtl(span("30d")), rotate_every: span("6h"), ..Settings::default() };
        let long = solve(&long).expect("holds");
        let refusal = solve_set(&set, &[long]).expect_err("too many").to_string();
        let expected = "I6: issuer/main would hold 2 x 1 keyrings + 121 rotations within Q + T + 2e + one tick = 123 keys, at most 100 are \
                        allowed; raise rotate_every to 7h 20m 49s 715ms where it is shorter";
        assert_eq!(refusal, expected);
        let enough = Timing { rotate_every_ms: millis(span("7h20m49s715ms")), ..long };
        assert_eq!(solve_set(&set, &[enough]), Ok(()));
        let many = solve_set(&set, &[solve(&Settings::default()).expect("holds"); 34]).expect_err("too many").to_string();
        assert!(many.ends_with("spread the keyrings over several issuers, at most 33 in one"), "{many}");
    }
}
