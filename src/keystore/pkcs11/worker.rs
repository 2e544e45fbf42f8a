//! A signing thread: one session, one job at a time.
//!
//! In scope: the deadline before `C_SignInit`, finding a key once for each epoch, one transparent retry. Out of scope: logging in and opening
//! the token again, which the admin thread does. A worker keeps nothing that another one needs, so it can be replaced at any time (`crew.rs`).

use std::sync::Arc;

use cryptoki::session::Session;

use super::Shared;
use super::crew::Seat;
use super::fault::Fault;
use super::jobs::Job;
use super::keys::Key;
use super::link::Standing;
use super::mechanism::{sign, signature_width};
use super::module::{Entered, Open, SessionPlace};
use super::objects::{find, hex};
use super::pin::require_login;
use super::recovery::{Class, LONGEST_PAUSE};
use crate::keystore::KeystoreError;

/// Serves jobs until the queue is closed, or this thread was written off meanwhile.
pub(super) fn run(shared: &Shared, seat: &Arc<Seat>) {
    let mut place = None;
    while !seat.is_written_off()
        && let Some(job) = shared.jobs.next(&*shared.clock)
    {
        let outcome = serve(shared, seat, &mut place, &job);
        shared.jobs.answer(job.reply, outcome);
    }
}

/// One job: an attempt, and after a failure that may heal, one more.
fn serve(shared: &Shared, seat: &Seat, place: &mut Option<SessionPlace>, job: &Job) -> Result<Vec<u8>, KeystoreError> {
    let standing = shared.link.standing(&*shared.clock, job.terms.deadline)?;
    let begun = shared.clock.monotonic();
    if shared.keys.is_absent(&job.id, begun) {
        return Err(Fault::Missing(hex(&job.id)).tell(LONGEST_PAUSE));
    }
    let patience = shared.settings.hang_after;
    let fault = match seat.call(begun, patience, || attempt(shared, place, job, &standing)) {
        Ok(signature) => {
            let now = shared.clock.monotonic();
            shared.jobs.took(now.since(begun));
            shared.link.prove(now);
            return Ok(signature);
        }
        Err(fault) => fault,
    };
    match fault.class() {
        Class::Never | Class::Throttle => return Err(fault.tell(LONGEST_PAUSE)),
        // Only this thread's session is at fault: without it the next attempt opens another one, and finds the key anew, because a
        // module may let its handles end with the session in which it gave them.
        Class::Session => {
            *place = None;
            shared.keys.forget(&job.id);
        }
        Class::Login | Class::Module => {
            shared.link.report(standing.epoch, &fault);
            shared.errands.nudge();
        }
    }
    let standing = shared.link.standing(&*shared.clock, job.terms.deadline)?;
    let outcome = seat.call(shared.clock.monotonic(), patience, || attempt(shared, place, job, &standing));
    if fault.class() == Class::Session && place.is_some() {
        shared.link.session_reopened(&fault);
    }
    outcome.inspect(|_| shared.link.prove(shared.clock.monotonic())).map_err(|fault| {
        if fault.class() == Class::Session {
            *place = None;
        }
        if matches!(fault, Fault::Missing(_)) {
            shared.keys.learn_absent(&job.id, shared.clock.monotonic());
        }
        fault.tell(LONGEST_PAUSE)
    })
}

fn attempt(shared: &Shared, place: &mut Option<SessionPlace>, job: &Job, standing: &Standing) -> Result<Vec<u8>, Fault> {
    let call = standing.module.enter()?;
    if call.generation() != standing.generation {
        return Err(Fault::Stale);
    }
    let place = place.get_or_insert_with(|| SessionPlace::new(standing.module.clone()));
    if place.hold(&call).as_ref().is_none_or(|open| open.epoch != standing.epoch) {
        // The old one goes first: the token may have no room for both, and the admin thread's session keeps the login meanwhile.
        drop(place.hold(&call).take());
        place.put(&call, Open { session: open_session(&call, standing)?, epoch: standing.epoch });
    }
    let held = place.hold(&call);
    let session = &held.as_ref().ok_or(Fault::Stale)?.session;
    let key = match shared.keys.known(&job.id, standing.epoch) {
        Some(key) => key,
        None => look_up(shared, session, &job.id, standing.epoch)?,
    };
    if key.shape != job.algorithm.key_shape() {
        return Err(Fault::Refused(format!("{} needs a key of another kind than {:?}", job.algorithm, key.shape)));
    }
    // The last point at which nothing has happened yet: beyond it the answer is used or counted as late, never cut short.
    if shared.clock.monotonic() >= job.terms.deadline {
        return Err(Fault::Expired);
    }
    sign(session, key.object, job.algorithm, &job.input, key.width)
}

/// Signing needs no more than a read-only session; a few devices have none.
pub(super) fn open_session(call: &Entered<'_>, standing: &Standing) -> Result<Session, Fault> {
    let library = call.library();
    match library.open_ro_session(standing.slot).map_err(Fault::from) {
        Err(fault) if fault.class() == Class::Never => Ok(library.open_rw_session(standing.slot)?),
        outcome => outcome,
    }
}

fn look_up(shared: &Shared, session: &Session, id: &[u8], epoch: u64) -> Result<Key, Fault> {
    let Some(found) = find(session, id)? else {
        // Somebody who was logged out meanwhile sees no private key either: only a search by a user says that there is none.
        return Err(require_login(session).err().unwrap_or_else(|| Fault::Missing(hex(id))));
    };
    let key = Key { epoch, object: found.private, shape: found.shape, width: signature_width(found.shape, found.modulus()) };
    shared.keys.learn(id, key);
    Ok(key)
}
