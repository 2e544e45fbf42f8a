//! `verify`: arguments to options, files to a report, a report to an exit code.
//!
//! In scope: what each argument brings along. Out of scope: every check ([`crate::verify`]).

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::jwks::SetName;
use crate::report;
use crate::time::Timestamp;
use crate::trust::{MAX_POLICY, Policy};
use crate::verify::{Input, LiveSet, MinSize, Options, Receipt, Verdict, verify};

use super::backends::{self, BackendArg};
use super::fetch::{Fetch, Fetched, check_url, is_url};
use super::{Failure, args, files, forks, heads, writing};

/// Largest JWKS body that is read: a set has at most 100 keys, and the largest RSA key takes 1.5 kB.
const MAX_JWKS: usize = 1 << 20;
/// Largest receipt that is read.
const MAX_RECEIPT: usize = 1 << 16;

/// How a report is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people; the first line is the verdict.
    Text,
    /// For programs; the member `schema` is the version.
    Json,
    /// For a job on GitHub: the verdict, then one annotation per finding.
    Github,
}

/// What `verify` is given. A result is *pinned* with `--trust` and at least one of `--head`, `--receipt`, `--min-size` and a quorum of
/// witnesses, which the trust file demands.
#[derive(Clone, Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub struct VerifyArgs {
    /// A state's `log` folder (with `keys` and `uses` in it), a folder of segments, or segment files
    #[arg(required = true, value_name = "DIR|FILE")]
    pub paths: Vec<PathBuf>,
    /// Whose checkpoints count: a C2SP tlog-policy file that lists the key of each log, and the witnesses that must have cosigned
    #[arg(long, value_name = "FILE")]
    pub trust: Option<PathBuf>,
    /// The signed note that was saved last time (of any log), or a folder with one note per log
    #[arg(long, value_name = "FILE|DIR")]
    pub head: Option<PathBuf>,
    /// Where to save the newest verified checkpoint (a file: of the key log; a folder, or a name that ends in /: of each log). Written
    /// only if the exit code is 0 or 14
    #[arg(long, value_name = "FILE|DIR")]
    pub save_head: Option<PathBuf>,
    /// There was no earlier run: a missing --head is as it should be, and the trust file alone decides
    #[arg(long, requires = "head")]
    pub first_run: bool,
    /// Read use logs only from the remembered heads on, with the .frontier files that --save-head left beside them; what fits no head is
    /// read whole. The key log is always read whole. Without this, everything is checked again
    #[arg(long, requires = "head")]
    pub incremental: bool,
    /// A receipt as a signing reply carries it: {"log", "seq", "leaf"} (may repeat)
    #[arg(long, value_name = "FILE")]
    pub receipt: Vec<PathBuf>,
    /// How many covered records the key log has at least; ORIGIN=N says it of another log (may repeat)
    #[arg(long, value_name = "[ORIGIN=]N", value_parser = args::min_size)]
    pub min_size: Vec<MinSize>,
    /// The greatest age of the last covered record: 90s, 5m, 2h or 30d
    #[arg(long, value_name = "DURATION", value_parser = args::duration)]
    pub max_age: Option<Duration>,
    /// A JWKS body as it is served, or where: it must be the one that the key log makes, byte for byte. A URL (https, or http on this
    /// machine) is fetched by the system's curl
    #[arg(long, value_name = "FILE|URL")]
    pub jwks: Option<String>,
    /// The size of the key log that --jwks was built from, as the response header `Claviger-Log-Size` says (default: that of the URL's
    /// answer). A set from a longer log than the one that is here makes this one stale, not the set wrong
    #[arg(long, value_name = "N", requires = "jwks")]
    pub jwks_size: Option<u64>,
    /// Which set --jwks is: issuer/NAME or keyring/NAME (default: any)
    #[arg(long, value_name = "SET", requires = "jwks")]
    pub jwks_set: Option<SetName>,
    /// Leave the use logs out; the verdict says so
    #[arg(long)]
    pub keys_only: bool,
    /// What a keystore wrote down by itself: cloudtrail:DIR holds the files of a trail, packed or not; vault:FILE is that of an audit device
    /// (or a folder of rotated ones). Each signature in it must have a record, and each record a signature there: else 17. Of several keystores
    /// of one kind, vault@KEYSTORE:FILE says whose it is. Copy it before the logs (may repeat)
    #[arg(long, value_name = "KIND:PATH", conflicts_with_all = ["keys_only", "incremental"])]
    pub reconcile: Vec<BackendArg>,
    /// How long before its end, and after its beginning, such a record may lack entries (default: 30m for CloudTrail, 1m for Vault)
    #[arg(long, value_name = "DURATION", value_parser = args::duration, requires = "reconcile")]
    pub reconcile_margin: Option<Duration>,
    /// Tell the story of each rotation: dates, and the room that each invariant had
    #[arg(long)]
    pub rotation: bool,
    /// What --max-age is measured against, such as 2026-01-31T12:00:00.000Z (default: the wall clock)
    #[arg(long, value_name = "TIME")]
    pub now: Option<Timestamp>,
    /// How the report is printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
    /// Append the result as a Markdown table to this file: on GitHub, $GITHUB_STEP_SUMMARY
    #[arg(long, value_name = "FILE")]
    pub summary: Option<PathBuf>,
    /// Where a fork, if one is found, is written down for others to check. A file that exists is never overwritten: the name gets a number
    #[arg(long, value_name = "FILE", default_value = "claviger-fork.proof")]
    pub fork_proof: PathBuf,
}

