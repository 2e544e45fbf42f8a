//! Where a trial sits: one module, one token, one session that holds the login.
//!
//! In scope: opening, logging in by the rules of `pin.rs`, giving all of it up and taking it up again. Out of scope: what is tried. Every
//! session is known to the module, and none is used while the module is initialised again, as everywhere in this adapter.

use std::sync::Arc;

use cryptoki::context::Pkcs11;
use cryptoki::session::Session;
use cryptoki::slot::{Slot, TokenInfo};

use super::TrialSettings;
use crate::keystore::pkcs11::fault::Fault;
use crate::keystore::pkcs11::link::Standing;
use crate::keystore::pkcs11::module::{Module, Open, SessionPlace};
use crate::keystore::pkcs11::token::select;
use crate::keystore::pkcs11::{pin, worker};

/// The seat of one trial.
pub(super) struct Desk {
    settings: TrialSettings,
    module: Arc<Module>,
    place: Option<SessionPlace>,
    slot: Slot,
    epoch: u64,
}

impl Desk {
    /// Loads the module and finds the token; opens no session yet.
    pub(super) fn open(settings: &TrialSettings) -> Result<Self, Fault> {
        let module = Module::load(&settings.module)?;
        let (slot, _) = select(module.enter()?.library(), &settings.token)?;
        Ok(Self { settings: settings.clone(), module, place: None, slot, epoch: 0 })
    }

    /// Asks the module something that needs no session.
    pub(super) fn ask<T>(&self, question: impl FnOnce(&Pkcs11, Slot) -> Result<T, Fault>) -> Result<T, Fault> {
        question(self.module.enter()?.library(), self.slot)
    }

    /// The token as it is now.
    pub(super) fn token(&self) -> Result<TokenInfo, Fault> {
        self.ask(|library, slot| Ok(library.get_token_info(slot)?))
    }

    /// Finds the token again, opens a session in place of the one before, and logs in unless that was done.
    pub(super) fn log_in(&mut self) -> Result<(), Fault> {
        self.seat()?;
        self.log_in_here()
    }

    /// Opens a session in place of the one before, without a login.
    pub(super) fn seat(&mut self) -> Result<(), Fault> {
        let call = self.module.enter()?;
        let (slot, _) = select(call.library(), &self.settings.token)?;
        let session = call.library().open_rw_session(slot)?;
        self.slot = slot;
        self.epoch += 1;
        let module = &self.module;
        self.place.get_or_insert_with(|| SessionPlace::new(Arc::clone(module))).put(&call, Open { session, epoch: self.epoch });
        Ok(())
    }

    /// Logs in with the session that is open.
    pub(super) fn log_in_here(&self) -> Result<(), Fault> {
        let (settings, slot) = (&self.settings, self.slot);
        self.with_library(|library, session| {
            let _turn = self.module.login_turn();
            pin::log_in(library, slot, session, &settings.pin, &settings.state)
        })
    }

    /// Runs one step with the session.
    pub(super) fn with<T>(&self, step: impl FnOnce(&Session) -> Result<T, Fault>) -> Result<T, Fault> {
        self.with_library(|_, session| step(session))
    }

    fn with_library<T>(&self, step: impl FnOnce(&Pkcs11, &Session) -> Result<T, Fault>) -> Result<T, Fault> {
        let call = self.module.enter()?;
        let place = self.place.as_ref().ok_or(Fault::Stale)?;
        let held = place.hold(&call);
        match &*held {
            Some(open) => step(call.library(), &open.session),
            None => Err(Fault::Stale),
        }
    }

    /// Opens up to `count` sessions as signing threads have them, runs a step with those that there are, and closes them again. The step
    /// also learns why there are no more.
    pub(super) fn with_more<T>(&self, count: usize, step: impl FnOnce(Vec<Session>, Option<Fault>) -> T) -> Result<T, Fault> {
        let call = self.module.enter()?;
        let standing = Standing { module: Arc::clone(&self.module), generation: call.generation(), epoch: self.epoch, slot: self.slot };
        let mut sessions = Vec::new();
        let mut end = None;
        while sessions.len() < count && end.is_none() {
            match worker::open_session(&call, &standing) {
                Ok(session) => sessions.push(session),
                Err(fault) => end = Some(fault),
            }
        }
        Ok(step(sessions, end))
    }

    /// Closes the session, and with it the login.
    pub(super) fn leave(&mut self) {
        self.place = None;
    }

    /// Closes the session, finalises the module and initialises it again. The token may be in another slot afterwards.
    pub(super) fn reinitialise(&mut self) -> Result<(), Fault> {
        self.leave();
        self.module.reinitialise()
    }
}
