//! The key log for readers outside: checkpoint, tiles (C2SP tlog-tiles) and records, as far as the newest checkpoint covers them.
//!
//! In scope: what may be shown, and one thread that reads for all who ask, so that a slow disk holds nobody else. Out of scope: who may ask,
//! and HTTP. Nothing is shown that no checkpoint covers: it could still be lost.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use claviger_audit::tiles::{Content, Tile, encode_bundle};
use tokio::sync::oneshot;

use crate::journal::{Checkpointer, FollowError, Pages, Signed};
use crate::refusal::{Code, Refusal};
use crate::witness::Gathering;

/// Most readers that wait at once; each is answered in a millisecond or so.
const MOST_WAITING: usize = 64;
/// Most records of one answer, and its bytes: beyond them the answer ends with a whole record, and the reader asks on from there.
pub const MOST_RECORDS: u64 = 1000;
const MOST_BYTES: usize = 1 << 20;

/// What a reader asks for.
enum Wish {
    Tile(Tile),
    Records { from: u64, limit: u64 },
}

struct Ask {
    wish: Wish,
    reply: oneshot::Sender<Result<Excerpt, Refusal>>,
}

/// A part of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excerpt {
    /// How many records are shown in all.
    pub size: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// Shows the key log. One per daemon that serves it.
pub struct Logbook {
    checkpoints: Checkpointer,
    witnesses: Option<Arc<Gathering>>,
    asks: SyncSender<Ask>,
}

impl Logbook {
    /// Starts the thread that reads; it ends with this value. The index is made when somebody asks for the first time.
    pub fn open(checkpoints: Checkpointer, witnesses: Option<Arc<Gathering>>) -> io::Result<Self> {
        let (asks, queue) = sync_channel(MOST_WAITING);
        let reader = Reader { pages: checkpoints.pages(), checkpoints: checkpoints.clone() };
        std::thread::Builder::new().name("logbook".to_owned()).spawn(move || reader.run(&queue))?;
        Ok(Self { checkpoints, witnesses, asks })
    }

    /// The newest checkpoint, with the cosignatures that it has so far.
    pub fn checkpoint(&self) -> Result<String, Refusal> {
        let newest = newest(&self.checkpoints)?;
        Ok(self.witnesses.as_ref().map_or_else(|| newest.note.clone(), |witnesses| witnesses.note_of(&newest)))
    }

    /// The newest checkpoint that a quorum cosigned.
    pub fn witnessed(&self) -> Result<Arc<str>, Refusal> {
        let none = || Refusal::new(Code::NotFound, "no checkpoint has been cosigned by a quorum of witnesses yet");
        self.witnesses.as_ref().and_then(|witnesses| witnesses.witnessed_note()).ok_or_else(none)
    }

    /// A tile or an entry bundle, if the newest checkpoint covers all of it.
    pub async fn tile(&self, tile: Tile) -> Result<Excerpt, Refusal> {
        self.ask(Wish::Tile(tile)).await
    }

    /// Records from `from` on, each with its LF: at most `limit`, at most [`MOST_RECORDS`], and no more once a mebibyte is reached.
    pub async fn records(&self, from: u64, limit: u64) -> Result<Excerpt, Refusal> {
        self.ask(Wish::Records { from, limit: limit.min(MOST_RECORDS) }).await
    }

    async fn ask(&self, wish: Wish) -> Result<Excerpt, Refusal> {
        let (reply, answer) = oneshot::channel();
        let gone = || Refusal::new(Code::NotReady, "the log is not shown any more; see the daemon's log");
        match self.asks.try_send(Ask { wish, reply }) {
            Ok(()) => answer.await.unwrap_or_else(|_| Err(gone())),
            Err(TrySendError::Full(_)) => Err(Refusal::new(Code::Overloaded, "too many read the log; ask again")),
            Err(TrySendError::Disconnected(_)) => Err(gone()),
        }
    }
}

fn newest(checkpoints: &Checkpointer) -> Result<Arc<Signed>, Refusal> {
    let newest = checkpoints.newest().borrow().clone();
    newest.ok_or_else(|| Refusal::new(Code::NotReady, "the log has no checkpoint yet; ask again"))
}

/// The thread's state.
struct Reader {
    checkpoints: Checkpointer,
    pages: Pages,
}

impl Reader {
    fn run(mut self, queue: &Receiver<Ask>) {
        while let Ok(Ask { wish, reply }) = queue.recv() {
            // Who stopped waiting needs no answer.
            let _ = reply.send(self.answer(&wish));
        }
    }

    fn answer(&mut self, wish: &Wish) -> Result<Excerpt, Refusal> {
        let newest = newest(&self.checkpoints)?;
        let size = newest.size;
        self.pages.extend(size, newest.root).map_err(|error| unreadable(&error))?;
        let bytes = match wish {
            Wish::Tile(tile) if !tile.is_within(size) => {
                return Err(Refusal::new(Code::NotFound, format!("the newest checkpoint covers {size} records, and not all of this tile")));
            }
            Wish::Tile(tile) if tile.content() == Content::Entries => self.bundle(tile)?,
            Wish::Tile(tile) => self.pages.tiles().tile(tile).unwrap_or_default(),
            Wish::Records { from, limit } => {
                let lines = self.pages.lines(*from, *limit, MOST_BYTES).map_err(|error| unreadable(&error))?;
                lines.iter().flat_map(|line| line.iter().copied().chain([b'\n'])).collect()
            }
        };
        Ok(Excerpt { size, bytes })
    }

    fn bundle(&self, tile: &Tile) -> Result<Vec<u8>, Refusal> {
        let first = tile.first().unwrap_or(u64::MAX);
        // Every record of a tile, however long: 16 MiB at the very most.
        let lines = self.pages.lines(first, tile.width().into(), usize::MAX).map_err(|error| unreadable(&error))?;
        let bundle = encode_bundle(lines.iter().map(Vec::as_slice));
        bundle.map_err(|error| Refusal::new(Code::NotReady, format!("the records cannot be bundled: {error}")))
    }
}

fn unreadable(error: &FollowError) -> Refusal {
    tracing::error!(%error, "the key log cannot be shown");
    Refusal::new(Code::NotReady, "the log cannot be read; an operator must look at the daemon's log")
}
