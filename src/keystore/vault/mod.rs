//! The adapter for the transit engine of HashiCorp Vault and of OpenBao: one transit key per key, always at version 1.
//!
//! In scope: one engine of one server, the login and its renewal, find-or-create, admission, signing, when to ask again. Out of scope: verifying
//! signatures (the signer does), setting the server up (`deploy/vault`), and anything that one of the two lacks.
//!
//! In reading order: `address` (what may become a part of a URL), `transport` (one exchange), `api` (what is said), `fault` (what went wrong),
//! `login` and `session` (the token), `gate` and the port's `breaker` (when not to ask), `server` (all of that together), `admission`, `keys`, `signing`,
//! `permissions` (what `doctor` asks).

use std::sync::Arc;
use std::time::Duration;

use claviger_audit::names::KeyName;
use claviger_audit::{Algorithm, Timestamp};
use rustls::ClientConfig;
use tokio_util::sync::CancellationToken;

pub use self::address::{VaultAddress, VaultPath};
use self::gate::Gate;
pub use self::login::VaultLogin;
use self::server::Server;
pub use self::transport::tls_config;
use super::{BoxFuture, Condition, Input, Keystore, KeystoreError, Locator, Made, Seen, Signature, Terms};
use crate::clock::{Clock, Monotonic};

mod address;
mod admission;
mod api;
mod fault;
mod gate;
mod keys;
mod login;
mod permissions;
mod server;
mod session;
mod signing;
mod transport;

/// How many signatures may be in flight by default: two cores of Vault are busy with far fewer, and more only wait there.
pub const DEFAULT_IN_FLIGHT: usize = 64;
/// The most that can be asked for: each is a connection, on both sides.
pub const MOST_IN_FLIGHT: usize = 256;
/// How long making, reading, listing or deleting a key may take: an RSA key takes a second on a busy server.
const ERRAND_ANSWER: Duration = Duration::from_secs(30);
/// How long a health check may take, a login included.
const HEALTH_ANSWER: Duration = Duration::from_secs(3);

/// Which engine to use, and how.
#[derive(Clone, Debug)]
pub struct VaultSettings {
    /// The server.
    pub address: VaultAddress,
    /// Where its transit engine is mounted.
    pub mount: VaultPath,
    /// Which namespace everything is in, if any.
    pub namespace: Option<VaultPath>,
    /// Whom to believe who the server is ([`tls_config`]); or, for operators, why that cannot be told.
    pub tls: Result<Arc<ClientConfig>, String>,
    /// How to get a token.
    pub login: VaultLogin,
    /// How many signatures may be in flight, 1 to [`MOST_IN_FLIGHT`].
    pub in_flight: usize,
}

/// One transit engine as a [`Keystore`]. Dropping it ends the renewal of its token, which then ends by itself.
pub struct VaultKeystore {
    server: Arc<Server>,
    gate: Gate,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
}

impl VaultKeystore {
    /// Begins to log in, and returns at once: a server that is down never holds up a start. To be called within a runtime.
    pub fn open(settings: VaultSettings, clock: Arc<dyn Clock>) -> Self {
        let in_flight = settings.in_flight.clamp(1, MOST_IN_FLIGHT);
        let server = Arc::new(Server::new(VaultSettings { in_flight, ..settings }, clock.clone()));
        let stop = CancellationToken::new();
        tokio::spawn(keep(server.clone(), stop.clone()));
        Self { server, gate: Gate::new(in_flight), clock, stop }
    }

    /// What the token may not do, though Claviger needs it for the keys of this installation, each with what to do; and what it may do without
    /// need. For `doctor`.
    pub async fn permissions(&self, installation: &str) -> Result<Vec<String>, KeystoreError> {
        let deadline = self.until(ERRAND_ANSWER);
        self.server.guarded(permissions::missing(&self.server, installation, deadline)).await
    }

    async fn sign_by(&self, locator: &Locator, algorithm: Algorithm, input: Input, terms: Terms) -> Result<Signature, KeystoreError> {
        signing::check_input(algorithm, &input).map_err(KeystoreError::Rejected)?;
        let name = self.name_in(locator)?;
        if terms.deadline <= self.clock.monotonic() {
            return Err(KeystoreError::Unanswered);
        }
        let _pass = self.gate.enter(&terms).ok_or(KeystoreError::Overloaded)?;
        self.server.guarded(signing::sign(&self.server, &name, algorithm, &input, terms.deadline)).await
    }

    fn name_in(&self, locator: &Locator) -> Result<KeyName, KeystoreError> {
        address::name_in(locator, self.server.mount())
    }

    fn until(&self, span: Duration) -> Monotonic {
        self.clock.monotonic().plus(span)
    }
}

/// Keeps the token good until the keystore is dropped.
async fn keep(server: Arc<Server>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let rest = server.keep().await;
        tokio::select! {
            () = stop.cancelled() => return,
            () = server.sessions().changed() => {}
            () = tokio::time::sleep(rest) => {}
        }
    }
}

impl Drop for VaultKeystore {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Keystore for VaultKeystore {
    fn create<'a>(&'a self, name: &'a KeyName, algorithm: Algorithm) -> BoxFuture<'a, Result<Made, KeystoreError>> {
        Box::pin(self.server.guarded(keys::find_or_create(&self.server, name, algorithm, self.until(ERRAND_ANSWER))))
    }

    fn sign<'a>(
        &'a self,
        locator: &'a Locator,
        algorithm: Algorithm,
        input: Input,
        terms: Terms,
    ) -> BoxFuture<'a, Result<Signature, KeystoreError>> {
        Box::pin(self.sign_by(locator, algorithm, input, terms))
    }

    fn destroy<'a>(&'a self, locator: &'a Locator) -> BoxFuture<'a, Result<Option<Timestamp>, KeystoreError>> {
        Box::pin(async move {
            let name = self.name_in(locator)?;
            self.server.guarded(keys::destroy(&self.server, &name, self.until(ERRAND_ANSWER))).await?;
            Ok(None)
        })
    }

    fn inspect<'a>(&'a self, locator: &'a Locator) -> BoxFuture<'a, Result<Seen, KeystoreError>> {
        Box::pin(async move {
            let name = self.name_in(locator)?;
            self.server.guarded(keys::inspect(&self.server, &name, self.until(ERRAND_ANSWER))).await
        })
    }

    fn health(&self) -> BoxFuture<'_, Result<(), KeystoreError>> {
        Box::pin(async { self.server.health(self.until(HEALTH_ANSWER)).await })
    }

    fn inventory<'a>(&'a self, installation: &'a str) -> BoxFuture<'a, Result<Vec<(KeyName, Locator)>, KeystoreError>> {
        Box::pin(self.server.guarded(keys::list(&self.server, installation, self.until(ERRAND_ANSWER))))
    }

    fn keeps_record(&self) -> bool {
        // Its audit devices write every request with its id.
        true
    }

    fn condition(&self) -> Condition {
        // Nothing waits here: what is too much is refused, and what hangs is given up at its deadline.
        Condition { reopened: self.server.sessions().reopened(), ..Condition::default() }
    }
}

/// A number from 0 to 1, so that many clients of one server do not come at once. Without randomness they may.
fn chance() -> f64 {
    let mut bytes = [0; 2];
    let _ = getrandom::fill(&mut bytes);
    f64::from(u16::from_be_bytes(bytes)) / f64::from(u16::MAX)
}
