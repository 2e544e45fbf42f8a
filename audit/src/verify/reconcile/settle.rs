//! The comparison: every signature of the backends has a record that is signed for, or something that covers it, or is a finding.
//!
//! In scope: what matches, what is allowed, what nobody can say, what differs. Out of scope: where all that comes from (`ledger`, `account`).

use std::collections::{BTreeMap, BTreeSet};

use super::account::{Account, Reach};
use super::keys::{Keys, Owner};
use super::ledger::{Claim, Exposure, Given, Ledger, Signed};
use super::{APART, Absent, Allowance, Allowed, Reconciliation, Whose};
use crate::backend::Backend;
use crate::time::Timestamp;
use crate::verify::{Finding, Findings, Verdict};

/// A signature that no record of ours explains, and whose it is.
struct Unexplained<'a> {
    signed: &'a Signed,
    owner: Owner<'a>,
}

/// Where a missing record says nothing.
struct Unjudged {
    /// Before this, records were pruned.
    before: Timestamp,
    /// When use logs end whose nodes may still have records to write.
    ends: Vec<Timestamp>,
}

impl Unjudged {
    fn new(account: &Account) -> Self {
        let pruned = account.logs.iter().filter(|log| log.pruned && !log.former).filter_map(|log| log.first).max();
        Self { before: pruned.map(|first| first + APART).unwrap_or_default(), ends: account.open_ends() }
    }

    /// Whether a record may be on its way: the log of a process that lives is never silent for longer.
    fn is_too_new(&self, time: Timestamp) -> bool {
        self.ends.iter().any(|end| (*end - APART..=*end + APART).contains(&time))
    }
}

impl Account {
    /// Compares, once all logs are read.
    pub(in crate::verify) fn settle(mut self, findings: &mut Findings) -> Reconciliation {
        self.kills();
        let unjudged = Unjudged::new(&self);
        let Self { ledger, keys, logs, mut allowances, absent, more_absent, outside, .. } = self;
        allowances.retain(|allowance| allowance.source.is_signed(&logs));
        let backends = ledger.backends.clone();
        let mut result = Reconciliation { backends, outside: outside.values().sum(), ..Reconciliation::default() };
        let (mut unexplained, mut compared) = (Vec::new(), BTreeSet::new());
        for signed in &ledger.signed {
            let (owner, time) = (keys.owner(&signed.signature.key), signed.time);
            let claim = signed.claim.as_ref();
            // Whatever comes of it, a record of ours was held against it.
            compared.extend(claim.map(|_| signed.signature.key.backend()));
            match (owner, claim.filter(|claim| claim.source.is_signed(&logs))) {
                (owner, Some(claim)) => match mismatch(signed, &owner, claim, &keys) {
                    None => result.matched += 1,
                    Some(text) => result.differ(findings, of_claim(text, signed, &owner, claim, (&ledger, &logs))),
                },
                (Owner::Log, None) => result.log_keys += 1,
                (Owner::Foreign, None) => result.foreign += 1,
                (owner, None) if claim.is_some_and(|claim| will_explain(signed, &owner, claim, &keys)) => result.uncovered += 1,
                (_, None) if time < unjudged.before => result.too_old += 1,
                (_, None) if unjudged.is_too_new(time) => result.too_new += 1,
                (owner, None) => unexplained.push(Unexplained { signed, owner }),
            }
        }
        for Unexplained { signed, owner } in result.allow(unexplained, &mut allowances, (&ledger, &keys)) {
            compared.insert(signed.signature.key.backend());
            result.differ(findings, without_record(signed, &owner, &ledger));
        }
        for absent in absent.into_iter().filter(|absent| absent.source.is_signed(&logs)) {
            compared.insert(absent.backend);
            result.differ(findings, without_signature(absent, (&ledger, &logs)));
        }
        for exposure in &ledger.exposures {
            let owner = keys.owner(&exposure.exposed.key);
            if owner != Owner::Foreign {
                result.exposed += 1;
                result.differ(findings, exposed(exposure, &owner, &ledger));
            }
        }
        let outside = outside.into_iter().filter(|(backend, _)| !compared.contains(backend)).collect();
        nothing_compared((&ledger, &keys), (&logs, &outside), findings);
        if more_absent > 0 {
            let text = format!("{more_absent} more records of signatures are confirmed by no entry of the keystore's own record");
            result.differ(findings, Finding::new(Verdict::Differs, text));
            result.differing += more_absent - 1;
        }
        result
    }
}

