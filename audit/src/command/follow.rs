//! `follow`: a key log, watched: new records are printed as they become covered, and the first thing that is wrong ends it.
//!
//! In scope: one round after the other, each a whole verification against what the round before verified. Out of scope: use logs, which cannot
//! be read at one moment together with a key log that grows; the checks themselves; and waiting, which the caller does ([`Machine`]).

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::record::Record;
use crate::report;
use crate::verify::{Input, NoteFile, Options, Report, Verdict, verify};

use super::pull::{PullArgs, pull};
use super::show::{self, Output};
use super::{Failure, Machine, args, files, heads, lines, verifying};

/// What `follow` is given.
#[derive(Clone, Debug, Args)]
pub struct FollowArgs {
    /// A state's `log` folder, the key log's folder, or the folder of the copy with --from
    #[arg(required = true, value_name = "DIR")]
    pub folder: PathBuf,
    /// Where a `log` listener serves the key log; it is copied into DIR in each round
    #[arg(long, value_name = "URL")]
    pub from: Option<String>,
    /// Whose checkpoints count: a C2SP tlog-policy file
    #[arg(long, value_name = "FILE")]
    pub trust: PathBuf,
    /// The signed note that was saved last time, or a folder with it; without it, what is there at the beginning is the beginning
    #[arg(long, value_name = "FILE|DIR")]
    pub head: Option<PathBuf>,
    /// Where to save the newest verified checkpoint after each round
    #[arg(long, value_name = "FILE|DIR")]
    pub save_head: Option<PathBuf>,
    /// The greatest age of the last covered record: 90s, 5m, 2h or 30d
    #[arg(long, value_name = "DURATION", value_parser = args::duration)]
    pub max_age: Option<Duration>,
    /// How long to wait between rounds
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = args::duration)]
    pub interval: Duration,
    /// End after so many rounds (default: never)
    #[arg(long, value_name = "N")]
    pub rounds: Option<u64>,
    /// Print what is covered at the beginning too
    #[arg(long)]
    pub all: bool,
    /// How records are printed
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub format: Output,
}

pub(super) fn run(args: &FollowArgs, machine: &Machine<'_>, out: &mut dyn Write) -> Result<u8, Failure> {
    let mut options = Options { trust: Some(verifying::trust(&args.trust)?), max_age: args.max_age, keys_only: true, ..Options::default() };
    options.heads = args.head.as_ref().map(|path| heads::read(path)).transpose()?.flatten().unwrap_or_default();
    let mut printed = args.all.then_some(0);
    for round in 0.. {
        if args.rounds.is_some_and(|rounds| round >= rounds) {
            break;
        }
        if round > 0 {
            (machine.wait)(args.interval);
        }
        let (input, report) = verify_once(args, machine, &mut options)?;
        if report.verdict != Verdict::Verified {
            out.write_all(report::text(&report, false).as_bytes())?;
            out.flush()?;
            return Ok(report.verdict.exit_code());
        }
        printed = Some(print_new(args.format, &input, &report, printed, out)?);
        if let Some(path) = &args.save_head {
            heads::save(path, &report)?;
        }
        options.heads = report.logs.iter().filter_map(remembered).collect();
    }
    Ok(0)
}

fn verify_once(args: &FollowArgs, machine: &Machine<'_>, options: &mut Options) -> Result<(Input<'static>, Report), Failure> {
    if let Some(url) = &args.from {
        pull(&PullArgs { url: url.clone(), folder: args.folder.clone() }, machine.fetch, &mut io::sink())?;
    }
    let mut input = files::open(std::slice::from_ref(&args.folder))?;
    input.uses.clear();
    // Before the first head there is nothing to compare with: the trust file alone decides.
    let first = options.heads.is_empty();
    (options.first_run, options.missing_head) = (first, first.then(|| "a head of an earlier round".to_owned()));
    let report = verify(&input, options, (machine.clock)())?;
    Ok((input, report))
}

/// Prints the covered records from `from` on (`None`: those that come after now), and says where the next round begins.
fn print_new(format: Output, input: &Input<'_>, report: &Report, from: Option<u64>, out: &mut dyn Write) -> Result<u64, Failure> {
    let covered = report.logs.first().map_or(0, |log| log.size);
    let Some(from) = from.filter(|from| *from < covered) else { return Ok(covered) };
    lines::each(input, &mut |line| {
        let Ok((bytes, record)) = line.record else { return Ok(true) };
        let Record { seq, .. } = record;
        if (from..covered).contains(&seq) {
            show::print(format, bytes, &record, out)?;
        }
        Ok(seq < covered)
    })?;
    out.flush()?;
    Ok(covered)
}

fn remembered(log: &crate::verify::LogReport) -> Option<NoteFile> {
    let head = log.head.as_ref()?;
    Some(NoteFile { name: "the head of the round before".to_owned(), bytes: head.clone().into_bytes() })
}
