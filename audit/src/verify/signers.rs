//! Who must have signed a checkpoint: the log's keys, one after the other, and what the trust file says of them.
//!
//! In scope: `log.created` and `log.key_rotated` in either log, and which key is in force at which size. Out of scope: the signatures
//! themselves, and witnesses (`notes`).
//!
//! The record of a rotation makes no key trustworthy: whoever holds the old key could write it. Where there is a trust file, a key counts
//! only if that file lists it.

use crate::event::{LogCreated, LogKeyRotated};
use crate::note::{SignatureType, VerifierKey};
use crate::trust::Policy;

use super::finding::{Finding, Findings, Location, Verdict};

/// The keys of one log in the order in which they signed for it. It grows with the rotations of the log key, which are rare.
#[derive(Debug, Default)]
pub(super) struct LogKeys {
    links: Vec<Link>,
    /// Why `log.created` names no key, and where it stands.
    defect: Option<(String, Location)>,
    /// Set while nobody knows which key was in force at this size, because the records before it are not read and none after it has said so.
    unknown_from: Option<u64>,
    /// Below this size nobody knows which key was in force.
    unknown_below: u64,
}

#[derive(Debug)]
struct Link {
    key: VerifierKey,
    /// The least size that this key must sign for.
    from: u64,
    /// The record that brought it; `None` where that is not read.
    at: Option<Location>,
}

impl LogKeys {
    /// The key that the first record names.
    pub(super) fn created(&mut self, event: &LogCreated, at: &Location) {
        match event.key.parse() {
            Ok(key) => self.links.push(Link { key, from: 0, at: Some(at.clone()) }),
            Err(error) => self.defect = Some((format!("log.created names no verifier key: {error}"), at.clone())),
        }
    }

    /// The records below `size` are not read, and rotations may be among them.
    pub(super) fn unknown_until(&mut self, size: u64) {
        (self.unknown_from, self.unknown_below) = (Some(size), size);
    }

    /// The same, but an earlier run knew which key was in force at `size`.
    pub(super) fn resumed(&mut self, size: u64, key: Option<&str>) {
        self.unknown_until(size);
        if let Some(key) = key.and_then(|key| key.parse().ok()) {
            self.unknown_from = None;
            if self.links.last().is_none_or(|link| link.key != key) {
                self.links.push(Link { key, from: size, at: None });
            }
        }
    }

    /// The next key. One that does not follow from the records before is a finding, and signs for nothing.
    pub(super) fn rotated(&mut self, event: &LogKeyRotated, at: &Location, findings: &mut Findings) {
        if let Err((text, expected, found)) = self.follow(event, at) {
            findings.push(Finding::new(Verdict::Illegal, text).rule("form").at(at).differ(expected, found));
        }
    }

    fn follow(&mut self, event: &LogKeyRotated, at: &Location) -> Result<(), (&'static str, String, String)> {
        let name = self.links.first().map(|link| link.key.name().to_owned()).unwrap_or_default();
        let of_this_log = |text: &String| {
            let key = text.parse::<VerifierKey>().ok();
            let key = key.filter(|key| key.name() == name && key.signature_type() != SignatureType::CosignatureEd25519);
            key.ok_or_else(|| ("log.key_rotated names what is no log key of this origin", format!("{name}+..."), text.clone()))
        };
        let (old, new) = (of_this_log(&event.old)?, of_this_log(&event.new)?);
        if let Some(from) = self.unknown_from {
            self.links.push(Link { key: old.clone(), from, at: None });
            self.unknown_from = None;
        }
        let in_force = self.links.last().map(|link| link.key.to_string()).unwrap_or_default();
        if self.links.last().is_none_or(|link| link.key != old) {
            return Err(("log.key_rotated: `old` is not the key in force", in_force, event.old.clone()));
        }
        // Equal bytes are the same key under any identifier.
        if self.links.iter().any(|link| link.key.public_key() == new.public_key()) {
            return Err(("log.key_rotated: `new` signed for this log before", "a key that never did".to_owned(), event.new.clone()));
        }
        // The record has the number `seq`, so the first size that covers it is one more.
        self.links.push(Link { key: new, from: at.seq + 1, at: Some(at.clone()) });
        Ok(())
    }

    /// Every key that ever was in force, as far as the records tell.
    fn keys(&self) -> impl Iterator<Item = &VerifierKey> {
        self.links.iter().map(|link| &link.key)
    }

    /// The key that a checkpoint of this size must be signed by; `None` where nobody knows.
    fn in_force(&self, size: u64) -> Option<&VerifierKey> {
        let known = self.unknown_from.is_none() && size >= self.unknown_below;
        self.links.iter().rev().find(|link| known && link.from <= size).map(|link| &link.key)
    }

