//! An open loop: requests are sent when their time has come, whether or not those before were answered.
//!
//! In scope: keep-alive connections, latency from the moment at which a request was due, answers 200 and 503. Out of scope: any other answer,
//! which ends the run.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use claviger::clock::{Clock, Monotonic, SystemClock};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::sync::Mutex;
use tokio::sync::mpsc::{self, Receiver};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::Outcome;
use crate::common::cpu;

/// Connections that take turns: more than a full queue keeps waiting, so that the load does not adapt to the daemon.
const CONNECTIONS: usize = 700;
/// How often requests that are due are handed out.
const TICK: Duration = Duration::from_millis(1);

/// What became of what was offered.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    /// How long each signed request took, sorted.
    pub(crate) signed: Vec<Duration>,
    /// How long each refused one took, sorted.
    pub(crate) refused: Vec<Duration>,
    /// How many were due while every connection was waiting.
    pub(crate) unsent: usize,
    /// CPU time of the daemon meanwhile.
    pub(crate) cpu: Duration,
}

/// Offers so many requests a second for `span`.
pub(crate) fn offer((address, daemon): (SocketAddr, u32), request: &[u8], per_second: u32, span: Duration) -> Outcome<Answers> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let clock = Arc::new(SystemClock::start());
    let request: Arc<[u8]> = Arc::from(request);
    runtime.block_on(async {
        let (due, taking) = mpsc::channel(CONNECTIONS);
        let taking = Arc::new(Mutex::new(taking));
        let mut tasks = JoinSet::new();
        for _ in 0..CONNECTIONS {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            tasks.spawn(converse(stream, request.clone(), clock.clone(), taking.clone()));
        }
        let before = cpu::of_process(daemon)?;
        let (begun, mut sent, mut answers) = (clock.monotonic(), 0_u32, Answers::default());
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        while clock.monotonic().since(begun) < span {
            ticks.tick().await;
            while Duration::from_secs(sent.into()) / per_second <= clock.monotonic().since(begun) {
                let at = begun.plus(Duration::from_secs(sent.into()) / per_second);
                answers.unsent += usize::from(due.try_send(at).is_err());
                sent += 1;
            }
        }
        drop(due);
        for each in tasks.join_all().await {
            let (signed, refused) = each?;
            answers.signed.extend(signed);
            answers.refused.extend(refused);
        }
        answers.cpu = cpu::of_process(daemon)?.saturating_sub(before);
        answers.signed.sort_unstable();
        answers.refused.sort_unstable();
        Ok(answers)
    })
}

async fn converse(
    mut stream: TcpStream,
    request: Arc<[u8]>,
    clock: Arc<SystemClock>,
    due: Arc<Mutex<Receiver<Monotonic>>>,
) -> Outcome<(Vec<Duration>, Vec<Duration>)> {
    let (mut signed, mut refused, mut answer) = (Vec::new(), Vec::new(), Vec::with_capacity(8192));
    loop {
        let next = due.lock().await.recv().await;
        let Some(at) = next else { return Ok((signed, refused)) };
        stream.write_all(&request).await?;
        answer.clear();
        while !is_whole(&answer)? {
            if stream.read_buf(&mut answer).await? == 0 {
                return Err("the server closed a connection".into());
            }
        }
        let took = clock.monotonic().since(at);
        match status(&answer) {
            b"200" => signed.push(took),
            b"503" => refused.push(took),
            _ => return Err(format!("neither signed nor refused:\n{}", String::from_utf8_lossy(&answer)).into()),
        }
    }
}

fn status(answer: &[u8]) -> &[u8] {
    answer.get(9..12).unwrap_or_default()
}

fn is_whole(answer: &[u8]) -> Outcome<bool> {
    let Some(head) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { return Ok(false) };
    let text = str::from_utf8(&answer[..head])?;
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")).ok_or("an answer has no content-length")?;
    Ok(answer.len() >= head + 4 + length.parse::<usize>()?)
}
