//! `show`: records as readable lines.
//!
//! In scope: filters, and one line per record. Out of scope: verifying.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::{Map, Value};

use crate::event::Event;
use crate::record::Record;
use crate::report::printable;
use crate::time::Timestamp;

use super::{Failure, files, lines};

/// How records are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Readable lines.
    Text,
    /// The lines as they are.
    Json,
}

/// What `show` is given. A record is shown if every filter fits.
#[derive(Clone, Debug, Args)]
pub struct ShowArgs {
    /// A state's `log` folder, a folder of segments, or segment files
    #[arg(required = true, value_name = "DIR|FILE")]
    pub paths: Vec<PathBuf>,
    /// Only events of this name, such as key.rotated; `key.` is all that begin so (may repeat)
    #[arg(long, value_name = "NAME")]
    pub event: Vec<String>,
    /// Only records about this key
    #[arg(long, allow_hyphen_values = true)]
    pub kid: Option<String>,
    /// Only records about this keyring
    #[arg(long, value_name = "NAME")]
    pub keyring: Option<String>,
    /// Only records from this time on, such as 2026-01-31T12:00:00.000Z
    #[arg(long, value_name = "TIME")]
    pub since: Option<Timestamp>,
    /// Stop after so many records
    #[arg(long, value_name = "N")]
    pub limit: Option<u64>,
    /// How records are printed
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub format: Output,
}

/// Members that every record has; the rest is what happened.
const FRAME: [&str; 9] = ["v", "log", "seq", "time", "prev", "durable", "node", "boot", "event"];

pub(super) fn run(args: &ShowArgs, out: &mut dyn Write) -> Result<u8, Failure> {
    let input = files::open(&args.paths)?;
    let mut keyrings = KeyringOf::default();
    let mut left = args.limit.unwrap_or(u64::MAX);
    lines::each(&input, &mut |line| {
        match line.record {
            Ok((bytes, record)) => {
                keyrings.learn(&record.event);
                let members = members(bytes);
                if left > 0 && fits(args, &record, &members, &keyrings) {
                    left -= 1;
                    print_members(args.format, bytes, &record, &members, out)?;
                }
            }
            // Pass-through output is for programs, which want records and nothing else.
            Err(why) if args.format == Output::Text => writeln!(out, "{} line {}: no record: {}", line.file, line.number, printable(&why))?,
            Err(_) => {}
        }
        Ok(left > 0)
    })?;
    out.flush()?;
    Ok(0)
}

/// Which keyring a kid belongs to: many events name the kid alone. Grows with the number of keys.
#[derive(Default)]
struct KeyringOf(HashMap<String, String>);

impl KeyringOf {
    fn learn(&mut self, event: &Event) {
        match event {
            Event::KeyCreated(event) => self.0.insert(event.kid.clone(), event.key.keyring().to_owned()),
            Event::KeyImported(event) => self.0.insert(event.kid.clone(), event.keyring.clone()),
            _ => None,
        };
    }
}

fn members(bytes: &[u8]) -> Map<String, Value> {
    serde_json::from_slice(bytes).unwrap_or_default()
}

fn fits(args: &ShowArgs, record: &Record, members: &Map<String, Value>, keyrings: &KeyringOf) -> bool {
    let name = record.event.name();
    let event = args.event.is_empty() || args.event.iter().any(|e| name == e || e.ends_with('.') && name.starts_with(e.as_str()));
    let named = |member: &str| members.get(member).and_then(Value::as_str);
    let kids = || ["kid", "from", "to"].into_iter().filter_map(named);
    let kid = args.kid.as_deref().is_none_or(|kid| kids().any(|other| other == kid));
    let about = |keyring: &str| {
        named("keyring") == Some(keyring)
            || named("key").and_then(|key| key.split('.').nth(1)) == Some(keyring)
            || kids().any(|kid| keyrings.0.get(kid).is_some_and(|of| of == keyring))
    };
    event && kid && args.keyring.as_deref().is_none_or(about) && args.since.is_none_or(|since| record.time >= since)
}

/// Prints one record.
pub(super) fn print(output: Output, bytes: &[u8], record: &Record, out: &mut dyn Write) -> io::Result<()> {
    print_members(output, bytes, record, &members(bytes), out)
}

fn print_members(output: Output, bytes: &[u8], record: &Record, members: &Map<String, Value>, out: &mut dyn Write) -> io::Result<()> {
    if output == Output::Json {
        out.write_all(bytes)?;
        return out.write_all(b"\n");
    }
    let mut line = format!("{} {} {:>6} {:<18}", record.time, record.log.name(), record.seq, record.event.name());
    for (name, value) in members.iter().filter(|(name, _)| !FRAME.contains(&name.as_str())) {
        let _ = match value {
            Value::String(text) if is_plain(text) => write!(line, " {name}={text}"),
            other => write!(line, " {name}={other}"),
        };
    }
    writeln!(out, "{}", printable(&line))
}

/// Whether a string can stand without quotes.
fn is_plain(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c == '"' || c == '=')
}
