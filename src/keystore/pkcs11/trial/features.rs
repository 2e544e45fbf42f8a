//! What the findings mean for each work that Claviger does. Pure.
//!
//! In scope: one verdict for each feature, and whether the token is usable at all. Out of scope: finding anything.

use claviger_audit::Algorithm;

use super::FEWEST_SESSIONS;
use super::report::{AttributeRow, Check, Feature, Report, Verdict};

/// The verdict for each feature. `wanted`: algorithms that must work; if empty, every one that the token offers, and at least one.
pub(super) fn features(report: &Report, wanted: &[Algorithm]) -> Vec<Feature> {
    let mut features: Vec<Feature> = Algorithm::ALL.into_iter().map(|algorithm| signing(report, algorithm, wanted)).collect();
    features.push(admission(&report.attributes));
    features.push(of_checks(
        "find_or_create",
        &checks(report, "find_or_create."),
        "a key that was made is found again, and not made twice",
    ));
    features.push(destroy(report));
    features.push(recovery(report));
    features.push(concurrency(report));
    features
}

/// Whether everything that Claviger needs works: nothing fails, and something signs.
pub(super) fn usable(report: &Report) -> bool {
    let signs = |feature: &Feature| feature.feature.starts_with("signing.") && feature.verdict == Verdict::Ok;
    report.complete
        && report.features.iter().any(signs)
        && report.features.iter().all(|feature| feature.verdict != Verdict::Fails)
        && report.checks.iter().all(|check| check.verdict != Verdict::Fails)
        && report.cleanup.left.is_empty()
}

fn feature(name: impl Into<String>, verdict: Verdict, why: impl Into<String>) -> Feature {
    Feature { feature: name.into(), verdict, why: why.into() }
}

fn signing(report: &Report, algorithm: Algorithm, wanted: &[Algorithm]) -> Feature {
    let name = format!("signing.{algorithm}");
    let offered = report.mechanisms.iter().any(|row| row.algorithm == algorithm.name() && row.offered);
    let tried = report.algorithms.iter().find(|row| row.algorithm == algorithm.name());
    match tried {
        Some(row) if row.verdict == Verdict::Ok => feature(name, Verdict::Ok, "keys are made, sign, and are destroyed"),
        Some(row) => feature(name, Verdict::Fails, row.detail.clone()),
        None if !offered && wanted.contains(&algorithm) => feature(name, Verdict::Fails, "asked for, and the token does not offer it"),
        None if !offered => feature(name, Verdict::Absent, "the token does not offer it"),
        None if wanted.is_empty() || wanted.contains(&algorithm) => feature(name, Verdict::Fails, "not tried: the run ended before"),
        None => feature(name, Verdict::Absent, "not asked for"),
    }
}

fn admission(rows: &[AttributeRow]) -> Feature {
    let refused: Vec<String> = rows.iter().filter(|row| row.verdict == Verdict::Fails).map(reason).collect();
    match (rows, refused.as_slice()) {
        ([], _) => feature("admission", Verdict::Fails, "no key could be made and read back"),
        (_, []) => feature(
            "admission",
            Verdict::Ok,
            "keys made with the default template are private, sensitive, never extractable, local, sign-only",
        ),
        (_, refused) => feature("admission", Verdict::Fails, refused.join("; ")),
    }
}

fn reason(row: &AttributeRow) -> String {
    let found = row.found.map_or_else(|| "not reported".to_owned(), |found| found.to_string());
    format!("{} of {} is {found}, must be {}", row.attribute, row.key, row.wanted)
}

fn checks<'r>(report: &'r Report, prefix: &str) -> Vec<&'r Check> {
    report.checks.iter().filter(|check| check.check.starts_with(prefix)).collect()
}

/// Good if there are checks, and none failed.
fn of_checks(name: &str, checks: &[&Check], good: &str) -> Feature {
    let failed: Vec<String> =
        checks.iter().filter(|check| check.verdict == Verdict::Fails).map(|check| format!("{}: {}", check.check, check.result)).collect();
    match (checks, failed.as_slice()) {
        ([], _) => feature(name, Verdict::Fails, "not tried: no key could be made"),
        (_, []) => feature(name, Verdict::Ok, good),
        (_, failed) => feature(name, Verdict::Fails, failed.join("; ")),
    }
}

fn destroy(report: &Report) -> Feature {
    let kept = report.algorithms.iter().find(|row| row.destroyed == Some(false));
    match kept {
        Some(row) => feature("destroy", Verdict::Fails, format!("the key for {} is still there: {}", row.algorithm, row.detail)),
        None => of_checks("destroy", &checks(report, "destroy."), "keys are gone when they were destroyed"),
    }
}

/// Each way to lose a login must end with the keys found again.
fn recovery(report: &Report) -> Feature {
    let events = ["logout", "close", "reinitialise"];
    let all: Vec<&Check> = events.iter().flat_map(|event| checks(report, &format!("{event}."))).collect();
    let missing = events.iter().find(|event| !all.iter().any(|check| check.check == format!("{event}.keys")));
    match missing {
        Some(event) if all.iter().all(|check| check.verdict != Verdict::Fails) => {
            feature("recovery", Verdict::Fails, format!("not tried after {event}: no key could be made"))
        }
        _ => of_checks("recovery", &all, "a new login brings the keys back, also after the module was initialised again"),
    }
}

