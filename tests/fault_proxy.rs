//! The fault proxy itself, between a plain client and a plain server, octet by octet: what it forwards, what it withholds, how often.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{HeaderValue, Method, StatusCode};
use hyper::body::Bytes;

use crate::support::proxy::{Act, Match, Proxy, Rule};

mod support;

/// A server that numbers its answers and repeats what it was asked.
struct Upstream {
    address: SocketAddr,
    served: Arc<AtomicUsize>,
}

impl Upstream {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let (address, served) = (listener.local_addr().expect("it is bound"), Arc::new(AtomicUsize::new(0)));
        let count = served.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (line, body) = read_request(&stream);
                let number = count.fetch_add(1, Ordering::AcqRel) + 1;
                let answer = format!("{number}: {line} {body}");
                let head = format!("HTTP/1.1 203 Yes\r\nX-Number: {number}\r\nContent-Length: {}\r\n\r\n", answer.len());
                let _ = (&stream).write_all((head + &answer).as_bytes());
            }
        });
        Self { address, served }
    }

    fn served(&self) -> usize {
        self.served.load(Ordering::Acquire)
    }
}

fn read_request(stream: &TcpStream) -> (String, String) {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first).expect("a request line");
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a header");
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length");
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("the body");
    (first.trim_end().to_owned(), String::from_utf8(body).expect("text"))
}

/// Sends a request and gives everything that comes until the connection ends.
fn ask(proxy: &Proxy, method: &str, path: &str, target: &str, body: &str) -> String {
    let mut stream = begin(proxy, method, path, target, body);
    let mut said = Vec::new();
    let _ = stream.read_to_end(&mut said);
    String::from_utf8(said).expect("text")
}

fn begin(proxy: &Proxy, method: &str, path: &str, target: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(proxy.address()).expect("the proxy listens");
    let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Amz-Target: {target}\r\n");
    write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len()).expect("sent");
    stream
}

fn sign(proxy: &Proxy) -> String {
    ask(proxy, "POST", "/", "TrentService.Sign", "{}")
}

#[test]
fn what_no_rule_is_for_goes_through_whole() {
    let upstream = Upstream::start();
    let proxy = Proxy::before(upstream.address);
    let said = ask(&proxy, "PUT", "/a/b?c=d", "TrentService.Sign", "the body");
    assert!(said.starts_with("HTTP/1.1 203") && said.contains("x-number: 1\r\n"), "{said}");
    assert!(said.ends_with("1: PUT /a/b?c=d HTTP/1.1 the body"), "{said}");
    let asked = proxy.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!((asked[0].path.as_str(), asked[0].operation(), &asked[0].body[..]), ("/a/b?c=d", Some("Sign"), &b"the body"[..]));
}

#[test]
fn a_rule_is_for_what_fits_all_of_it() {
    let upstream = Upstream::start();
    let proxy = Proxy::before(upstream.address);
    let matching = Match::target("Sign").method(Method::POST).path("/v1/").body("needle");
    let rule = proxy.add(Rule::answer(matching, 418, "text/plain", "mine"));
    for (method, path, target, body) in [
        ("PUT", "/v1/x", "TrentService.Sign", "needle"),
        ("POST", "/v2/x", "TrentService.Sign", "needle"),
        ("POST", "/v1/x", "TrentService.Verify", "needle"),
        ("POST", "/v1/x", "TrentService.Sign", "hay"),
    ] {
        assert!(ask(&proxy, method, path, target, body).starts_with("HTTP/1.1 203"), "{method} {path} {target} {body}");
    }
    assert_eq!((rule.acted(), upstream.served()), (0, 4));
    let said = ask(&proxy, "POST", "/v1/x", "TrentService.Sign", "a needle here");
    assert!(said.starts_with("HTTP/1.1 418") && said.ends_with("mine"), "{said}");
    assert_eq!((rule.acted(), upstream.served()), (1, 4), "the server never saw it");
}

#[test]
fn a_rule_skips_and_ends_and_the_newest_acts() {
    let upstream = Upstream::start();
    let proxy = Proxy::before(upstream.address);
    let old = proxy.add(Rule::answer(Match::any(), 500, "text/plain", "old"));
    let new = proxy.add(Rule::answer(Match::any(), 429, "text/plain", "new").skip(1).times(2));
    let said: Vec<String> = (0..4).map(|_| sign(&proxy)[9..12].to_owned()).collect();
    assert_eq!(said, ["500", "429", "429", "500"]);
    assert_eq!((old.acted(), new.acted(), upstream.served()), (2, 2, 0));
    proxy.remove(&old);
    assert!(sign(&proxy).starts_with("HTTP/1.1 203"));
    let counted = proxy.add(Rule::new(Match::any(), Act::Pass));
    proxy.add(Rule::answer(Match::target("Other"), 500, "text/plain", ""));
    assert!(sign(&proxy).starts_with("HTTP/1.1 203"));
    proxy.clear();
    assert!(sign(&proxy).starts_with("HTTP/1.1 203"));
    assert_eq!(counted.acted(), 1);
}

