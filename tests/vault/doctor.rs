//! What `claviger doctor` and `claviger config check` say of a Vault, run as operators run them; and that nothing in the environment changes
//! whom they ask.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::json;

use super::*;

/// A configuration whose only keystore is this Vault, in a folder of its own.
struct Installation {
    root: tempfile::TempDir,
}

impl Installation {
    fn new(table: &str) -> Self {
        let root = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir(root.path().join("policies")).expect("a new folder");
        let text = format!(
            "installation = \"{INSTALLATION}\"\norigin = \"test.example/vault\"\nnode = \"a\"\nstate = \"state\"\npolicies = \"policies\"\n[log]\n\
             keystore = \"vault\"\n[[listener]]\nbind = \"127.0.0.1:0\"\nserves = [\"ops\"]\n[keystore.vault]\n{table}"
        );
        fs::write(root.path().join("claviger.toml"), text).expect("a new file");
        Self { root }
    }

    fn config(&self) -> PathBuf {
        self.root.path().join("claviger.toml")
    }

    /// Runs a command with these variables: all that it printed.
    fn run(&self, arguments: &[&str], environment: &[(&str, &str)]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_claviger"));
        command.arg("--config").arg(self.config()).args(arguments).envs(environment.iter().copied());
        let output = command.output().expect("the binary was built");
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    }

    /// What `doctor` says is wrong with the keystore and its permissions.
    fn wrong(&self, environment: &[(&str, &str)]) -> Vec<String> {
        let printed = self.run(&["doctor", "--output", "json"], environment);
        let begin = printed.find('{').unwrap_or_else(|| panic!("{printed}"));
        let mut documents = serde_json::Deserializer::from_str(&printed[begin..]).into_iter::<Value>();
        let told = documents.next().expect("a document").expect("JSON");
        let rows = told["findings"].as_array().expect("a list").iter();
        let ours = rows.filter(|row| row["fine"] == false && row["what"].as_str().is_some_and(|what| what.contains("keystore vault")));
        ours.map(|row| row["text"].as_str().expect("a text").to_owned()).collect()
    }
}

/// `claviger init` makes the state folder, and both log keys in Vault.
fn initialised(vault: &Vault) -> Installation {
    let installation = Installation::new(&vault.table());
    let printed = installation.run(&["init"], &[]);
    assert!(printed.contains("log "), "{printed}");
    installation
}

#[test]
fn doctor_explains_each_of_them() {
    let vault = Vault::start(&[INSTALLATION]);
    let installation = initialised(&vault);
    assert_eq!(installation.wrong(&[]), Vec::<String>::new());
    let only = |told: &[&str]| {
        let wrong = installation.wrong(&[]);
        assert!(wrong.len() == 1 && told.iter().all(|text| wrong[0].contains(text)), "{wrong:#?}");
    };

    let policy = format!(
        r#"path "transit/keys/{INSTALLATION}.*" {{ capabilities = ["read"] }}
                    path "transit/keys" {{ capabilities = ["list"] }}
                    path "auth/token/*" {{ capabilities = ["read", "update"] }}
                    path "sys/capabilities-self" {{ capabilities = ["update"] }}"#
    );
    let shipped = vault.must("GET", "sys/policies/acl/claviger-special", &Value::Null)["data"]["policy"].clone();
    vault.must("PUT", "sys/policies/acl/claviger-special", &json!({"policy": policy}));
    let wrong = installation.wrong(&[]);
    assert_eq!(wrong.len(), 3, "{wrong:#?}");
    assert!(
        wrong[0].contains("grants no update, delete on transit/keys/special.") && wrong[2].contains("on transit/sign/special."),
        "{wrong:#?}"
    );
    vault.must("PUT", "sys/policies/acl/claviger-special", &json!({"policy": shipped}));

    let secret_id = fs::read_to_string(vault.secret_id_file()).expect("our own file");
    vault.write_secret("secret-id", "0bad0bad-0bad-0bad-0bad-0bad0bad0bad");
    only(&["refuses the login at auth/approle", "secret-id", "write a new secret id into the file"]);
    vault.write_secret("secret-id", secret_id.trim());

    let ca = fs::read(vault.ca_file()).expect("our own file");
    fs::copy(vault.other_ca_file(), vault.ca_file()).expect("our own file");
    only(&["UnknownIssuer", "let `ca_file` name the authority"]);
    fs::write(vault.ca_file(), "nothing").expect("our own file");
    only(&["ca_file", "holds no PEM certificate"]);
    fs::write(vault.ca_file(), ca).expect("our own file");

    vault.seal();
    only(&["sealed", "unseal it"]);
    vault.stop();
    only(&["cannot connect to https://127.0.0.1:", "whether the server runs"]);
}

/// What people set for Vault's own tools, or for a proxy, changes nothing here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_taken_from_the_environment() {
    let vault = Vault::start(&[INSTALLATION]);
    let installation = initialised(&vault);
    let (trap, trapped) = super::transport::answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}".to_vec()).await;
    let other_ca = vault.other_ca_file().display().to_string();
    let environment = [
        ("VAULT_ADDR", trap.as_str()),
        ("VAULT_TOKEN", "hvs.wrong"),
        ("VAULT_NAMESPACE", "elsewhere"),
        ("VAULT_CACERT", &other_ca),
        ("BAO_ADDR", &trap),
        ("HTTPS_PROXY", &trap),
        ("https_proxy", &trap),
        ("HTTP_PROXY", &trap),
        ("ALL_PROXY", &trap),
    ];
    assert_eq!(installation.wrong(&environment), Vec::<String>::new());
    assert!(trapped.lock().expect("no panic").is_empty(), "nobody else was asked");
    // Certificates are checked, whatever a variable says that turns the check off elsewhere.
    fs::copy(vault.other_ca_file(), vault.ca_file()).expect("our own file");
    for skip in ["", "1", "true"] {
        let wrong = installation.wrong(&[("VAULT_SKIP_VERIFY", skip)]);
        assert!(wrong.len() == 1 && wrong[0].contains("UnknownIssuer"), "{skip:?}: {wrong:#?}");
    }
}

/// No secret is in what is printed, however much is logged.
#[test]
fn nothing_secret_is_printed() {
    let vault = Vault::start(&[INSTALLATION]);
    let installation = initialised(&vault);
    let secret_id = fs::read_to_string(vault.secret_id_file()).expect("our own file");
    let mut printed = installation.run(&["--log", "trace", "doctor"], &[]);
    printed += &installation.run(&["config", "check"], &[]);
    let wrong = "0bad0bad-0bad-0bad-0bad-0bad0bad0bad";
    vault.write_secret("secret-id", wrong);
    printed += &installation.run(&["--log", "trace", "doctor"], &[]);
    assert!(printed.contains("hyper") || printed.contains("rustls"), "libraries speak at this level");
    assert!(!printed.contains(secret_id.trim()) && !printed.contains(wrong), "{printed}");
    // Vault's service tokens begin so.
    assert!(!printed.contains("hvs."), "{printed}");
}
