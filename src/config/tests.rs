//! The example, reloads, arbitrary text; the refusals have files of their own.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use claviger_audit::Algorithm;
use claviger_audit::event::Purpose;
use proptest::prelude::*;

use super::*;
use crate::keystore::aws_kms::AwsKmsSettings;
use crate::keystore::pkcs11::{DeviceProfile, TokenSelector};
use crate::keystore::vault::VaultLogin;
use crate::policy::{CallerAttributes, ClaimType};
use crate::secret::SecretFile;

mod aws_kms;
mod impossible;
mod keyrings;
mod keystores;
mod listeners;
mod refusals;
mod vault;

/// The example with everything switched on.
static EXAMPLE: LazyLock<String> = LazyLock::new(|| {
    let on = |line: &'static str| line.strip_prefix('#').filter(|rest| rest.starts_with(|c: char| c != ' ')).unwrap_or(line);
    SHIPPED.lines().flat_map(|line| [on(line), "\n"]).collect()
});
const SHIPPED: &str = include_str!("example.toml");

fn parse(text: &str) -> Result<Config, Vec<ConfigError>> {
    Config::parse(text, Path::new("/etc/claviger/claviger.toml"), Some(Path::new("/run/credentials/claviger")))
}

fn example() -> Config {
    parse(&EXAMPLE).expect("the example is right")
}

/// The example with one change.
fn with(from: &str, to: &str) -> String {
    assert_eq!(EXAMPLE.matches(from).count(), 1, "{from:?} must stand in the example once");
    EXAMPLE.replace(from, to)
}

/// What is said of the example with one change, without the line numbers (they have a test of their own).
fn errors(from: &str, to: &str) -> Vec<String> {
    errors_of(&with(from, to))
}

fn errors_of(text: &str) -> Vec<String> {
    let without_line = |error: ConfigError| ConfigError { line: None, ..error }.to_string();
    parse(text).expect_err("the change is wrong").into_iter().map(without_line).collect()
}

#[test]
fn the_example_is_what_it_says() {
    let config = example();
    assert_eq!((config.installation.as_str(), config.origin.as_str(), config.node.as_str()), ("prod", "example.org/claviger", "a"));
    assert_eq!((config.audience.as_str(), config.log_keystore.as_str()), ("claviger:prod", "hsm"));
    assert_eq!((config.state, config.policies), ("/var/lib/claviger".into(), "/etc/claviger/policies".into()));
    let hsm = KeystoreConfig::Pkcs11(Pkcs11Config {
        module: "/usr/lib/softhsm/libsofthsm2.so".into(),
        token: TokenSelector::label("claviger"),
        pin: SecretFile::new("/run/credentials/claviger/pin", Some(Path::new("/run/credentials/claviger"))),
        workers: 2,
        queue_wait: Duration::from_millis(500),
        hang_after: Duration::from_secs(10),
        profile: DeviceProfile::default(),
    });
    let kms = KeystoreConfig::AwsKms(AwsKmsSettings {
        region: "eu-central-1".into(),
        account: "111122223333".into(),
        endpoint: Some("https://vpce-0123.kms.eu-central-1.vpce.amazonaws.com".into()),
        sts_endpoint: Some("https://sts.eu-central-1.amazonaws.com".into()),
        profile: Some("claviger".into()),
        deletion_window: 30,
        requests_per_second: 500,
    });
    let vault = KeystoreConfig::Vault(VaultConfig {
        address: "https://vault.example.org:8200".parse().unwrap(),
        mount: "transit".parse().unwrap(),
        namespace: Some("team-a".parse().unwrap()),
        ca_file: Some("/etc/claviger/tls/vault-ca.pem".into()),
        login: VaultLogin::AppRole {
            mount: "approle".parse().unwrap(),
            role_id: "4b6b7f4c-a9b6-4b3f-9b7a-52a2ad27ec5e".into(),
            secret_id: SecretFile::new("/run/credentials/claviger/secret-id", Some(Path::new("/run/credentials/claviger"))),
        },
        in_flight: 64,
    });
    assert_eq!(config.keystores, BTreeMap::from([("hsm".to_owned(), hsm), ("kms".to_owned(), kms), ("vault".to_owned(), vault)]));
    let tokens = &config.keyrings["access-tokens"];
    assert_eq!((tokens.purpose, tokens.algorithm, tokens.issuer.as_deref()), (Purpose::Jwt, Algorithm::ES256, Some("main")));
    assert_eq!(tokens.profile.claim_types["tenant"], ClaimType::String);
    let webhooks = &config.keyrings["webhooks"];
    assert_eq!((webhooks.purpose, webhooks.timing.token_life()), (Purpose::Jws, Duration::from_mins(15)));
    let issuer = CallerAttributes::new(vec!["issuers".to_owned()], BTreeMap::from([("tenant".to_owned(), "t1".to_owned())])).unwrap();
    assert_eq!(config.callers[&Identity::Unix(1000)].attributes, issuer);
    assert_eq!(config.callers[&Identity::Token("ci".to_owned())].token_sha256.map(|hash| hash[0]), Some(0x9f));
    assert_eq!(config.listeners[0].bind, Bind::Unix("/run/claviger/sign.sock".into()));
    assert_eq!(config.listeners[2].tls.as_ref().map(|tls| tls.cert.clone()), Some(PathBuf::from("/etc/claviger/tls/cert.pem")));
    assert_eq!(config.listeners[2].serves, [Surface::Public, Surface::Sign].into());
    assert_eq!(config.listeners[4].serves, [Surface::Log].into());
    let witnesses = config.witnesses.expect("switched on here");
    assert_eq!((witnesses.policy, witnesses.timeout), ("/etc/claviger/witnesses.policy".into(), Duration::from_secs(5)));
    assert_eq!(witnesses.ca_file, Some("/etc/claviger/tls/witness-ca.pem".into()));
}

