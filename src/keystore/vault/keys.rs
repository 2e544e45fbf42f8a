//! Making, reading, listing and deleting keys: everything about a key but its signatures.
//!
//! In scope: find-or-create with admission, and what may be concluded from "not found". Out of scope: what admission asks for
//! (`admission.rs`), and retries.

use claviger_audit::Algorithm;
use claviger_audit::names::KeyName;
use vaultrs::api::transit::requests::{CreateKeyRequest, DeleteKeyRequest, ListKeysRequest, ReadKeyRequest, UpdateKeyConfigurationRequest};

use super::address::locator;
use super::admission;
use super::api::{KeyFacts, Names, envelope, key_type, request_id};
use super::fault::{Call, Fault};
use super::server::Server;
use crate::clock::Monotonic;
use crate::keystore::{Locator, Made, Seen};

/// A key as it is now.
pub(super) struct Found {
    pub(super) facts: KeyFacts,
    request_id: Option<String>,
}

/// The key of this name; `None` only if the engine itself says that it has none.
pub(super) async fn read(server: &Server, name: &KeyName, deadline: Monotonic) -> Result<Option<Found>, Fault> {
    let mount = server.mount();
    let call = Call { capability: "read", path: format!("{mount}/keys/{name}") };
    let answer = match server.call(&ReadKeyRequest { mount: mount.to_string(), name: name.to_string() }, &call, deadline).await {
        Ok(answer) => answer,
        Err(fault) if fault.is_certainly_absent() => return Ok(None),
        Err(fault) => return Err(fault),
    };
    let envelope = envelope::<KeyFacts>(&answer.body)?;
    let facts = envelope.data.ok_or_else(|| Fault::Nonsense("it says nothing of the key".to_owned()))?;
    Ok(Some(Found { facts, request_id: envelope.request_id }))
}

/// Finds the key or makes it, and admits it: one that was there before, and one that somebody else made a moment earlier, are looked at alike.
pub(super) async fn find_or_create(server: &Server, name: &KeyName, algorithm: Algorithm, deadline: Monotonic) -> Result<Made, Fault> {
    let (found, made_by) = if let Some(found) = read(server, name, deadline).await? {
        (Some(found), None)
    } else {
        let made_by = create(server, name, algorithm, deadline).await?;
        (read(server, name, deadline).await?, made_by)
    };
    let found = found.ok_or_else(|| Fault::Nonsense(format!("{name} was made, and is not there")))?;
    let inadmissible = |reasons: Vec<String>| {
        let remedy = "Claviger makes its keys itself: look who made or changed this one, and delete it in Vault if it signed nothing";
        Fault::Inadmissible(format!("key {name} may not be used: {}; {remedy}", reasons.join("; ")))
    };
    let attributes = admission::admit(&found.facts, algorithm.key_shape()).map_err(inadmissible)?;
    let public = admission::public_key(&found.facts).map_err(|error| Fault::Nonsense(format!("of the key {name}: {error}")))?;
    if !public.fits(algorithm) {
        return Err(inadmissible(vec![format!("its public half does not fit {algorithm}")]));
    }
    server.known().learn(name, &public, algorithm.key_shape());
    Ok(Made { public, locator: locator(server.mount(), name), attributes, backend_request: made_by.or(found.request_id) })
}

/// Every setting that has a default is given. `derived` is not: some releases of OpenBao fail on it for keys that sign.
async fn create(server: &Server, name: &KeyName, algorithm: Algorithm, deadline: Monotonic) -> Result<Option<String>, Fault> {
    let mount = server.mount();
    let call = Call { capability: "update", path: format!("{mount}/keys/{name}") };
    let request = CreateKeyRequest {
        mount: mount.to_string(),
        name: name.to_string(),
        key_type: Some(key_type(algorithm)),
        exportable: Some(false),
        allow_plaintext_backup: Some(false),
        auto_rotate_period: Some("0".to_owned()),
        convergent_encryption: None,
        derived: None,
    };
    Ok(request_id(&server.write(&request, &call, deadline).await?.body))
}

/// Reads a key back, whatever it is.
pub(super) async fn inspect(server: &Server, name: &KeyName, deadline: Monotonic) -> Result<Seen, Fault> {
    let found = read(server, name, deadline).await?.ok_or_else(|| server.gone(name))?;
    Ok(Seen { public: admission::public_key(&found.facts), attributes: admission::reported(&found.facts) })
}

/// Deletes a key for good; one that is not there is deleted already.
pub(super) async fn destroy(server: &Server, name: &KeyName, deadline: Monotonic) -> Result<(), Fault> {
    let mount = server.mount();
    if read(server, name, deadline).await?.is_none() {
        server.known().forget(name);
        return Ok(());
    }
    let call = Call { capability: "update", path: format!("{mount}/keys/{name}/config") };
    let allow = UpdateKeyConfigurationRequest {
        mount: mount.to_string(),
        name: name.to_string(),
        deletion_allowed: Some(true),
        ..UpdateKeyConfigurationRequest::default()
    };
    let allowed = server.write(&allow, &call, deadline).await;
    let call = Call { capability: "delete", path: format!("{mount}/keys/{name}") };
    let delete = DeleteKeyRequest { mount: mount.to_string(), name: name.to_string() };
    let deleted = match allowed {
        Ok(_) => server.write(&delete, &call, deadline).await.map(drop),
        Err(fault) => Err(fault),
    };
    server.known().forget(name);
    match deleted {
        // Somebody else may have been faster.
        Err(fault @ (Fault::Refused { .. } | Fault::Absent { .. })) => match read(server, name, deadline).await? {
            None => Ok(()),
            Some(_) => Err(fault),
        },
        other => other,
    }
}

/// The keys of one installation, sorted. An engine without any key answers as if nothing were there.
pub(super) async fn list(server: &Server, installation: &str, deadline: Monotonic) -> Result<Vec<(KeyName, Locator)>, Fault> {
    let mount = server.mount();
    let call = Call { capability: "list", path: format!("{mount}/keys") };
    let names = match server.call(&ListKeysRequest { mount: mount.to_string() }, &call, deadline).await {
        Ok(answer) => envelope::<Names>(&answer.body)?.data.map(|names| names.keys).unwrap_or_default(),
        Err(fault) if fault.is_certainly_absent() => Vec::new(),
        Err(Fault::Nonsense(text)) => {
            return Err(Fault::Nonsense(format!("{text}; if many others keep keys there, give Claviger a transit mount of its own")));
        }
        Err(fault) => return Err(fault),
    };
    let names = names.iter().filter_map(|name| name.parse::<KeyName>().ok()).filter(|name| name.installation() == installation);
    let mut keys: Vec<(KeyName, Locator)> = names.map(|name| (name.clone(), locator(mount, &name))).collect();
    keys.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(keys)
}
