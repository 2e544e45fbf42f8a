//! One exchange with the server: a request out, a complete answer in, or why not.
//!
//! In scope: the HTTP client with every setting given, time and size limits, and whether a request that failed may have been carried out.
//! Out of scope: what is asked (`api.rs`) and what an answer means (`fault.rs`).
//!
//! vaultrs would take its address, token, proxy and even the switch that turns certificate checks off from the environment wherever a setting
//! is not given, believes the system's authorities beside the given ones, follows redirects, and reads answers of any length. So its
//! endpoints write the requests, and this client sends them.

use std::sync::Arc;
use std::time::Duration;

use http::header::{HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::redirect::Policy;
use rustify::endpoint::{Endpoint, MiddleWare as _};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use vaultrs::api::EndpointMiddleware;

use super::address::VaultAddress;
use super::fault::Fault;

/// Largest answer that is read: the names of 15,000 keys fit.
const LARGEST_ANSWER: usize = 1 << 20;
/// How long connecting may take, the handshake included.
const CONNECT: Duration = Duration::from_secs(5);
/// A server that does not answer within less than this may be well; else callers with short deadlines could close it to all others.
const PATIENT: Duration = Duration::from_secs(1);
/// Idle connections are kept for so long: shorter than what firewalls and load balancers in between forget.
const IDLE: Duration = Duration::from_secs(50);
const USER_AGENT: &str = concat!("claviger/", env!("CARGO_PKG_VERSION"));
/// The header that holds the token.
const TOKEN: &str = "x-vault-token";
/// In an answer: the state of the storage after it. In a request: the state that the node must have reached.
const INDEX: HeaderName = HeaderName::from_static("x-vault-index");

/// A complete answer.
pub(super) struct Answer {
    /// The HTTP status.
    pub(super) status: u16,
    /// How long the server wants to be left alone (RFC 9110 section 10.2.3, in seconds).
    pub(super) retry_after: Option<Duration>,
    /// The state of the storage after it, where a server has several nodes that may differ: opaque.
    pub(super) index: Option<HeaderValue>,
    /// The content, as it came.
    pub(super) body: Vec<u8>,
}

impl Answer {
    /// Whether it says no more than that the node has not reached the state that was asked for: 412 in Vault, 429 without words in OpenBao.
    pub(super) fn is_behind(&self) -> bool {
        self.status == 412 || self.status == 429 && self.body.trim_ascii() == br#"{"errors":[]}"#
    }
}

/// The client of one server.
pub(super) struct Transport {
    http: reqwest::Client,
    base: String,
}

/// The TLS settings: believes the authorities of these PEM certificates and no other, or those of the system where none are given.
pub fn tls_config(authorities: Option<&[u8]>) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    match authorities {
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let added =
                    certificate.map_err(|error| error.to_string()).and_then(|der| roots.add(der).map_err(|error| error.to_string()));
                added.map_err(|error| format!("a certificate in it cannot be used: {error}"))?;
            }
            if roots.is_empty() {
                return Err("it holds no PEM certificate".to_owned());
            }
        }
        // A machine without a store can still reach a server on loopback; any other fails at its handshake, and says so.
        None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

impl Transport {
    /// A client that keeps at most `connections` idle connections.
    pub(super) fn new(address: &VaultAddress, tls: &ClientConfig, connections: usize) -> Result<Self, Fault> {
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls.clone())
            .https_only(address.is_https())
            .no_proxy()
            .redirect(Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .http1_only()
            .connect_timeout(CONNECT)
            .tcp_nodelay(true)
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(connections)
            .user_agent(USER_AGENT)
            .build();
        let http = http.map_err(|error| Fault::Settings(format!("the HTTP client cannot be built: {}", innermost(&error))))?;
        Ok(Self { http, base: address.as_str().to_owned() })
    }

    /// Sends what `endpoint` says, in the name and namespace of `middle`, and waits for the whole answer, at most `limit`.
    pub(super) async fn exchange<E: Endpoint>(&self, endpoint: &E, middle: &EndpointMiddleware, limit: Duration) -> Result<Answer, Fault> {
        self.exchange_after(None, endpoint, middle, limit).await
    }

    /// Likewise, and only by a node that has reached this state: [`Answer::is_behind`] otherwise.
    pub(super) async fn exchange_after<E: Endpoint>(
        &self,
        index: Option<&HeaderValue>,
        endpoint: &E,
        middle: &EndpointMiddleware,
        limit: Duration,
    ) -> Result<Answer, Fault> {
        let mut request = self.request(endpoint, middle, limit)?;
        if let Some(index) = index {
            request.headers_mut().insert(INDEX, index.clone());
        }
        let mut response = self.http.execute(request).await.map_err(|error| self.fault(&error, limit))?;
        let index = response.headers().get(INDEX).cloned();
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok()).map(Duration::from_secs);
        let (status, mut body) = (response.status().as_u16(), Vec::new());
        while let Some(chunk) = response.chunk().await.map_err(|error| self.fault(&error, limit))? {
            if body.len() + chunk.len() > LARGEST_ANSWER {
                return Err(Fault::Nonsense(format!("the answer of {} has more than {LARGEST_ANSWER} bytes", self.base)));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status, retry_after, index, body })
    }

    fn request<E: Endpoint>(&self, endpoint: &E, middle: &EndpointMiddleware, limit: Duration) -> Result<reqwest::Request, Fault> {
        // The texts of these errors could hold the request.
        let unwritable = || Fault::Settings("the request cannot be written".to_owned());
        let mut request = endpoint.request(&self.base).map_err(|_| unwritable())?;
        middle.request(endpoint, &mut request).map_err(|_| unwritable())?;
        let mut request = reqwest::Request::try_from(request).map_err(|_| unwritable())?;
        if let Some(token) = request.headers_mut().get_mut(TOKEN) {
            token.set_sensitive(true);
        }
        request.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        *request.timeout_mut() = Some(limit);
        Ok(request)
    }

    /// Only while connecting is it certain that nothing was sent.
    fn fault(&self, error: &reqwest::Error, limit: Duration) -> Fault {
        let why = innermost(error);
        if error.is_timeout() && limit < PATIENT {
            return Fault::Impatient(limit);
        }
        if !error.is_connect() {
            return Fault::Unanswered(format!("{} gave no complete answer: {why}", self.base));
        }
        let remedy = if why.contains("certificate") {
            "let `ca_file` name the authority of its certificate, and `address` the host that stands in it"
        } else {
            "check `address`, and whether the server runs and can be reached from here"
        };
        Fault::Unreachable(format!("cannot connect to {}: {why}; {remedy}", self.base))
    }
}

/// The cause of an error: what stands above it repeats the address, and says less.
fn innermost(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "it took too long".to_owned();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_certificates_is_refused() {
        assert_eq!(tls_config(Some(b"nothing")).unwrap_err(), "it holds no PEM certificate");
        assert!(tls_config(Some(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")).is_err());
        assert!(tls_config(None).is_ok());
    }
}
