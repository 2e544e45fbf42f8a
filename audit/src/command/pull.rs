//! `pull`: a copy of a key log that is served as tiles (C2SP tlog-tiles), as files that every other command reads.
//!
//! In scope: fetching the checkpoint, then the records that it covers and no other, and putting the copy in place of the last one only when
//! it has the root that the checkpoint states. Out of scope: who signed it (`verify` says), and opening a URL (the caller's [`Fetch`] does).
//!
//! Records of the last copy are used again only if they lead to the root that is served now. So the copy is always what is served: a log that
//! was rolled back or forked since is copied as such, and the head of the last run shows it.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Args;

use crate::checkpoint::Checkpoint;
use crate::event::Event;
use crate::line::Lines;
use crate::merkle::{Frontier, leaf_hash};
use crate::note::Note;
use crate::record::Record;
use crate::tiles::{self, Content, WIDTH, decode_bundle};
use crate::verify::{Segment, Verdict};

use super::fetch::{Fetch, check_url};
use super::{Failure, files};

/// The copy's folder within the one that is named, as it is in a state folder.
const KEYS: &str = "keys";
/// After so many bundles a line says how far it is: some seconds.
const PROGRESS: u64 = 100;

/// What `pull` is given.
#[derive(Clone, Debug, Args)]
pub struct PullArgs {
    /// Where a `log` listener serves the key log, such as `https://auth.example.org/log/keys`
    pub url: String,
    /// The folder of the copy; its `keys` folder is replaced as a whole
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
}

/// What was copied.
pub(super) struct Pulled {
    origin: String,
    size: u64,
    fetched: u64,
}

pub(super) fn run(args: &PullArgs, fetch: &Fetch<'_>, out: &mut dyn Write) -> Result<u8, Failure> {
    let Pulled { origin, size, fetched } = pull(args, fetch, out)?;
    writeln!(out, "{size} records of {origin} are in {}, {fetched} of them fetched now", args.folder.join(KEYS).display())?;
    out.flush()?;
    Ok(0)
}

/// Brings the copy up to what is served.
pub(super) fn pull(args: &PullArgs, fetch: &Fetch<'_>, out: &mut dyn Write) -> Result<Pulled, Failure> {
    check_url(&args.url)?;
    let source = Source { base: args.url.trim_end_matches('/'), fetch };
    let note = source.get("checkpoint")?;
    let parsed = Note::parse(&note).map_err(|error| error.to_string());
    let stated: Result<Checkpoint, String> = parsed.and_then(|note| note.text().parse().map_err(|error| format!("{error}")));
    let stated =
        stated.map_err(|error| Failure::Refused(Verdict::Unsigned, format!("{}/checkpoint is no checkpoint: {error}", source.base)))?;
    let known = whole_bundles(&args.folder.join(KEYS), stated.size)?;
    let mut copied = copy(args, &source, &stated, known, out)?;
    if copied.root() != stated.root && known > 0 {
        writeln!(out, "the last copy is not the beginning of what is served now: all of it is fetched again")?;
        copied = copy(args, &source, &stated, 0, out)?;
    }
    if copied.root() != stated.root {
        let text = format!("the records that {} serves are not those that its checkpoint states; the copy is left as it was", source.base);
        return Err(Failure::Refused(Verdict::Tampered, text));
    }
    put_in_place(&args.folder, &note)?;
    Ok(Pulled { origin: stated.origin, size: stated.size, fetched: stated.size - known.min(stated.size) })
}

/// Where the log is served.
struct Source<'f> {
    base: &'f str,
    fetch: &'f Fetch<'f>,
}

impl Source<'_> {
    fn get(&self, path: &str) -> Result<Vec<u8>, Failure> {
        let url = format!("{}/{path}", self.base);
        (self.fetch)(&url).map(|fetched| fetched.body).map_err(|reason| Failure::Fetch { url, reason })
    }
}

/// How many records of the last copy fill bundles that a log of `size` records has too. A copy that cannot be read is none.
fn whole_bundles(folder: &Path, size: u64) -> Result<u64, Failure> {
    let mut lines = 0;
    if folder.is_dir() {
        each_line(folder, &mut |_| {
            lines += 1;
            Ok(lines < size)
        })?;
    }
    let known = lines.min(size);
    Ok(known - known % u64::from(WIDTH))
}

