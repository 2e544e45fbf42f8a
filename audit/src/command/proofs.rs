//! `verify-proof`, `verify-consistency` and `verify-fork`: somebody else's proof, without the log.
//!
//! In scope: the files, the answer and its exit code. Out of scope: every check ([`crate::proof`]).

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::Value;

use crate::merkle::Hash;
use crate::proof::{ConsistencyProof, Fork, ForkProof, Grown, Included, InclusionProof, MAX_PROOF_FILE, Question, Refusal};
use crate::report::{REPORT_SCHEMA, printable};
use crate::time::Timestamp;
use crate::trust::{Policy, Witnessed};
use crate::verify::Verdict;

use super::find::signing_input;
use super::verifying::{receipt, trust};
use super::{Failure, args, files};

/// How an answer is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum AnswerFormat {
    /// For people; the first line is the verdict.
    #[default]
    Text,
    /// For programs; the member `schema` is the version.
    Json,
}

/// What `verify-proof` is given.
#[derive(Clone, Debug, Args)]
pub struct VerifyProofArgs {
    /// An inclusion proof (C2SP tlog-proof) as `prove` makes it
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Whose checkpoints count, and how many witnesses; without it nothing is verified
    #[arg(long, value_name = "FILE")]
    pub trust: Option<PathBuf>,
    /// The token (compact JWS) that the record should be about
    #[arg(long, value_name = "FILE")]
    pub token: Option<PathBuf>,
    /// The receipt of the record; needed if the proof does not hold the record
    #[arg(long, value_name = "FILE")]
    pub receipt: Option<PathBuf>,
    /// The greatest age of the cosignatures that the quorum needs; without a quorum, of the record: 90s, 5m, 2h or 30d
    #[arg(long, value_name = "DURATION", value_parser = args::duration)]
    pub max_age: Option<Duration>,
    /// What --max-age is measured against, such as 2026-01-31T12:00:00.000Z (default: the wall clock)
    #[arg(long, value_name = "TIME")]
    pub now: Option<Timestamp>,
    /// How the answer is printed
    #[arg(long, value_enum, default_value_t)]
    pub format: AnswerFormat,
}

/// What `verify-consistency` is given.
#[derive(Clone, Debug, Args)]
pub struct VerifyConsistencyArgs {
    /// A consistency proof as `prove-consistency` makes it
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Whose checkpoints count, and how many witnesses; without it nothing is verified
    #[arg(long, value_name = "FILE")]
    pub trust: Option<PathBuf>,
    /// How the answer is printed
    #[arg(long, value_enum, default_value_t)]
    pub format: AnswerFormat,
}

/// What `verify-fork` is given.
#[derive(Clone, Debug, Args)]
pub struct VerifyForkArgs {
    /// A fork proof as `verify` writes it when it finds a fork
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The keys of the logs; without it nothing is verified
    #[arg(long, value_name = "FILE")]
    pub trust: Option<PathBuf>,
    /// How the answer is printed
    #[arg(long, value_enum, default_value_t)]
    pub format: AnswerFormat,
}

/// An answer: what was shown, or why it was not.
#[derive(Serialize)]
struct Answer {
    schema: u32,
    verdict: Verdict,
    exit: u8,
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<String>,
    /// The trees that the proof is about, the smaller one first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    trees: Vec<Stated>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    leaf: Option<Hash>,
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cosigners: Vec<Cosigned>,
    #[serde(skip_serializing_if = "Option::is_none")]
    witnessed: Option<Timestamp>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
    /// For people only.
    #[serde(skip)]
    lines: Vec<String>,
}

#[derive(Serialize)]
struct Stated {
    size: u64,
    root: Hash,
}

#[derive(Serialize)]
struct Cosigned {
    name: String,
    time: Timestamp,
}

pub(super) fn verify_proof(args: &VerifyProofArgs, now: Timestamp, out: &mut dyn Write) -> Result<u8, Failure> {
    let trust = args.trust.as_deref().map(trust).transpose()?;
    let receipt = args.receipt.as_deref().map(receipt).transpose()?;
    let question = Question {
        trust: trust.as_ref(),
        receipt: receipt.as_ref(),
        input: args.token.as_deref().map(signing_input).transpose()?,
        max_age: args.max_age.map(|age| (age, args.now.unwrap_or(now))),
    };
    let bytes = read(&args.file)?;
    let proof = InclusionProof::parse(&bytes).map_err(Refusal::from);
    let shown = proof.and_then(|proof| Ok((proof.check(&question)?, proof.record)));
    let answer = match shown {
        Ok((included, line)) => of_inclusion(included, line.as_deref(), &question),
        Err(refusal) => refused(refusal),
    };
    print(&answer, args.format, out)
}

pub(super) fn verify_consistency(args: &VerifyConsistencyArgs, out: &mut dyn Write) -> Result<u8, Failure> {
    let trust: Option<Policy> = args.trust.as_deref().map(trust).transpose()?;
    let bytes = read(&args.file)?;
    let proof = ConsistencyProof::parse(&bytes).map_err(Refusal::from);
    let answer = match proof.and_then(|proof| Ok((proof.check(trust.as_ref())?, proof))) {
        Ok((grown, proof)) => of_consistency(grown, proof),
        Err(refusal) => refused(refusal),
    };
    print(&answer, args.format, out)
}