#[test]
fn a_lost_request_was_never_seen_and_a_lost_answer_was() {
    let upstream = Upstream::start();
    let proxy = Proxy::before(upstream.address);
    proxy.add(Rule::new(Match::any(), Act::LoseRequest).times(1));
    assert_eq!((sign(&proxy).as_str(), upstream.served()), ("", 0));
    proxy.add(Rule::new(Match::any(), Act::LoseAnswer).times(1));
    assert_eq!((sign(&proxy).as_str(), upstream.served()), ("", 1));
}

#[test]
fn a_cut_answer_says_how_long_it_would_have_been() {
    let upstream = Upstream::start();
    let proxy = Proxy::before(upstream.address);
    proxy.add(Rule::new(Match::any(), Act::CutAnswer(3)));
    let said = sign(&proxy);
    let whole = "1: POST / HTTP/1.1 {}";
    assert!(said.contains(&format!("content-length: {}\r\n", whole.len())), "{said}");
    assert!(said.ends_with(&format!("\r\n\r\n{}", &whole[..3])), "{said}");
}

#[test]
fn an_older_answer_is_the_first_to_the_very_same_request() {
    let upstream = Upstream::start();
    let proxy = Proxy::before(upstream.address);
    let number = |said: &str| said.split_once("\r\n\r\n").expect("a body").1[..1].to_owned();
    assert_eq!(number(&sign(&proxy)), "1");
    assert_eq!(number(&sign(&proxy)), "2");
    proxy.add(Rule::new(Match::any(), Act::Older));
    assert_eq!(number(&sign(&proxy)), "1");
    assert_eq!(number(&ask(&proxy, "POST", "/", "TrentService.Sign", "another")), "3", "never asked before");
    assert_eq!(upstream.served(), 3);
}

#[test]
fn an_answer_can_be_changed_on_its_way() {
    let upstream = Upstream::start();
    let proxy = Proxy::before(upstream.address);
    let edit = |answer: &mut http::Response<Bytes>| {
        *answer.status_mut() = StatusCode::IM_A_TEAPOT;
        answer.headers_mut().insert("date", HeaderValue::from_static("yesterday"));
        *answer.body_mut() = Bytes::from_static(b"longer than it was, by far, as it seems");
    };
    proxy.add(Rule::new(Match::any(), Act::Edit(Arc::new(edit))));
    let said = sign(&proxy);
    assert!(said.starts_with("HTTP/1.1 418") && said.contains("date: yesterday") && said.ends_with("as it seems"), "{said}");
    assert_eq!(upstream.served(), 1);
}

#[test]
fn who_hangs_is_let_go_when_the_rule_is_taken_away() {
    let upstream = Upstream::start();
    let proxy = Proxy::before(upstream.address);
    let rule = proxy.add(Rule::new(Match::any(), Act::Hang));
    let mut stream = begin(&proxy, "POST", "/", "TrentService.Sign", "{}");
    stream.set_read_timeout(Some(Duration::from_millis(200))).expect("set");
    let error = stream.read(&mut [0; 1]).expect_err("nothing comes");
    assert!(matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut), "{error}");
    stream.set_read_timeout(None).expect("set");
    proxy.remove(&rule);
    assert_eq!((stream.read(&mut [0; 1]).expect("the end"), upstream.served()), (0, 0));
}

#[test]
fn a_delay_ends_by_its_time_or_with_its_rule() {
    let upstream = Upstream::start();
    let proxy = Proxy::before(upstream.address);
    let rule = proxy.add(Rule::new(Match::any(), Act::Delay(Duration::from_hours(1))));
    let mut stream = begin(&proxy, "POST", "/", "TrentService.Sign", "{}");
    stream.set_read_timeout(Some(Duration::from_millis(200))).expect("set");
    assert!(stream.read(&mut [0; 1]).is_err(), "nothing yet");
    assert_eq!(upstream.served(), 0);
    stream.set_read_timeout(None).expect("set");
    proxy.remove(&rule);
    let mut said = String::new();
    stream.read_to_string(&mut said).expect("an answer");
    assert!(said.starts_with("HTTP/1.1 203"), "{said}");

    let rule = proxy.add(Rule::new(Match::any(), Act::Delay(Duration::from_millis(1))));
    assert!(sign(&proxy).starts_with("HTTP/1.1 203"));
    assert_eq!((rule.acted(), upstream.served()), (1, 2));
}
