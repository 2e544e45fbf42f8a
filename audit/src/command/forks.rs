//! Writing down what proves a fork, for others to check.
//!
//! In scope: one file for each log that forked, and never over another file. Out of scope: the proof ([`crate::proof`]).

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::proof::ForkProof;
use crate::verify::{ForkFile, Report};

/// Most numbers that are tried for a name that is taken. Whoever has so many proofs needs another folder.
const MOST_NUMBERS: u32 = 1_000;

/// Writes the proof of each fork and says in the report where it is. A proof that cannot be written must not hide the verdict, so that is
/// a line of the report too.
pub(super) fn write(path: &Path, report: &mut Report) {
    let proofs = report.findings.list().iter().filter_map(|finding| Some((finding.log.clone(), finding.proof.as_deref()?)));
    let files = proofs.map(|(log, proof)| match write_new(path, proof) {
        Ok(file) => ForkFile { log, file: file.display().to_string(), error: None },
        Err(error) => ForkFile { log, file: path.display().to_string(), error: Some(error.to_string()) },
    });
    report.fork_proofs = files.collect();
}

/// `name.proof`, or `name-2.proof` and so on where that is taken.
fn write_new(path: &Path, proof: &ForkProof) -> io::Result<PathBuf> {
    for number in 1..=MOST_NUMBERS {
        let path = numbered(path, number);
        match File::create_new(&path) {
            Ok(mut file) => {
                file.write_all(proof.to_string().as_bytes())?;
                file.sync_all()?;
                return Ok(path);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{MOST_NUMBERS} files of this name exist already")))
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    if number == 1 {
        return path.to_owned();
    }
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(format!("-{number}"));
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_comes_before_the_extension() {
        assert_eq!(numbered(Path::new("a/claviger-fork.proof"), 1), Path::new("a/claviger-fork.proof"));
        assert_eq!(numbered(Path::new("a/claviger-fork.proof"), 2), Path::new("a/claviger-fork-2.proof"));
        assert_eq!(numbered(Path::new("fork"), 12), Path::new("fork-12"));
    }
}