#[test]
fn the_example_holds_every_setting() {
    let sections = ["", "[log]", "[audit]", "[limits]", "[defaults]", "[keystore.a]", "[issuer.a]", "[keyring.a]", "[keyring.a.profile]"];
    for section in sections.into_iter().chain(["[[listener]]", "[[listener]]\n[listener.tls]"]) {
        let error = parse(&format!("{section}\nzzzzzzzz = 1\n")).unwrap_err().remove(0);
        let known = error.remedy.strip_prefix("known here: ").expect(&error.remedy);
        for setting in known.split(", ") {
            let forms = [format!("{setting} = "), format!("[{setting}"), format!(".{setting}]")];
            assert!(forms.iter().any(|form| EXAMPLE.contains(form)), "{section} {setting}");
        }
    }
}

#[test]
fn what_is_switched_off_is_a_keystore_a_keyring_witnesses_a_listener_and_a_default() {
    let shipped = parse(SHIPPED).expect("right as it is");
    let mut whole = example();
    whole.keyrings.remove("webhooks");
    whole.witnesses = None;
    whole.keyrings.get_mut("access-tokens").expect("it is there").standby_keystore = None;
    whole.keystores.remove("kms");
    whole.keystores.remove("vault");
    whole.listeners.pop();
    assert_eq!(Config { sha256: shipped.sha256, ..whole }, shipped);
}

#[test]
fn the_example_states_the_defaults() {
    let plain = |section: &str| {
        let start = EXAMPLE.find(section).expect(section);
        let end = start + EXAMPLE[start..].find("\n\n").expect("a section ends with an empty line");
        EXAMPLE.replace(&EXAMPLE[start..end], "")
    };
    for section in ["[defaults]", "[limits]", "[audit]"] {
        let without = parse(&plain(section)).expect(section);
        assert_eq!(Config { sha256: example().sha256, ..without }, example(), "{section}");
    }
    assert_eq!(example().limits, Limits::default());
    let timing = example().keyrings["access-tokens"].timing;
    assert_eq!((timing.token_ttl_ms, timing.signing_lease_ms, timing.deadline_ms), (900_000, 0, 2000));
}

#[test]
fn a_keyring_overrides_the_defaults_of_the_file() {
    let text =
        with("clock_skew = \"30s\"", "clock_skew = \"20s\"").replace("token_ttl = \"15m\"", "token_ttl = \"5m\"\nclock_skew = \"10s\"");
    let config = parse(&text).expect("right");
    assert_eq!(config.keyrings["access-tokens"].timing.clock_skew_ms, 10_000);
    assert_eq!(config.keyrings["webhooks"].timing.clock_skew_ms, 20_000);
}

#[test]
fn an_error_knows_its_line() {
    let lines = |text: &str| parse(text).unwrap_err().iter().map(|error| error.line).collect::<Vec<_>>();
    let line_of = |needle: &str| EXAMPLE.lines().position(|line| line.starts_with(needle)).map(|index| index + 1);
    assert_eq!(lines(&with("algorithm = \"ES256\"", "algorithm = \"HS256\"")), [line_of("algorithm = \"ES256\"")]);
    assert_eq!(lines(&with("bind = \"127.0.0.1:9090\"", "bind = \"nowhere\"")), [line_of("bind = \"127.0.0.1:9090\"")]);
    // What is missing has the line of the table that should hold it.
    assert_eq!(lines(&with("path = \"/t1\"", "")), [line_of("[issuer.main]")]);
    assert_eq!(lines(&with("installation = \"prod\"", "")), [None]);
}

#[test]
fn a_file_is_loaded_with_its_name_in_every_error() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("claviger.toml");
    let missing = Config::load(&file).unwrap_err().to_string();
    assert!(missing.starts_with(&file.display().to_string()) && missing.ends_with("; name a readable configuration file"), "{missing}");
    let plain = EXAMPLE.replace("$CREDENTIALS_DIRECTORY/", "");
    fs::write(&file, &plain).unwrap();
    let config = Config::load(&file).unwrap();
    assert_eq!(config.policies, folder.path().join("policies"));
    assert_eq!(config.sha256, Hash::from(<[u8; 32]>::from(Sha256::digest(&plain))));
    fs::write(&file, "node = 1\n").unwrap();
    let wrong = Config::load(&file).unwrap_err().to_string();
    assert_eq!(wrong, format!("{}: 1 error:\n  line 1: node: an integer cannot stand here; write a string", file.display()));
}

