//! What the token may do, compared with what Claviger needs: for `claviger doctor`.
//!
//! In scope: the paths that are used for the keys of one installation. Out of scope: changing any of it; what grants them is
//! deploy/vault/claviger.hcl.

use serde_json::Value;

use super::api::Permissions;
use super::fault::Fault;
use super::server::Server;
use crate::clock::Monotonic;

/// Stands for every key of the installation: only its prefix matters.
const ANY_KEY: &str = "doctor.1-00000000";

/// Everything that is not as it should be, a sentence each.
pub(super) async fn missing(server: &Server, installation: &str, deadline: Monotonic) -> Result<Vec<String>, Fault> {
    let needed = needed(server.mount().as_str(), installation);
    let granted = server.permissions(needed.iter().map(|(path, ..)| path.clone()).collect(), deadline).await?;
    Ok(compare(&needed, &granted))
}

/// Each path, the capabilities that are used on it, and what for.
fn needed(mount: &str, installation: &str) -> Vec<(String, &'static [&'static str], &'static str)> {
    let key = format!("{installation}.{ANY_KEY}");
    vec![
        (format!("{mount}/keys/{key}"), &["read", "update", "delete"], "to make, read back and delete keys"),
        (format!("{mount}/keys/{key}/config"), &["update"], "to allow the deletion of a key that is to be destroyed"),
        (format!("{mount}/sign/{key}"), &["update"], "to sign"),
        (format!("{mount}/keys"), &["list"], "to find keys that no record names"),
        ("auth/token/lookup-self".to_owned(), &["read"], "to know how long its token lives"),
        ("auth/token/renew-self".to_owned(), &["update"], "to keep its token"),
    ]
}

fn compare(needed: &[(String, &[&str], &str)], granted: &Permissions) -> Vec<String> {
    let capabilities = |path: &str| -> Vec<&str> {
        let list = granted.get(path).or_else(|| granted.get(&format!("{path}/"))).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(Value::as_str).collect()
    };
    let mut told = Vec::new();
    for (path, wanted, purpose) in needed {
        let granted = capabilities(path);
        if granted.contains(&"root") {
            return vec![
                "its token is a root token, which may do anything: let it log in with a role of its own (deploy/vault/setup.sh)".to_owned(),
            ];
        }
        let lacking: Vec<&str> = wanted.iter().filter(|wanted| !granted.contains(wanted)).copied().collect();
        if !lacking.is_empty() {
            let lacking = lacking.join(", ");
            told.push(format!(
                "the policy grants no {lacking} on {path}, which Claviger needs {purpose}: add it, as deploy/vault/claviger.hcl has it"
            ));
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_path_that_is_not_granted_is_told() {
        let needed = needed("transit", "prod");
        let mut all: Permissions = needed.iter().map(|(path, wanted, _)| (path.clone(), json!(wanted))).collect();
        assert_eq!(compare(&needed, &all), Vec::<String>::new());
        assert_eq!(compare(&needed, &Permissions::new()).len(), needed.len());
        all.insert("transit/keys/prod.doctor.1-00000000".to_owned(), json!(["read", "update"]));
        all.remove("transit/sign/prod.doctor.1-00000000");
        assert_eq!(
            compare(&needed, &all),
            [
                "the policy grants no delete on transit/keys/prod.doctor.1-00000000, which Claviger needs to make, read back and delete keys: add \
                 it, as deploy/vault/claviger.hcl has it",
                "the policy grants no update on transit/sign/prod.doctor.1-00000000, which Claviger needs to sign: add it, as \
                 deploy/vault/claviger.hcl has it",
            ]
        );
        all.insert("transit/keys/prod.doctor.1-00000000".to_owned(), json!(["root"]));
        assert!(compare(&needed, &all)[0].contains("root token"));
    }
}
