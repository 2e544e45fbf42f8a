//! One kind of key from its making to its end, with every algorithm that signs with it.
//!
//! In scope: generating with Claviger's template, reading back what admission needs, finding it again, signing, verifying outside of the
//! token, a digest of the wrong length, destroying. Out of scope: which kinds are tried. Kinds rather than algorithms, because six
//! algorithms share an RSA key, whose making takes half a minute on small devices.

use std::time::Duration;

use claviger_audit::Algorithm;
use claviger_audit::algorithm::KeyShape;
use claviger_audit::names::KeyName;
use cryptoki::object::AttributeType;
use cryptoki::session::Session;

use super::desk::Desk;
use super::report::{AlgorithmRow, AttributeRow, Check, Verdict};
use super::signing::{TrialKey, message};
use super::yard::{self, Yard};
use super::{said, us};
use crate::clock::Clock;
use crate::keystore::pkcs11::fault::Fault;
use crate::keystore::pkcs11::objects::{self, Found};
use crate::keystore::pkcs11::profile::DeviceProfile;
use crate::keystore::pkcs11::{admin, admission};

/// How many signatures are timed for each algorithm; their median is told.
const SIGNATURES: usize = 5;

/// What was found of one kind of key.
#[derive(Default)]
pub(super) struct Tried {
    pub(super) algorithms: Vec<AlgorithmRow>,
    pub(super) attributes: Vec<AttributeRow>,
    pub(super) checks: Vec<Check>,
}

/// The name of a kind of key in the report.
pub(super) fn name_of(shape: KeyShape) -> &'static str {
    match shape {
        KeyShape::P256 => "P-256",
        KeyShape::P384 => "P-384",
        KeyShape::P521 => "P-521",
        KeyShape::Rsa => "RSA-2048",
        KeyShape::Ed25519 => "Ed25519",
    }
}

/// Tries one kind of key with these algorithms, all of that kind and at least one.
pub(super) fn try_shape(desk: &Desk, yard: &mut Yard, shape: KeyShape, algorithms: &[Algorithm], clock: &dyn Clock) -> Tried {
    let mut tried = Tried::default();
    let mut rows: Vec<AlgorithmRow> = algorithms.iter().map(|algorithm| empty(*algorithm)).collect();
    let outcome = yard.name().and_then(|name| {
        let outcome = desk.with(|session| live(session, &name, shape, &mut rows, &mut tried, clock));
        let gone = desk.with(|session| end(session, &name, shape, &mut tried));
        for row in rows.iter_mut().filter(|row| row.generate_us.is_some()) {
            row.destroyed = Some(gone.is_ok());
        }
        if desk.with(|session| yard::remove(session, &name)).is_ok() {
            yard.forget(&name);
        }
        outcome.and(gone)
    });
    for row in &mut rows {
        if let Err(fault) = &outcome
            && row.detail.is_empty()
        {
            row.detail = said(fault);
        }
        row.verdict = Verdict::of(row.verified == Some(true) && row.destroyed == Some(true) && row.detail.is_empty());
    }
    tried.algorithms = rows;
    tried
}

fn empty(algorithm: Algorithm) -> AlgorithmRow {
    AlgorithmRow {
        algorithm: algorithm.name().to_owned(),
        generate_us: None,
        sign_us: None,
        verified: None,
        wrong_length: None,
        destroyed: None,
        verdict: Verdict::Fails,
        detail: String::new(),
    }
}

/// From its making to its last signature.
fn live(
    session: &Session,
    name: &KeyName,
    shape: KeyShape,
    rows: &mut [AlgorithmRow],
    tried: &mut Tried,
    clock: &dyn Clock,
) -> Result<(), Fault> {
    let begun = clock.monotonic();
    objects::generate(session, name, shape, &DeviceProfile::default())?;
    let took = us(clock.monotonic().since(begun));
    for row in rows.iter_mut() {
        row.generate_us = Some(took);
    }
    let id = objects::id_of(name);
    let found = objects::find(session, &id)?.ok_or_else(|| Fault::Missing(objects::hex(&id)))?;
    tried.attributes = read_back(session, &found, shape)?;
    tried.checks.push(find_again(session, name, shape, &found, tried.attributes.iter().all(|row| row.verdict == Verdict::Ok)));
    for row in rows {
        if let Ok(algorithm) = row.algorithm.parse() {
            sign(session, &TrialKey::new(name, algorithm, &found), row, clock);
        }
    }
    Ok(())
}

