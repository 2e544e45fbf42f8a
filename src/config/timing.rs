//! Times: from what the file says of a keyring to settings that can be kept, or to what would have to change.
//!
//! In scope: which setting is whose, and where in the file that stands which the solver refuses. Out of scope: defaults, inequalities and
//! their explanation (`rotation::timing`).

use std::collections::BTreeMap;
use std::time::Duration;

use claviger_audit::event::Purpose;
use claviger_audit::jwks::SetName;
use claviger_audit::timing::Timing;

use super::KeyringConfig;
use super::error::{Place, Problems};
use super::raw::{RawKeyring, RawTiming};
use super::span::Span;
use crate::rotation::timing::{Impossible, Settings, SignatureLife, solve, solve_set};

/// The settings of one keyring with their defaults, if every inequality holds.
pub(super) fn timing(
    purpose: Purpose,
    own: &RawKeyring,
    defaults: &RawTiming,
    deadline: Duration,
    at: &Place,
    problems: &mut Problems<'_>,
) -> Option<Timing> {
    let given = own.timing(defaults);
    let life = life(purpose, own, &given, at, problems)?;
    let add = |impossible: Impossible| match impossible.setting {
        "deadline" => add(problems, &Place::of("limits").key("deadline"), impossible),
        setting => add(problems, &at.key(setting), impossible),
    };
    solve(&settings(&given, life, deadline)).map_err(|all| all.into_iter().for_each(add)).ok()
}

/// I6: no set of keys may grow too large, neither a keyring's own nor that of an issuer.
pub(super) fn refuse_large_sets(keyrings: &BTreeMap<String, KeyringConfig>, problems: &mut Problems<'_>) {
    let mut issuers: BTreeMap<&str, Vec<Timing>> = BTreeMap::new();
    for (name, keyring) in keyrings {
        match solve_set(&SetName::Keyring(name.clone()), &[keyring.timing]) {
            Err(impossible) => add(problems, &Place::of("keyring").key(name).key(impossible.setting), impossible),
            // A keyring that is too large alone is told once, not for its issuer too.
            Ok(()) => issuers.entry(keyring.issuer.as_deref().unwrap_or_default()).or_default().push(keyring.timing),
        }
    }
    // A jws keyring has no issuer, and no set but its own.
    issuers.remove("");
    for (issuer, timings) in issuers {
        if let Err(impossible) = solve_set(&SetName::Issuer(issuer.to_owned()), &timings) {
            add(problems, &Place::of("issuer").key(issuer), impossible);
        }
    }
}

fn life(purpose: Purpose, own: &RawKeyring, given: &RawTiming, at: &Place, problems: &mut Problems<'_>) -> Option<SignatureLife> {
    match purpose {
        Purpose::Jwt => {
            if own.verify_within.is_some() {
                problems.add(&at.key("verify_within"), "is for jws keyrings", "set token_ttl: the longest life of a token");
            }
            Some(given.token_ttl.map_or(Settings::default().life, |Span(ttl)| SignatureLife::TokenTtl(ttl)))
        }
        Purpose::Jws => {
            if own.token_ttl.is_some() {
                problems.add(&at.key("token_ttl"), "is for jwt keyrings", "set verify_within: how long verifiers may accept a signature");
            }
            let remedy = "say how long verifiers may go on accepting a signature of a jws keyring";
            problems.required(given.verify_within, &at.key("verify_within"), remedy).map(|Span(span)| SignatureLife::VerifyWithin(span))
        }
    }
}

fn settings(given: &RawTiming, life: SignatureLife, deadline: Duration) -> Settings {
    let or = |given: Option<Span>, default: Duration| given.map_or(default, |Span(span)| span);
    let default = Settings::default();
    Settings {
        life,
        jwks_max_age: or(given.jwks_max_age, default.jwks_max_age),
        jwks_stale: or(given.jwks_stale, default.jwks_stale),
        verifier_poll: or(given.verifier_poll, default.verifier_poll),
        propagation: or(given.propagation, default.propagation),
        clock_skew: or(given.clock_skew, default.clock_skew),
        // The log is a file: whoever signs has the newest events.
        signing_lease: Duration::ZERO,
        deadline,
        rotate_every: or(given.rotate_every, default.rotate_every),
        provisioning_budget: or(given.provisioning_budget, default.provisioning_budget),
        max_exposure: or(given.max_exposure, default.max_exposure),
        destroy_after: or(given.destroy_after, default.destroy_after),
    }
}

fn add(problems: &mut Problems<'_>, place: &Place, impossible: Impossible) {
    problems.add(place, format!("{}: {}", impossible.rule, impossible.problem), impossible.remedy);
}
