//! The edge: sockets, identities, routes and the error map.
//!
//! In scope: everything that knows HTTP. Out of scope: deciding, signing, writing: the shell does that (`signer`, `operator`, `publisher`),
//! and no file here touches a keystore or a log.

use std::ops::Deref;
use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Router;

use crate::clock::Clock;
use crate::config::Surface;
use crate::logbook::Logbook;
use crate::metrics::Metrics;
use crate::operator::Operator;
use crate::publisher::Publisher;
use crate::readiness::Readiness;
use crate::signer::Signer;
use crate::upkeep::Upkeep;

mod admin;
pub mod caller;
mod exchange;
pub mod listener;
mod log;
mod ops;
mod problem;
pub mod public;
mod sign;
pub mod tls;

pub use caller::{Accepts, Callers};
pub use exchange::RequestLimits;
pub use public::PublicRoutes;

/// What every handler may use; a clone, of which a request needs several, is one pointer.
#[derive(Clone)]
pub struct App(Arc<Parts>);

impl From<Parts> for App {
    fn from(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }
}

impl Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// The parts of [`App`].
pub struct Parts {
    /// Signs.
    pub signer: Arc<Signer>,
    /// Performs operators' verbs.
    pub operator: Arc<Operator>,
    /// Keeps the logs in order.
    pub upkeep: Arc<Upkeep>,
    /// Has the sets.
    pub publisher: Arc<Publisher>,
    /// Knows what works.
    pub readiness: Arc<Readiness>,
    /// Shows the key log, if some listener serves it.
    pub logbook: Option<Logbook>,
    /// Who callers are.
    pub callers: Arc<ArcSwap<Callers>>,
    /// Which address serves which set.
    pub routes: Arc<ArcSwap<PublicRoutes>>,
    /// Body sizes and deadlines.
    pub limits: RequestLimits,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

/// The routes of one listener. A path of a surface that the listener does not serve is simply not there.
pub fn router(app: &App, surfaces: impl IntoIterator<Item = Surface>, accepts: Accepts) -> Router {
    let mut router = Router::new();
    let mut public = false;
    for surface in surfaces {
        router = match surface {
            Surface::Public => {
                public = true;
                router
            }
            Surface::Sign => router.merge(sign::routes()),
            Surface::Admin => router.merge(admin::routes()),
            Surface::Ops => router.merge(ops::routes()),
            Surface::Log => router.merge(log::routes()),
        };
    }
    let router = if public { router.fallback(public::serve) } else { router.fallback(exchange::not_found) };
    router.method_not_allowed_fallback(exchange::method_not_allowed).layer(axum::Extension(accepts)).with_state(app.clone())
}
