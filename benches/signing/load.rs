//! Load: keep-alive connections that send the same request again and again, one at a time each.
//!
//! In scope: as little client as HTTP/1.1 allows, since it runs on the same cores: prebuilt bytes, one write, one read. Out of scope: TLS,
//! pipelining, and any answer but 200, which ends the run.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use claviger::clock::{Clock, Monotonic, SystemClock};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::Builder;
use tokio::task::JoinSet;

use crate::Outcome;
use crate::common::cpu;
use crate::common::table::{self, count};

/// Most requests of one connection in one measurement, so that a run is bounded in count as well as in time.
const MOST_REQUESTS: usize = 100_000;
/// Largest answer: a batch of RS256 tokens has a tenth of it.
const MOST_BYTES: usize = 1 << 20;
/// How long a single request may take outside of measurements.
const PATIENCE: Duration = Duration::from_secs(10);

/// What was measured.
#[derive(Clone, Debug, Default)]
pub(crate) struct Load {
    /// Answers.
    pub(crate) count: usize,
    /// From the first request to the last answer.
    pub(crate) wall: Duration,
    /// CPU time of client and server together.
    pub(crate) cpu: Duration,
    /// CPU time of everything else on the machine.
    pub(crate) others: Duration,
    /// Sorted.
    latencies: Vec<Duration>,
}

impl Load {
    /// Answers per second.
    pub(crate) fn rate(&self) -> f64 {
        count(self.count) / self.wall.as_secs_f64()
    }

    /// Seconds of CPU per answer, client included.
    pub(crate) fn cpu_each(&self) -> f64 {
        self.cpu.as_secs_f64() / count(self.count)
    }

    /// The latency in seconds that a share of the answers kept.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        table::quantile(&self.latencies, share)
    }

    /// Which share of all cores others used.
    pub(crate) fn others_share(&self) -> f64 {
        self.others.as_secs_f64() / (self.wall.as_secs_f64() * count(cpu::cores()))
    }
}

/// The bytes of a GET request.
pub(crate) fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench/1\r\n\r\n").into_bytes()
}

/// The bytes of a POST request with a bearer token.
pub(crate) fn post(path: &str, bearer: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench/1\r\nAuthorization: Bearer {bearer}\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// One request on a connection of its own: the head and the body of its answer, which must be 200.
pub(crate) fn once(address: SocketAddr, request: &[u8]) -> Outcome<(String, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(request)?;
    let mut answer = Vec::new();
    let mut piece = [0; 8192];
    loop {
        let read = stream.read(&mut piece)?;
        answer.extend_from_slice(&piece[..read]);
        match whole(&answer)? {
            Some(body) => {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                return Ok((text(&answer[..body]), text(&answer[body..])));
            }
            None if read == 0 => return Err("the connection was closed".into()),
            None => {}
        }
    }
}

/// Sends `request` over `connections` connections for `span`. `server` is the process that answers, if it is not this one.
pub(crate) fn run((address, server): (SocketAddr, Option<u32>), request: &[u8], connections: usize, span: Duration) -> Outcome<Load> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let clock = Arc::new(SystemClock::start());
    let request: Arc<[u8]> = Arc::from(request);
    runtime.block_on(async {
        let mut streams = Vec::new();
        for _ in 0..connections {
            let stream = tokio::net::TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            streams.push(stream);
        }
        let used = || Outcome::Ok(cpu::of_process(std::process::id())? + server.map_or(Ok(Duration::ZERO), cpu::of_process)?);
        let (own_before, all_before) = (used()?, cpu::of_machine()?);
        let begun = clock.monotonic();
        let until = begun.plus(span);
        let mut tasks = JoinSet::new();
        for stream in streams {
            tasks.spawn(converse(stream, request.clone(), clock.clone(), until));
        }
        let mut latencies = Vec::new();
        for each in tasks.join_all().await {
            latencies.extend(each?);
        }
        let wall = clock.monotonic().since(begun);
        let (own, all) = (used()?.saturating_sub(own_before), cpu::of_machine()?.saturating_sub(all_before));
        latencies.sort_unstable();
        Ok(Load { count: latencies.len(), wall, cpu: own, others: all.saturating_sub(own), latencies })
    })
}

async fn converse(
    mut stream: tokio::net::TcpStream,
    request: Arc<[u8]>,
    clock: Arc<SystemClock>,
    until: Monotonic,
) -> Outcome<Vec<Duration>> {
    let mut latencies = Vec::new();
    let mut answer = Vec::with_capacity(8192);
    let mut sent = clock.monotonic();
    while sent < until && latencies.len() < MOST_REQUESTS {
        stream.write_all(&request).await?;
        answer.clear();
        while whole(&answer)?.is_none() {
            if stream.read_buf(&mut answer).await? == 0 {
                return Err("the server closed a connection".into());
            }
        }
        let now = clock.monotonic();
        latencies.push(now.since(sent));
        sent = now;
    }
    Ok(latencies)
}

/// Where the body of a whole answer begins; `None` while some of it is missing.
fn whole(answer: &[u8]) -> Outcome<Option<usize>> {
    let Some(head) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { return Ok(None) };
    let body = head + 4;
    let text = str::from_utf8(&answer[..head])?;
    if !text.starts_with("HTTP/1.1 200 ") {
        return Err(format!("an answer was not 200:\n{}", String::from_utf8_lossy(answer)).into());
    }
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")).ok_or("an answer has no content-length")?;
    let length: usize = length.parse()?;
    if length > MOST_BYTES {
        return Err(format!("an answer has {length} bytes").into());
    }
    Ok((answer.len() >= body + length).then_some(body))
}
