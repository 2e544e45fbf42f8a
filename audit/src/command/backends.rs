//! `--reconcile`: from an argument to the files of a keystore's own record.
//!
//! In scope: which files there are, and unpacking them. Out of scope: what they hold ([`crate::backend`]).

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use flate2::bufread::MultiGzDecoder;

use crate::backend::Backend;
use crate::names::is_label;
use crate::verify::Segment;
use crate::verify::reconcile::BackendLog;

use super::Failure;

/// Deepest folder of CloudTrail files: `AWSLogs/<organisation>/<account>/CloudTrail/<region>/<year>/<month>/<day>`, and what lies above.
const DEEPEST: usize = 32;
/// Most files of one record: ten years of one region.
const MOST_FILES: usize = 1_000_000;
/// How a gzip file begins (RFC 1952 section 2.3.1).
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// `cloudtrail:PATH` or `vault:PATH`, with `@KEYSTORE` after the kind where the record is that of one keystore alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendArg {
    text: String,
    backend: Backend,
    keystore: Option<String>,
    path: PathBuf,
}

impl FromStr for BackendArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is no record of a keystore; write cloudtrail:DIR, vault:FILE or vault@KEYSTORE:FILE");
        let (kind, path) = text.split_once(':').filter(|(_, path)| !path.is_empty()).ok_or_else(bad)?;
        let (kind, keystore) = kind.split_once('@').map_or((kind, None), |(kind, keystore)| (kind, Some(keystore)));
        let backend = [Backend::CloudTrail, Backend::Vault].into_iter().find(|backend| backend.name() == kind).ok_or_else(bad)?;
        if keystore.is_some_and(|keystore| !is_label(keystore)) {
            return Err(bad());
        }
        Ok(Self { text: text.to_owned(), backend, keystore: keystore.map(str::to_owned), path: path.into() })
    }
}

/// All records that the arguments name.
pub(super) fn open(args: &[BackendArg]) -> Result<Vec<BackendLog<'static>>, Failure> {
    args.iter().map(record).collect()
}

fn record(arg: &BackendArg) -> Result<BackendLog<'static>, Failure> {
    let mut paths = Vec::new();
    if arg.path.is_dir() {
        collect(&arg.path, arg.backend, DEEPEST, &mut paths)?;
    } else {
        paths.push(arg.path.clone());
    }
    if paths.is_empty() {
        let kind = if arg.backend == Backend::CloudTrail { ".json or .json.gz" } else { "any" };
        return Err(Failure::Usage(format!(
            "{} holds no files ({kind}); name the folder of the keystore's own record",
            arg.path.display()
        )));
    }
    paths.sort();
    let files = paths.into_iter().map(file).collect();
    Ok(BackendLog { name: arg.text.clone(), backend: arg.backend, keystore: arg.keystore.clone(), files })
}

/// CloudTrail files lie in folders by account, region and day; the files of an audit device, rotated ones too, in one folder.
fn collect(folder: &Path, backend: Backend, depth: usize, paths: &mut Vec<PathBuf>) -> Result<(), Failure> {
    let failed = |error| Failure::File { path: folder.to_owned(), error };
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let (path, kind) = (entry.path(), entry.file_type().map_err(failed)?);
        if kind.is_dir() && backend == Backend::CloudTrail && depth > 0 {
            collect(&path, backend, depth - 1, paths)?;
        } else if !kind.is_dir() && is_record(&path, backend) {
            paths.push(path);
        }
        if paths.len() > MOST_FILES {
            return Err(Failure::Usage(format!("{} holds more than {MOST_FILES} files; give a part of them at a time", folder.display())));
        }
    }
    Ok(())
}

fn is_record(path: &Path, backend: Backend) -> bool {
    let ends_in = |path: &Path, extension: &str| path.extension().is_some_and(|found| found.eq_ignore_ascii_case(extension));
    match backend {
        Backend::CloudTrail if ends_in(path, "gz") => ends_in(&path.with_extension(""), "json"),
        Backend::CloudTrail => ends_in(path, "json"),
        Backend::Vault => !path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")),
    }
}

/// A file as long as it is now, which is opened when its turn comes; one that is packed is unpacked on its way. What a keystore adds while the logs
/// are read is left out: they may have nothing of it yet.
fn file(path: PathBuf) -> Segment<'static> {
    let name = path.display().to_string();
    let length = fs::metadata(&path).ok().filter(fs::Metadata::is_file).map_or(u64::MAX, |metadata| metadata.len());
    let open = move || {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        let mut reader = BufReader::new(File::open(&path).map_err(named)?.take(length));
        let is_packed = reader.fill_buf().map_err(named)?.starts_with(&GZIP);
        Ok(if is_packed { Box::new(BufReader::new(MultiGzDecoder::new(reader))) } else { Box::new(reader) as Box<dyn BufRead> })
    };
    Segment { name, open: Box::new(open) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_names_a_kind_and_a_path() {
        let arg: BackendArg = "vault@prod:/var/log/a:b.log".parse().unwrap();
        assert_eq!((arg.backend, arg.keystore.as_deref(), arg.path.to_str()), (Backend::Vault, Some("prod"), Some("/var/log/a:b.log")));
        assert_eq!("cloudtrail:trail".parse::<BackendArg>().map(|arg| arg.backend), Ok(Backend::CloudTrail));
        for bad in ["", "vault", "vault:", "hsm:x", "vault@:x", "vault@A B:x", "/var/log/audit.log"] {
            assert!(bad.parse::<BackendArg>().is_err(), "{bad}");
        }
    }
}