    /// The key that signs from the last record on; `None` where nobody knows.
    fn newest(&self) -> Option<&Link> {
        self.links.last().filter(|_| self.unknown_from.is_none())
    }
}

/// Who may sign for one log, as this verification sees it.
#[derive(Debug)]
pub(super) struct Signers<'r> {
    log_keys: &'r LogKeys,
    /// The keys of this origin in the trust file; empty without one, and then the log's own keys count.
    trusted: Vec<VerifierKey>,
    witnesses: Vec<VerifierKey>,
}

impl<'r> Signers<'r> {
    /// Compares the log's own keys with the trust file.
    pub(super) fn of(origin: &str, log_keys: &'r LogKeys, trust: Option<&Policy>, findings: &mut Findings) -> Self {
        if let Some((defect, at)) = &log_keys.defect {
            findings.push(Finding::new(Verdict::Unsigned, defect).of(origin).at(at));
        }
        let witnesses = trust.map(|trust| trust.witnesses().iter().map(|witness| witness.key.clone()).collect()).unwrap_or_default();
        let Some(trust) = trust else { return Self { log_keys, trusted: Vec::new(), witnesses } };
        let trusted: Vec<VerifierKey> = trust.logs().iter().map(|log| log.key.clone()).filter(|key| key.name() == origin).collect();
        if trusted.is_empty() {
            // Its own keys still say whether the log is whole, which helps whoever looks for the reason.
            findings.push(Finding::new(Verdict::Unpinned, "the trust file knows no log of this origin").of(origin));
        } else if let Some(link) = log_keys.newest().filter(|link| !trusted.contains(&link.key)) {
            let text = match &link.at {
                None => "the log names a key that the trust file does not; if you expect it, add the line that is shown as found",
                Some(_) => {
                    "the log key was rotated to one that the trust file does not list; if you expect it, add the line that is shown as found"
                }
            };
            let finding = Finding { at: link.at.clone(), ..Finding::new(Verdict::Unsigned, text).of(origin) };
            findings.push(finding.differ(lines(&trusted), format_args!("log {}", link.key)));
        }
        Self { log_keys, trusted, witnesses }
    }

    /// Every key whose signature on a note is checked, whatever it is worth.
    pub(super) fn known(&self) -> Vec<VerifierKey> {
        let mut known: Vec<VerifierKey> = Vec::new();
        for key in self.trusted.iter().chain(self.log_keys.keys()).chain(&self.witnesses) {
            if !known.contains(key) {
                known.push(key.clone());
            }
        }
        known
    }

    /// The key that a checkpoint of this size must be signed by; `None` where nobody knows.
    pub(super) fn in_force(&self, size: u64) -> Option<&VerifierKey> {
        self.log_keys.in_force(size)
    }

    /// Whether a signature by this key is a statement of the log at all.
    pub(super) fn may_sign(&self, key: &VerifierKey) -> bool {
        if self.trusted.is_empty() { self.log_keys.keys().any(|own| own == key) } else { self.trusted.contains(key) }
    }

    /// Whether a checkpoint of this size that these keys signed counts; the log has that many records. If not, what is missing.
    pub(super) fn check(&self, size: u64, signed_by: &[&VerifierKey]) -> Result<(), Box<Finding>> {
        let Some(key) = self.in_force(size) else { return Ok(()) };
        if !self.may_sign(key) {
            let text = "must be signed by a key that the trust file does not list; if you expect it, add the line that is shown as found";
            return Err(Box::new(Finding::new(Verdict::Unsigned, text).differ(lines(&self.trusted), format_args!("log {key}"))));
        }
        if !signed_by.contains(&key) {
            let text = "is not signed by the key that is in force at its size";
            let found: Vec<String> = signed_by.iter().map(ToString::to_string).collect();
            return Err(Box::new(Finding::new(Verdict::Unsigned, text).differ(key, found.join(", "))));
        }
        Ok(())
    }

    /// The lines of a trust file that these keys would need, with the key that signs from now on.
    pub(super) fn needed(&self, used: &[VerifierKey]) -> Vec<String> {
        let newest = self.log_keys.newest().map(|link| &link.key);
        let needed = self.log_keys.keys().filter(|key| used.contains(key) || newest == Some(key));
        needed.map(ToString::to_string).collect()
    }
}

fn lines(keys: &[VerifierKey]) -> String {
    let lines: Vec<String> = keys.iter().map(|key| format!("log {key}")).collect();
    lines.join(", ")
}
