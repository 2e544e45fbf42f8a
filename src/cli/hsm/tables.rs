//! The report of `hsm check` for people.
//!
//! In scope: tables, and the last sentence. Out of scope: the JSON, which is the report itself.

use std::collections::BTreeSet;

use owo_colors::OwoColorize as _;

use crate::cli::output::{line, table};
use crate::inspect::hsm::{AttributeRow, LoadStep, Report, Verdict};

/// Prints everything.
pub(super) fn print(report: &Report) {
    checks(report);
    mechanisms(report);
    attributes(report);
    algorithms(report);
    load(report);
    features(report);
    conclusion(report);
}

fn heading(text: &str) {
    line(format_args!("\n{}", text.bold()));
}

fn checks(report: &Report) {
    let rows = report.checks.iter().map(|check| vec![check.check.clone(), check.result.clone(), check.verdict.word().to_owned()]);
    table(&["check", "result", "verdict"], rows.collect(), "Nothing was checked.");
}

fn mechanisms(report: &Report) {
    heading("Mechanisms that Claviger uses, as the token lists them");
    let rows = report.mechanisms.iter().map(|row| {
        let sizes = row.generate_sizes.map_or_else(|| "no".to_owned(), |(smallest, largest)| format!("{smallest} to {largest}"));
        let sign = if row.can_sign { "yes" } else { "no" };
        let generate = format!("{}: {sizes}", row.generate);
        vec![row.algorithm.clone(), generate, format!("{}: {sign}", row.sign), row.verdict.word().to_owned()]
    });
    table(&["algorithm", "makes keys", "signs", "verdict"], rows.collect(), "The token lists none.");
}

/// One row for each attribute; one for each kind of key where they differ.
fn attributes(report: &Report) {
    heading("Attributes of keys that were made with Claviger's template, read back");
    let mut names: Vec<&str> = Vec::new();
    for row in &report.attributes {
        if !names.contains(&row.attribute.as_str()) {
            names.push(&row.attribute);
        }
    }
    let found = |row: &AttributeRow| row.found.map_or_else(|| "not reported".to_owned(), |found| found.to_string());
    let rows = names.into_iter().flat_map(|name| {
        let same: Vec<&AttributeRow> = report.attributes.iter().filter(|row| row.attribute == name).collect();
        let values: BTreeSet<Option<bool>> = same.iter().map(|row| row.found).collect();
        let shown = if values.len() == 1 { &same[..1] } else { &same[..] };
        let rows = shown.iter().map(|row| {
            let key = if values.len() == 1 { "all".to_owned() } else { row.key.clone() };
            // Admission takes a token that never asks and does not say so.
            let wanted = if name == "always-authenticate" { "false or not reported".to_owned() } else { row.wanted.to_string() };
            vec![name.to_owned(), key, wanted, found(row), row.verdict.word().to_owned()]
        });
        rows.collect::<Vec<_>>()
    });
    table(&["attribute", "keys", "wanted", "found", "verdict"], rows.collect(), "No key could be made.");
}

fn algorithms(report: &Report) {
    heading("Algorithms, tried with throw-away keys");
    let rows = report.algorithms.iter().map(|row| {
        let yes = |value: Option<bool>| value.map_or("-", |value| if value { "yes" } else { "NO" }).to_owned();
        vec![
            row.algorithm.clone(),
            row.generate_us.map_or_else(|| "-".to_owned(), millis),
            row.sign_us.map_or_else(|| "-".to_owned(), millis),
            yes(row.verified),
            row.wrong_length.clone().unwrap_or_else(|| "-".to_owned()),
            yes(row.destroyed),
            row.verdict.word().to_owned(),
            row.detail.clone(),
        ]
    });
    let head = ["algorithm", "key, ms", "signature, ms", "verifies", "digest one byte short", "destroyed", "verdict", ""];
    table(&head, rows.collect(), "None was tried.");
}

fn load(report: &Report) {
    let Some(callers) = report.load.first().map(|step| step.callers) else { return };
    heading(&format!("Signing with {callers} callers in one queue; milliseconds from entering it to the signature"));
    let row = |step: &LoadStep| {
        let spans = [step.p50_us, step.p90_us, step.p99_us, step.max_us].map(|span| millis(u64::from(span)));
        let mut row = vec![step.workers.to_string(), format!("{:.1}", step.per_second)];
        row.extend(spans);
        row.push(step.failure.clone().unwrap_or_default());
        row
    };
    let rows = report.load.iter().map(row).collect();
    table(&["workers", "signatures a second", "p50", "p90", "p99", "max", ""], rows, "Nothing was signed.");
}

fn features(report: &Report) {
    heading("What it means for Claviger");
    let rows = report.features.iter().map(|feature| vec![feature.feature.clone(), feature.verdict.word().to_owned(), feature.why.clone()]);
    table(&["feature", "verdict", "why"], rows.collect(), "Nothing is known.");
}

fn conclusion(report: &Report) {
    line("");
    if let Some(workers) = report.workers {
        line(format_args!("More workers do not pay; write into the keystore's settings: workers = {workers}"));
    }
    for label in &report.cleanup.left {
        line(format_args!("{} {label}: the token did not let it be removed; the next check looks for it.", "may be left:".red()));
    }
    let checks = report.checks.iter().filter(|check| check.verdict == Verdict::Fails).map(|check| check.check.as_str());
    let features = report.features.iter().filter(|feature| feature.verdict == Verdict::Fails).map(|feature| feature.feature.as_str());
    let failing: Vec<&str> = features.chain(checks).collect();
    match (report.usable, report.complete) {
        (true, _) => line("Everything that Claviger needs works on this token.".green()),
        (false, false) => line("Stopped before the end, so there is no verdict."),
        (false, true) => line(format_args!("{} {}", "This token does not do what Claviger needs:".red(), failing.join(", "))),
    }
}

fn millis(us: u64) -> String {
    format!("{}.{:02}", us / 1000, us % 1000 / 10)
}
