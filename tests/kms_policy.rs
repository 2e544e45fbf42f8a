//! The IAM policy in `deploy/aws/` and the adapter, compared: over the whole life of a key, what is asked for is what is granted, action by action.

#![cfg(feature = "aws-kms")]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use claviger::clock::SystemClock;
use claviger::keystore::Keystore as _;
use claviger::keystore::aws_kms::{AwsKmsKeystore, DEFAULT_DELETION_WINDOW};
use claviger_audit::Algorithm;
use claviger_audit::names::KeyName;
use serde_json::Value;

use crate::support::contract::Contract;
use crate::support::kms::Kms;
use crate::support::proxy::{Asked, Proxy};

mod support;

fn policy() -> Value {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/aws/policy.json");
    serde_json::from_str(&std::fs::read_to_string(file).expect("the policy is shipped")).expect("JSON")
}

fn statements(policy: &Value) -> impl Iterator<Item = &Value> {
    policy["Statement"].as_array().into_iter().flatten()
}

/// One value or several, as IAM takes both.
fn values(value: &Value) -> Vec<&str> {
    value.as_array().map_or_else(|| value.as_str().into_iter().collect(), |all| all.iter().filter_map(Value::as_str).collect())
}

/// The actions that a request needs (KMS Developer Guide, "Permissions reference"): tags at a key's making are an action of their own.
fn actions(asked: &Asked) -> Vec<String> {
    let Some(operation) = asked.operation() else { return Vec::new() };
    let tags = (operation == "CreateKey" && String::from_utf8_lossy(&asked.body).contains("\"Tags\"")).then_some("kms:TagResource");
    [format!("kms:{operation}")].into_iter().chain(tags.map(str::to_owned)).collect()
}

/// The statement that grants this action under conditions.
fn statement<'p>(policy: &'p Value, action: &str) -> &'p Value {
    let granted = statements(policy).find(|statement| values(&statement["Action"]) == [action]);
    granted.unwrap_or_else(|| panic!("no statement is about {action} alone"))
}

/// What is asked for has the values that the policy's conditions want, so that AWS would grant it.
fn fits_its_conditions(policy: &Value, asked: &Asked) {
    let body: Value = serde_json::from_slice(&asked.body).unwrap_or_default();
    match asked.operation() {
        Some("CreateKey") => {
            let condition = &statement(policy, "kms:CreateKey")["Condition"];
            let wanted = &condition["StringEquals"];
            assert!(values(&wanted["kms:KeySpec"]).contains(&body["KeySpec"].as_str().expect("a spec")), "{body}");
            assert_eq!((&wanted["kms:KeyUsage"], &wanted["kms:KeyOrigin"]), (&body["KeyUsage"], &body["Origin"]));
            assert_eq!(condition["Bool"]["kms:MultiRegion"].as_str(), Some(body["MultiRegion"].to_string().as_str()));
            let tags = body["Tags"].as_array().expect("tags").iter().filter_map(|tag| tag["TagKey"].as_str());
            let granted = &statement(policy, "kms:TagResource")["Condition"]["ForAllValues:StringEquals"]["aws:TagKeys"];
            assert_eq!(tags.collect::<BTreeSet<_>>(), values(granted).into_iter().collect::<BTreeSet<_>>());
        }
        Some("CreateAlias" | "UpdateAlias") => {
            let alias = body["AliasName"].as_str().expect("a name");
            // The installations of the contract, and that of this test.
            let granted = |installation: &&str| {
                let ours =
                    statements(policy).flat_map(|statement| values(&statement["Resource"])).find_map(|arn| arn.split_once(":alias/"));
                let prefix = ours.map(|(_, alias)| format!("alias/{}", alias.trim_end_matches('*').replace("INSTALLATION", installation)));
                prefix.is_some_and(|prefix| alias.starts_with(&prefix))
            };
            assert_eq!(["contract", "mine", "mine-too", "policy"].iter().copied().filter(|name| granted(name)).count(), 1, "{alias}");
        }
        Some("ScheduleKeyDeletion") => {
            let condition = &statement(policy, "kms:ScheduleKeyDeletion")["Condition"]["NumericGreaterThanEquals"];
            let least = condition["kms:ScheduleKeyDeletionPendingWindowInDays"].as_str().and_then(|days| days.parse::<u64>().ok());
            assert!(body["PendingWindowInDays"].as_u64() >= least && least.is_some(), "{body}");
        }
        _ => {}
    }
}

