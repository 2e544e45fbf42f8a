//! What a healthy Vault never shows: lost answers, hangs, failures, throttling, answers that cannot be right. A proxy in front of a real one.

use std::net::SocketAddr;

use claviger::keystore::Class;
use claviger::keystore::vault::{VaultLogin, VaultSettings};
use claviger::secret::SecretFile;
use http::{Method, Response};
use hyper::body::Bytes;

use super::*;
use crate::support::proxy::{Act, Match, Proxy, Rule};
use crate::support::wait::until;

/// A proxy in front of a Vault without TLS, and a keystore that goes through it and has made a key.
struct Behind {
    vault: Vault,
    proxy: Proxy,
    clock: Arc<SystemClock>,
    keystore: Arc<VaultKeystore>,
    made: Made,
}

impl Behind {
    async fn new(in_flight: usize) -> Self {
        let vault = Vault::plain(&[INSTALLATION]);
        let proxy = Proxy::before(upstream(&vault));
        let clock = clock();
        let settings = VaultSettings { in_flight, ..through(&vault, &proxy) };
        let keystore = Arc::new(VaultKeystore::open(settings, clock.clone()));
        healthy(&keystore).await;
        let made = keystore.create(&name(1), Algorithm::ES256).await.expect("made");
        Self { vault, proxy, clock, keystore, made }
    }

    async fn sign(&self) -> Result<Signature, KeystoreError> {
        signed(&self.keystore, &self.clock, &self.made, b"a message").await
    }

    /// How many signatures were asked for.
    fn asked(&self) -> usize {
        self.proxy.asked().iter().filter(|asked| asked.path.starts_with(SIGN)).count()
    }
}

const SIGN: &str = "/v1/transit/sign/";

fn upstream(vault: &Vault) -> SocketAddr {
    vault.address.trim_start_matches("http://").parse().expect("a host and a port")
}

fn through(vault: &Vault, proxy: &Proxy) -> VaultSettings {
    VaultSettings { address: proxy.url().parse().expect("loopback"), ..vault.settings() }
}

/// Settings of a namespace that the setup script prepared: OpenBao has it then; Vault without a licence knows none, and looks at none.
fn in_namespace(vault: &Vault, proxy: &Proxy) -> VaultSettings {
    for path in ["sys/namespaces/team", "team/sys/namespaces/a"] {
        vault.api("POST", path, &Value::Null);
    }
    let file = vault.path("secret-id-of-the-team");
    let told = vault.set_up(&["--namespace", "team/a", "--installation", INSTALLATION, "--secret-id-file", &file.display().to_string()]);
    let role_id = told.split_once("role_id = \"").and_then(|(_, rest)| rest.split_once('"')).expect("its id").0.to_owned();
    let login = VaultLogin::AppRole { mount: "approle".parse().expect("a mount"), role_id, secret_id: SecretFile::new(file, None) };
    VaultSettings { namespace: Some("team/a".parse().expect("a namespace")), login, ..through(vault, proxy) }
}

fn signing() -> Match {
    Match::any().path(SIGN)
}

/// A signature may have been made of which nobody heard: that is told as what it is, and the next one is asked for as before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_is_told_as_unanswered() {
    let behind = Behind::new(8).await;
    for act in [Act::LoseAnswer, Act::CutAnswer(40)] {
        let before = audited(&behind.vault, "transit/sign/special.vault.1-abadcafe").len();
        behind.proxy.add(Rule::new(signing(), act).times(2));
        for _ in 0..2 {
            assert_eq!(behind.sign().await.map(drop), Err(KeystoreError::Unanswered));
        }
        behind.sign().await.expect("signed");
        assert_eq!(audited(&behind.vault, "transit/sign/special.vault.1-abadcafe").len(), before + 3, "all three were made");
    }
    // Making a key is not repeated blindly: whoever asks again gets the one that was made.
    behind.proxy.add(Rule::new(Match::any().method(Method::POST).path("/v1/transit/keys/"), Act::LoseAnswer).times(1));
    assert_eq!(behind.keystore.create(&name(2), Algorithm::ES256).await.map(drop), Err(KeystoreError::Unanswered));
    behind.keystore.create(&name(2), Algorithm::ES256).await.expect("found");
    assert_eq!(behind.keystore.inventory(INSTALLATION).await.expect("listed").len(), 2);
    // A deletion whose answer was lost is done when it is asked for again.
    behind.proxy.add(Rule::new(Match::any().method(Method::DELETE), Act::LoseAnswer).times(1));
    assert_eq!(behind.keystore.destroy(&behind.made.locator).await, Err(KeystoreError::Unanswered));
    assert_eq!(behind.keystore.destroy(&behind.made.locator).await, Ok(None), "it is final");
}