#[test]
fn policies_are_read_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["b.cedar", "a.cedar", "notes.txt"] {
        fs::write(folder.path().join(name), name).unwrap();
    }
    let files = files::policies(folder.path()).unwrap();
    assert_eq!(files, [("a.cedar", "a.cedar"), ("b.cedar", "b.cedar")].map(|(name, text)| (name.to_owned(), text.to_owned())));
    fs::write(folder.path().join("c.cedar"), " ".repeat(1 << 20)).unwrap();
    assert_eq!(files::policies(folder.path()).unwrap().len(), 3);
    fs::write(folder.path().join("c.cedar"), " ".repeat((1 << 20) + 1)).unwrap();
    let refusal = files::policies(folder.path()).unwrap_err().to_string();
    assert_eq!(refusal, format!("cannot read {}: it has more than 1048576 bytes", folder.path().join("c.cedar").display()));
}

#[test]
fn changes_are_sorted_by_when_they_take_effect() {
    let old = example();
    assert!(Changes::between(&old, &old).is_empty());
    let text = EXAMPLE
        .replace("[keyring.webhooks", "[keyring.hooks")
        .replace("algorithm = \"ES256\"", "algorithm = \"ES384\"")
        .replace("tenant = \"t1\"", "tenant = \"t3\"")
        .replacen("in_flight = 64", "in_flight = 65", 1)
        .replace("node = \"a\"", "node = \"b\"")
        .replace("workers = 2", "workers = 3")
        .replace("127.0.0.1:9090", "127.0.0.1:9091");
    let new = parse(&text).unwrap();
    let changes = Changes::between(&old, &new);
    assert_eq!(changes.reloaded, ["caller.\"unix:uid=1000\"", "keyring.access-tokens", "keyring.hooks"]);
    assert_eq!(changes.restart, ["node", "limits", "listener", "keystore.hsm"]);
    assert_eq!(changes.missing, ["webhooks"]);
    assert_eq!(changes.refused, Vec::<String>::new());
    // After the reload the same is still waiting, and nothing else.
    let in_force = new.clone().until_restart(&old);
    assert_eq!(Changes::between(&in_force, &new), Changes { restart: changes.restart, ..Changes::default() });
    let only = Config { keystores: BTreeMap::new(), ..old.clone() };
    assert_eq!(Changes::between(&old, &only).restart, ["keystore.hsm", "keystore.kms", "keystore.vault"]);
}

#[test]
fn what_a_keyring_began_with_is_fixed() {
    let of = |from: &str, to: &str| Changes::between(&example(), &parse(&with(from, to)).unwrap()).refused;
    let sentence = |what| format!("keyring.access-tokens: its {what} is fixed; add a keyring of another name, and retire this one");
    assert_eq!(of("typ = \"at+jwt\"", "typ = \"JWT\""), [sentence("typ")]);
    assert_eq!(of("url = \"https://auth.example.org/t1\"", "url = \"https://b.example\""), [sentence("issuer's url")]);
}

#[test]
fn what_is_effective_can_be_written_and_holds_no_secret() {
    let effective = example().effective();
    let tokens = &effective.keyrings["access-tokens"];
    assert_eq!((tokens.seen_by_all.as_str(), tokens.lead.as_str(), tokens.overlap.as_str()), ("15m 10s", "15m 40s", "16m 2s"));
    assert_eq!(effective.jwks["main"], ["/.well-known/jwks.json", "/t1/.well-known/jwks.json"]);
    assert_eq!(effective.listeners[2], "0.0.0.0:8443 with TLS: public, sign for bearer callers");
    let toml = toml::to_string(&effective).unwrap();
    let json = serde_json::to_string(&effective).unwrap();
    assert!(!toml.contains("9f86d081") && !json.contains("9f86d081"));
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in any::<String>()) {
        let _ = parse(&text);
    }

    #[test]
    fn text_that_looks_like_a_file_never_panics(text in r#"([a-z.\[\]{}="' \n,$0-9smhd:/-]{0,12}|\[keyring\.a\]\n|keystore\.|token_ttl = "|\[\[listener\]\]\n){0,20}"#) {
        let _ = parse(&text);
    }

    /// A mutation either parses, or is refused in words; and whatever parses holds every inequality.
    #[test]
    fn mutations_of_the_example_never_panic(
        cuts in prop::collection::vec((0..EXAMPLE.len(), 0..24_usize, prop_oneof!["[ -~\n]{0,8}", Just("9999999999999d".to_owned()), Just("\"\"".to_owned())]), 1..4),
    ) {
        let mut bytes = EXAMPLE.as_bytes().to_vec();
        for (start, length, put) in cuts {
            let start = start.min(bytes.len());
            let end = (start + length).min(bytes.len());
            bytes.splice(start..end, put.bytes());
        }
        match parse(&String::from_utf8_lossy(&bytes)) {
            Ok(config) => prop_assert!(config.keyrings.values().all(|keyring| keyring.timing.broken().is_empty())),
            Err(errors) => prop_assert!(!errors.is_empty() && errors.len() <= MOST_ERRORS),
        }
    }
}
