//! From paths to logs: which files are segments of which log.
//!
//! In scope: the layout of a state's `log` folder, the former logs in it, and loose segment files. Out of scope: what the files hold, but for the first record,
//! which says what a loose file belongs to.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};

use crate::event::LogKind;
use crate::line::Lines;
use crate::note::MAX_NOTE;
use crate::record::Record;
use crate::verify::{Former, Input, LogFiles, NoteFile, Pruned, Segment};

use super::Failure;

/// Most files in one folder: six terabytes of segments. More is no log folder.
const MOST_FILES: usize = 100_000;
/// The folder of logs that ended, by the number of their adoption.
const FORMER: &str = "former";
/// How much of a segment is read at once.
const READ_BUFFER: usize = 1 << 17;

/// The logs that `paths` name: folders with `keys` and `uses*` in them, folders of segments, and segment files.
pub(super) fn open(paths: &[PathBuf]) -> Result<Input<'static>, Failure> {
    let mut input = Input::default();
    let mut loose = Vec::new();
    for path in paths {
        if path.is_dir() {
            folder(path, &mut input)?;
        } else {
            loose.push(path.clone());
        }
    }
    for (kind, files) in group(&loose)? {
        add(&mut input.keys, &mut input.uses, kind, files)?;
    }
    Ok(input)
}

