//! Listeners: where requests come in, what is served there, and how callers are known.
//!
//! In scope: which combinations are safe. Out of scope: binding, TLS, authenticating.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::error::{Place, Problems};
use super::names::Folders;
use super::raw::{RawListener, RawTls};

/// Longest path of a Unix socket in bytes: 108 in Linux with the closing NUL (unix(7)).
const LONGEST_SOCKET_PATH: usize = 107;
/// Mode of a Unix socket unless the file says otherwise: the daemon's user and group may connect.
pub const SOCKET_MODE: u32 = 0o660;
/// Most listeners: each has a task and a socket of its own.
const MOST_LISTENERS: usize = 32;

/// One place where requests come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Where.
    pub bind: Bind,
    /// The server's certificate, for TCP alone.
    pub tls: Option<TlsFiles>,
    /// What is served here; never empty, [`Surface::Admin`] only alone, and [`Surface::Log`] never beside [`Surface::Sign`].
    pub serves: BTreeSet<Surface>,
    /// How callers are known: never empty where [`Surface::Sign`] or [`Surface::Admin`] is served; where [`Surface::Log`] is, empty means that
    /// whoever connects may read it; else empty.
    pub callers: BTreeSet<CallerKind>,
    /// The operator says that a proxy in front ends TLS.
    pub behind_tls_proxy: bool,
    /// File mode of a Unix socket.
    pub socket_mode: u32,
}

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Bind {
    /// A Unix socket.
    Unix(PathBuf),
    /// A TCP socket.
    Tcp(SocketAddr),
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => address.fmt(f),
        }
    }
}

/// The files of a server certificate. Their contents load again without a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate chain, PEM.
    pub cert: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
}

/// A group of routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Surface {
    /// JWKS and discovery: for everyone.
    Public,
    /// Signing.
    Sign,
    /// The operators' verbs.
    Admin,
    /// Health and metrics: for everyone who can connect.
    Ops,
    /// The key log. It names operators, so that to list it is to publish them.
    Log,
}

impl Surface {
    const ALL: [Self; 5] = [Self::Public, Self::Sign, Self::Admin, Self::Ops, Self::Log];

    /// The name in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Sign => "sign",
            Self::Admin => "admin",
            Self::Ops => "ops",
            Self::Log => "log",
        }
    }
}

/// How a caller is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CallerKind {
    /// By the credentials of a Unix socket's peer.
    Unix,
    /// By a bearer token.
    Bearer,
}

impl CallerKind {
    const ALL: [Self; 2] = [Self::Unix, Self::Bearer];

    /// The name in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unix => "unix",
            Self::Bearer => "bearer",
        }
    }
}

/// Reads all listeners.
pub(super) fn listeners(raw: Vec<RawListener>, folders: Folders<'_>, problems: &mut Problems<'_>) -> Vec<Listener> {
    let top = Place::of("listener");
    if raw.is_empty() {
        problems.add(&top, "is missing", "add [[listener]] with bind and serves: nothing would be served");
    }
    if raw.len() > MOST_LISTENERS {
        problems.add(&top, format!("there are {}", raw.len()), format!("have at most {MOST_LISTENERS}"));
    }
    let mut listeners: Vec<Listener> = Vec::new();
    for (index, raw) in raw.into_iter().take(MOST_LISTENERS).enumerate() {
        let at = top.index(index);
        let Some(listener) = listener(raw, folders, &at, problems) else { continue };
        if listeners.iter().any(|other| other.bind == listener.bind) {
            problems.add(&at.key("bind"), format!("{} is bound twice", listener.bind), "give each listener an address of its own");
        }
        listeners.push(listener);
    }
    listeners
}

fn listener(raw: RawListener, folders: Folders<'_>, at: &Place, problems: &mut Problems<'_>) -> Option<Listener> {
    let bind = bind(raw.bind.as_deref(), folders, &at.key("bind"), problems);
    let tls = raw.tls.map(|tls| tls_files(&tls, folders, &at.key("tls"), problems));
    let serves = words(&raw.serves.unwrap_or_default(), &Surface::ALL.map(|s| (s.as_str(), s)), &at.key("serves"), problems);
    let known = CallerKind::ALL.map(|kind| (kind.as_str(), kind));
    let callers = words(&raw.callers.unwrap_or_default(), &known, &at.key("callers"), problems);
    let mode = socket_mode(raw.socket_mode.as_deref(), bind.as_ref(), &at.key("socket_mode"), problems);
    // `None` within: the setting is there, but wrong, and that is told.
    let tls = match tls {
        Some(files) => Some(files?),
        None => None,
    };
    let (serves, callers) = (serves?, callers?);
    let listener = Listener { bind: bind?, tls, serves, callers, behind_tls_proxy: raw.behind_tls_proxy, socket_mode: mode };
    check_serves(&listener, at, problems);
    check_callers(&listener, at, problems);
    match listener.bind {
        Bind::Unix(_) => check_unix(&listener, at, problems),
        Bind::Tcp(address) => check_tcp(&listener, address, at, problems),
    }
    Some(listener)
}

fn bind(text: Option<&str>, folders: Folders<'_>, place: &Place, problems: &mut Problems<'_>) -> Option<Bind> {
    let remedy = "write unix:PATH, or an IP address and a port such as 127.0.0.1:8080";
    let text = problems.required(text, place, remedy)?;
    if let Some(path) = text.strip_prefix("unix:") {
        let path = folders.path(path, place, problems)?;
        if path.as_os_str().len() > LONGEST_SOCKET_PATH {
            problems.add(place, "is too long for a Unix socket", format!("choose a path of at most {LONGEST_SOCKET_PATH} bytes"));
        }
        return Some(Bind::Unix(path));
    }
    let address = text.parse().ok().map(Bind::Tcp);
    if address.is_none() {
        problems.add(place, format!("{text:?} is not an address"), remedy);
    }
    address
}

