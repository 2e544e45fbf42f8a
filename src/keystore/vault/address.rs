//! Where a Vault is and how things are named in it: addresses, mounts, namespaces, locators. Pure.
//!
//! In scope: which texts may become a part of a URL. Nothing is escaped on the way into one, by us or by the libraries, so that whatever
//! would need it is refused here. Out of scope: connecting.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use claviger_audit::names::KeyName;
use http::Uri;
use http::uri::Scheme;

use crate::keystore::{KeystoreError, Locator};

/// Longest mount or namespace, in bytes.
const LONGEST_PATH: usize = 128;
/// The version of every key that Claviger makes: a successor is another key with a name of its own.
pub(super) const VERSION: u64 = 1;

/// The address of a server: `https://HOST[:PORT]`, or `http://` for this machine alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VaultAddress {
    text: String,
    tls: bool,
}

impl VaultAddress {
    /// Without a slash at its end.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it is asked over TLS.
    pub(super) fn is_https(&self) -> bool {
        self.tls
    }
}

impl FromStr for VaultAddress {
    type Err = &'static str;

    /// What is wrong with an address is told without the address: somebody may have written a token into it.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let uri: Uri = text.parse().map_err(|_| "it is not a URL")?;
        let authority = uri.authority().ok_or("it names no host")?;
        if authority.as_str().contains('@') || uri.query().is_some() || text.contains('#') {
            return Err("it has a user, a query or a fragment");
        }
        if !matches!(uri.path(), "" | "/") {
            return Err("it has a path");
        }
        let bare = authority.host().trim_start_matches('[').trim_end_matches(']');
        let loopback = bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        let tls = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP && loopback => false,
            Some(scheme) if *scheme == Scheme::HTTP => return Err("plain HTTP leaves this machine"),
            _ => return Err("it is neither https nor http"),
        };
        let scheme = if tls { "https" } else { "http" };
        Ok(Self { text: format!("{scheme}://{authority}"), tls })
    }
}

impl fmt::Display for VaultAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Where an engine or a login method is mounted, a namespace, or the name of a role: segments of letters, digits, `_`, `.` and `-`, joined
/// by slashes. None begins with a dot, so that none can lead elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VaultPath(String);

impl VaultPath {
    /// The text, without a slash at either end.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for VaultPath {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let of_segment = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        let is_segment = |segment: &str| !segment.is_empty() && !segment.starts_with('.') && segment.bytes().all(of_segment);
        if text.len() <= LONGEST_PATH && text.split('/').all(is_segment) {
            Ok(Self(text.to_owned()))
        } else {
            Err("it is not a path of letters, digits, _, . and -, without a slash at its ends")
        }
    }
}

impl fmt::Display for VaultPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The locator of a key: `<mount>/<name>/<version>`.
pub(super) fn locator(mount: &VaultPath, name: &KeyName) -> Locator {
    Locator::new(format!("{mount}/{name}/{VERSION}"))
}

/// The name in a locator of this mount. Anything else is refused: what is not a key's name never becomes a part of a URL.
pub(super) fn name_in(locator: &Locator, mount: &VaultPath) -> Result<KeyName, KeystoreError> {
    let wrong = || {
        KeystoreError::Rejected(format!("{:?} is not a key of this keystore: its locators are {mount}/NAME/{VERSION}", locator.as_str()))
    };
    let rest = locator.as_str().strip_prefix(mount.as_str()).and_then(|rest| rest.strip_prefix('/'));
    let (name, version) = rest.and_then(|rest| rest.split_once('/')).ok_or_else(wrong)?;
    if version != VERSION.to_string() {
        return Err(wrong());
    }
    name.parse().map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_one_form() {
        let parsed = |text: &str| text.parse::<VaultAddress>().map(|address| (address.as_str().to_owned(), address.is_https()));
        assert_eq!(parsed("https://vault.example:8200/"), Ok(("https://vault.example:8200".to_owned(), true)));
        assert_eq!(parsed("http://127.0.0.1:8200"), Ok(("http://127.0.0.1:8200".to_owned(), false)));
        assert_eq!(parsed("http://[::1]:1"), Ok(("http://[::1]:1".to_owned(), false)));
        for bad in [
            "",
            "vault.example",
            "/v1",
            "ftp://vault.example",
            "http://vault.example:8200",
            "https://u:p@vault.example",
            "https://vault.example/v1",
            "https://vault.example/?a",
            "https://vault.example/#a",
        ] {
            assert!(parsed(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn no_path_leaves_its_place() {
        for good in ["transit", "a/b-c/d_1.2", "T"] {
            assert_eq!(good.parse::<VaultPath>().unwrap().as_str(), good);
        }
        let long = "a".repeat(LONGEST_PATH + 1);
        for bad in ["", "/a", "a/", "a//b", "..", "a/../b", "a/.b", "a b", "a?b", "a%2fb", "a\\b", "ä", "a#b", &long] {
            assert!(bad.parse::<VaultPath>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_locator_names_one_key_of_this_mount() {
        let mount: VaultPath = "team/transit".parse().unwrap();
        let name: KeyName = "prod.access.1-00c0ffee".parse().unwrap();
        let whole = locator(&mount, &name);
        assert_eq!(whole.as_str(), "team/transit/prod.access.1-00c0ffee/1");
        assert_eq!(name_in(&whole, &mount), Ok(name));
        for bad in [
            "no such thing",
            "transit/prod.access.1-00c0ffee/1",
            "team/transit/prod.access.1-00c0ffee",
            "team/transit/prod.access.1-00c0ffee/2",
            "team/transit/prod.access.1-00c0ffee/1/",
            "team/transit/prod.access.1-00c0ffee/01",
            "team/transit/../sys/seal/1",
            "team/transit//1",
            "team/transit/seal/1",
        ] {
            assert!(matches!(name_in(&Locator::new(bad), &mount), Err(KeystoreError::Rejected(_))), "{bad}");
        }
    }
}