pub(super) fn verify_fork(args: &VerifyForkArgs, out: &mut dyn Write) -> Result<u8, Failure> {
    let trust: Option<Policy> = args.trust.as_deref().map(trust).transpose()?;
    let bytes = read(&args.file)?;
    let proof = ForkProof::parse(&bytes).map_err(Refusal::from);
    let answer = match proof.and_then(|proof| Ok((proof.check(trust.as_ref())?, proof))) {
        Ok((fork, proof)) => of_fork(fork, &proof),
        Err(refusal) => refused(refusal),
    };
    print(&answer, args.format, out)
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    files::read_small(path, MAX_PROOF_FILE)
}

fn answer(verdict: Verdict, text: String) -> Answer {
    Answer {
        schema: REPORT_SCHEMA,
        verdict,
        exit: verdict.exit_code(),
        text,
        origin: None,
        trees: Vec::new(),
        seq: None,
        leaf: None,
        record: None,
        cosigners: Vec::new(),
        witnessed: None,
        notes: Vec::new(),
        lines: Vec::new(),
    }
}

fn refused(refusal: Refusal) -> Answer {
    answer(refusal.verdict, refusal.text)
}

fn of_inclusion(included: Included, line: Option<&[u8]>, question: &Question<'_>) -> Answer {
    let Included { origin, size, root, index, leaf, record: _, witnessed } = included;
    let text = format!("record {index} of {origin} is in the log of {size} records");
    let mut lines = vec![format!("root {root}"), format!("leaf {leaf}")];
    if question.receipt.is_some() {
        lines.push("it is the record of the receipt".to_owned());
    }
    if question.input.is_some() {
        lines.push("it is the record of the token: the signing input is the same".to_owned());
    }
    match line.and_then(|line| str::from_utf8(line).ok()) {
        Some(line) => lines.push(line.to_owned()),
        None => lines.push("the proof does not hold the record; the receipt says which one it is".to_owned()),
    }
    let record = line.and_then(|line| serde_json::from_slice(line).ok());
    let trees = vec![Stated { size, root }];
    let answer =
        Answer { origin: Some(origin), trees, seq: Some(index), leaf: Some(leaf), record, lines, ..answer(Verdict::Verified, text) };
    cosigned(answer, witnessed)
}

fn of_consistency(grown: Grown, proof: ConsistencyProof) -> Answer {
    let ConsistencyProof { origin, from, to, .. } = proof;
    let text = format!("the first {} records of {origin} are the beginning of its first {}", from.size, to.size);
    let own = if grown.from_signed { "signed" } else { "not signed by itself, but the beginning of what is signed" };
    let lines = vec![
        format!("from {} records, root {}: {own}", from.size, from.root),
        format!("to   {} records, root {}: signed", to.size, to.root),
    ];
    let trees = [from, to].map(|tree| Stated { size: tree.size, root: tree.root }).into();
    cosigned(Answer { origin: Some(origin), trees, lines, ..answer(Verdict::Verified, text) }, grown.witnessed)
}

fn of_fork(fork: Fork, proof: &ForkProof) -> Answer {
    let Fork { shorter, longer, root } = fork;
    let text = format!("the key of {} signed two histories, and this proves it", shorter.origin);
    let mut lines = vec![
        format!("one history has {} records and the root {}", shorter.size, shorter.root),
        format!("the other has {} records, and the root {root} at that size", longer.size),
    ];
    let notes = [&proof.shorter, &proof.longer].map(ToString::to_string);
    for note in &notes {
        lines.extend(note.lines().map(|line| format!("    | {line}")));
    }
    let trees = [(shorter.size, shorter.root), (longer.size, longer.root)].map(|(size, root)| Stated { size, root }).into();
    Answer { origin: Some(shorter.origin), trees, notes: notes.into(), lines, ..answer(Verdict::Forked, text) }
}

fn cosigned(mut answer: Answer, witnessed: Witnessed) -> Answer {
    answer.witnessed = witnessed.time;
    for cosigner in witnessed.cosigners {
        answer.lines.push(format!("cosigned by {} at {}", cosigner.name, cosigner.time));
        answer.cosigners.push(Cosigned { name: cosigner.name, time: cosigner.time });
    }
    answer
}

fn print(answer: &Answer, format: AnswerFormat, out: &mut dyn Write) -> Result<u8, Failure> {
    match format {
        AnswerFormat::Text => {
            let first = format!("{} (exit {}): {}", answer.verdict.name(), answer.exit, answer.text);
            for line in [&first].into_iter().chain(&answer.lines) {
                writeln!(out, "{}", printable(line))?;
            }
        }
        AnswerFormat::Json => writeln!(out, "{}", serde_json::to_string_pretty(answer).map_err(io::Error::from)?)?,
    }
    out.flush()?;
    Ok(answer.exit)
}
