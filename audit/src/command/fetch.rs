//! `--jwks URL`: what is asked of the system's `curl`, and what it answers.
//!
//! In scope: which URLs are opened, the arguments, and taking the answer apart. Out of scope: running it. This package opens no socket and
//! starts no process; whoever calls [`super::run`] brings a [`Fetch`].

use super::Failure;

/// Opens a URL, or says why not.
pub type Fetch<'f> = dyn Fn(&str) -> Result<Fetched, String> + 'f;

/// What is served under a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// The whole body.
    pub body: Vec<u8>,
    /// `Claviger-Log-Size`: how many records of the key log the body was built from.
    pub log_size: Option<u64>,
}

/// The program that a [`Fetch`] runs.
pub const CURL: &str = "curl";

/// Its arguments for a URL. Nothing of the user's own settings counts, and a redirect leads to the same scheme only.
pub fn curl_arguments(url: &str) -> Vec<String> {
    let scheme = if url.starts_with("http://") { "=http" } else { "=https" };
    // --disable must come first.
    let fixed = ["--disable", "--fail", "--silent", "--show-error", "--globoff", "--include", "--location", "--max-redirs", "3"];
    let limits = ["--max-time", "30", "--max-filesize", "1048576", "--proto", scheme, "--url", url];
    fixed.into_iter().chain(limits).map(str::to_owned).collect()
}

/// Takes apart what curl printed: the header of each answer on the way, then the body of the last. `succeeded` is its exit status.
///
/// # Errors
///
/// What curl said, if it failed.
pub fn curl_answer(succeeded: bool, output: &[u8], errors: &[u8]) -> Result<Fetched, String> {
    if !succeeded {
        return Err(String::from_utf8_lossy(errors).trim().to_owned());
    }
    let (mut rest, mut log_size) = (output, None);
    // A JWKS is an object, so a body never looks like another header.
    while rest.starts_with(b"HTTP/") {
        let end = rest.windows(4).position(|four| four == b"\r\n\r\n").ok_or("the answer's header has no end")?;
        log_size = log_size_in(&rest[..end]);
        rest = &rest[end + 4..];
    }
    Ok(Fetched { body: rest.to_vec(), log_size })
}

fn log_size_in(header: &[u8]) -> Option<u64> {
    let header = String::from_utf8_lossy(header);
    let fields = header.lines().filter_map(|line| line.split_once(':'));
    fields.filter(|(name, _)| name.eq_ignore_ascii_case("claviger-log-size")).find_map(|(_, value)| value.trim().parse().ok())
}

/// Whether the text names something to fetch, not a file.
pub(super) fn is_url(text: &str) -> bool {
    text.starts_with("https://") || text.starts_with("http://")
}

/// A URL is opened over TLS, or on this machine: else whoever is on the way could answer for the daemon.
pub(super) fn check_url(url: &str) -> Result<(), Failure> {
    let Some(rest) = url.strip_prefix("http://") else { return Ok(()) };
    let authority = rest.split(['/', '?', '#', '\\']).next().unwrap_or_default();
    let host = match authority.strip_prefix('[') {
        Some(literal) => literal.split_once(']').map_or("", |(host, _)| host),
        None => authority.split_once(':').map_or(authority, |(host, _)| host),
    };
    let octets: Vec<&str> = host.split('.').collect();
    let is_loopback_v4 = octets.len() == 4 && octets[0] == "127" && octets.iter().all(|octet| octet.parse::<u8>().is_ok());
    // A name before an @ is no host.
    let is_loopback = !authority.contains('@') && (host == "localhost" || host == "::1" || is_loopback_v4);
    let text = || format!("{url} would be fetched in the clear; use https, or an address of this machine (127.0.0.1, [::1], localhost)");
    if is_loopback { Ok(()) } else { Err(Failure::Usage(text())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_answer_counts() {
        let output =
            b"HTTP/1.1 302 Found\r\nclaviger-log-size: 7\r\nLocation: /x\r\n\r\nHTTP/2 200 \r\nClaviger-Log-Size: 42\r\n\r\n{\"keys\":[]}";
        assert_eq!(curl_answer(true, output, b""), Ok(Fetched { body: br#"{"keys":[]}"#.to_vec(), log_size: Some(42) }));
        let without = b"HTTP/1.1 200 OK\r\nETag: \"x\"\r\n\r\n{}";
        assert_eq!(curl_answer(true, without, b""), Ok(Fetched { body: b"{}".to_vec(), log_size: None }));
        assert!(curl_answer(true, b"HTTP/1.1 200 OK\r\n", b"").is_err());
        assert_eq!(curl_answer(false, b"", b"curl: (7) refused\n"), Err("curl: (7) refused".to_owned()));
    }

    #[test]
    fn nothing_is_fetched_in_the_clear_from_elsewhere() {
        for good in ["https://a.example/jwks", "http://localhost/x", "http://127.0.0.1:8080/x", "http://[::1]:1/", "http://127.8.9.1"] {
            assert!(is_url(good) && check_url(good).is_ok(), "{good}");
        }
        for bad in [
            "http://a.example/jwks",
            "http://localhost.example/",
            "http://127.0.0.1.example/",
            "http://127.0.0.1@a.example/",
            "http://localhost:x@a.example/",
            "http://[::2]/",
            "http://127.1/",
            "http://",
            "http://a.example\\@localhost/",
        ] {
            assert!(is_url(bad) && check_url(bad).is_err(), "{bad}");
        }
        assert!(!is_url("file:///etc/passwd") && !is_url("-o/tmp/x") && !is_url("jwks.json"));
    }

    #[test]
    fn a_redirect_stays_within_the_scheme() {
        let value = |url: &str| curl_arguments(url).windows(2).find(|two| two[0] == "--proto").map(|two| two[1].clone());
        assert_eq!(value("https://a.example/").as_deref(), Some("=https"));
        assert_eq!(value("http://[::1]/").as_deref(), Some("=http"));
        assert_eq!(curl_arguments("https://a.example/")[0], "--disable");
    }
}
