//! What becomes of logins, handles and keys when a session, a login or the module ends: after `C_Logout`, after the last session was closed,
//! after `C_Finalize` and `C_Initialize`.
//!
//! In scope: two throw-away keys, so that a handle that names another key by now is seen. Out of scope: using a stale handle for anything but
//! this question; Claviger never does, because its handles carry an epoch.

use cryptoki::object::{Attribute, ObjectClass};
use cryptoki::session::Session;

use super::desk::Desk;
use super::report::{Check, Verdict};
use super::said;
use super::signing::{TrialKey, message};
use crate::keystore::pkcs11::fault::Fault;
use crate::keystore::pkcs11::objects::id_of;
use crate::keystore::pkcs11::pin;

/// The two keys, with handles of the time before.
pub(super) type Pair = [TrialKey; 2];

/// Ends everything once and takes it up again; the token is logged in before, and after if it can be.
pub(super) fn tell(desk: &mut Desk, pair: &Pair, checks: &mut Vec<Check>) {
    let stages: [Stage; 3] = [after_logout, after_closing, after_reinitialising];
    for stage in stages {
        if let Err((check, fault)) = stage(desk, pair, checks) {
            checks.push(Check::new(check, said(&fault), Verdict::Fails));
            // Whatever failed, the next stage begins with a login.
            if desk.log_in().is_err() {
                return;
            }
        }
    }
}

