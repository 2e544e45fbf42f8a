//! The transport to one witness: one kept connection, HTTP/1.1, TLS unless it is on this machine.
//!
//! In scope: addresses, connecting, time and size limits. Out of scope: what is said. No redirect is followed, and no proxy is looked for:
//! whoever is in the policy file is whoever is asked.

use std::sync::Arc;
use std::time::Duration;

use http::uri::{Scheme, Uri};
use http::{Request, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::submission::Answer;

/// Largest answer that is read: three post-quantum cosignatures fit.
const LARGEST_ANSWER: usize = 16 * 1024;
const USER_AGENT: &str = concat!("claviger/", env!("CARGO_PKG_VERSION"));

/// Why a witness cannot be asked at all.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ClientError {
    /// The URL cannot be used.
    #[error("{url:?} is not a submission prefix: {why}; write https://HOST[:PORT]/PATH (http:// is for loopback alone)")]
    Url {
        /// As the policy file has it.
        url: String,
        /// What is wrong.
        why: &'static str,
    },
    /// The certificates of authorities cannot be used.
    #[error("the certificates of authorities for witnesses cannot be used: {0}")]
    Roots(String),
}

/// Where a witness takes checkpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    tls: bool,
    host: String,
    port: u16,
    authority: String,
    path: String,
}

impl Target {
    /// From a submission prefix (C2SP tlog-witness).
    pub fn parse(url: &str) -> Result<Self, ClientError> {
        let wrong = |why| ClientError::Url { url: url.to_owned(), why };
        let uri: Uri = url.parse().map_err(|_| wrong("it is not a URL"))?;
        let authority = uri.authority().ok_or_else(|| wrong("it names no host"))?;
        if authority.as_str().contains('@') || uri.query().is_some() || url.contains('#') {
            return Err(wrong("it has a user, a query or a fragment"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let loopback = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
        let tls = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP && loopback => false,
            Some(scheme) if *scheme == Scheme::HTTP => return Err(wrong("plain HTTP leaves this machine")),
            _ => return Err(wrong("it is neither https nor http")),
        };
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let path = format!("{}/add-checkpoint", uri.path().trim_end_matches('/'));
        Ok(Self { tls, host, port, authority: authority.as_str().to_owned(), path })
    }
}

/// The TLS settings for all witnesses: believes the authorities of these PEM certificates, or those of the system.
pub fn tls_config(authorities: Option<&[u8]>) -> Result<Arc<ClientConfig>, ClientError> {
    let fails = |error: &dyn std::fmt::Display| ClientError::Roots(error.to_string());
    let mut roots = RootCertStore::empty();
    match authorities {
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem) {
                roots.add(certificate.map_err(|error| fails(&error))?).map_err(|error| fails(&error))?;
            }
            if roots.is_empty() {
                return Err(fails(&"the file holds no PEM certificate"));
            }
        }
        // A machine without a store can still reach witnesses on loopback; any other fails at its handshake, and says so.
        None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(|error| fails(&error))?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

/// One witness's address and connection.
pub(super) struct Client {
    target: Target,
    tls: Arc<ClientConfig>,
    timeout: Duration,
    kept: Option<SendRequest<Full<Bytes>>>,
}

impl Client {
    pub(super) fn new(target: Target, tls: Arc<ClientConfig>, timeout: Duration) -> Self {
        Self { target, tls, timeout, kept: None }
    }

    /// One exchange within the time limit. A kept connection that turns out to be closed is replaced, once.
    pub(super) async fn add_checkpoint(&mut self, body: String) -> Result<Answer, String> {
        let limit = self.timeout;
        let body = Bytes::from(body);
        // Cut off in the middle, an exchange takes its connection with it.
        let answer = tokio::time::timeout(limit, self.exchange(body)).await;
        answer.unwrap_or_else(|_| Err(format!("it did not answer within {limit:?}")))
    }

    async fn exchange(&mut self, body: Bytes) -> Result<Answer, String> {
        if let Some(kept) = self.kept.take()
            && let Ok(answer) = self.send(kept, body.clone()).await
        {
            return Ok(answer);
        }
        let connection = self.connect().await?;
        self.send(connection, body).await
    }

    async fn send(&mut self, mut connection: SendRequest<Full<Bytes>>, body: Bytes) -> Result<Answer, String> {
        let fails = |error: hyper::Error| format!("the connection failed: {error}");
        connection.ready().await.map_err(fails)?;
        let request = Request::post(&self.target.path)
            .header(header::HOST, &self.target.authority)
            .header(header::USER_AGENT, USER_AGENT)
            .header(header::CONTENT_TYPE, "text/plain; charset=utf-8")
            .body(Full::new(body))
            .map_err(|error| format!("the request cannot be written: {error}"))?;
        let (head, body) = connection.send_request(request).await.map_err(fails)?.into_parts();
        let kind = head.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim().to_owned();
        let body =
            Limited::new(body, LARGEST_ANSWER).collect().await.map_err(|error| format!("its answer was cut off or too long: {error}"))?;
        self.kept = Some(connection);
        Ok(Answer { status: head.status.as_u16(), kind, body: body.to_bytes().to_vec() })
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, String> {
        let Target { host, port, .. } = &self.target;
        let fails = |error: std::io::Error| format!("cannot connect to {host} port {port}: {error}");
        let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(fails)?;
        stream.set_nodelay(true).map_err(fails)?;
        if !self.target.tls {
            return open(stream).await;
        }
        let name = ServerName::try_from(host.clone()).map_err(|error| format!("{host:?} cannot stand in a certificate: {error}"))?;
        open(TlsConnector::from(self.tls.clone()).connect(name, stream).await.map_err(fails)?).await
    }
}

async fn open(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<SendRequest<Full<Bytes>>, String> {
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| format!("the connection failed: {error}"))?;
    // Ends with the sender; its error reaches the request.
    tokio::spawn(connection);
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn a_prefix_becomes_an_address() {
        let target = Target::parse("https://witness.example/w1/").unwrap();
        assert_eq!((target.tls, target.host.as_str(), target.port), (true, "witness.example", 443));
        assert_eq!(target.path, "/w1/add-checkpoint");
        let target = Target::parse("http://127.0.0.1:8080").unwrap();
        assert_eq!(
            (target.tls, target.port, target.authority.as_str(), target.path.as_str()),
            (false, 8080, "127.0.0.1:8080", "/add-checkpoint")
        );
        assert_eq!(Target::parse("http://[::1]:1/x").unwrap().host, "::1");
    }

    #[test]
    fn plain_http_does_not_leave_the_machine() {
        let bad = [
            "http://witness.example/",
            "ftp://witness.example",
            "witness.example",
            "/w1",
            "https://u@witness.example",
            "https://w/?a",
            "https://w/#a",
            "",
        ];
        for url in bad {
            assert!(matches!(Target::parse(url), Err(ClientError::Url { .. })), "{url}");
        }
    }

    #[test]
    fn a_file_without_certificates_is_refused() {
        assert!(tls_config(Some(b"nothing")).is_err());
        assert!(tls_config(None).is_ok());
    }

    /// A certificate for this machine, with its authority: the authority's PEM, and a server's settings.
    fn server() -> (String, tokio_rustls::TlsAcceptor) {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let (authority_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let authority = params.self_signed(&authority_key).unwrap();
        let issuer = Issuer::new(params, authority_key);
        let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        let settings = crate::http::tls::server_config(certificate.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap();
        (authority.pem(), tokio_rustls::TlsAcceptor::from(settings))
    }

    /// Answers each request on each connection with these bytes, and counts the connections.
    async fn answering(tls: Option<tokio_rustls::TlsAcceptor>, answer: String) -> (String, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let (counted, scheme) = (connections.clone(), if tls.is_some() { "https" } else { "http" });
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                let (tls, answer) = (tls.clone(), answer.clone());
                tokio::spawn(async move {
                    match tls {
                        // A client that does not believe the authority ends the handshake: that is its answer.
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                say(stream, &answer).await;
                            }
                        }
                        None => say(stream, &answer).await,
                    }
                });
            }
        });
        (format!("{scheme}://{address}"), connections)
    }