/// Every whole line of the segments in a folder, until `visit` says that it has seen enough or a line is none.
fn each_line(folder: &Path, visit: &mut dyn FnMut(&[u8]) -> Result<bool, Failure>) -> Result<(), Failure> {
    let opened = files::open(&[folder.to_owned()])?;
    for Segment { open, .. } in opened.keys.iter().flat_map(|log| &log.segments) {
        let mut lines = Lines::new(open()?);
        while let Some(line) = lines.next() {
            match line {
                Ok(line) if visit(line.bytes)? => {}
                _ => return Ok(()),
            }
        }
    }
    Ok(())
}

/// Writes `known` records of the last copy and the rest from the source into the folder of the new copy.
fn copy(args: &PullArgs, source: &Source<'_>, stated: &Checkpoint, known: u64, out: &mut dyn Write) -> Result<Frontier, Failure> {
    let mut writer = Writer::begin(&args.folder)?;
    if known > 0 {
        each_line(&args.folder.join(KEYS), &mut |line| writer.line(line).map(|()| writer.frontier.size() < known))?;
    }
    let begun = writer.frontier.size();
    let bundles = tiles::of_tree(stated.size).filter(|tile| tile.content() == Content::Entries);
    for bundle in bundles.filter(|bundle| bundle.first().is_some_and(|first| first >= begun)) {
        let bytes = source.get(&bundle.to_string())?;
        let refused = |error| Failure::Refused(Verdict::Tampered, format!("{}/{bundle}: {error}", source.base));
        for record in decode_bundle(&bytes, bundle.width()).map_err(refused)? {
            writer.line(record)?;
        }
        if bundle.index() % PROGRESS == PROGRESS - 1 {
            writeln!(out, "{} of {} records", writer.frontier.size(), stated.size)?;
            out.flush()?;
        }
    }
    writer.end()
}

/// Writes segments as the daemon does: each begins with `log.segment`, but for the first.
struct Writer {
    folder: PathBuf,
    segment: Option<BufWriter<File>>,
    frontier: Frontier,
}

fn new_copy(folder: &Path) -> PathBuf {
    folder.join(format!("{KEYS}.new"))
}

impl Writer {
    /// What an earlier run left unfinished is dropped.
    fn begin(folder: &Path) -> Result<Self, Failure> {
        let folder = new_copy(folder);
        let failed = |error| Failure::File { path: folder.clone(), error };
        if folder.exists() {
            fs::remove_dir_all(&folder).map_err(failed)?;
        }
        fs::create_dir_all(&folder).map_err(failed)?;
        Ok(Self { folder, segment: None, frontier: Frontier::new() })
    }

    fn line(&mut self, line: &[u8]) -> Result<(), Failure> {
        let begins = || Record::parse(line).is_ok_and(|record| matches!(record.event, Event::LogSegment(_)));
        let path = self.folder.join(format!("{:020}.jsonl", self.frontier.size()));
        let failed = |error| Failure::File { path: path.clone(), error };
        let segment = match self.segment.take() {
            Some(segment) if !begins() => segment,
            before => {
                before.map_or(Ok(()), |mut before| before.flush()).map_err(failed)?;
                BufWriter::new(File::create_new(&path).map_err(failed)?)
            }
        };
        let segment = self.segment.insert(segment);
        segment.write_all(line).and_then(|()| segment.write_all(b"\n")).map_err(failed)?;
        self.frontier.push(leaf_hash(line));
        Ok(())
    }

    fn end(self) -> Result<Frontier, Failure> {
        let path = self.folder;
        self.segment.map_or(Ok(()), |mut segment| segment.flush()).map_err(|error| Failure::File { path, error })?;
        Ok(self.frontier)
    }
}

/// A crash leaves the old copy, none, or the new one, never a mixture.
fn put_in_place(folder: &Path, note: &[u8]) -> Result<(), Failure> {
    let (new, current) = (new_copy(folder), folder.join(KEYS));
    let failed = |error| Failure::File { path: current.clone(), error };
    fs::write(new.join("checkpoint"), note).map_err(failed)?;
    if current.exists() {
        fs::remove_dir_all(&current).map_err(failed)?;
    }
    fs::rename(&new, &current).map_err(failed)
}
