//! Looking at a state folder without opening it for writing: what `doctor` needs while no daemon runs.
//!
//! In scope: the replay of the key log, the folder's mode. Out of scope: proving anything: that is `claviger audit verify`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use claviger_audit::event::LogKind;
use claviger_audit::keyrings::Keyrings;
use claviger_audit::record::Record;

use super::disk::LocalDisk;
use super::former;

/// The keyrings as the key log in this state folder says. The error names the file and what to do.
pub fn keyrings(state: &Path) -> Result<Keyrings, String> {
    let folder = state.join("log").join(LogKind::Keys.name());
    let entries =
        fs::read_dir(&folder).map_err(|error| format!("{}: {error}; a new installation needs `claviger init`", folder.display()))?;
    let mut segments: Vec<_> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
    segments.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    segments.sort();
    let mut keyrings = former::carried(&LocalDisk, &folder).map_err(|error| error.to_string())?;
    for segment in segments {
        let text = fs::read(&segment).map_err(|error| format!("{}: {error}", segment.display()))?;
        for line in text.split_inclusive(|byte| *byte == b'\n').filter_map(|line| line.strip_suffix(b"\n")) {
            let record = Record::parse(line).map_err(|error| format!("{}: {error}; run `claviger audit verify`", segment.display()))?;
            keyrings.apply(&record).map_err(|illegal| format!("{}: {illegal}; run `claviger audit verify`", segment.display()))?;
        }
    }
    Ok(keyrings)
}

/// The permission bits of the folder.
pub fn mode(state: &Path) -> Result<u32, String> {
    let metadata = fs::metadata(state).map_err(|error| format!("{error}; `claviger init` makes it"))?;
    Ok(metadata.permissions().mode() & 0o777)
}
