//! A Vault in the configuration: what may be said, one error for each way not to, and no secret in any of them.

use super::*;
use crate::config::effective::EffectiveKeystore;

const LOGIN: &str = "login = { type = \"approle\", role_id = \"4b6b7f4c-a9b6-4b3f-9b7a-52a2ad27ec5e\", secret_id_file = \"$CREDENTIALS_DIRECTORY/secret-id\" }";
const MOUNT: &str = "mount = \"transit\"";
const ADDRESS: &str = "address = \"https://vault.example.org:8200\"";

fn vault(text: &str) -> VaultConfig {
    match parse(text).expect("right").keystores.remove("vault").expect("it is there") {
        KeystoreConfig::Vault(vault) => vault,
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_login_has_its_own_settings() {
    let cluster = vault(&with(LOGIN, "login = { type = 'kubernetes', role = 'issuers' }"));
    let token = SecretFile::projected("/var/run/secrets/kubernetes.io/serviceaccount/token");
    assert_eq!(cluster.login, VaultLogin::Kubernetes { mount: "kubernetes".parse().unwrap(), role: "issuers".into(), token });
    let elsewhere = vault(&with(LOGIN, "login = { type = 'kubernetes', role = 'issuers', mount = 'clusters/a', token_file = 'jwt' }"));
    let token = SecretFile::projected("/etc/claviger/jwt");
    assert_eq!(elsewhere.login, VaultLogin::Kubernetes { mount: "clusters/a".parse().unwrap(), role: "issuers".into(), token });
    let agent = vault(&with(LOGIN, "login = { type = 'token', token_file = '/run/agent/token' }"));
    assert_eq!(agent.login, VaultLogin::Token { token: SecretFile::new("/run/agent/token", Some(Path::new("/run/credentials/claviger"))) });
}

#[test]
fn what_is_missing_or_has_no_effect_is_told() {
    let at = |text: &str| format!("keystore.vault.{text}");
    for (from, to, told) in [
        (ADDRESS, "", "address: is missing; write https://HOST[:PORT] (http:// is for loopback alone)"),
        (LOGIN, "", "login: is missing; write login = { type = \"approle\", role_id = \"...\", secret_id_file = \"...\" }"),
        (LOGIN, "login = { }", "login.type: is missing; write one of approle, kubernetes, token"),
        (LOGIN, "login = { type = 'ldap' }", "login.type: \"ldap\" is not a login; write one of approle, kubernetes, token"),
        (LOGIN, "login = { type = 'token' }", "login.token_file: is missing; name the file that holds the token"),
        (LOGIN, "login = { type = 'kubernetes' }", "login.role: is missing; write the role's own, as Vault has it"),
        (
            LOGIN,
            "login = { type = 'token', token_file = 't', role_id = 'x' }",
            "login.role_id: has no effect on a login of type \"token\"; take it out; the settings of this login are token_file",
        ),
        (
            LOGIN,
            "login = { type = 'token', token_file = 't', tokn = 'x' }",
            "login.tokn: there is no such setting; did you mean `token_file`?",
        ),
        (
            MOUNT,
            "mount = 'transit'\nworkers = 2",
            "workers: has no effect on a keystore of type \"vault\"; take it out; the settings of a keystore of type \"vault\" are address, mount, namespace, ca_file, login, in_flight",
        ),
        (
            "in_flight = 64                           # signatures",
            "in_flight = 257 # signatures",
            "in_flight: 257 is out of bounds; write a number from 1 to 256",
        ),
    ] {
        assert_eq!(errors(from, to), [at(told)], "{to}");
    }
    assert_eq!(vault(&with(MOUNT, "")).mount.as_str(), "transit");
}

#[test]
fn nothing_leaves_its_place() {
    let wrong = |from: &str, to: &str| errors(from, to).remove(0);
    for address in
        ["http://vault.example.org", "https://user:S3CR3T@vault.example.org", "https://vault.example.org/v1", "vault.example.org", ""]
    {
        let told = wrong(ADDRESS, &format!("address = '{address}'"));
        assert!(told.starts_with("keystore.vault.address: is not the address of a server") && !told.contains("S3CR3T"), "{told}");
    }
    for mount in ["../sys", "a/../../sys", "/transit", "transit/", "a b", "a?b", ""] {
        let told = wrong(MOUNT, &format!("mount = '{mount}'"));
        assert!(told.starts_with("keystore.vault.mount: "), "{told}");
    }
    assert!(wrong("namespace = \"team-a\"", "namespace = 'a\\r\\nX-Vault-Token: b'").starts_with("keystore.vault.namespace: "));
}

#[test]
fn an_engine_is_one_keystore() {
    let second = |more: &str| {
        format!("{}\n[keystore.two]\ntype = 'vault'\n{ADDRESS}\n{MOUNT}\nlogin = {{ type = 'token', token_file = 't' }}\n{more}", *EXAMPLE)
    };
    assert_eq!(
        errors_of(&second("namespace = 'team-a'")),
        ["keystore.vault.mount: keystore two has this engine too; remove one: a transit engine is one keystore, whatever its login"]
    );
    assert!(parse(&second("")).is_ok(), "another namespace is another engine");
}

#[test]
fn what_was_read_is_told_without_a_secrets_file() {
    let effective = example().effective();
    let EffectiveKeystore::Vault(told) = &effective.keystores["vault"] else { panic!("{effective:?}") };
    assert_eq!(
        (told.address.as_str(), told.mount.as_str(), told.namespace.as_deref()),
        ("https://vault.example.org:8200", "transit", Some("team-a"))
    );
    assert_eq!(told.login, "role_id 4b6b7f4c-a9b6-4b3f-9b7a-52a2ad27ec5e at auth/approle");
    assert_eq!((told.authorities.as_str(), told.in_flight), ("/etc/claviger/tls/vault-ca.pem", 64));
}
