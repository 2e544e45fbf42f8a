//! `prove` and `prove-consistency`: from a log to a file that convinces somebody who does not have the log.
//!
//! In scope: which log is meant, and where the proof goes. Out of scope: the proofs ([`crate::proof`]).

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::checkpoint::Checkpoint;
use crate::note::Note;
use crate::proof::{self, Stretch, Unprovable, WantedRecord};
use crate::trust::Policy;
use crate::verify::{Input, LogFiles, NoteFile, Verdict, leaves};

use super::verifying::{receipt, trust};
use super::{Failure, files, writing};

/// What `prove` is given.
#[derive(Clone, Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["seq", "receipt"]))]
pub struct ProveArgs {
    /// A state's `log` folder, a folder of segments, or segment files
    #[arg(required = true, value_name = "DIR|FILE")]
    pub paths: Vec<PathBuf>,
    /// The sequence number of the record
    #[arg(long, value_name = "N")]
    pub seq: Option<u64>,
    /// The log of --seq: keys, uses, or an origin (default: the only one that is given)
    #[arg(long, value_name = "keys|uses|ORIGIN", conflicts_with = "receipt")]
    pub of: Option<String>,
    /// The receipt of the record: {"log", "seq", "leaf"}; another record in its place is exit 10, none is exit 11
    #[arg(long, value_name = "FILE")]
    pub receipt: Option<PathBuf>,
    /// Whose checkpoints count, and how many witnesses (default: the key that the log names itself)
    #[arg(long, value_name = "FILE")]
    pub trust: Option<PathBuf>,
    /// Leave the line of the record out of the proof: whoever checks it then needs the receipt
    #[arg(long)]
    pub without_record: bool,
    /// Where to write the proof, best NAME.tlog-proof (default: standard output)
    #[arg(long, value_name = "FILE")]
    pub save: Option<PathBuf>,
}

/// What `prove-consistency` is given.
#[derive(Clone, Debug, Args)]
#[command(group = clap::ArgGroup::new("beginning").required(true).multiple(true).args(["from", "from_note"]))]
pub struct ProveConsistencyArgs {
    /// A state's `log` folder, a folder of segments, or segment files
    #[arg(required = true, value_name = "DIR|FILE")]
    pub paths: Vec<PathBuf>,
    /// The smaller size
    #[arg(long, value_name = "M")]
    pub from: Option<u64>,
    /// The larger size (default: that of the newest checkpoint)
    #[arg(long, value_name = "N")]
    pub to: Option<u64>,
    /// A signed note of the smaller size, such as a head that was saved; it becomes part of the proof
    #[arg(long, value_name = "FILE")]
    pub from_note: Option<PathBuf>,
    /// A signed note of the larger size; it becomes part of the proof
    #[arg(long, value_name = "FILE")]
    pub to_note: Option<PathBuf>,
    /// Which log: keys, uses, or an origin (default: the only one that is given)
    #[arg(long, value_name = "keys|uses|ORIGIN")]
    pub of: Option<String>,
    /// Whose checkpoints count, and how many witnesses (default: the key that the log names itself)
    #[arg(long, value_name = "FILE")]
    pub trust: Option<PathBuf>,
    /// Where to write the proof (default: standard output)
    #[arg(long, value_name = "FILE")]
    pub save: Option<PathBuf>,
}

pub(super) fn prove(args: &ProveArgs, out: &mut dyn Write) -> Result<u8, Failure> {
    let input = files::open(&args.paths)?;
    let receipt = args.receipt.as_deref().map(receipt).transpose()?;
    let trust = args.trust.as_deref().map(trust).transpose()?;
    let log = match &receipt {
        Some(receipt) => by_origin(&input, &receipt.log)?.ok_or_else(|| {
            let text = format!("the receipt is of the log {:?}, which is not here", receipt.log);
            Failure::Unproven(Verdict::Unpinned, text)
        })?,
        None => choose(&input, args.of.as_deref())?,
    };
    let seq = receipt.as_ref().map(|receipt| receipt.seq).or(args.seq).unwrap_or_default();
    let wanted = WantedRecord { seq, leaf: receipt.map(|receipt| receipt.leaf), with_line: !args.without_record };
    let proof = proof::inclusion(log, &wanted, trust.as_ref())?;
    deliver(args.save.as_deref(), &proof.to_string(), out)
}