/// A hang costs its own deadline and nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hang_ends_at_the_deadline() {
    let behind = Behind::new(8).await;
    let rule = behind.proxy.add(Rule::new(signing(), Act::Hang));
    let terms = Terms::own(behind.clock.monotonic().plus(Duration::from_millis(200)));
    let asked = behind.keystore.sign(&behind.made.locator, Algorithm::ES256, input(Algorithm::ES256, b"x"), terms);
    let outcome = tokio::time::timeout(PATIENCE, asked).await.expect("long before the others' patience ends");
    assert_eq!(outcome.map(drop), Err(KeystoreError::Unanswered));
    behind.proxy.remove(&rule);
    behind.sign().await.expect("signed");
}

/// After some failures in a row the server is left alone, until a look at it, or the pause, says that it may be asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_fails_is_left_alone() {
    let behind = Behind::new(8).await;
    let broken = behind.proxy.add(Rule::answer(signing(), 500, "application/json", r#"{"errors":["internal error"]}"#));
    for _ in 0..50 {
        let error = behind.sign().await.expect_err("it fails");
        assert!(matches!(&error, KeystoreError::Unavailable { reason, .. } if reason.contains("status 500: internal error")), "{error}");
    }
    assert!(broken.acted() < 50, "it was asked {} times", broken.acted());
    behind.proxy.remove(&broken);
    healthy(&behind.keystore).await;
    behind.sign().await.expect("signed");
    // A proxy's own page is as good as no answer of Vault, and nothing of it is repeated.
    let gateway = behind.proxy.add(Rule::answer(signing(), 502, "text/html", "<html>the gateway's secrets</html>"));
    assert_eq!(behind.sign().await.map(drop), Err(KeystoreError::Unanswered), "Vault may have signed");
    for _ in 0..20 {
        match behind.sign().await.expect_err("it fails") {
            KeystoreError::Unanswered => {}
            KeystoreError::Unavailable { reason, .. } => assert!(reason.contains("502") && !reason.contains("secrets"), "{reason}"),
            other => panic!("{other}"),
        }
    }
    assert!(gateway.acted() < 20, "it was asked {} times", gateway.acted());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_busy_says_for_how_long() {
    let behind = Behind::new(8).await;
    let mut answer = Response::new(Bytes::from_static(br#"{"errors":["request rejected: rate limit quota exceeded"]}"#));
    *answer.status_mut() = http::StatusCode::TOO_MANY_REQUESTS;
    answer.headers_mut().insert("retry-after", "7".parse().expect("a header"));
    behind.proxy.add(Rule::new(signing(), Act::Answer(answer)).times(1));
    let error = behind.sign().await.expect_err("too much");
    let KeystoreError::Unavailable { after, reason } = &error else { panic!("{error}") };
    assert!(*after > Duration::from_secs(4) && *after <= Duration::from_secs(7) && reason.contains("429"), "{error}");
    let before = behind.asked();
    assert!(behind.sign().await.is_err());
    assert_eq!(behind.asked(), before, "it was not asked");
}

/// Nothing but a signature by version 1, of the right form and length, is one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_cannot_be_right_is_no_signature() {
    type Edit = fn(&str) -> String;
    let edits: [(Edit, &str); 5] = [
        (|body| body.replace("vault:v1:", "vault:v2:"), "does not begin with vault:v1:"),
        (|body| body.replace("\"key_version\":1", "\"key_version\":2"), "by another version"),
        (|body| body.replace("vault:v1:", "vault:v1:AAAA"), "instead of a signature of 64"),
        (|body| body.replace("\"signature\"", "\"signed\""), "not JSON of the form"),
        (|_| "{}".to_owned(), "no request id"),
    ];
    let behind = Behind::new(8).await;
    for (edit, told) in edits {
        let act = move |answer: &mut Response<Bytes>| *answer.body_mut() = edit(&String::from_utf8_lossy(answer.body())).into();
        behind.proxy.add(Rule::new(signing(), Act::Edit(Arc::new(act))).times(1));
        let error = behind.sign().await.expect_err("no signature");
        let KeystoreError::Unusable { reason, .. } = &error else { panic!("{error}") };
        assert!(reason.contains(told), "{reason}");
        behind.sign().await.expect("signed");
    }
}

/// What is too much is refused at once: batches first, and Claviger's own signatures never.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_in_flight_are_bounded() {
    let behind = Behind::new(4).await;
    let held = behind.proxy.add(Rule::new(signing(), Act::Delay(PATIENCE)));
    let ask = |class, caller: &str| {
        let terms = Terms { deadline: behind.clock.monotonic().plus(PATIENCE * 2), class, caller: Arc::from(caller) };
        let (keystore, made) = (behind.keystore.clone(), behind.made.clone());
        tokio::spawn(async move { keystore.sign(&made.locator, Algorithm::ES256, input(Algorithm::ES256, b"x"), terms).await.map(drop) })
    };
    let in_flight = |count: usize| {
        until("requests in flight", || if behind.asked() == count { Ok(()) } else { Err(behind.asked().to_string()) });
    };
    let mut held_back = vec![ask(Class::Batch, "a"), ask(Class::Batch, "b"), ask(Class::Batch, "c")];
    in_flight(3);
    assert_eq!(ask(Class::Batch, "d").await.expect("it ends"), Err(KeystoreError::Overloaded), "a quarter is left to others");
    held_back.push(ask(Class::Interactive, "e"));
    in_flight(4);
    assert_eq!(ask(Class::Interactive, "f").await.expect("it ends"), Err(KeystoreError::Overloaded));
    held_back.push(ask(Class::Own, "claviger"));
    in_flight(5);
    behind.proxy.remove(&held);
    for request in held_back {
        assert_eq!(request.await.expect("it ends"), Ok(()));
    }
}

/// A key that somebody put aside in OpenBao is told as a failure of the server, and is none: other keys are used as before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_was_put_aside_is_no_failure_of_the_server() {
    let behind = Behind::new(8).await;
    let other = behind.keystore.create(&name(2), Algorithm::ES256).await.expect("made");
    let aside = r#"{"errors":["1 error occurred:\n\t* refusing to use soft-deleted key\n\n"]}"#;
    let path = format!("{SIGN}{}", name(2));
    behind.proxy.add(Rule::answer(Match::any().path(&path), 500, "application/json", aside));
    for _ in 0..10 {
        let error = signed(&behind.keystore, &behind.clock, &other, b"a message").await.expect_err("refused");
        assert!(matches!(&error, KeystoreError::Rejected(text) if text.contains("soft-deleted")), "{error}");
    }
    behind.sign().await.expect("signed");
}

/// A state of the storage as OpenBao writes it, of another cluster: a node that is alone takes any.
const INDEX: &str = "eyJjbHVzdGVyIjoiMTExMTExMTEtMTExMS0xMTExLTExMTEtMTExMTExMTExMTExIiwidmFsdWUiOiI1In0=";

/// A standby of OpenBao answers by itself, and may not have seen what was just written: it is told what it must have seen, and asked again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_behind_is_asked_again() {
    let behind = Behind::new(8).await;
    let index = |answer: &mut Response<Bytes>| drop(answer.headers_mut().insert("x-vault-index", INDEX.parse().expect("a header")));
    let writing = Match::any().method(Method::POST).path("/v1/transit/keys/");
    let written = behind.proxy.add(Rule::new(writing, Act::Edit(Arc::new(index))).times(1));
    let made = behind.keystore.create(&name(2), Algorithm::ES256).await.expect("made");
    assert_eq!(written.acted(), 1);
    for (status, body) in [(429, "{\"errors\":[]}\n"), (412, r#"{"errors":["required index state not present"]}"#)] {
        for path in ["/v1/transit/keys/", SIGN] {
            behind.proxy.add(Rule::answer(Match::any().path(path), status, "application/json", body).times(2));
        }
        behind.keystore.inspect(&made.locator).await.expect("seen");
        signed(&behind.keystore, &behind.clock, &made, b"a message").await.expect("signed");
    }
    let header = http::HeaderName::from_static("x-vault-index");
    let asked = behind.proxy.asked();
    let named = asked.iter().filter(|asked| asked.header(&header) == Some(INDEX)).count();
    assert!(named > 12, "{named}");
    // A state that never comes, as after an older snapshot was restored, is forgotten.
    let never = Match::any().path(SIGN).header("x-vault-index", INDEX);
    behind.proxy.add(Rule::answer(never, 429, "application/json", r#"{"errors":[]}"#));
    signed(&behind.keystore, &behind.clock, &made, b"a message").await.expect("signed");
}

/// A namespace may be sealed by itself (OpenBao): what says how the server is knows nothing of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sealed_namespace_is_not_healthy() {
    let vault = Vault::plain(&[INSTALLATION]);
    let proxy = Proxy::before(upstream(&vault));
    let clock = clock();
    let keystore = VaultKeystore::open(in_namespace(&vault, &proxy), clock.clone());
    healthy(&keystore).await;
    let made = keystore.create(&name(1), Algorithm::ES256).await.expect("made");
    let named = Match::any().header("x-vault-namespace", "team/a");
    let sealed = proxy.add(Rule::answer(named, 503, "application/json", r#"{"errors":["namespace is sealed"]}"#));
    let error = signed(&keystore, &clock, &made, b"a message").await.expect_err("sealed");
    assert!(matches!(&error, KeystoreError::Unavailable { reason, .. } if reason.contains("the namespace is sealed")), "{error}");
    let error = keystore.health().await.expect_err("sealed");
    assert!(matches!(&error, KeystoreError::Unavailable { reason, .. } if reason.contains("the namespace is sealed")), "{error}");
    proxy.remove(&sealed);
    healthy(&keystore).await;
}

/// A node that redirects is a standby, whoever it points at.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_that_redirects_is_told() {
    let behind = Behind::new(8).await;
    let mut answer = Response::new(Bytes::new());
    *answer.status_mut() = http::StatusCode::TEMPORARY_REDIRECT;
    answer.headers_mut().insert("location", behind.vault.address.parse().expect("a header"));
    let rule = behind.proxy.add(Rule::new(signing(), Act::Answer(answer)));
    // Whoever hands requests on says the same when the answer is lost: it may have signed.
    assert_eq!(behind.sign().await.map(drop), Err(KeystoreError::Unanswered));
    let error = behind.sign().await.expect_err("not asked again");
    assert!(matches!(&error, KeystoreError::Unavailable { reason, .. } if reason.contains("name the active node")), "{error}");
    behind.proxy.remove(&rule);
    // A standby that hands requests on is as good as any other node.
    behind.proxy.add(Rule::answer(Match::any().path("/v1/sys/health"), 429, "application/json", r#"{"standby":true}"#));
    healthy(&behind.keystore).await;
    assert!(behind.proxy.asked().iter().any(|asked| asked.path == "/v1/auth/token/lookup-self"), "it was tried");
}

/// The server here has no method for Kubernetes: its answer is played, with a token that the real one gave.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_account_logs_in_with_its_newest_token() {
    let vault = Vault::plain(&[INSTALLATION]);
    let proxy = Proxy::before(upstream(&vault));
    let token = vault.token(INSTALLATION, serde_json::json!({}));
    let granted = format!(r#"{{"auth":{{"client_token":"{token}","lease_duration":3600,"renewable":true}}}}"#);
    proxy.add(Rule::answer(Match::any().path("/v1/auth/cluster/login"), 200, "application/json", granted));
    vault.write_secret("projected", "header.payload.signature");
    let login = VaultLogin::Kubernetes {
        mount: "cluster".parse().expect("a mount"),
        role: "issuers".to_owned(),
        token: SecretFile::projected(vault.path("projected")),
    };
    let keystore = VaultKeystore::open(VaultSettings { login, ..through(&vault, &proxy) }, clock());
    healthy(&keystore).await;
    keystore.create(&name(1), Algorithm::ES256).await.expect("made");
    let login = proxy.asked().into_iter().find(|asked| asked.path == "/v1/auth/cluster/login").expect("asked");
    let body: Value = serde_json::from_slice(&login.body).expect("JSON");
    assert_eq!(body, serde_json::json!({"role": "issuers", "jwt": "header.payload.signature"}));
}

/// Every request of a namespace says so, but for the one that only the root namespace answers; the setup script does likewise.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_is_named_in_every_request() {
    let vault = Vault::plain(&[INSTALLATION]);
    let proxy = Proxy::before(upstream(&vault));
    let keystore = VaultKeystore::open(in_namespace(&vault, &proxy), clock());
    healthy(&keystore).await;
    keystore.create(&name(1), Algorithm::ES256).await.expect("made");
    let asked = proxy.asked();
    assert!(asked.len() > 3);
    for asked in asked {
        let named = asked.header(&http::HeaderName::from_static("x-vault-namespace"));
        assert_eq!(named, (asked.path != "/v1/sys/health").then_some("team/a"), "{}", asked.path);
    }
}