/// Every attribute that admission needs, as the token reports it.
fn read_back(session: &Session, found: &Found, shape: KeyShape) -> Result<Vec<AttributeRow>, Fault> {
    let attributes = session.get_attributes(found.private, &admission::attributes_to_read())?;
    let rows = admission::table(&attributes).into_iter().map(|row| AttributeRow {
        key: name_of(shape).to_owned(),
        attribute: row.name.to_owned(),
        wanted: row.wanted,
        found: row.found,
        verdict: Verdict::of(row.admitted),
    });
    Ok(rows.collect())
}

/// Whether asking for a key of this name gives the one that is there. A key that admission refuses is found by its id alone.
fn find_again(session: &Session, name: &KeyName, shape: KeyShape, found: &Found, admitted: bool) -> Check {
    let algorithm = Algorithm::ALL.into_iter().find(|algorithm| algorithm.key_shape() == shape);
    let again = match algorithm.filter(|_| admitted) {
        Some(algorithm) => admin::find_or_make(session, name, algorithm, &DeviceProfile::default()).map(|made| made.public == found.public),
        None => objects::find(session, &objects::id_of(name)).map(|again| again.is_some_and(|again| again.public == found.public)),
    };
    let check = format!("find_or_create.{}", name_of(shape));
    match again {
        Ok(true) => Check::new(check, "the key that was made is found by its id, and not made twice", Verdict::Ok),
        Ok(false) => Check::new(check, "another key was found", Verdict::Fails),
        Err(fault) => Check::new(check, said(&fault), Verdict::Fails),
    }
}

fn sign(session: &Session, key: &TrialKey, row: &mut AlgorithmRow, clock: &dyn Clock) {
    let mut spans: Vec<Duration> = Vec::with_capacity(SIGNATURES);
    for number in 0..SIGNATURES {
        let input = message(key.algorithm, &format!("signature {number}"));
        let begun = clock.monotonic();
        match key.sign(session, &input) {
            Ok(signature) => {
                spans.push(clock.monotonic().since(begun));
                row.verified = Some(row.verified != Some(false) && key.made(&input, &signature));
            }
            Err(fault) => {
                row.detail = said(&fault);
                return;
            }
        }
    }
    spans.sort();
    row.sign_us = spans.get(SIGNATURES / 2).copied().map(us);
    if row.verified == Some(false) {
        "a signature does not verify with the public key".clone_into(&mut row.detail);
    }
    // Claviger refuses such a digest before the token sees it, so signing it is no failure; some tokens do.
    row.wrong_length = key.sign_short(session).map(|outcome| outcome.map_or_else(|fault| said(&fault), |_| "signed".to_owned()));
}

/// Destroys the key as the adapter does, and looks whether it is gone, also by its old handle.
fn end(session: &Session, name: &KeyName, shape: KeyShape, tried: &mut Tried) -> Result<(), Fault> {
    let id = objects::id_of(name);
    let Some(private) = objects::find_private(session, &id)? else { return Ok(()) };
    objects::destroy(session, &id)?;
    if objects::find_private(session, &id)?.is_some() {
        return Err(Fault::Nonsense("C_DestroyObject answered CKR_OK, and the key is still there".to_owned()));
    }
    let gone = session.get_attributes(private, &[AttributeType::Class]).map_err(Fault::from);
    let (text, verdict) = match gone {
        Err(fault) => (format!("gone; its old handle gives {}", said(&fault)), Verdict::Ok),
        Ok(attributes) if attributes.is_empty() => ("gone; its old handle shows nothing".to_owned(), Verdict::Ok),
        Ok(_) => ("gone by its id, but its old handle still shows an object".to_owned(), Verdict::Note),
    };
    tried.checks.push(Check::new(format!("destroy.{}", name_of(shape)), text, verdict));
    Ok(())
}
