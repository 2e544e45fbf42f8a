//! The report: floors, then each bar with what was measured.
//!
//! In scope: medians over the rounds, and ratios within each round. Out of scope: judging; a row says "missed", and the run is a success.

use crate::common::cpu;
use crate::common::table::{self, count, line};
use crate::load::Load;
use crate::rounds::{Found, MANY, Round};
use crate::stage::BATCH;

/// Share of a limit that ES256 over many connections must reach.
const ES256_BAR: f64 = 0.85;
/// p99 of it, in seconds.
const ES256_P99: f64 = 0.008;
/// Longest median over one connection, as a multiple of its parts.
const ONE_BAR: f64 = 1.3;
/// Longest p99 over one connection, as a multiple of its median.
const ONE_SPREAD: f64 = 2.0;
/// Share of raw `C_Sign` that RS256 must reach.
const RS256_BAR: f64 = 0.92;
/// Share of `C_Sign` and verification that a batch must reach.
const BATCH_BAR: f64 = 0.9;
/// Most CPU of our own per signature, in seconds.
const OWN_BAR: f64 = 40e-6;
/// Share of a bare axum handler that JWKS must reach.
const JWKS_BAR: f64 = 0.9;

/// Prints everything.
pub(crate) fn print(found: &Found) {
    let median = |of: &dyn Fn(&Round) -> f64| table::median(found.rounds.iter().map(of).collect());
    head(found, &median);
    floors(found, &median);
    signing(&median);
    others(&median);
}

type Median<'a> = &'a dyn Fn(&dyn Fn(&Round) -> f64) -> f64;

fn head(found: &Found, median: Median<'_>) {
    let [before, after] = &found.load;
    table::machine([before, after]);
    let share = |round: &Round| round.es[1].others_share();
    println!("other processes had {:.0} % of the cores while ES256 was measured over {MANY} connections", median(&share) * 100.0);
    println!("medians of {} rounds; a ratio is the median of the rounds' own ratios\n", found.rounds.len());
}

fn floors(found: &Found, median: Median<'_>) {
    let cores = cpu::cores();
    println!("{:<44} {:>11} {:>11} {:>11}", "floor", "per second", "us CPU", "us wall");
    let row = |name: &str, of: &dyn Fn(&Round) -> [f64; 3]| {
        let [rate, cpu, wall] = [0, 1, 2].map(|column| median(&|round: &Round| of(round)[column]));
        println!("{name:<44} {rate:>11.0} {:>11.1} {:>11.1}", cpu * 1e6, wall * 1e6);
    };
    let floor = |floor: &crate::common::floor::Floor| [floor.rate, floor.cpu, floor.wall];
    let load = |load: &Load| [load.rate(), load.cpu_each(), load.quantile(0.5)];
    row("C_Sign ES256, 1 thread", &|round| floor(&round.sign_es[0]));
    row(&format!("C_Sign ES256, {cores} threads"), &|round| floor(&round.sign_es[1]));
    row("C_Sign RS256, 1 thread", &|round| floor(&round.sign_rs[0]));
    row(&format!("C_Sign RS256, {cores} threads"), &|round| floor(&round.sign_rs[1]));
    row("verification ES256, 1 thread", &|round| floor(&round.verify[0]));
    row(&format!("verification ES256, {cores} threads"), &|round| floor(&round.verify[1]));
    row(&format!("append and fdatasync, {} bytes", found.record), &|round| floor(&round.sync));
    let (request, answer) = found.exchange;
    row(&format!("bare exchange, {request} + {answer} bytes, 1 conn."), &|round| load(&round.bare[0]));
    row(&format!("bare exchange, {MANY} connections"), &|round| load(&round.bare[1]));
    println!();
}

/// The most that the machine could do: cores by the CPU of `C_Sign`, a verification and a bare exchange, all with busy cores.
fn limit(round: &Round) -> f64 {
    count(cpu::cores()) / needed(round)
}

fn needed(round: &Round) -> f64 {
    round.sign_es[1].cpu + round.verify[1].cpu + round.bare[1].cpu_each()
}

