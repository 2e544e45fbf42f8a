//! The settings of a Vault or OpenBao.
//!
//! In scope: what the file may say of the server, its transit engine and the login. Out of scope: connecting, and reading the files that are
//! named: secrets are files, never values, and nothing is taken from the environment (`VAULT_ADDR` and its kin are for people).

use std::path::PathBuf;

use super::super::error::{Place, Problems};
use super::super::names::{self, Folders};
use super::super::raw::{RawKeystore, RawLogin};
use crate::keystore::vault::{DEFAULT_IN_FLIGHT, MOST_IN_FLIGHT, VaultAddress, VaultLogin, VaultPath};
use crate::secret::SecretFile;

/// The settings that such a keystore has beside its type.
pub(super) const SETTINGS: &[&str] = &["address", "mount", "namespace", "ca_file", "login", "in_flight"];
/// Where Kubernetes puts the token of a pod's service account.
const SERVICE_ACCOUNT_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
/// The kinds of logins, and the settings of each beside its type.
const LOGINS: [(&str, &[&str]); 3] =
    [("approle", &["role_id", "secret_id_file", "mount"]), ("kubernetes", &["role", "token_file", "mount"]), ("token", &["token_file"])];

/// A transit engine of a Vault or OpenBao.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VaultConfig {
    /// The server.
    pub address: VaultAddress,
    /// Where the engine is mounted.
    pub mount: VaultPath,
    /// Which namespace everything is in.
    pub namespace: Option<VaultPath>,
    /// The authorities to believe about the server, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// How to get a token.
    pub login: VaultLogin,
    /// How many signatures may be in flight.
    pub in_flight: usize,
}

impl VaultConfig {
    /// Whether both are one engine: two keystores would hold the same keys.
    pub(super) fn is_same_engine(&self, other: &Self) -> bool {
        (&self.address, &self.namespace, &self.mount) == (&other.address, &other.namespace, &other.mount)
    }
}

/// Reads one.
pub(super) fn read(raw: &RawKeystore, folders: Folders<'_>, at: &Place, problems: &mut Problems<'_>) -> Option<VaultConfig> {
    let address = address(raw.address.as_deref(), &at.key("address"), problems);
    let mount = path(Some(raw.mount.as_deref().unwrap_or("transit")), &at.key("mount"), problems);
    let namespace = raw.namespace.as_deref().map(|text| path(Some(text), &at.key("namespace"), problems));
    let ca_file = raw.ca_file.as_deref().map(|text| folders.path(text, &at.key("ca_file"), problems));
    let most = i64::try_from(MOST_IN_FLIGHT).unwrap_or(i64::MAX);
    let default = i64::try_from(DEFAULT_IN_FLIGHT).unwrap_or(i64::MAX);
    let in_flight = names::number(raw.in_flight, (1, most), default, &at.key("in_flight"), problems);
    let login = login(raw.login.as_ref(), folders, &at.key("login"), problems);
    Some(VaultConfig {
        address: address?,
        mount: mount?,
        namespace: namespace.map_or(Some(None), |given| given.map(Some))?,
        ca_file: ca_file.map_or(Some(None), |given| given.map(Some))?,
        login: login?,
        in_flight: usize::try_from(in_flight).unwrap_or(DEFAULT_IN_FLIGHT),
    })
}

fn address(text: Option<&str>, place: &Place, problems: &mut Problems<'_>) -> Option<VaultAddress> {
    let remedy = "write https://HOST[:PORT] (http:// is for loopback alone)";
    let text = problems.required(text, place, remedy)?;
    text.parse().map_err(|why| problems.add(place, format!("is not the address of a server: {why}"), remedy)).ok()
}

fn path(text: Option<&str>, place: &Place, problems: &mut Problems<'_>) -> Option<VaultPath> {
    let remedy = "write it without slashes at its ends, such as transit or team/transit";
    let text = problems.required(text, place, remedy)?;
    text.parse().map_err(|why| problems.add(place, format!("{text:?} cannot be used: {why}"), remedy)).ok()
}

fn login(raw: Option<&RawLogin>, folders: Folders<'_>, at: &Place, problems: &mut Problems<'_>) -> Option<VaultLogin> {
    let example = "write login = { type = \"approle\", role_id = \"...\", secret_id_file = \"...\" }";
    let Some(raw) = raw else {
        problems.required(None::<&str>, at, example);
        return None;
    };
    let kind = problems.required(raw.r#type.as_deref(), &at.key("type"), "write one of approle, kubernetes, token")?;
    let Some((kind, own)) = LOGINS.into_iter().find(|(known, _)| *known == kind) else {
        problems.add(&at.key("type"), format!("{kind:?} is not a login"), "write one of approle, kubernetes, token");
        return None;
    };
    for setting in raw.present().into_iter().filter(|setting| !own.contains(setting)) {
        let remedy = format!("take it out; the settings of this login are {}", own.join(", "));
        problems.add(&at.key(setting), format!("has no effect on a login of type {kind:?}"), remedy);
    }
    let mount = path(Some(raw.mount.as_deref().unwrap_or(kind)), &at.key("mount"), problems);
    let mut file = |name: &str, text: Option<&str>, remedy: &str| {
        let text = problems.required(text, &at.key(name), remedy)?;
        folders.path(text, &at.key(name), problems)
    };
    match kind {
        "approle" => {
            let secret_id = file("secret_id_file", raw.secret_id_file.as_deref(), "name the file that holds the secret id");
            let role_id = named(raw.role_id.as_deref(), &at.key("role_id"), problems);
            let secret_id = SecretFile::new(secret_id?, folders.credentials);
            Some(VaultLogin::AppRole { mount: mount?, role_id: role_id?, secret_id })
        }
        "kubernetes" => {
            let token = file("token_file", Some(raw.token_file.as_deref().unwrap_or(SERVICE_ACCOUNT_TOKEN)), "");
            let role = named(raw.role.as_deref(), &at.key("role"), problems);
            Some(VaultLogin::Kubernetes { mount: mount?, role: role?, token: SecretFile::projected(token?) })
        }
        _ => {
            let token = file("token_file", raw.token_file.as_deref(), "name the file that holds the token");
            Some(VaultLogin::Token { token: SecretFile::new(token?, folders.credentials) })
        }
    }
}

/// The name or id of a role.
fn named(text: Option<&str>, place: &Place, problems: &mut Problems<'_>) -> Option<String> {
    let remedy = "write the role's own, as Vault has it";
    let text = problems.required(text, place, remedy)?;
    let plain = (1..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    if !plain {
        problems.add(place, "is not that of a role", remedy);
    }
    plain.then(|| text.to_owned())
}
