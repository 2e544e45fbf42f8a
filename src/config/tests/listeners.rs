//! One test for each refusal of a listener, with its words.

use super::*;

/// Replaces the last listener.
fn listener(text: &str) -> String {
    with("bind = \"127.0.0.1:9090\"\nserves = [\"ops\"]", text)
}

#[test]
fn a_listener_binds_to_one_address() {
    let remedy = "write unix:PATH, or an IP address and a port such as 127.0.0.1:8080";
    assert_eq!(errors_of(&listener("serves = ['ops']")), [format!("listener[3].bind: is missing; {remedy}")]);
    assert_eq!(
        errors_of(&listener("bind = 'localhost:80'\nserves = ['ops']")),
        [format!("listener[3].bind: \"localhost:80\" is not an address; {remedy}")]
    );
}

#[test]
fn two_listeners_do_not_share_an_address() {
    assert_eq!(
        errors_of(&listener("bind = 'unix:/run/claviger/sign.sock'\nserves = ['ops']")),
        ["listener[3].bind: unix:/run/claviger/sign.sock is bound twice; give each listener an address of its own"]
    );
    let long = format!("unix:/{}", "a".repeat(107));
    assert_eq!(
        errors_of(&listener(&format!("bind = '{long}'\nserves = ['ops']"))),
        ["listener[3].bind: is too long for a Unix socket; choose a path of at most 107 bytes"]
    );
}

#[test]
fn a_listener_says_what_and_for_whom() {
    assert_eq!(
        errors_of(&listener("bind = '127.0.0.1:1'")),
        ["listener[3].serves: is missing or empty; list one or more of public, sign, admin, ops, log"]
    );
    assert_eq!(
        errors_of(&listener("bind = '127.0.0.1:1'\nserves = ['jwks']\ncallers = ['mtls']")),
        [
            "listener[3].serves[0]: \"jwks\" is not known; write one of public, sign, admin, ops, log",
            "listener[3].callers[0]: \"mtls\" is not known; write one of unix, bearer",
        ]
    );
    assert_eq!(
        errors_of(&listener("bind = 'unix:a'\nserves = ['admin', 'ops']\ncallers = ['unix']")),
        ["listener[3].serves: admin shares a listener; give admin a listener of its own"]
    );
    assert_eq!(
        errors_of(&listener("bind = 'unix:a'\nserves = ['sign']")),
        ["listener[3].callers: is missing: sign and admin answer to known callers alone; list unix or bearer"]
    );
    assert_eq!(
        errors_of(&listener("bind = 'unix:a'\nserves = ['ops', 'public']\ncallers = ['unix']")),
        ["listener[3].callers: public and ops ask nobody who they are; remove it"]
    );
    assert_eq!(
        errors_of(&listener("bind = 'unix:a'\nserves = ['sign']\ncallers = ['unix', 'bearer']")),
        [
            "listener[3].callers: every request over a Unix socket has a Unix identity, and one with two identities is refused; list one of unix \
          and bearer"
        ]
    );
}

#[test]
fn the_log_is_shown_to_everyone_or_to_known_callers_and_never_beside_signing() {
    let good = [
        "bind = '127.0.0.1:1'\nserves = ['log']",
        "bind = '127.0.0.1:1'\nserves = ['log', 'ops', 'public']",
        "bind = '127.0.0.1:1'\nserves = ['log']\ncallers = ['bearer']",
        "bind = 'unix:a'\nserves = ['log', 'ops']\ncallers = ['unix']",
    ];
    for text in good {
        assert!(parse(&listener(text)).is_ok(), "{text}");
    }
    assert_eq!(
        errors_of(&listener("bind = '127.0.0.1:1'\nserves = ['sign', 'log']\ncallers = ['bearer']")),
        ["listener[3].serves: log stands beside sign; give log a listener of its own, or put it beside public or ops"]
    );
    assert_eq!(
        errors_of(&listener("bind = 'unix:a'\nserves = ['admin', 'log']\ncallers = ['unix']")),
        ["listener[3].serves: admin shares a listener; give admin a listener of its own"]
    );
    let open = "add tls = { cert, key }, bind to loopback, or write behind_tls_proxy = true if a proxy ends TLS";
    assert_eq!(
        errors_of(&listener("bind = '0.0.0.0:80'\nserves = ['log']")),
        [format!("listener[3].bind: plain HTTP on 0.0.0.0:80 leaves this machine; {open}")]
    );
}

#[test]
fn plain_http_does_not_leave_the_machine() {
    let open = "add tls = { cert, key }, bind to loopback, or write behind_tls_proxy = true if a proxy ends TLS";
    assert_eq!(
        errors_of(&listener("bind = '0.0.0.0:80'\nserves = ['public']")),
        [format!("listener[3].bind: plain HTTP on 0.0.0.0:80 leaves this machine; {open}")]
    );
    assert!(parse(&listener("bind = '0.0.0.0:80'\nserves = ['public']\nbehind_tls_proxy = true")).is_ok());
    assert!(parse(&listener("bind = '[::1]:80'\nserves = ['sign']\ncallers = ['bearer']")).is_ok());
    assert_eq!(
        errors_of(&listener("bind = '10.0.0.1:80'\nserves = ['sign']\ncallers = ['bearer']\nbehind_tls_proxy = true")),
        [
            "listener[3].callers: bearer tokens would cross the network in the clear on 10.0.0.1:80; add tls = { cert, key }, or bind to loopback"
        ]
    );
    assert_eq!(
        errors_of(&listener("bind = '127.0.0.1:80'\nserves = ['admin']\ncallers = ['bearer']")),
        ["listener[3].serves: admin on TCP needs TLS; add tls = { cert, key }, or bind to unix:PATH"]
    );
    assert_eq!(
        errors_of(&listener("bind = '127.0.0.1:80'\nserves = ['sign']\ncallers = ['unix']")),
        ["listener[3].callers: unix callers come over Unix sockets; bind to unix:PATH, or list bearer"]
    );
}

#[test]
fn a_setting_that_has_no_effect_is_refused() {
    assert_eq!(
        errors_of(&listener("bind = 'unix:a'\nserves = ['ops']\nbehind_tls_proxy = true\ntls = { cert = 'c', key = 'k' }")),
        ["listener[3].behind_tls_proxy: is for TCP; remove it", "listener[3].tls: is for TCP; remove it"]
    );
    assert_eq!(
        errors_of(&listener("bind = '127.0.0.1:1'\nserves = ['ops']\nbehind_tls_proxy = true\ntls = { cert = 'c', key = 'k' }")),
        ["listener[3].behind_tls_proxy: this listener ends TLS itself; remove it, or remove tls"]
    );
    assert_eq!(
        errors_of(&listener("bind = '127.0.0.1:1'\nserves = ['ops']\nsocket_mode = '0600'\ntls = { cert = 'c' }")),
        ["listener[3].socket_mode: is for Unix sockets; remove it", "listener[3].tls.key: is missing; name a PEM file"]
    );
    assert_eq!(
        errors_of(&listener("bind = 'unix:a'\nserves = ['ops']\nsocket_mode = '660'")),
        ["listener[3].socket_mode: \"660\" is not a mode; write four octal digits such as \"0660\", writable by the owner"]
    );
}