impl Reconciliation {
    fn differ(&mut self, findings: &mut Findings, finding: Finding) {
        self.differing += 1;
        findings.push(finding);
    }

    /// Takes from the signatures those that an allowance covers, and gives the others. Whoever is covered by its own key's allowance alone comes
    /// before those that another one could cover; among those that are open, the one that ends first is used.
    fn allow<'a>(
        &mut self,
        mut unexplained: Vec<Unexplained<'a>>,
        allowances: &mut [Allowance],
        (ledger, keys): (&Ledger, &Keys),
    ) -> Vec<Unexplained<'a>> {
        allowances.sort_by_key(|allowance| (!allowance.is_of_key(), allowance.to));
        let (_, others) = allowances.split_at(allowances.partition_point(Allowance::is_of_key));
        let depends = |entry: &Unexplained<'_>| !others.iter().any(|allowance| allowance.covers(entry, keys));
        unexplained.sort_by_key(|entry| (!depends(entry), entry.signed.time));
        let mut left = Vec::new();
        for entry in unexplained {
            let mut open = allowances.iter_mut().filter(|allowance| allowance.count > 0);
            match open.find(|allowance| allowance.covers(&entry, keys)) {
                Some(allowance) if !entry.signed.signature.several => {
                    allowance.count -= 1;
                    self.allowed_count += 1;
                    self.allowed.push(allowed(entry.signed, &allowance.because, ledger));
                }
                _ => left.push(entry),
            }
        }
        self.allowed.sort_by_key(|allowed| allowed.time);
        left.sort_by_key(|entry| entry.signed.time);
        left
    }
}

impl Allowance {
    fn is_of_key(&self) -> bool {
        matches!(self.whose, Whose::Key { .. })
    }

    /// Of a key that was never recorded as made, no record tells the kid: then a kid that no record tells is one of its keyring's.
    fn covers(&self, entry: &Unexplained<'_>, keys: &Keys) -> bool {
        let is_for = match (&self.whose, &entry.owner) {
            (Whose::Any, _) => true,
            (Whose::Signing, owner) => keys.could_sign(owner, entry.signed.time),
            (Whose::Key { kid, .. }, Owner::Kid(own)) => kid == own,
            (Whose::Key { keyring, kid }, Owner::Requested(own)) => keyring == own.keyring() && !keys.has_kid(kid),
            (Whose::Key { .. }, _) => false,
        };
        is_for && (self.from..=self.to).contains(&entry.signed.time)
    }
}

/// A record of another keystore, or of another time, differs in nothing, and that says nothing. `outside` is how many of our records could be held
/// against none of their kind.
fn nothing_compared((ledger, keys): (&Ledger, &Keys), (logs, outside): (&[Reach], &BTreeMap<Backend, u64>), findings: &mut Findings) {
    let begun = logs.iter().filter_map(|log| log.first.or(log.begun)).min();
    let ended = logs.iter().filter_map(|log| log.last).max();
    for Given { name, backend, keystore, span } in ledger.given() {
        let known = keys.keystores(backend);
        let why = match (keystore, span, outside.get(&backend)) {
            _ if known.is_empty() => "no key of these logs is in a keystore of this kind".to_owned(),
            (Some(keystore), _, _) if !known.contains(keystore) => {
                let known: Vec<&str> = known.into_iter().collect();
                format!(
                    "no key of these logs is in a keystore called {keystore:?}; those of this kind are called {}: write {}@NAME:PATH",
                    known.join(", "),
                    backend.name()
                )
            }
            (_, None, _) => "it tells of no time of which these logs tell".to_owned(),
            (_, Some((first, last)), _) if Some(last) < begun || Some(first) > ended => {
                "it tells of no time of which these logs tell".to_owned()
            }
            (_, Some((first, last)), Some(outside)) => {
                let margin = ledger.margin(backend).as_secs();
                format!(
                    "all {outside} records of signatures lie outside of the time that it covers, from {first} to {last} less {margin} s at both \
                     ends; give the files of the time between, or say --reconcile-margin"
                )
            }
            _ => continue,
        };
        findings.push(Finding::new(Verdict::Unpinned, format!("nothing was compared with {name}: {why}")));
    }
}