/// A whole small file, at most `limit` bytes.
pub(super) fn read_small(path: &Path, limit: usize) -> Result<Vec<u8>, Failure> {
    let failed = |error| Failure::File { path: path.to_owned(), error };
    let mut bytes = Vec::new();
    File::open(path).map_err(failed)?.take(limit as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > limit {
        return Err(Failure::Usage(format!("{} has more than {limit} bytes", path.display())));
    }
    Ok(bytes)
}

/// The names in a folder, sorted.
pub(super) fn names_in(folder: &Path) -> Result<Vec<String>, Failure> {
    let failed = |error| Failure::File { path: folder.to_owned(), error };
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        if names.len() == MOST_FILES {
            return Err(Failure::Usage(format!("{} has more than {MOST_FILES} files; it is no log folder", folder.display())));
        }
        names.extend(entry.map_err(failed)?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

fn folder(path: &Path, input: &mut Input<'static>) -> Result<(), Failure> {
    let names = names_in(path)?;
    if names.iter().any(|name| is_segment(name)) {
        let log = log_in(path, &names)?;
        let by_name = kind_by_name(path);
        let first = names.iter().find(|name| is_segment(name)).map(|name| path.join(name));
        let kind = by_name.or(first.and_then(|first| first_record(&first).ok().flatten()).map(|record| record.log));
        return add(&mut input.keys, &mut input.uses, kind.unwrap_or(LogKind::Keys), log);
    }
    logs_in(path, &names, &mut input.keys, &mut input.uses)?;
    let former = path.join(FORMER);
    if former.is_dir() {
        let mut numbers: Vec<u32> = names_in(&former)?.iter().filter_map(|name| name.parse().ok()).collect();
        numbers.sort_unstable();
        for number in numbers {
            let folder = former.join(number.to_string());
            let Former { mut keys, mut uses } = Former::default();
            logs_in(&folder, &names_in(&folder)?, &mut keys, &mut uses)?;
            input.former.push(Former { keys, uses });
        }
    }
    Ok(())
}

/// The folders of logs in `path`.
fn logs_in(path: &Path, names: &[String], keys: &mut Option<LogFiles<'static>>, uses: &mut Vec<LogFiles<'static>>) -> Result<(), Failure> {
    for name in names {
        let inner = path.join(name);
        if let Some(kind) = kind_by_name(&inner).filter(|_| inner.is_dir()) {
            add(keys, uses, kind, log_in(&inner, &names_in(&inner)?)?)?;
        }
    }
    Ok(())
}

fn add(
    keys: &mut Option<LogFiles<'static>>,
    uses: &mut Vec<LogFiles<'static>>,
    kind: LogKind,
    log: LogFiles<'static>,
) -> Result<(), Failure> {
    match kind {
        LogKind::Uses => uses.push(log),
        LogKind::Keys if keys.is_none() => *keys = Some(log),
        LogKind::Keys => return Err(Failure::Usage(format!("two key logs are given; the second is {}", log.name))),
    }
    Ok(())
}

fn log_in(folder: &Path, names: &[String]) -> Result<LogFiles<'static>, Failure> {
    let segments = names.iter().filter(|name| is_segment(name)).map(|name| segment(&folder.join(name)));
    let notes = names.iter().filter(|name| *name == "checkpoint" || name.ends_with(".checkpoint"));
    let notes: Result<_, Failure> = notes.map(|name| note(&folder.join(name))).collect();
    let hashes = names.iter().filter(|name| is_numbered(name, ".hashes")).map(|name| segment(&folder.join(name))).collect();
    let genesis = names.iter().find(|name| *name == "genesis").map(|name| segment(&folder.join(name)));
    Ok(LogFiles { name: folder.display().to_string(), segments: segments.collect(), notes: notes?, pruned: Pruned { hashes, genesis } })
}

/// Loose files: those of one log, in one folder, are its segments, in order of their first record.
fn group(paths: &[PathBuf]) -> Result<Vec<(LogKind, LogFiles<'static>)>, Failure> {
    let mut groups: BTreeMap<(LogKind, PathBuf, String), Vec<(u64, PathBuf)>> = BTreeMap::new();
    for path in paths {
        let folder = path.parent().map(Path::to_owned).unwrap_or_default();
        let first = first_record(path).map_err(|error| Failure::File { path: path.clone(), error })?;
        let kind = first.as_ref().map(|record| record.log).or_else(|| kind_by_name(&folder)).unwrap_or(LogKind::Keys);
        let node = first.as_ref().filter(|_| kind == LogKind::Uses).map(|record| record.node.clone()).unwrap_or_default();
        let seq = first.map_or(u64::MAX, |record| record.seq);
        groups.entry((kind, folder, node)).or_default().push((seq, path.clone()));
    }
    let mut logs = Vec::new();
    for ((kind, folder, _), mut files) in groups {
        files.sort();
        let mut beside = vec![folder.join("checkpoint")];
        beside.extend(files.iter().flat_map(|(_, path)| [with_suffix(path, ".checkpoint"), path.with_extension("checkpoint")]));
        let notes: Result<_, Failure> = beside.iter().filter(|path| path.is_file()).map(|path| note(path)).collect();
        let name = files.first().map(|(_, path)| path.display().to_string()).unwrap_or_default();
        let segments = files.iter().map(|(_, path)| segment(path)).collect();
        logs.push((kind, LogFiles { name, segments, notes: notes?, pruned: Pruned::default() }));
    }
    Ok(logs)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// A file as long as it is now. What a daemon adds while others are read is left out: the key log is read first, and the use logs would have
/// seen more of it. (What is no regular file has no length before it was read.)
fn segment(path: &Path) -> Segment<'static> {
    let name = path.display().to_string();
    let length = fs::metadata(path).ok().filter(fs::Metadata::is_file).map_or(u64::MAX, |metadata| metadata.len());
    let path = path.to_owned();
    let open = move || {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        let file = File::open(&path).map_err(named)?.take(length);
        Ok(Box::new(BufReader::with_capacity(READ_BUFFER, file)) as Box<dyn BufRead>)
    };
    Segment { name, open: Box::new(open) }
}

pub(super) fn note(path: &Path) -> Result<NoteFile, Failure> {
    Ok(NoteFile { name: path.display().to_string(), bytes: read_small(path, MAX_NOTE)? })
}

/// The first record, if the first line is one.
fn first_record(path: &Path) -> io::Result<Option<Record>> {
    let mut lines = Lines::new(BufReader::new(File::open(path)?));
    Ok(lines.next().and_then(Result::ok).and_then(|line| Record::parse(line.bytes).ok()))
}

fn is_segment(name: &str) -> bool {
    is_numbered(name, ".jsonl")
}

fn is_numbered(name: &str, suffix: &str) -> bool {
    name.strip_suffix(suffix).is_some_and(|digits| digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit()))
}

fn kind_by_name(folder: &Path) -> Option<LogKind> {
    match folder.file_name()?.to_str()? {
        "keys" => Some(LogKind::Keys),
        name if name == "uses" || name.starts_with("uses-") => Some(LogKind::Uses),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn read(segment: &Segment<'_>) -> String {
        let mut text = String::new();
        (segment.open)().unwrap().read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn a_log_that_grows_is_read_as_long_as_it_was() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"one\n").unwrap();
        let segment = segment(file.path());
        file.write_all(b"two\n").unwrap();
        assert_eq!(read(&segment), "one\n");
    }

    #[test]
    fn what_has_no_length_is_read_to_its_end() {
        let (reader, mut writer) = io::pipe().unwrap();
        let segment = segment(&PathBuf::from(format!("/dev/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&reader))));
        writer.write_all(b"one\n").unwrap();
        drop(writer);
        assert_eq!(read(&segment), "one\n");
    }
}