/// The same with each part measured alone on the machine, where a core that is half of a pair is faster.
fn limit_alone(round: &Round) -> f64 {
    count(cpu::cores()) / (round.sign_es[0].cpu + round.verify[0].cpu + round.bare[1].cpu_each())
}

/// What one connection cannot be faster than; verification and sync may run side by side.
fn shortest(round: &Round) -> f64 {
    round.sign_es[0].wall + round.verify[0].wall.max(round.sync.wall) + round.bare[0].quantile(0.5)
}

fn batch_limit(round: &Round) -> f64 {
    count(cpu::cores()) / (round.sign_es[1].cpu + round.verify[1].cpu)
}

fn batch_rate(round: &Round) -> f64 {
    round.batch.rate() * count(BATCH)
}

fn signing(median: Median<'_>) {
    table::work();
    let at_least = |name: &str, measured: &dyn Fn(&Round) -> f64, limit: &dyn Fn(&Round) -> f64, bar: f64| {
        let ratio = median(&|round: &Round| measured(round) / limit(round));
        line(name, [median(measured), median(limit)], ratio, (">=", bar));
    };
    at_least(&format!("ES256, {MANY} connections, per second"), &|round| round.es[1].rate(), &limit, ES256_BAR);
    at_least("  beside the parts measured alone", &|round| round.es[1].rate(), &limit_alone, ES256_BAR);
    at_least("  if no core ever idled (by CPU alone)", &|round| count(cpu::cores()) / round.es[1].cpu_each(), &limit, ES256_BAR);
    latencies(&|round| &round.es[1], median);
    let p99 = median(&|round: &Round| round.es[1].quantile(0.99));
    line("  p99, ms", [p99 * 1e3, ES256_P99 * 1e3], p99 / ES256_P99, ("<=", 1.0));
    at_least(&format!("RS256, {MANY} connections, per second"), &|round| round.rs[1].rate(), &|round| round.sign_rs[1].rate, RS256_BAR);
    latencies(&|round| &round.rs[1], median);
    at_least(&format!("ES256, batches of {BATCH}, tokens per second"), &batch_rate, &batch_limit, BATCH_BAR);
    latencies(&|round| &round.batch, median);

    let at_most = |name: &str, measured: &dyn Fn(&Round) -> f64, limit: &dyn Fn(&Round) -> f64, bar: f64| {
        let ratio = median(&|round: &Round| measured(round) / limit(round));
        line(name, [median(measured) * 1e6, median(limit) * 1e6], ratio, ("<=", bar));
    };
    at_most("ES256, 1 connection, p50 us", &|round| round.es[0].quantile(0.5), &shortest, ONE_BAR);
    at_most("  p99 us, beside p50", &|round| round.es[0].quantile(0.99), &|round| round.es[0].quantile(0.5), ONE_SPREAD);
    let rs_shortest = |round: &Round| round.sign_rs[0].wall + round.sync.wall + round.bare[0].quantile(0.5);
    at_most("RS256, 1 connection, p50 us", &|round| round.rs[0].quantile(0.5), &rs_shortest, f64::INFINITY);
    at_most("our own CPU per signature, us", &|round| round.es[1].cpu_each() - needed(round), &|_| OWN_BAR, 1.0);
    at_most("  of a batch's, HTTP included", &own_in_batch, &|_| OWN_BAR, f64::INFINITY);
}

/// What a token of a batch costs beside `C_Sign` and verification.
fn own_in_batch(round: &Round) -> f64 {
    round.batch.cpu_each() / count(BATCH) - round.sign_es[1].cpu - round.verify[1].cpu
}

fn others(median: Median<'_>) {
    let ratio = median(&|round: &Round| round.jwks[1].rate() / round.jwks[0].rate());
    let (bare, ours) = (median(&|round| round.jwks[0].rate()), median(&|round| round.jwks[1].rate()));
    line(&format!("JWKS, {MANY} connections, per second"), [ours, bare], ratio, (">=", JWKS_BAR));
}

fn latencies(of: &dyn Fn(&Round) -> &Load, median: Median<'_>) {
    let [p50, p99] = [0.5, 0.99].map(|share| median(&|round: &Round| of(round).quantile(share)) * 1e3);
    println!("  p50 {p50:.2} ms, p99 {p99:.2} ms");
}