/// What is wrong with a signature that has a record. A kid that no `key.created` tells is that of a key which never came to be, or whose record was
/// lost: then its locator is not known either.
fn mismatch(signed: &Signed, owner: &Owner<'_>, claim: &Claim, keys: &Keys) -> Option<&'static str> {
    let is_unknown = !keys.has_kid(&claim.kid) && !matches!(owner, Owner::Kid(_) | Owner::Log);
    if *owner != Owner::Kid(&claim.kid) && !is_unknown {
        return Some("a signature by another key than its record says");
    }
    signed.signature.several.then_some("a request that signed several inputs, of which a record can name one")
}

/// Whether a record that nobody signed for yet would explain the signature. Such a record is new, so it explains nothing that is old.
fn will_explain(signed: &Signed, owner: &Owner<'_>, claim: &Claim, keys: &Keys) -> bool {
    let near = claim.time - APART..=claim.time + APART;
    near.contains(&signed.time) && mismatch(signed, owner, claim, keys).is_none()
}

/// The entry, in words; nothing in it is a secret.
fn entry(signed: &Signed, ledger: &Ledger) -> String {
    let signature = &signed.signature;
    let place = ledger.place(signed);
    format!("request {} of {} by {}, key {} ({place})", signature.request, signed.time, signature.caller, signature.key)
}

fn allowed(signed: &Signed, because: &str, ledger: &Ledger) -> Allowed {
    let signature = &signed.signature;
    Allowed {
        time: signed.time,
        request: signature.request.clone(),
        key: signature.key.to_string(),
        caller: signature.caller.clone(),
        place: ledger.place(signed),
        because: because.to_owned(),
    }
}

fn without_record(signed: &Signed, owner: &Owner<'_>, ledger: &Ledger) -> Finding {
    let text = match owner {
        _ if signed.signature.several => "a request that signed several inputs, which Claviger never asks for".to_owned(),
        Owner::Kid(kid) => format!("a signature by key {kid} that no record explains"),
        Owner::Requested(name) => {
            let keyring = name.keyring();
            format!("a signature by a key of keyring {keyring} that was never taken into use, and no record explains it")
        }
        _ => "a signature by a key that is named as this installation's, and that no record knows".to_owned(),
    };
    let finding = Finding::new(Verdict::Differs, text);
    finding.differ("a record that names the request, or counts it as unanswered", entry(signed, ledger))
}

fn of_claim(text: &str, signed: &Signed, owner: &Owner<'_>, claim: &Claim, (ledger, logs): (&Ledger, &[Reach])) -> Finding {
    let whose = match owner {
        Owner::Kid(kid) => format!("key {kid}"),
        Owner::Log => "a log key".to_owned(),
        Owner::Requested(_) | Owner::Unknown => "a key that no record knows".to_owned(),
        Owner::Foreign => "a key that is not this installation's".to_owned(),
    };
    let finding = Finding::new(Verdict::Differs, text);
    let finding = match &logs[claim.source.log].origin {
        Some(origin) => finding.of(origin),
        None => finding,
    };
    finding.differ(format_args!("key {}, in record {}", claim.kid, claim.source.seq), format_args!("{whose}: {}", entry(signed, ledger)))
}

fn exposed(exposure: &Exposure, owner: &Owner<'_>, ledger: &Ledger) -> Finding {
    let (exposed, time, place) = (&exposure.exposed, exposure.time, ledger.place_of(exposure));
    let whose = match owner {
        Owner::Kid(kid) => format!("key {kid}"),
        Owner::Log => "a log key".to_owned(),
        Owner::Requested(_) | Owner::Unknown | Owner::Foreign => "a key that is named as this installation's".to_owned(),
    };
    let text = format!("{} ({whose})", exposed.what);
    let entry = format!("request {} of {time} by {}, key {} ({place})", exposed.request, exposed.caller, exposed.key);
    Finding::new(Verdict::Differs, text).differ("no such request: Claviger makes none", entry)
}

/// What a trail without any signature may be: then it is not the signatures that are missing.
const NO_SIGNING: &str = "; the trail may leave out AWS KMS or read events (Sign is a read event): log read and write management events, and \
                          do not exclude AWS KMS";

fn without_signature(absent: Absent, (ledger, logs): (&Ledger, &[Reach])) -> Finding {
    let Absent { at, source, backend, time, request, kid, text } = absent;
    let shows_none = backend == Backend::CloudTrail && !ledger.shows_signing(backend);
    let text = if shows_none { text.to_owned() + NO_SIGNING } else { text.to_owned() };
    let finding = Finding::new(Verdict::Differs, text).at(&at);
    let finding = match &logs[source.log].origin {
        Some(origin) => finding.of(origin),
        None => finding,
    };
    finding.differ(format_args!("request {request} by key {kid}, about {time}"), "no entry")
}
