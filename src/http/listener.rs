//! The accept loop: sockets, TLS, limits on connections, and what is known about a peer before it says anything.
//!
//! In scope: binding, handshake and header time limits, a cap on connections, graceful stop, TLS reload. Out of scope: routes and identities.
//! `axum::serve` is not used: it installs no timer, so that its header time limit does not exist.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Streams that one HTTP/2 connection may have open: as many as a busy issuer needs, few enough that one peer cannot fill the queue.
const STREAMS_PER_CONNECTION: u32 = 128;
/// Largest request head in bytes (request line and headers): a bearer token and tracing headers fit many times over, and a full house of
/// peers that send headers without end stays within memory.
const LARGEST_HEAD: u16 = 32 * 1024;
/// How long to wait after `accept` failed, most often for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What is known about a peer before it says anything.
#[derive(Clone, Debug)]
pub enum Peer {
    /// A Unix socket: the credentials that the kernel vouches for (`SO_PEERCRED`).
    Unix {
        /// User id.
        uid: u32,
        /// Group id.
        gid: u32,
    },
    /// A TCP connection.
    Tcp(SocketAddr),
}

/// A socket that is bound.
#[derive(Debug)]
pub enum Bound {
    /// A Unix socket.
    Unix(UnixListener),
    /// A TCP socket, with its TLS settings.
    Tcp(TcpListener, Option<Arc<ArcSwap<rustls::ServerConfig>>>),
}

impl Bound {
    /// Binds a Unix socket with the given mode. A socket file that nobody listens on is replaced; anything else is not touched.
    pub fn unix(path: &Path, mode: u32) -> io::Result<Self> {
        if let Ok(metadata) = std::fs::symlink_metadata(path) {
            if !metadata.file_type().is_socket() {
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, "it exists and is not a socket"));
            }
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens on it"));
            }
            std::fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
        Ok(Self::Unix(listener))
    }

    /// Binds a TCP socket.
    pub async fn tcp(address: SocketAddr, tls: Option<Arc<ArcSwap<rustls::ServerConfig>>>) -> io::Result<Self> {
        Ok(Self::Tcp(TcpListener::bind(address).await?, tls))
    }

    /// The address that TCP clients use; `None` for a Unix socket.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener, _) => listener.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }
}

/// What all connections of all listeners share.
#[derive(Clone, Debug)]
pub struct Connections {
    /// How many there may be at once.
    pub slots: Arc<Semaphore>,
    /// Cancelled when the daemon stops: no new connection, and each open one ends after the request it is in.
    pub stop: CancellationToken,
    /// Every connection's task, so that the stop can wait for them.
    pub tasks: TaskTracker,
    /// How long a peer may take for its request headers (a slow one would hold a connection), and for its TLS handshake.
    pub patience: (Duration, Duration),
}

/// Accepts until the stop; returns then.
pub async fn accept(bound: Bound, router: axum::Router, connections: Connections) {
    loop {
        let accepted = tokio::select! {
            () = connections.stop.cancelled() => return,
            accepted = accept_one(&bound) => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Beyond the cap a connection is closed at once: a peer that waits in the backlog cannot tell overload from an outage.
        let Ok(slot) = connections.slots.clone().try_acquire_owned() else {
            tracing::warn!("too many connections; one was closed");
            continue;
        };
        let router = router.clone().layer(axum::Extension(peer));
        let (stop, (headers, handshake)) = (connections.stop.clone(), connections.patience);
        connections.tasks.spawn(async move {
            match stream {
                Stream::Unix(stream) => converse(stream, router, (stop, headers)).await,
                Stream::Tcp(stream, None) => converse(stream, router, (stop, headers)).await,
                Stream::Tcp(stream, Some(tls)) => {
                    let accepting = TlsAcceptor::from(tls).accept(stream);
                    match tokio::time::timeout(handshake, accepting).await {
                        Ok(Ok(stream)) => converse(stream, router, (stop, headers)).await,
                        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
                        Err(_) => tracing::debug!("a TLS handshake took too long"),
                    }
                }
            }
            drop(slot);
        });
    }
}

enum Stream {
    Unix(tokio::net::UnixStream),
    Tcp(tokio::net::TcpStream, Option<Arc<rustls::ServerConfig>>),
}

async fn accept_one(bound: &Bound) -> io::Result<(Stream, Peer)> {
    match bound {
        Bound::Unix(listener) => {
            let (stream, _) = listener.accept().await?;
            let credentials = stream.peer_cred()?;
            Ok((Stream::Unix(stream), Peer::Unix { uid: credentials.uid(), gid: credentials.gid() }))
        }
        Bound::Tcp(listener, tls) => {
            let (stream, address) = listener.accept().await?;
            stream.set_nodelay(true)?;
            Ok((Stream::Tcp(stream, tls.as_ref().map(|tls| tls.load_full())), Peer::Tcp(address)))
        }
    }
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    router: axum::Router,
    (stop, headers): (CancellationToken, Duration),
) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(headers).max_buf_size(LARGEST_HEAD.into());
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .keep_alive_interval(Some(headers))
        .max_header_list_size(LARGEST_HEAD.into());
    let begun = Arc::new(AtomicBool::new(false));
    let (routes, first) = (TowerToHyperService::new(router), begun.clone());
    let service = service_fn(move |request| {
        first.store(true, Ordering::Relaxed);
        routes.call(request)
    });
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = silence(headers, &begun) => return tracing::debug!("a peer asked nothing in time; its connection was closed"),
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// Ends when the time for headers has passed without a request. The protocol's own time limit begins only once it is known which protocol a
/// peer speaks; until then silence, or half of a preface, would hold the connection for good.
async fn silence(headers: Duration, begun: &AtomicBool) {
    tokio::time::sleep(headers).await;
    if begun.load(Ordering::Relaxed) {
        std::future::pending::<()>().await;
    }
}