pub(super) fn prove_consistency(args: &ProveConsistencyArgs, out: &mut dyn Write) -> Result<u8, Failure> {
    let input = files::open(&args.paths)?;
    let trust: Option<Policy> = args.trust.as_deref().map(trust).transpose()?;
    let from_note = args.from_note.as_deref().map(files::note).transpose()?;
    let to_note = args.to_note.as_deref().map(files::note).transpose()?;
    let from = size(args.from, from_note.as_ref(), "--from")?.unwrap_or_default();
    let to = size(args.to, to_note.as_ref(), "--to")?;
    let stretch = Stretch { from, to, notes: from_note.into_iter().chain(to_note).collect() };
    let proof = proof::consistency(choose(&input, args.of.as_deref())?, &stretch, trust.as_ref())?;
    deliver(args.save.as_deref(), &proof.to_string(), out)
}

/// The size that an argument, a note, or both name.
fn size(given: Option<u64>, note: Option<&NoteFile>, what: &str) -> Result<Option<u64>, Failure> {
    let Some(file) = note else { return Ok(given) };
    let parsed = Note::parse(&file.bytes).map_err(|error| error.to_string());
    let checkpoint = parsed.and_then(|note| note.text().parse::<Checkpoint>().map_err(|error| error.to_string()));
    let size = checkpoint.map_err(|error| Failure::Usage(format!("{} is no checkpoint: {error}", file.name)))?.size;
    match given.filter(|given| *given != size) {
        Some(given) => Err(Failure::Usage(format!("{what} is {given}, but {} is of {size} records", file.name))),
        None => Ok(Some(size)),
    }
}

/// The log that is meant.
fn choose<'i, 'f>(input: &'i Input<'f>, log: Option<&str>) -> Result<&'i LogFiles<'f>, Failure> {
    let mut all = input.keys.iter().chain(&input.uses);
    let chosen = match (log, input.uses.as_slice()) {
        (None, _) => all.next().filter(|_| all.next().is_none()),
        (Some("keys"), _) => input.keys.as_ref(),
        (Some("uses"), [uses]) => Some(uses),
        (Some("uses"), _) => None,
        (Some(origin), _) => by_origin(input, origin)?,
    };
    if let Some(log) = chosen {
        return Ok(log);
    }
    let here: Vec<String> = input.keys.iter().chain(&input.uses).map(origin).collect::<Result<_, _>>()?;
    let here = if here.is_empty() { "none".to_owned() } else { here.join(", ") };
    Err(Failure::Usage(format!("which log? Say --of keys, --of uses (if there is one use log) or --of ORIGIN; here are: {here}")))
}

fn by_origin<'i, 'f>(input: &'i Input<'f>, wanted: &str) -> Result<Option<&'i LogFiles<'f>>, Failure> {
    for log in input.keys.iter().chain(&input.uses) {
        if leaves::created(log)?.is_some_and(|created| created.origin == wanted) {
            return Ok(Some(log));
        }
    }
    Ok(None)
}

fn origin(log: &LogFiles<'_>) -> Result<String, Failure> {
    Ok(leaves::created(log)?.map_or_else(|| log.name.clone(), |created| created.origin))
}

fn deliver(output: Option<&Path>, proof: &str, out: &mut dyn Write) -> Result<u8, Failure> {
    match output {
        Some(path) => {
            writing::replace(path, proof)?;
            writeln!(out, "the proof is in {}", path.display())?;
        }
        None => out.write_all(proof.as_bytes())?,
    }
    out.flush()?;
    Ok(0)
}

impl From<Unprovable> for Failure {
    fn from(error: Unprovable) -> Self {
        match error {
            Unprovable::Io(error) => Self::Io(error),
            Unprovable::NotFound(text) => Self::NotFound(text),
            Unprovable::Usage(text) => Self::Usage(text),
            Unprovable::Refused(refusal) => Self::Unproven(refusal.verdict, refusal.text),
        }
    }
}
