//! The small rules of form that several settings share: names, the logs' origin, web addresses, numbers within bounds.
//!
//! In scope: one value at a time. Out of scope: rules between settings.

use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};

use claviger_audit::names::{LOG_KEYRING, is_label};
use http::Uri;
use http::uri::Authority;

use super::error::{Place, Problems};
use crate::keystore::pkcs11::TokenUri;
use crate::keystore::pkcs11::trial::PREFIX;

/// How a name is written.
pub(super) const LABEL: &str = "write 1 to 24 of a-z, 0-9 and -, beginning with a letter";
/// Longest origin in bytes: `/uses/<node>` is appended, and the line stands in every checkpoint.
const LONGEST_ORIGIN: usize = 200;
/// The variable that systemd sets to the folder of the service's credentials (systemd.exec(5)).
pub(super) const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// A name of an installation, node, keystore, issuer or keyring; `log` is the log keys' own.
pub(super) fn label(text: &str, place: &Place, problems: &mut Problems<'_>) -> Option<String> {
    if !is_label(text) {
        problems.add(place, format!("{text:?} is not a name"), LABEL);
        return None;
    }
    if text == PREFIX {
        problems.add(
            place,
            format!("the name `{PREFIX}` is reserved for the throw-away keys of `claviger hsm check`"),
            "choose another name",
        );
        return None;
    }
    if text == LOG_KEYRING {
        problems.add(place, "the name `log` is reserved for the log keys", "choose another name");
        return None;
    }
    Some(text.to_owned())
}

/// The origin line of the logs: a name without scheme, spaces or `+` (C2SP tlog-checkpoint and signed-note: a key name has neither).
pub(super) fn origin(text: &str, place: &Place, problems: &mut Problems<'_>) -> Option<String> {
    let printable = text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'+');
    let well_formed = printable && (1..=LONGEST_ORIGIN).contains(&text.len()) && !text.contains("://") && !text.ends_with('/');
    if !well_formed {
        let remedy =
            "write a host name and a path without a scheme, such as example.org/claviger: 1 to 200 ASCII characters, no space, no +";
        problems.add(place, format!("{text:?} is not an origin"), remedy);
    }
    well_formed.then(|| text.to_owned())
}

/// What is wrong with an issuer's address, or nothing. Verifiers compare `iss` byte by byte (RFC 7519 section 4.1.1, RFC 8414 section 2), so
/// that one address must have one spelling.
pub(super) fn issuer_url_defect(text: &str) -> Option<&'static str> {
    let Ok(uri) = text.parse::<Uri>() else { return Some("is not an address") };
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return Some("has no scheme and host") };
    if text.contains(['?', '#']) {
        return Some("has a query or a fragment");
    }
    if authority.as_str().contains('@') {
        return Some("names a user");
    }
    if scheme != "https" && !(scheme == "http" && is_loopback(authority.host())) {
        return Some("does not begin with https:// (http:// is for loopback alone)");
    }
    if text.ends_with('/') {
        return Some("ends with a slash");
    }
    let spelt = format!("{scheme}://{authority}{}", uri.path());
    let spelt = if uri.path() == "/" { spelt.trim_end_matches('/') } else { &spelt };
    let odd_path = uri.path() != "/" && !uri.path().split('/').skip(1).all(is_segment);
    if spelt != text || !is_authority(authority) || odd_path {
        return Some("is not written in the one usual way: lower-case host, no empty or dotted path segment, no escapes");
    }
    None
}

fn is_authority(authority: &Authority) -> bool {
    let host = authority.host();
    let port = authority.port_u16().map_or(String::new(), |port| format!(":{port}"));
    let ipv6 = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let plain = ipv6.map_or_else(|| is_host(host), |ip| ip.parse::<Ipv6Addr>().is_ok_and(|parsed| parsed.to_string() == ip));
    plain && authority.as_str() == format!("{host}{port}")
}

/// A host name in lower case (RFC 1123 section 2.1), or an IPv4 address.
pub(super) fn is_host(name: &str) -> bool {
    let of_label = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_part =
        |part: &str| (1..=63).contains(&part.len()) && part.bytes().all(of_label) && !part.starts_with('-') && !part.ends_with('-');
    name.len() <= 253 && name.split('.').all(is_part)
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Whether a text can stand between two slashes of a route of ours, with only one spelling.
pub(super) fn is_segment(segment: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    !segment.is_empty() && !segment.starts_with('.') && segment.bytes().all(plain)
}

/// A whole number within bounds, or the default.
pub(super) fn number<N: TryFrom<i64> + Copy>(
    given: Option<i64>,
    bounds: (i64, i64),
    default: N,
    place: &Place,
    problems: &mut Problems<'_>,
) -> N {
    let Some(value) = given else { return default };
    let within = (bounds.0..=bounds.1).contains(&value);
    match N::try_from(value) {
        Ok(number) if within => number,
        _ => {
            problems.add(place, format!("{value} is out of bounds"), format!("write a number from {} to {}", bounds.0, bounds.1));
            default
        }
    }
}

/// Where relative files and credentials are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Folders<'p> {
    /// The configuration file's.
    pub(super) base: &'p Path,
    /// The value of `$CREDENTIALS_DIRECTORY`, if it is set.
    pub(super) credentials: Option<&'p Path>,
}

impl Folders<'_> {
    /// The path that a setting means: relative to the configuration file, or to the service's credentials.
    pub(super) fn path(&self, text: &str, place: &Place, problems: &mut Problems<'_>) -> Option<PathBuf> {
        if text.is_empty() || text.contains('\0') {
            problems.add(place, "is not a path", "write the path of a file or folder");
            return None;
        }
        if TokenUri::is_meant_by(text) {
            // As a path it would be repeated in errors, whatever stands in it.
            problems.add(place, "is a PKCS#11 URI", "write the path of a file or folder; a URI stands in a keystore's `token`");
            return None;
        }
        let Some(variable) = text.strip_prefix('$') else { return Some(self.base.join(text)) };
        let name = variable.strip_prefix(CREDENTIALS).and_then(|rest| rest.strip_prefix('/'));
        match (name, self.credentials) {
            (None | Some(""), _) => {
                problems.add(place, "begins with $", "only $CREDENTIALS_DIRECTORY/NAME is expanded; write any other path in full");
                None
            }
            (Some(name), _) if Path::new(name).components().any(|part| !matches!(part, std::path::Component::Normal(_))) => {
                problems.add(place, "leaves the folder of credentials", "write $CREDENTIALS_DIRECTORY/ and the name of a credential");
                None
            }
            (Some(_), None) => {
                problems.add(
                    place,
                    "$CREDENTIALS_DIRECTORY is not set",
                    "start under systemd with LoadCredential=, or write the path in full",
                );
                None
            }
            (Some(name), Some(folder)) => Some(folder.join(name)),
        }
    }
}
