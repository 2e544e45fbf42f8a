//! The TLS listener: versions, identities, and pairs that change while it runs.
//!
//! In scope: a server certificate. Out of scope: client certificates.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use http::{Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, KeyPair};
use rustix::process::Signal;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ProtocolVersion, RootCertStore, SupportedProtocolVersion, version};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::extra::settle;
use crate::harness::{Address, Daemon, Keyring, Place, Setup, on_softhsm, setup, until};

const NAME: &str = "claviger.test";

/// Writes a new certificate and its key, and gives the certificate.
fn new_pair(cert: &Path, key: &Path) -> CertificateDer<'static> {
    let pair = KeyPair::generate().expect("a key");
    let made = CertificateParams::new([NAME.to_owned()]).expect("a name").self_signed(&pair).expect("a certificate");
    fs::write(cert, made.pem()).expect("our own file");
    fs::write(key, pair.serialize_pem()).expect("our own file");
    made.der().clone()
}

/// What a TLS client saw: the version, and the answer's status and body.
#[derive(Debug)]
struct Seen {
    version: ProtocolVersion,
    status: u16,
    body: Vec<u8>,
}

/// One request over TLS, trusting `root` alone.
fn exchange(
    address: SocketAddr,
    root: &CertificateDer<'static>,
    versions: &[&'static SupportedProtocolVersion],
    request: Request<Full<Bytes>>,
) -> Result<Seen, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut roots = RootCertStore::empty();
        roots.add(root.clone()).map_err(|error| error.to_string())?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).expect("versions");
        let connector = TlsConnector::from(Arc::new(config.with_root_certificates(roots).with_no_client_auth()));
        let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        let name = ServerName::try_from(NAME).expect("a name");
        let stream = connector.connect(name, stream).await.map_err(|error| error.to_string())?;
        let version = stream.get_ref().1.protocol_version().expect("a finished handshake");
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes().to_vec();
        Ok(Seen { version, status, body })
    })
}

fn get(path: &str) -> Request<Full<Bytes>> {
    Request::get(path).header(header::HOST, NAME).body(Full::default()).expect("a request")
}

/// The TLS listener's address: the last of four.
fn tls_address(daemon: &mut Daemon) -> SocketAddr {
    match daemon.addresses(4).pop() {
        Some(Address::Tcp(address)) => address,
        other => panic!("{other:?}"),
    }
}

/// A place with one keyring and a TLS listener beside the usual ones; the files of its pair, and its certificate.
fn with_tls(place: &Place<'_>) -> (std::path::PathBuf, std::path::PathBuf, CertificateDer<'static>) {
    let (cert, key) = (place.root().join("cert.pem"), place.root().join("key.pem"));
    let root = new_pair(&cert, &key);
    let listener = format!(
        "\n[[listener]]\nbind = \"127.0.0.2:0\"\nserves = [\"public\", \"sign\"]\ncallers = [\"bearer\"]\ntls = {{ cert = \"{}\", key = \"{}\" }}\n",
        cert.display(),
        key.display()
    );
    place.edit_config(|text| text + &listener);
    (cert, key, root)
}

#[test]
fn tls_is_served_in_both_versions_and_nothing_in_the_clear() {
    on_softhsm("tls::tls_is_served_in_both_versions_and_nothing_in_the_clear", |hsm| {
        let place = Place::new(hsm, Setup::new().keyring(Keyring::jwt("access", "ES256")));
        let (_, _, root) = with_tls(&place);
        let mut daemon = place.start();
        let address = tls_address(&mut daemon);
        settle(&mut daemon, &["access"]);
        let plain = daemon.anonymous().get("/.well-known/jwks.json");
        for (versions, expected) in [(&version::TLS13, ProtocolVersion::TLSv1_3), (&version::TLS12, ProtocolVersion::TLSv1_2)] {
            let seen = exchange(address, &root, &[versions], get("/.well-known/jwks.json")).expect("an answer");
            assert_eq!((seen.version, seen.status), (expected, 200));
            assert_eq!(seen.body, plain.body);
        }
        let body = json!({ "keyring": "access", "claims": { "sub": "u", "aud": setup::AUDIENCE } }).to_string();
        let sign = |bearer: Option<&str>| {
            let request = Request::post("/sign").header(header::HOST, NAME).header(header::CONTENT_TYPE, "application/json");
            let request =
                bearer.into_iter().fold(request, |request, token| request.header(header::AUTHORIZATION, format!("Bearer {token}")));
            request.body(Full::from(body.clone())).expect("a request")
        };
        let signed = exchange(address, &root, &[&version::TLS13], sign(Some(setup::BEARER))).expect("an answer");
        assert_eq!(signed.status, 200);
        let reply: Value = serde_json::from_slice(&signed.body).expect("JSON");
        assert!(reply["token"].is_string(), "{reply}");
        assert_eq!(exchange(address, &root, &[&version::TLS13], sign(None)).expect("an answer").status, 401);

        // Plain HTTP on this port is no HTTP at all, and another certificate is not this server's.
        let clear = crate::harness::Client::new(Address::Tcp(address)).try_get("/.well-known/jwks.json");
        assert!(clear.is_err(), "{clear:?}");
        let (other_cert, other_key) = (place.root().join("other.pem"), place.root().join("other.key"));
        let other = new_pair(&other_cert, &other_key);
        assert!(exchange(address, &other, &[&version::TLS13], get("/")).is_err());
        place.check(daemon);
    });
}

#[test]
fn a_new_pair_is_taken_on_sighup_and_a_bad_one_keeps_the_old() {
    on_softhsm("tls::a_new_pair_is_taken_on_sighup_and_a_bad_one_keeps_the_old", |hsm| {
        let place = Place::new(hsm, Setup::new().keyring(Keyring::jwt("access", "ES256")));
        let (cert, key, first) = with_tls(&place);
        let mut daemon = place.start();
        let address = tls_address(&mut daemon);
        let answers = |root: &CertificateDer<'static>| {
            exchange(address, root, &[&version::TLS13], get("/.well-known/jwks.json")).map(|seen| seen.status)
        };
        assert_eq!(answers(&first), Ok(200));

        let second = new_pair(&cert, &key);
        assert_eq!(answers(&first), Ok(200), "nobody asked for a reload");
        daemon.signal(Signal::HUP);
        until("the new pair", || answers(&second));
        assert!(answers(&first).is_err());

        // A certificate with somebody else's key; a file that is no PEM; one that is not there.
        let (elsewhere, foreign) = (place.root().join("elsewhere.pem"), place.root().join("foreign.key"));
        new_pair(&elsewhere, &foreign);
        let good = fs::read(&key).expect("our own file");
        let bad = [Some(fs::read(&foreign).expect("our own file")), Some(b"no key".to_vec()), None];
        for content in bad {
            match content {
                Some(bytes) => fs::write(&key, bytes).expect("our own file"),
                None => fs::remove_file(&key).expect("our own file"),
            }
            let refused = place.claviger(&["policy", "reload"]);
            let said = String::from_utf8_lossy(&refused.stderr).into_owned();
            assert_eq!(refused.status.code(), Some(65), "{said}");
            assert!(said.contains("nothing was reloaded") && said.contains("key.pem") && !said.contains("BEGIN"), "{said}");
            assert_eq!(answers(&second), Ok(200), "the old pair serves on");
        }
        fs::write(&key, good).expect("our own file");
        place.command(&["policy", "reload"]);
        assert_eq!(answers(&second), Ok(200));
        place.check(daemon);
    });
}
