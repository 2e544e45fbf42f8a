//! `find`: which record made this token.
//!
//! In scope: by `jti` or by the token itself, both hashed here. Out of scope: proving that the record belongs to the log (`verify
//! --receipt` does, with the receipt that is printed).

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use crate::event::{Event, Sign};
use crate::merkle::{Hash, leaf_hash};
use crate::verify::Input;

use super::{EXIT_NOT_FOUND, Failure, files, lines};

/// Largest token that is read.
const MAX_TOKEN: usize = 1 << 20;

/// What `find` is given.
#[derive(Clone, Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["jti", "token"]))]
pub struct FindArgs {
    /// A state's `log` folder, a folder of segments, or segment files
    #[arg(required = true, value_name = "DIR|FILE")]
    pub paths: Vec<PathBuf>,
    /// The token's `jti` claim as it is; its SHA-256 is what records hold
    #[arg(long, allow_hyphen_values = true)]
    pub jti: Option<String>,
    /// A file with the token (compact JWS); the SHA-256 of its signing input is what records hold
    #[arg(long, value_name = "FILE")]
    pub token: Option<PathBuf>,
}

#[derive(Serialize)]
struct Printed<'a> {
    leaf: Hash,
    log: &'a str,
    seq: u64,
}

pub(super) fn run(args: &FindArgs, out: &mut dyn Write) -> Result<u8, Failure> {
    let input = files::open(&args.paths)?;
    let jti = args.jti.as_ref().map(|jti| Hash::digest(jti.as_bytes()));
    let signing_input = args.token.as_deref().map(signing_input).transpose()?;
    let wanted = |sign: &Sign| jti.is_some_and(|jti| sign.jti == Some(jti)) || signing_input == Some(sign.input);
    let found = search(&input, &wanted, out)?;
    if !found {
        writeln!(out, "no record of this token in these logs")?;
    }
    out.flush()?;
    Ok(if found { 0 } else { EXIT_NOT_FOUND })
}

/// Prints every record that matches, and its receipt.
fn search(input: &Input<'_>, wanted: &dyn Fn(&Sign) -> bool, out: &mut dyn Write) -> Result<bool, Failure> {
    let mut found = false;
    let mut origin = String::new();
    lines::each(input, &mut |line| {
        let Ok((bytes, record)) = line.record else { return Ok(true) };
        match &record.event {
            Event::LogCreated(event) => origin.clone_from(&event.origin),
            Event::Sign(sign) if wanted(sign) => {
                found = true;
                let receipt = Printed { leaf: leaf_hash(bytes), log: &origin, seq: record.seq };
                writeln!(out, "record {} of {}, {} line {}:", record.seq, origin, line.file, line.number)?;
                out.write_all(bytes)?;
                writeln!(out, "\nreceipt:\n{}", serde_json::to_string(&receipt)?)?;
            }
            _ => {}
        }
        Ok(true)
    })?;
    Ok(found)
}

/// RFC 7515 section 5.1: the first two parts of a compact JWS and the dot between them.
pub(super) fn signing_input(path: &Path) -> Result<Hash, Failure> {
    let bytes = files::read_small(path, MAX_TOKEN)?;
    let token = bytes.trim_ascii();
    let dots: Vec<usize> = token.iter().enumerate().filter(|(_, byte)| **byte == b'.').map(|(at, _)| at).collect();
    match dots[..] {
        [_, second] => Ok(Hash::digest(&token[..second])),
        _ => Err(Failure::Usage(format!("{} holds no compact JWS: three parts joined by dots", path.display()))),
    }
}