    /// The requests of these tests are short enough for one read each.
    async fn say(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: &str) {
        let mut bytes = [0; 4096];
        while stream.read(&mut bytes).await.is_ok_and(|read| read > 0) {
            if stream.write_all(answer.as_bytes()).await.and(stream.flush().await).is_err() {
                return;
            }
        }
    }

    fn client(url: &str, authorities: Option<&[u8]>) -> Client {
        Client::new(Target::parse(url).unwrap(), tls_config(authorities).unwrap(), Duration::from_secs(10))
    }

    const CONFLICT: &str = "HTTP/1.1 409 Conflict\r\nContent-Type: text/x.tlog.size; charset=utf-8\r\nContent-Length: 2\r\n\r\n7\n";

    #[tokio::test]
    async fn the_named_authority_is_believed_and_no_other() {
        let (pem, tls) = server();
        let (url, connections) = answering(Some(tls), CONFLICT.to_owned()).await;
        let mut trusting = client(&url, Some(pem.as_bytes()));
        for _ in 0..3 {
            let answer = trusting.add_checkpoint("old 0\n".to_owned()).await.unwrap();
            assert_eq!(answer, Answer { status: 409, kind: "text/x.tlog.size".to_owned(), body: b"7\n".to_vec() });
        }
        assert_eq!(connections.load(Ordering::SeqCst), 1, "the connection is kept");
        let (other, _) = server();
        for authorities in [Some(other.as_bytes()), None] {
            let error = client(&url, authorities).add_checkpoint("old 0\n".to_owned()).await.unwrap_err();
            assert!(error.contains("invalid peer certificate"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_redirect_is_an_answer_and_a_long_answer_is_none() {
        let moved = "HTTP/1.1 307 Temporary Redirect\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n";
        let (url, _) = answering(None, moved.to_owned()).await;
        assert_eq!(client(&url, None).add_checkpoint(String::new()).await.unwrap().status, 307);
        let long = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}", LARGEST_ANSWER + 1, "x".repeat(LARGEST_ANSWER + 1));
        let (url, _) = answering(None, long).await;
        let error = client(&url, None).add_checkpoint(String::new()).await.unwrap_err();
        assert!(error.contains("cut off or too long"), "{error}");
    }
}
