//! Whom the adapter believes, and what it reads: certificates, redirects, answers of any length.

use std::fs;

use claviger::keystore::vault::{VaultSettings, tls_config};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// A certificate by an authority that is not the named one is refused, though its name is right; and so is one by ours that is not for this host.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_named_authority_is_believed() {
    let vault = Vault::start(&[INSTALLATION]);
    let other = fs::read(vault.other_ca_file()).expect("our own file");
    let elsewhere = relayed(&vault).await;
    for (settings, told) in [
        (VaultSettings { tls: tls_config(Some(&other)), ..vault.settings() }, "UnknownIssuer"),
        (VaultSettings { tls: tls_config(None), ..vault.settings() }, "UnknownIssuer"),
        (VaultSettings { address: elsewhere.parse().expect("an address"), ..vault.settings() }, "not valid for name"),
    ] {
        let keystore = VaultKeystore::open(settings, clock());
        let error = keystore.health().await.expect_err("not believed");
        let KeystoreError::Unavailable { reason, .. } = &error else { panic!("{error}") };
        assert!(reason.contains(told) && reason.contains("let `ca_file` name the authority"), "{reason}");
    }
    assert!(audited(&vault, "auth/approle/login").is_empty(), "nothing was told to a stranger");
    let keystore = VaultKeystore::open(VaultSettings { tls: Err("ca.pem cannot be read".to_owned()), ..vault.settings() }, clock());
    assert_eq!(keystore.health().await, Err(KeystoreError::Rejected("ca.pem cannot be read".to_owned())));
}

/// The same server at an address that its certificate does not name (a name would need somebody who knows it); nothing is changed on the way.
async fn relayed(vault: &Vault) -> String {
    let listener = TcpListener::bind("127.0.0.2:0").await.expect("all of 127.0.0.0/8 is this machine");
    let address = listener.local_addr().expect("bound");
    let server = vault.address.trim_start_matches("https://").to_owned();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut upstream = TcpStream::connect(&server).await.expect("it listens");
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut stream, &mut upstream).await });
        }
    });
    format!("https://{address}")
}

/// Answers every request on every connection with these bytes; gives its address and what it was asked.
pub(super) async fn answering(answer: Vec<u8>) -> (String, Arc<std::sync::Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = format!("http://{}", listener.local_addr().expect("bound"));
    let asked = Arc::new(std::sync::Mutex::new(Vec::new()));
    let (answer, seen) = (Arc::new(answer), asked.clone());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (answer, seen) = (answer.clone(), seen.clone());
            tokio::spawn(async move {
                let mut bytes = [0; 8192];
                // The requests of these tests are short enough for one read each.
                while let Ok(read) = stream.read(&mut bytes).await
                    && read > 0
                {
                    seen.lock().expect("no panic").push(String::from_utf8_lossy(&bytes[..read]).into_owned());
                    if stream.write_all(&answer).await.and(stream.flush().await).is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, asked)
}

async fn health_of(vault: &Vault, answer: Vec<u8>) -> (KeystoreError, Vec<String>) {
    let (address, asked) = answering(answer).await;
    let keystore = VaultKeystore::open(VaultSettings { address: address.parse().expect("loopback"), ..vault.settings() }, clock());
    let error = keystore.health().await.expect_err("no Vault");
    let asked = asked.lock().expect("no panic").clone();
    (error, asked)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redirect_is_not_followed_and_a_huge_answer_is_not_read() {
    let vault = Vault::start(&[INSTALLATION]);
    let (trap, trapped) = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}".to_vec()).await;
    let moved = format!("HTTP/1.1 307 Temporary Redirect\r\nLocation: {trap}/v1/sys/health\r\nContent-Length: 0\r\n\r\n");
    let (error, asked) = health_of(&vault, moved.into_bytes()).await;
    assert!(matches!(&error, KeystoreError::Unavailable { reason, .. } if reason.contains("standby")), "{error}");
    assert!(!asked.is_empty() && trapped.lock().expect("no panic").is_empty(), "nobody else was asked");

    let size = 3 << 20;
    let huge = [format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n").into_bytes(), vec![b'x'; size]].concat();
    let (error, _) = health_of(&vault, huge).await;
    assert!(matches!(&error, KeystoreError::Retry(text) if text.contains("more than 1048576 bytes")), "{error}");

    let strange = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>".to_vec();
    let (error, _) = health_of(&vault, strange).await;
    assert!(matches!(&error, KeystoreError::Retry(text) if text.contains("not JSON")), "{error}");
}

/// Nothing that another tool takes from the environment, or from a form of this one, changes who is asked: the requests are as they must be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_says_who_asks_and_nothing_that_it_need_not() {
    let vault = Vault::start(&[INSTALLATION]);
    let (_, asked) = health_of(&vault, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}".to_vec()).await;
    let health = asked.iter().find(|request| request.starts_with("GET /v1/sys/health HTTP/1.1\r\n")).expect("asked");
    assert!(health.contains("user-agent: claviger/") && !health.to_ascii_lowercase().contains("x-vault-token"), "{health}");
    let login = asked.iter().find(|request| request.starts_with("POST /v1/auth/approle/login HTTP/1.1\r\n")).expect("asked");
    assert!(!login.to_ascii_lowercase().contains("x-vault-token"), "{login}");
}