#[test]
fn the_policy_grants_what_is_asked_for_and_no_more() {
    Kms::in_child("the_policy_grants_what_is_asked_for_and_no_more", |kms| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let (proxy, clock) = (Proxy::before(kms.address()), Arc::new(SystemClock::start()));
            let keystore = Arc::new(AwsKmsKeystore::open(kms.settings(&proxy.url()), clock.clone()));
            let contract = Contract::new(keystore.clone(), clock);
            // The contract makes keys of every algorithm, finds them, and makes one anew where its alias still stands.
            contract.check_all(&[]).await;
            let name = KeyName::new("policy", "life", 1, 7).expect("a name");
            let made = keystore.create(&name, Algorithm::ES256).await.expect("made");
            keystore.inventory("policy").await.expect("listed");
            keystore.destroy(&made.locator).await.expect("destroyed");

            let asked: BTreeSet<String> = proxy.asked().iter().flat_map(actions).collect();
            let policy = policy();
            let granted: BTreeSet<String> =
                statements(&policy).flat_map(|statement| values(&statement["Action"])).map(str::to_owned).collect();
            assert_eq!(asked, granted);
            for asked in proxy.asked() {
                fits_its_conditions(&policy, &asked);
            }
            assert!(
                proxy
                    .asked()
                    .iter()
                    .all(|asked| asked.operation().is_some() || String::from_utf8_lossy(&asked.body).contains("GetCallerIdentity"))
            );
        });
    });
}

/// Whatever changes or uses a key is granted for keys with our tag alone, or for our aliases; what is granted for all keys only reads.
#[test]
fn only_keys_of_the_installation_can_be_used() {
    let policy = policy();
    for statement in statements(&policy) {
        let (sid, condition) = (statement["Sid"].as_str().expect("a name"), &statement["Condition"]);
        assert_eq!(statement["Effect"], "Allow", "{sid}");
        let ours = condition["StringEquals"]["aws:ResourceTag/claviger:installation"] == "INSTALLATION"
            || condition["StringEquals"]["aws:RequestTag/claviger:installation"] == "INSTALLATION"
            || values(&statement["Resource"]) == ["arn:aws:kms:REGION:ACCOUNT:alias/claviger/INSTALLATION/*"];
        for action in values(&statement["Action"]) {
            let reads = ["kms:DescribeKey", "kms:ListResourceTags", "kms:ListKeys", "kms:ListAliases"].contains(&action);
            assert!(ours || reads, "{sid}: {action}");
            assert!(!action.contains('*'), "{sid}: {action}");
        }
        for resource in values(&statement["Resource"]) {
            // These three know no narrower resource (KMS Developer Guide, "Permissions reference").
            let whole = ["kms:CreateKey", "kms:ListKeys", "kms:ListAliases"];
            assert!(resource != "*" || values(&statement["Action"]).iter().all(|action| whole.contains(action)), "{sid}");
            assert!(resource == "*" || resource.starts_with("arn:aws:kms:REGION:ACCOUNT:"), "{sid}: {resource}");
        }
    }
    // Whoever may tag may take: a key that is another installation's already is not for the taking.
    let tagging = statement(&policy, "kms:TagResource");
    assert_eq!(tagging["Condition"]["StringEqualsIfExists"]["aws:ResourceTag/claviger:installation"], "INSTALLATION");
    let making = statement(&policy, "kms:CreateKey");
    assert_eq!(making["Condition"]["StringEquals"]["kms:KeyUsage"], "SIGN_VERIFY");
    assert_eq!(making["Condition"]["StringEquals"]["kms:KeyOrigin"], "AWS_KMS");
    assert_eq!(making["Condition"]["Bool"]["kms:MultiRegion"], "false");
    let ending = statement(&policy, "kms:ScheduleKeyDeletion");
    let least = &ending["Condition"]["NumericGreaterThanEquals"]["kms:ScheduleKeyDeletionPendingWindowInDays"];
    assert_eq!(least.as_str(), Some(DEFAULT_DELETION_WINDOW.to_string().as_str()), "a thief waits as long as everybody");
}