/// A stage's outcome: what failed, if anything that the rest needs failed.
type Stage = fn(&mut Desk, &Pair, &mut Vec<Check>) -> Result<(), (&'static str, Fault)>;

fn after_logout(desk: &mut Desk, pair: &Pair, checks: &mut Vec<Check>) -> Result<(), (&'static str, Fault)> {
    desk.with(|session| Ok(session.logout()?)).map_err(|fault| ("logout.done", fault))?;
    checks.push(without_login("logout", desk, pair));
    checks.push(unseen("logout", desk, &pair[0]));
    desk.log_in_here().map_err(|fault| ("logout.new_login", fault))?;
    checks.push(stale("logout", desk, pair));
    checks.push(found("logout", desk, pair));
    Ok(())
}

fn after_closing(desk: &mut Desk, pair: &Pair, checks: &mut Vec<Check>) -> Result<(), (&'static str, Fault)> {
    desk.leave();
    desk.seat().map_err(|fault| ("close.new_session", fault))?;
    let kept = desk.with(pin::is_logged_in).map_err(|fault| ("close.login", fault))?;
    checks.push(if kept {
        Check::new("close.login", "kept: closing the last session does not log out", Verdict::Note)
    } else {
        Check::new("close.login", "gone with the last session", Verdict::Ok)
    });
    desk.log_in_here().map_err(|fault| ("close.new_login", fault))?;
    checks.push(stale("close", desk, pair));
    checks.push(found("close", desk, pair));
    Ok(())
}

fn after_reinitialising(desk: &mut Desk, pair: &Pair, checks: &mut Vec<Check>) -> Result<(), (&'static str, Fault)> {
    // Twice, with the keys found in this order and then in the other one: a module that begins to count again, and numbers objects as it
    // finds them, gives each key the other's number.
    let anew = |desk: &mut Desk, order: [usize; 2]| {
        desk.reinitialise().map_err(|fault| ("reinitialise.done", fault))?;
        desk.log_in().map_err(|fault| ("reinitialise.new_login", fault))?;
        find_both(desk, pair, order).map_err(|fault| ("reinitialise.keys", fault))
    };
    let before = anew(desk, [0, 1])?;
    let after = anew(desk, [1, 0])?;
    checks.push(Check::new("reinitialise.done", "C_Finalize and C_Initialize succeed", Verdict::Ok));
    let same = before[0].object == after[0].object && before[1].object == after[1].object;
    let crossed = before[0].object == after[1].object || before[1].object == after[0].object;
    let (text, verdict) = match (crossed, same) {
        (true, _) => ("a number of one key names the other key now; Claviger never uses a handle of another epoch", Verdict::Note),
        (false, true) => ("each key has its number again", Verdict::Ok),
        (false, false) => ("the keys have new numbers", Verdict::Ok),
    };
    checks.push(Check::new("reinitialise.numbers", text, verdict));
    checks.push(stale("reinitialise", desk, &before));
    checks.push(found("reinitialise", desk, pair));
    Ok(())
}

fn find_both(desk: &Desk, pair: &Pair, order: [usize; 2]) -> Result<Pair, Fault> {
    let mut both = pair.clone();
    for place in order {
        both[place] = desk.with(|session| TrialKey::find(session, &pair[place].name, pair[place].algorithm))?;
    }
    Ok(both)
}

/// What a handle signs with.
#[derive(Debug, PartialEq, Eq)]
enum Signs {
    Same,
    Other,
    Unknown,
    Not(String),
}

/// Signs with the first key's handle, and looks which key did.
fn probe(session: &Session, pair: &Pair) -> Signs {
    let input = message(pair[0].algorithm, "a stale handle");
    match pair[0].sign(session, &input) {
        Ok(signature) if pair[0].made(&input, &signature) => Signs::Same,
        Ok(signature) if pair[1].made(&input, &signature) => Signs::Other,
        Ok(_) => Signs::Unknown,
        Err(fault) => Signs::Not(said(&fault)),
    }
}

/// An old handle while nobody is logged in.
fn without_login(event: &str, desk: &Desk, pair: &Pair) -> Check {
    let check = format!("{event}.handle_without_login");
    match desk.with(|session| Ok(probe(session, pair))) {
        Ok(Signs::Not(code)) => Check::new(check, format!("does not sign: {code}"), Verdict::Ok),
        Ok(_) => Check::new(check, "SIGNS: private keys can be used without a login", Verdict::Fails),
        Err(fault) => Check::new(check, said(&fault), Verdict::Fails),
    }
}

/// Whether private keys are hidden while nobody is logged in.
fn unseen(event: &str, desk: &Desk, key: &TrialKey) -> Check {
    let check = format!("{event}.search_without_login");
    let search = [Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::Token(true), Attribute::Id(id_of(&key.name))];
    let seen = desk.with(|session| Ok(session.iter_objects(&search)?.next().transpose()?.is_some()));
    match seen {
        Ok(false) => Check::new(check, "finds no private key", Verdict::Ok),
        Ok(true) => Check::new(check, "shows private keys without a login", Verdict::Note),
        Err(fault) => Check::new(check, format!("finds no private key: {}", said(&fault)), Verdict::Ok),
    }
}

/// An old handle after a new login.
fn stale(event: &str, desk: &Desk, pair: &Pair) -> Check {
    let never = "Claviger never uses a handle of another epoch";
    let (text, verdict) = match desk.with(|session| Ok(probe(session, pair))) {
        Ok(Signs::Same) => ("still names its key".to_owned(), Verdict::Ok),
        Ok(Signs::Not(code)) => (format!("stale: {code}"), Verdict::Ok),
        Ok(Signs::Other) => (format!("SIGNS WITH ANOTHER KEY, without an error; {never}"), Verdict::Note),
        Ok(Signs::Unknown) => (format!("signs with no key that is known here; {never}"), Verdict::Note),
        Err(fault) => (said(&fault), Verdict::Fails),
    };
    Check::new(format!("{event}.old_handle"), text, verdict)
}

/// Whether both keys are found again, and sign.
fn found(event: &str, desk: &Desk, pair: &Pair) -> Check {
    let check = format!("{event}.keys");
    let again = find_both(desk, pair, [0, 1]).and_then(|again| {
        for (key, known) in again.iter().zip(pair) {
            let input = message(key.algorithm, "after a new login");
            let signature = desk.with(|session| key.sign(session, &input))?;
            if !key.is(known) || !known.made(&input, &signature) {
                return Err(Fault::Nonsense(format!("the id of key {} finds another key", known.name)));
            }
        }
        Ok(())
    });
    match again {
        Ok(()) => Check::new(check, "found again, and sign", Verdict::Ok),
        Err(fault) => Check::new(check, said(&fault), Verdict::Fails),
    }
}
