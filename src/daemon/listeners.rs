//! The configured listeners: bound all together, or not at all, and their TLS pairs, which a reload replaces.
//!
//! In scope: from `[[listener]]` to accept loops. Out of scope: what a connection does (`http::listener`).

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::StartError;
use crate::config::{self, Bind, CallerKind, Config, Listener, TlsFiles};
use crate::http::listener::{Bound, Connections, accept};
use crate::http::tls::{self, TlsError};
use crate::http::{Accepts, App, router};

/// The TLS settings of each listener that has some, in the order of the file.
pub(super) type TlsSlots = Vec<(TlsFiles, Arc<ArcSwap<ServerConfig>>)>;

/// Binds every listener, then accepts on all of them.
pub(super) async fn start(config: &Config, app: &App, slots: &mut TlsSlots, stop: &CancellationToken) -> Result<TaskTracker, StartError> {
    let tasks = TaskTracker::new();
    let connections = Connections {
        slots: Arc::new(Semaphore::new(config.limits.connections.get() as usize)),
        stop: stop.clone(),
        tasks: tasks.clone(),
        patience: (config.limits.header_timeout, config.limits.handshake_timeout),
    };
    let mut bound = Vec::new();
    for listener in &config.listeners {
        bound.push((bind(listener, slots).await?, listener));
    }
    for (bound, listener) in bound {
        let accepts =
            Accepts { unix: listener.callers.contains(&CallerKind::Unix), bearer: listener.callers.contains(&CallerKind::Bearer) };
        // Tests and `port 0` need the address that was really taken.
        tracing::info!(bind = %listener.bind, address = ?bound.address(), "listening");
        tasks.spawn(accept(bound, router(app, listener.serves.iter().copied(), accepts), connections.clone()));
    }
    tasks.close();
    Ok(tasks)
}

async fn bind(listener: &Listener, slots: &mut TlsSlots) -> Result<Bound, StartError> {
    let fails = |reason: String| StartError::Listen { address: listener.bind.to_string(), reason };
    match &listener.bind {
        Bind::Unix(path) => Bound::unix(path, listener.socket_mode).map_err(|error| fails(error.to_string())),
        Bind::Tcp(address) => {
            let tls = listener.tls.as_ref().map(|files| slot(files, slots)).transpose().map_err(fails)?;
            Bound::tcp(*address, tls).await.map_err(|error| fails(error.to_string()))
        }
    }
}

fn slot(files: &TlsFiles, slots: &mut TlsSlots) -> Result<Arc<ArcSwap<ServerConfig>>, String> {
    let slot = Arc::new(ArcSwap::new(load(files)?));
    slots.push((files.clone(), slot.clone()));
    Ok(slot)
}

/// Reads a certificate and its key. A bad pair is refused whole, so that a reload keeps the old one.
pub(super) fn load(files: &TlsFiles) -> Result<Arc<ServerConfig>, String> {
    let read = |path| config::files::bytes(path).map_err(|error| error.to_string());
    let (certificates, key) = (read(&files.cert)?, zeroize::Zeroizing::new(read(&files.key)?));
    let pair = tls::server_config(&certificates, &key);
    pair.map_err(|error: TlsError| format!("{} and {}: {error}", files.cert.display(), files.key.display()))
}
