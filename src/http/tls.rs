//! TLS settings for listeners: certificate and key files into a rustls configuration, and back again on reload.
//!
//! In scope: TLS 1.3 and 1.2 with a server certificate. Out of scope: client certificates.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Why a certificate and a key cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate file holds no PEM certificate.
    #[error("the certificate is not PEM: {0}")]
    Certificate(String),
    /// The key file holds no PEM private key.
    #[error("the key is not a PEM private key")]
    Key,
    /// They do not fit each other, or are not accepted.
    #[error("certificate and key do not fit: {0}")]
    Pair(String),
}

/// Builds a configuration from PEM texts. The private key here is the listener's own, not a signing key of any keyring.
pub fn server_config(certificates: &[u8], key: &[u8]) -> Result<Arc<ServerConfig>, TlsError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificates).collect();
    let chain = chain.map_err(|error| TlsError::Certificate(error.to_string()))?;
    if chain.is_empty() {
        return Err(TlsError::Certificate("no certificate found".to_owned()));
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| TlsError::Key)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let pair = |error: rustls::Error| TlsError::Pair(error.to_string());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(pair)?;
    let mut config = builder.with_no_client_auth().with_single_cert(chain, key).map_err(pair)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
