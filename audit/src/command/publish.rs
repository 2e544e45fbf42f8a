//! `jwks` and `trust`: what a log says about keys, for others to use.
//!
//! In scope: the exact bytes. Out of scope: serving them.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use crate::jwks::{self, SetName};
use crate::time::Timestamp;
use crate::verify::Verdict;

use super::{Failure, files, verify_unpinned};

/// What `jwks` is given.
#[derive(Clone, Debug, Args)]
#[command(group = clap::ArgGroup::new("set").required(true).args(["issuer", "keyring"]))]
pub struct JwksArgs {
    /// A state's `log` folder, the key log's folder, or its segment files
    #[arg(required = true, value_name = "DIR|FILE")]
    pub paths: Vec<PathBuf>,
    /// The set of this issuer
    #[arg(long, value_name = "NAME")]
    pub issuer: Option<String>,
    /// The set of this keyring
    #[arg(long, value_name = "NAME")]
    pub keyring: Option<String>,
}

/// What `trust` is given.
#[derive(Clone, Debug, Args)]
pub struct TrustArgs {
    /// A state's `log` folder, a folder of segments, or segment files
    #[arg(required = true, value_name = "DIR|FILE")]
    pub paths: Vec<PathBuf>,
}

/// The body, and nothing else. A damaged key log is refused; one that nothing pins is not, because this is for the day when all is lost.
pub(super) fn jwks(args: &JwksArgs, now: Timestamp, out: &mut dyn Write) -> Result<u8, Failure> {
    let report = verify_unpinned(&files::open(&args.paths)?, true, now)?;
    let set = match (&args.issuer, &args.keyring) {
        (Some(issuer), _) => SetName::Issuer(issuer.clone()),
        (None, keyring) => SetName::Keyring(keyring.clone().unwrap_or_default()),
    };
    let missing =
        || Failure::NotFound(format!("the key log knows no set {set}; `claviger-audit show --event keyring.` lists its keyrings"));
    let body = jwks::body(&report.keyrings, &set).ok_or_else(missing)?;
    out.write_all(&body)?;
    out.flush()?;
    Ok(0)
}

/// A trust file for the logs as they are. Each must at least be signed by the key that it names.
pub(super) fn trust(args: &TrustArgs, now: Timestamp, out: &mut dyn Write) -> Result<u8, Failure> {
    let report = verify_unpinned(&files::open(&args.paths)?, false, now)?;
    if let Some(unsigned) = report.findings.list().iter().find(|finding| finding.verdict == Verdict::Unsigned) {
        return Err(Failure::Refused(Verdict::Unsigned, unsigned.text.clone()));
    }
    writeln!(out, "# The keys that these logs name themselves: trust on first use. Compare them with what `claviger init` printed.")?;
    for log in report.logs.iter().filter(|log| log.size > 0) {
        // After a rotation of the log key: the old one too, as long as checkpoints here need it.
        for key in &log.keys {
            writeln!(out, "log {key}")?;
        }
    }
    writeln!(out, "quorum none")?;
    out.flush()?;
    Ok(0)
}