fn concurrency(report: &Report) -> Feature {
    let Some(sessions) = &report.sessions else { return feature("concurrency", Verdict::Fails, "sessions could not be counted") };
    if sessions.opened < FEWEST_SESSIONS {
        let why = sessions.beyond.clone().unwrap_or_default();
        return feature(
            "concurrency",
            Verdict::Fails,
            format!("only one session can be open, and Claviger needs {FEWEST_SESSIONS}: {why}"),
        );
    }
    let failed = report.load.iter().find_map(|step| Some((step.workers, step.failure.as_ref()?)));
    match (report.load.as_slice(), failed) {
        ([], _) => feature("concurrency", Verdict::Fails, "not tried: no key could be made"),
        (_, Some((workers, why))) => feature("concurrency", Verdict::Fails, format!("at workers = {workers}: {why}")),
        (steps, None) => {
            let best = steps.iter().max_by(|one, other| one.per_second.total_cmp(&other.per_second));
            let text = best
                .map_or_else(String::new, |step| format!("up to {} signatures a second, at workers = {}", step.per_second, step.workers));
            feature("concurrency", Verdict::Ok, text)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::{AlgorithmRow, Cleanup, LoadStep, MechanismRow, Sessions};
    use super::*;

    /// A token that offers ES256 and nothing else, and does it well.
    fn sound() -> Report {
        let good = |check: &str| Check::new(check, "as it should be", Verdict::Ok);
        let mechanism = |algorithm: Algorithm| MechanismRow {
            algorithm: algorithm.name().to_owned(),
            generate: String::new(),
            generate_sizes: None,
            sign: String::new(),
            can_sign: true,
            offered: algorithm == Algorithm::ES256,
            verdict: Verdict::Ok,
        };
        let attribute = |attribute: &str, wanted| AttributeRow {
            key: "P-256".to_owned(),
            attribute: attribute.to_owned(),
            wanted,
            found: Some(wanted),
            verdict: Verdict::Ok,
        };
        let checks = ["find_or_create.P-256", "destroy.P-256", "logout.keys", "close.keys", "reinitialise.keys"];
        Report {
            run: String::new(),
            complete: true,
            usable: false,
            checks: checks.into_iter().map(good).collect(),
            mechanisms: Algorithm::ALL.into_iter().map(mechanism).collect(),
            attributes: vec![attribute("sensitive", true), attribute("extractable", false)],
            algorithms: vec![AlgorithmRow {
                algorithm: "ES256".to_owned(),
                generate_us: Some(1),
                sign_us: Some(1),
                verified: Some(true),
                wrong_length: None,
                destroyed: Some(true),
                verdict: Verdict::Ok,
                detail: String::new(),
            }],
            sessions: Some(Sessions { bound: 64, opened: 64, beyond: None, read_only: true }),
            load: vec![LoadStep {
                workers: 1,
                callers: 32,
                signatures: 1,
                per_second: 1.0,
                p50_us: 1,
                p90_us: 1,
                p99_us: 1,
                max_us: 1,
                failure: None,
            }],
            workers: None,
            features: Vec::new(),
            cleanup: Cleanup::default(),
        }
    }

    /// The features that fail, and whether the token is usable.
    fn judged(mut report: Report, wanted: &[Algorithm]) -> (Vec<String>, bool) {
        report.features = features(&report, wanted);
        let failing = report.features.iter().filter(|feature| feature.verdict == Verdict::Fails);
        (failing.map(|feature| feature.feature.clone()).collect(), usable(&report))
    }

    #[test]
    fn a_sound_token_is_usable_and_one_algorithm_is_enough() {
        assert_eq!(judged(sound(), &[]), (vec![], true));
        assert_eq!(judged(sound(), &[Algorithm::ES256]), (vec![], true));
        assert_eq!(judged(sound(), &[Algorithm::ES256, Algorithm::PS256]), (vec!["signing.PS256".to_owned()], false));
    }

    #[test]
    fn each_defect_is_told_by_its_feature() {
        type Defect = fn(&mut Report);
        let defects: [(&str, Defect); 14] = [
            ("signing.ES256", |report| report.algorithms[0].verdict = Verdict::Fails),
            ("signing.ES256", |report| report.algorithms.clear()),
            ("admission", |report| report.attributes[1].verdict = Verdict::Fails),
            ("admission", |report| report.attributes.clear()),
            ("find_or_create", |report| report.checks[0].verdict = Verdict::Fails),
            ("find_or_create", |report| drop(report.checks.remove(0))),
            ("destroy", |report| report.checks[1].verdict = Verdict::Fails),
            ("destroy", |report| report.algorithms[0].destroyed = Some(false)),
            ("recovery", |report| report.checks[4].verdict = Verdict::Fails),
            ("recovery", |report| drop(report.checks.remove(3))),
            ("concurrency", |report| report.sessions = None),
            ("concurrency", |report| report.sessions.as_mut().unwrap().opened = 1),
            ("concurrency", |report| report.load[0].failure = Some("CKR_DEVICE_ERROR".to_owned())),
            ("concurrency", |report| report.load.clear()),
        ];
        for (feature, defect) in defects {
            let mut report = sound();
            defect(&mut report);
            assert_eq!(judged(report, &[]), (vec![feature.to_owned()], false));
        }
    }

    #[test]
    fn what_belongs_to_no_feature_counts_too() {
        let defects: [fn(&mut Report); 3] = [
            |report| report.complete = false,
            |report| report.cleanup.left.push("a key".to_owned()),
            |report| report.checks.push(Check::new("token.write_protected", "true", Verdict::Fails)),
        ];
        for defect in defects {
            let mut report = sound();
            defect(&mut report);
            assert_eq!(judged(report, &[]), (vec![], false));
        }
        let mut nothing = sound();
        nothing.mechanisms.iter_mut().for_each(|row| row.offered = false);
        nothing.algorithms.clear();
        assert!(!judged(nothing, &[]).1, "a token that signs nothing is of no use");
    }
}
