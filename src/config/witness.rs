//! Witnesses: the policy file that names them, and how they are asked.
//!
//! In scope: paths and times. Out of scope: what the policy file says (C2SP tlog-policy; it is read at the start, and by `doctor`).

use std::path::PathBuf;
use std::time::Duration;

use super::error::{Place, Problems};
use super::limits::time;
use super::names::Folders;
use super::raw::RawLog;

/// How long one exchange may take unless the file says otherwise.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Bounds of that: a witness syncs a disk and signs, and a start that waits for four of them must stay within a
/// service manager's patience of 90 s.
const TIMEOUTS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(20));

/// Who cosigns the logs' checkpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WitnessConfig {
    /// A C2SP tlog-policy file: witnesses with their submission prefixes, and the quorum.
    pub policy: PathBuf,
    /// For one exchange.
    pub timeout: Duration,
    /// PEM certificates of the authorities to believe about `https` witnesses, in place of the system's.
    pub ca_file: Option<PathBuf>,
}

/// Reads what `[log]` says of witnesses.
pub(super) fn witnesses(raw: &RawLog, folders: Folders<'_>, problems: &mut Problems<'_>) -> Option<WitnessConfig> {
    let at = Place::of("log");
    let timeout = time(raw.witness_timeout, TIMEOUTS, TIMEOUT, &at.key("witness_timeout"), problems);
    let mut file = |text: &Option<String>, name: &str| text.as_deref().and_then(|text| folders.path(text, &at.key(name), problems));
    let (policy, ca_file) = (file(&raw.witnesses, "witnesses"), file(&raw.witness_ca_file, "witness_ca_file"));
    if raw.witnesses.is_none() {
        let alone = [("witness_timeout", raw.witness_timeout.is_some()), ("witness_ca_file", raw.witness_ca_file.is_some())];
        for (name, _) in alone.into_iter().filter(|(_, given)| *given) {
            problems.add(&at.key(name), "has no effect without witnesses", "name a policy file with witnesses, or remove it");
        }
    }
    Some(WitnessConfig { policy: policy?, timeout, ca_file })
}