fn tls_files(raw: &RawTls, folders: Folders<'_>, at: &Place, problems: &mut Problems<'_>) -> Option<TlsFiles> {
    let mut file = |text: &Option<String>, name| {
        let place = at.key(name);
        let text = problems.required(text.as_deref(), &place, "name a PEM file")?;
        folders.path(text, &place, problems)
    };
    let (cert, key) = (file(&raw.cert, "cert"), file(&raw.key, "key"));
    Some(TlsFiles { cert: cert?, key: key? })
}

fn words<T: Copy + Ord>(given: &[String], known: &[(&str, T)], place: &Place, problems: &mut Problems<'_>) -> Option<BTreeSet<T>> {
    let mut all = BTreeSet::new();
    let mut right = true;
    for (index, word) in given.iter().enumerate() {
        let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        match known.iter().find(|(name, _)| name == word) {
            Some((_, value)) if all.insert(*value) => {}
            Some(_) => problems.add(&place.index(index), format!("{word:?} stands here twice"), "remove one"),
            None => {
                problems.add(&place.index(index), format!("{word:?} is not known"), format!("write one of {}", names.join(", ")));
                right = false;
            }
        }
    }
    right.then_some(all)
}

fn socket_mode(text: Option<&str>, bind: Option<&Bind>, place: &Place, problems: &mut Problems<'_>) -> u32 {
    let Some(text) = text else { return SOCKET_MODE };
    if matches!(bind, Some(Bind::Tcp(_))) {
        problems.add(place, "is for Unix sockets", "remove it");
        return SOCKET_MODE;
    }
    // To connect is to write (unix(7)): a socket that even its owner cannot write serves nobody.
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| text.len() == 4 && text.starts_with('0') && mode & 0o200 != 0);
    if mode.is_none() {
        problems.add(place, format!("{text:?} is not a mode"), "write four octal digits such as \"0660\", writable by the owner");
    }
    mode.unwrap_or(SOCKET_MODE)
}

fn check_serves(listener: &Listener, at: &Place, problems: &mut Problems<'_>) {
    let place = at.key("serves");
    if listener.serves.is_empty() {
        problems.add(&place, "is missing or empty", "list one or more of public, sign, admin, ops, log");
    }
    if listener.serves.contains(&Surface::Admin) && listener.serves.len() > 1 {
        problems.add(&place, "admin shares a listener", "give admin a listener of its own");
    } else if [Surface::Sign, Surface::Log].iter().all(|surface| listener.serves.contains(surface)) {
        problems.add(&place, "log stands beside sign", "give log a listener of its own, or put it beside public or ops");
    }
}

fn check_callers(listener: &Listener, at: &Place, problems: &mut Problems<'_>) {
    let place = at.key("callers");
    let asks = listener.serves.contains(&Surface::Sign) || listener.serves.contains(&Surface::Admin);
    if asks && listener.callers.is_empty() {
        problems.add(&place, "is missing: sign and admin answer to known callers alone", "list unix or bearer");
    }
    let may_ask = asks || listener.serves.contains(&Surface::Log);
    if !may_ask && !listener.callers.is_empty() && !listener.serves.is_empty() {
        problems.add(&place, "public and ops ask nobody who they are", "remove it");
    }
}

fn check_unix(listener: &Listener, at: &Place, problems: &mut Problems<'_>) {
    if listener.tls.is_some() {
        problems.add(&at.key("tls"), "is for TCP", "remove it");
    }
    if listener.behind_tls_proxy {
        problems.add(&at.key("behind_tls_proxy"), "is for TCP", "remove it");
    }
    if listener.callers.len() > 1 {
        let problem = "every request over a Unix socket has a Unix identity, and one with two identities is refused";
        problems.add(&at.key("callers"), problem, "list one of unix and bearer");
    }
}

fn check_tcp(listener: &Listener, address: SocketAddr, at: &Place, problems: &mut Problems<'_>) {
    let plain = listener.tls.is_none();
    let remote = !address.ip().to_canonical().is_loopback();
    if listener.callers.contains(&CallerKind::Unix) {
        problems.add(&at.key("callers"), "unix callers come over Unix sockets", "bind to unix:PATH, or list bearer");
    }
    if plain && remote && !listener.behind_tls_proxy {
        let remedy = "add tls = { cert, key }, bind to loopback, or write behind_tls_proxy = true if a proxy ends TLS";
        problems.add(&at.key("bind"), format!("plain HTTP on {address} leaves this machine"), remedy);
    }
    if plain && remote && listener.callers.contains(&CallerKind::Bearer) {
        let problem = format!("bearer tokens would cross the network in the clear on {address}");
        problems.add(&at.key("callers"), problem, "add tls = { cert, key }, or bind to loopback");
    }
    if plain && listener.serves.contains(&Surface::Admin) {
        problems.add(&at.key("serves"), "admin on TCP needs TLS", "add tls = { cert, key }, or bind to unix:PATH");
    }
    if !plain && listener.behind_tls_proxy {
        problems.add(&at.key("behind_tls_proxy"), "this listener ends TLS itself", "remove it, or remove tls");
    }
}
