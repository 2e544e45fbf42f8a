//! The floor of an exchange: axum itself, with handlers that read the body and return bytes that are there already.
//!
//! In scope: `axum::serve` with as many threads as the daemon's runtime has, and the daemon's own answers, headers included. Out of scope:
//! anything that a handler could do.

use std::net::SocketAddr;

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

use crate::Outcome;

/// A server in this process, on threads of its own. It ends when it is dropped.
pub(crate) struct Bare {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    _runtime: Runtime,
}

impl Bare {
    /// Serves the answers that were recorded: to `POST /sign`, and to `GET /.well-known/jwks.json`.
    pub(crate) fn start(sign: &(String, String), jwks: &(String, String)) -> Outcome<Self> {
        let runtime = Builder::new_multi_thread().enable_all().build()?;
        let (sign, jwks) = (answer(sign)?, answer(jwks)?);
        let router = Router::new()
            .route("/sign", post(move |_request: Bytes| async move { sign }))
            .route("/.well-known/jwks.json", get(move || async move { jwks }));
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let address = listener.local_addr()?;
        // It ends with its runtime, and has nobody to tell.
        runtime.spawn(async move {
            axum::serve(
                axum::serve::ListenerExt::tap_io(listener, |stream| {
                    let _ = stream.set_nodelay(true);
                }),
                router,
            )
            .await
        });
        Ok(Self { address, _runtime: runtime })
    }
}

/// The headers and the body of a recorded answer; what every server writes itself is left out.
fn answer((head, body): &(String, String)) -> Outcome<(HeaderMap, Bytes)> {
    let mut headers = HeaderMap::new();
    for (name, value) in head.lines().skip(1).filter_map(|line| line.split_once(": ")) {
        if !["content-length", "date"].contains(&name) {
            headers.append(HeaderName::from_bytes(name.as_bytes())?, HeaderValue::from_str(value)?);
        }
    }
    Ok((headers, Bytes::from(body.clone())))
}
