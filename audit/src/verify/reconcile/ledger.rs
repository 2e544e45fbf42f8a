//! The signatures of all backends' records, by request id.
//!
//! In scope: reading the files once, keeping some 300 bytes for each signature, and what time each record covers. Out of scope: whose keys
//! they are by.

use std::collections::{HashMap, HashSet};
use std::io;
use std::time::Duration;

use super::{BackendLog, Reconciled, Source, margin};
use crate::backend::{Backend, Entry, Exposed, Key, Signature, What};
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

/// One request for a key that Claviger never makes.
pub(super) struct Exposure {
    pub(super) time: Timestamp,
    pub(super) exposed: Exposed,
    place: (usize, u64),
}

/// One record that was given.
pub(super) struct Given<'l> {
    pub(super) name: &'l str,
    pub(super) backend: Backend,
    pub(super) keystore: Option<&'l str>,
    /// From when to when it tells of something.
    pub(super) span: Option<(Timestamp, Timestamp)>,
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
    pub(super) exposures: Vec<Exposure>,
    /// Their requests, likewise.
    exposing: HashSet<[u8; 16]>,
    /// Names of keys that the backend tells apart from their signatures.
    pub(super) named: Vec<(Key, KeyName)>,
    files: Vec<String>,
    spans: HashMap<Scope, Span>,
    pub(super) backends: Vec<Reconciled>,
    /// Whose record each of `backends` is.
    kinds: Vec<(Backend, Option<String>)>,
    margin: Option<Duration>,
}

impl Ledger {
    /// Reads all files.
    pub(super) fn read(logs: &[BackendLog<'_>], margin: Option<Duration>) -> io::Result<Self> {
        let mut ledger = Self { margin, ..Self::default() };
        for log in logs {
            ledger.kinds.push((log.backend, log.keystore.clone()));
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
            What::Exposed(exposed) => self.exposure(number, time, exposed),
            What::Named(key, name) => self.named.push((key, name)),
            What::Other => {}
        }
    }

    fn signature(&mut self, number: u64, time: Timestamp, signature: Signature) {
        if !signature.request.is_empty() {
            let id = id(&signature.request);
            match self.by_request.get(&id) {
                // One event may be delivered twice, to two accounts, and by two devices.
                Some(index) if self.signed[*index].signature.key.is(&signature.key) => return self.told().doubled += 1,
                // An entry of another key must not take the place of the first.
                Some(_) => {}
                None => drop(self.by_request.insert(id, self.signed.len())),
            }
        }
        self.told().signatures += 1;
        self.signed.push(Signed { time, signature, place: (self.files.len() - 1, number), claim: None });
    }

    fn exposure(&mut self, number: u64, time: Timestamp, exposed: Exposed) {
        if exposed.request.is_empty() || self.exposing.insert(id(&exposed.request)) {
            self.exposures.push(Exposure { time, exposed, place: (self.files.len() - 1, number) });
        }
    }

    /// The signature of this request.
    pub(super) fn find(&mut self, request: &str) -> Option<&mut Signed> {
        self.by_request.get(&id(request)).map(|index| &mut self.signed[*index])
    }

    /// Whether a backend's record covers this time for a key of this keystore: then it shows every signature of that time.
    pub(super) fn covers(&self, key: &Key, keystore: &str, time: Timestamp) -> bool {
        let backend = key.backend();
        let margin = self.margin(backend);
        let scopes = [None, Some(keystore.to_owned())].map(|keystore| Scope { backend, keystore, part: key.scope() });
        let mut spans = scopes.iter().filter_map(|scope| self.spans.get(scope));
        spans.any(|span| span.first + margin <= time && time + margin <= span.last)
    }

    /// Whether a record of this backend, and of this keystore, was given at all.
    pub(super) fn has(&self, backend: Backend, keystore: &str) -> bool {
        self.spans.keys().any(|scope| scope.backend == backend && scope.keystore.as_deref().is_none_or(|named| named == keystore))
    }

    /// How long after its beginning, and before its end, a record may lack entries.
    pub(super) fn margin(&self, backend: Backend) -> Duration {
        margin(self.margin, backend)
    }

    /// Each record that was given.
    pub(super) fn given(&self) -> impl Iterator<Item = Given<'_>> {
        let given = self.backends.iter().zip(&self.kinds);
        given.map(|(Reconciled { name, first, last, .. }, (backend, keystore))| Given {
            name,
            backend: *backend,
            keystore: keystore.as_deref(),
            span: first.zip(*last),
        })
    }

    /// Whether the records of this kind show anybody's request for a signature.
    pub(super) fn shows_signing(&self, backend: Backend) -> bool {
        let told = self.backends.iter().zip(&self.kinds);
        let mut of_kind = told.filter(|(_, (kind, _))| *kind == backend);
        of_kind.any(|(told, _)| told.signatures > 0 || told.refused > 0)
    }

    /// Where a signature stands.
    pub(super) fn place(&self, signed: &Signed) -> String {
        self.entry_at(&signed.signature.key, signed.place)
    }

    /// Where an exposure stands.
    pub(super) fn place_of(&self, exposure: &Exposure) -> String {
        self.entry_at(&exposure.exposed.key, exposure.place)
    }

    fn entry_at(&self, key: &Key, (file, number): (usize, u64)) -> String {
        let unit = if key.backend() == Backend::Vault { "line" } else { "event" };
        format!("{} {unit} {number}", self.files[file])
    }
}

fn id(request: &str) -> [u8; 16] {
    let hash = *Hash::digest(request.as_bytes()).as_bytes();
    let mut id = [0; 16];
    id.copy_from_slice(&hash[..16]);
    id
}