pub(super) fn run(args: &VerifyArgs, now: Timestamp, fetch: &Fetch<'_>, out: &mut dyn Write) -> Result<u8, Failure> {
    // Before the logs are looked at: a daemon that runs has written what it explains by the time that they are read.
    let backends = backends::open(&args.reconcile)?;
    let input = Input { backends, ..files::open(&args.paths)? };
    let mut report = verify(&input, &options(args, fetch)?, args.now.unwrap_or(now))?;
    forks::write(&args.fork_proof, &mut report);
    // An unpinned or broken log must not become what later runs are compared with; a stale one is true, only old.
    if let Some(path) = args.save_head.as_ref().filter(|_| matches!(report.verdict, Verdict::Verified | Verdict::Stale)) {
        heads::save(path, &report)?;
    }
    let text = match args.format {
        Format::Text => report::text(&report, args.rotation),
        Format::Json => report::json(&report, args.rotation).map_err(io::Error::from)?,
        Format::Github => report::github(&report),
    };
    out.write_all(text.as_bytes())?;
    out.flush()?;
    if let Some(path) = &args.summary {
        writing::append(path, &report::summary(&report))?;
    }
    Ok(report.verdict.exit_code())
}

fn options(args: &VerifyArgs, fetch: &Fetch<'_>) -> Result<Options, Failure> {
    let heads = args.head.as_ref().map(|path| heads::read(path)).transpose()?.flatten();
    let missing_head = args.head.as_ref().filter(|_| heads.is_none()).map(|path| path.display().to_string());
    let receipts: Vec<Receipt> = args.receipt.iter().map(|path| receipt(path)).collect::<Result<_, _>>()?;
    Ok(Options {
        trust: args.trust.as_deref().map(trust).transpose()?,
        heads: heads.unwrap_or_default(),
        missing_head,
        first_run: args.first_run,
        incremental: args.incremental,
        bookmarks: args.head.as_ref().filter(|_| args.incremental).map(|path| heads::bookmarks(path)).transpose()?.unwrap_or_default(),
        receipts,
        min_sizes: args.min_size.clone(),
        max_age: args.max_age,
        jwks: args.jwks.as_ref().map(|from| live_set(args, from, fetch)).transpose()?,
        keys_only: args.keys_only,
        reconcile_margin: args.reconcile_margin,
    })
}

fn live_set(args: &VerifyArgs, from: &str, fetch: &Fetch<'_>) -> Result<LiveSet, Failure> {
    let Fetched { body, log_size } = if is_url(from) {
        check_url(from)?;
        fetch(from).map_err(|reason| Failure::Fetch { url: from.to_owned(), reason })?
    } else {
        Fetched { body: files::read_small(Path::new(from), MAX_JWKS)?, log_size: None }
    };
    Ok(LiveSet { body, set: args.jwks_set.clone(), size: args.jwks_size.or(log_size) })
}

/// A trust file.
pub(super) fn trust(path: &Path) -> Result<Policy, Failure> {
    let bytes = files::read_small(path, MAX_POLICY)?;
    Policy::parse(&bytes).map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))
}

/// A receipt.
pub(super) fn receipt(path: &Path) -> Result<Receipt, Failure> {
    let bytes = files::read_small(path, MAX_RECEIPT)?;
    serde_json::from_slice(&bytes).map_err(|error| Failure::Usage(format!("{} is no receipt: {error}", path.display())))
}
