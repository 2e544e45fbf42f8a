//! Writing down what proves a fork, for others to check.
//!
//! In scope: one file for each log that forked, and a line of the report for each file. Out of scope: the proof ([`crate::proof`]).

use std::path::Path;

use crate::verify::{ForkFile, Report};

use super::writing;

/// Writes the proof of each fork and says in the report where it is. A proof that cannot be written must not hide the verdict, so that is
/// a line of the report too.
pub(super) fn write(path: &Path, report: &mut Report) {
    let proofs = report.findings.list().iter().filter_map(|finding| Some((finding.log.clone(), finding.proof.as_deref()?)));
    let files = proofs.map(|(log, proof)| match writing::beside(path, &proof.to_string()) {
        Ok(file) => ForkFile { log, file: file.display().to_string(), error: None },
        Err(error) => ForkFile { log, file: path.display().to_string(), error: Some(error.to_string()) },
    });
    report.fork_proofs = files.collect();
}
