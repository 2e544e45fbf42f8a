//! The signatures of all backends' records, by request id.
//!
//! In scope: reading the files once, keeping some 300 bytes for each signature, and what time each record covers. Out of scope: whose keys
//! they are by.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use super::{BackendLog, Reconciled, Source, margin};
use crate::backend::{Backend, Entry, Key, Signature, What};
use crate::merkle::Hash;
use crate::names::KeyName;
use crate::time::Timestamp;

/// A record of ours that names an entry's request.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    pub(super) source: Source,
    pub(super) time: Timestamp,
    pub(super) kid: String,
}

/// One signature.
pub(super) struct Signed {
    pub(super) time: Timestamp,
    pub(super) signature: Signature,
    /// File and number within it.
    place: (usize, u64),
    pub(super) claim: Option<Claim>,
}

/// From when to when a part of a record tells of something.
#[derive(Clone, Copy)]
struct Span {
    first: Timestamp,
    last: Timestamp,
}

/// Which part of which record.
#[derive(PartialEq, Eq, Hash)]
struct Scope {
    backend: Backend,
    keystore: Option<String>,
    /// [`Entry::scope`].
    part: String,
}

/// All of them.
#[derive(Default)]
pub(super) struct Ledger {
    pub(super) signed: Vec<Signed>,
    /// Index by the start of the SHA-256 of the request id: 16 bytes, however long an id is.
    by_request: HashMap<[u8; 16], usize>,
    /// Names of keys that the backend tells apart from their signatures.
    pub(super) named: Vec<(Key, KeyName)>,
    files: Vec<String>,
    spans: HashMap<Scope, Span>,
    pub(super) backends: Vec<Reconciled>,
    kinds: Vec<Backend>,
    margin: Option<Duration>,
}

impl Ledger {
    /// Reads all files.
    pub(super) fn read(logs: &[BackendLog<'_>], margin: Option<Duration>) -> io::Result<Self> {
        let mut ledger = Self { margin, ..Self::default() };
        for log in logs {
            ledger.kinds.push(log.backend);
            ledger.backends.push(Reconciled { name: log.name.clone(), ..Reconciled::default() });
            for file in &log.files {
                ledger.files.push(file.name.clone());
                let mut reader = (file.open)()?;
                let read = log.backend.read(reader.as_mut(), &mut |entry| ledger.entry(log, entry));
                let read = read.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", file.name)))?;
                let told = ledger.told();
                told.torn += read.torn;
                told.files += u64::from(!read.is_digest);
            }
        }
        Ok(ledger)
    }

    /// The record that is being read.
    fn told(&mut self) -> &mut Reconciled {
        let last = self.backends.len() - 1;
        &mut self.backends[last]
    }

    fn entry(&mut self, log: &BackendLog<'_>, Entry { number, time, scope, what }: Entry) {
        let scope = Scope { backend: log.backend, keystore: log.keystore.clone(), part: scope };
        let span = self.spans.entry(scope).or_insert(Span { first: time, last: time });
        (span.first, span.last) = (span.first.min(time), span.last.max(time));
        let told = self.told();
        told.first = Some(told.first.map_or(time, |first| first.min(time)));
        told.last = told.last.max(Some(time));
        match what {
            What::Signature(signature) => self.signature(number, time, signature),
            What::Refused => told.refused += 1,
            What::Named(key, name) => self.named.push((key, name)),
            What::Other => {}
        }
    }

    fn signature(&mut self, number: u64, time: Timestamp, signature: Signature) {
        let id = id(&signature.request);
        // One event may be delivered twice, to two accounts, and by two devices.
        if self.by_request.get(&id).is_some_and(|index| self.signed[*index].signature.key == signature.key) {
            self.told().doubled += 1;
            return;
        }
        self.told().signatures += 1;
        self.by_request.insert(id, self.signed.len());
        self.signed.push(Signed { time, signature, place: (self.files.len() - 1, number), claim: None });
    }

    /// The signature of this request.
    pub(super) fn find(&mut self, request: &str) -> Option<&mut Signed> {
        self.by_request.get(&id(request)).map(|index| &mut self.signed[*index])
    }

    /// Whether a backend's record covers this time for a key of this keystore: then it shows every signature of that time.
    pub(super) fn covers(&self, key: &Key, keystore: &str, time: Timestamp) -> bool {
        let backend = key.backend();
        let margin = margin(self.margin, backend);
        let scopes = [None, Some(keystore.to_owned())].map(|keystore| Scope { backend, keystore, part: key.scope() });
        let mut spans = scopes.iter().filter_map(|scope| self.spans.get(scope));
        spans.any(|span| span.first + margin <= time && time + margin <= span.last)
    }

    /// Whether a record of this backend, and of this keystore, was given at all.
    pub(super) fn has(&self, backend: Backend, keystore: &str) -> bool {
        self.spans.keys().any(|scope| scope.backend == backend && scope.keystore.as_deref().is_none_or(|named| named == keystore))
    }

    /// Each record that was given: its name, its kind, and from when to when it tells of something.
    pub(super) fn records(&self) -> impl Iterator<Item = (&str, Backend, Option<(Timestamp, Timestamp)>)> {
        let told = self.backends.iter().zip(&self.kinds);
        told.map(|(told, kind)| (told.name.as_str(), *kind, told.first.zip(told.last)))
    }

    /// Where an entry stands.
    pub(super) fn place(&self, signed: &Signed) -> String {
        let (file, number) = signed.place;
        let unit = if signed.signature.key.backend() == Backend::Vault { "line" } else { "event" };
        format!("{} {unit} {number}", self.files[file])
    }
}

fn id(request: &str) -> [u8; 16] {
    let hash = *Hash::digest(request.as_bytes()).as_bytes();
    let mut id = [0; 16];
    id.copy_from_slice(&hash[..16]);
    id
}
