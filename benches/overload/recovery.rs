//! How long signing is away after something was lost: from the loss, or from the token's return, to the first signature.
//!
//! In scope: what a caller over HTTP sees, who asks again as soon as it was refused. Out of scope: who is right about the loss (tests).

use std::path::Path;
use std::time::Duration;

use claviger::clock::Clock as _;
use serde_json::json;

use crate::Outcome;
use crate::common::table::{median, quantile};
use crate::stage::{self, Stage};
use crate::{load, tell};

/// How often each loss is tried.
const ROUNDS: usize = 10;
/// How long a token is away: long enough that the pause between two looks has grown to its longest.
const AWAY: Duration = Duration::from_secs(3);
/// A loss that takes longer ends the run.
const PATIENCE: Duration = Duration::from_secs(30);

/// Prints a row for each loss.
pub(crate) fn report(stage: &Stage, control: &Path) -> Outcome<()> {
    println!("\n{:<58} {:>9} {:>9} {:>9}", "from the loss to the next signature, ms", "median", "longest", "nothing");
    let nothing = rounds(stage, || Ok(()))?;
    let say = |command: &'static str| move || tell(control, &json!({ "do": command }));
    row("all sessions were lost", &rounds(stage, say("drop-sessions"))?, &nothing);
    row("somebody logged out", &rounds(stage, say("logout"))?, &nothing);
    let away = || {
        tell(control, &json!({ "do": "remove" }))?;
        std::thread::sleep(AWAY);
        tell(control, &json!({ "do": "return" }))
    };
    row("the token came back after 3 s (looked for each second)", &rounds(stage, away)?, &nothing);
    Ok(())
}

/// Loses something, then asks until a token is signed, again and again; sorted.
fn rounds(stage: &Stage, lose: impl Fn() -> Outcome<()>) -> Outcome<Vec<Duration>> {
    let request = stage::sign_request(stage::ES256);
    let mut took = Vec::new();
    for _ in 0..ROUNDS {
        lose()?;
        let begun = stage.clock.monotonic();
        while let Err(error) = load::once(stage.address, &request) {
            if stage.clock.monotonic().since(begun) > PATIENCE {
                return Err(error);
            }
        }
        took.push(stage.clock.monotonic().since(begun));
    }
    took.sort_unstable();
    Ok(took)
}

fn row(name: &str, took: &[Duration], nothing: &[Duration]) {
    let millis = |spans: &[Duration]| spans.iter().map(|span| span.as_secs_f64() * 1e3).collect::<Vec<_>>();
    println!("{name:<58} {:>9.1} {:>9.1} {:>9.1}", median(millis(took)), quantile(took, 1.0) * 1e3, median(millis(nothing)));
}
