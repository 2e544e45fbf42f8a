//! Tiles (C2SP tlog-tiles): the addresses and bytes under which a log's hashes and records are served.
//!
//! In scope: paths both ways, which tiles a tree of a given size has, hash tiles from leaf hashes, entry bundles both ways. Out of scope:
//! serving and fetching them, and checking that they lead to a signed root (`merkle`, `checkpoint`).

use std::fmt;
use std::str::FromStr;

use crate::merkle::{Frontier, Hash};

/// Hashes, or records, in a full tile.
pub const WIDTH: u16 = 256;
/// The highest level that the specification allows; a tree of 2^64 leaves needs no more than 8.
pub const MAX_LEVEL: u8 = 63;
/// The longest record of a bundle, in bytes: its length is a uint16.
pub const LONGEST_ENTRY: usize = u16::MAX as usize;

/// How many bits of a leaf's index one level takes.
const BITS: u32 = 8;

/// What a tile holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Content {
    /// Hashes of complete subtrees with `256^level` leaves each; level 0 holds leaf hashes.
    Hashes {
        /// From 0 to [`MAX_LEVEL`].
        level: u8,
    },
    /// The records themselves: an entry bundle.
    Entries,
}

/// The address of a tile, relative to the log's prefix: `tile/<level>/<index>[.p/<width>]`, or `entries` in place of the level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tile {
    content: Content,
    index: u64,
    width: u16,
}

/// Text that is not the one spelling of a tile's address.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a tile's address (C2SP tlog-tiles): tile/<level>/<index>[.p/<width>] or tile/entries/<index>[.p/<width>]")]
pub struct BadTile;

/// Why bytes are not an entry bundle, or records cannot become one.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BundleError {
    /// A record is too long for its length prefix.
    #[error("record {0} of the bundle has more than {LONGEST_ENTRY} bytes")]
    TooLong(usize),
    /// The bytes end within a record.
    #[error("the bundle ends within record {0}: it was cut off")]
    CutOff(usize),
    /// Another number of records than the address says.
    #[error("the bundle has {found} records; its address says {expected}")]
    Count {
        /// What the address says.
        expected: u16,
        /// How many there are; one more than expected stands for any larger number.
        found: usize,
    },
}

impl Tile {
    /// An address; `None` if the level is beyond [`MAX_LEVEL`], or the width is not from 1 to [`WIDTH`].
    pub fn new(content: Content, index: u64, width: u16) -> Option<Self> {
        let level_fits = !matches!(content, Content::Hashes { level } if level > MAX_LEVEL);
        (level_fits && (1..=WIDTH).contains(&width)).then_some(Self { content, index, width })
    }

    /// What it holds.
    pub fn content(&self) -> Content {
        self.content
    }

    /// Its place among the tiles of its level, from 0.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// How many hashes or records it holds, from 1 to [`WIDTH`].
    pub fn width(&self) -> u16 {
        self.width
    }

    /// The first hash or record of its level that it holds.
    pub fn first(&self) -> Option<u64> {
        self.index.checked_mul(u64::from(WIDTH))
    }

    /// Whether a tree of `size` leaves has it, wholly. A narrower tile than the tree's own is part of it too: of an earlier tree.
    pub fn is_within(&self, size: u64) -> bool {
        let level = match self.content {
            Content::Hashes { level } => level,
            Content::Entries => 0,
        };
        let subtrees = size.checked_shr(BITS * u32::from(level)).unwrap_or(0);
        self.first().and_then(|first| first.checked_add(u64::from(self.width))).is_some_and(|end| end <= subtrees)
    }
}

/// Every tile of a tree of `size` leaves: for each level the full ones, then at most one partial, then the entry bundles.
pub fn of_tree(size: u64) -> impl Iterator<Item = Tile> {
    let levels = (0..=MAX_LEVEL).map_while(move |level| {
        let subtrees = size.checked_shr(BITS * u32::from(level)).filter(|subtrees| *subtrees > 0)?;
        Some((Content::Hashes { level }, subtrees))
    });
    levels.chain((size > 0).then_some((Content::Entries, size))).flat_map(|(content, count)| {
        let (full, rest) = (count / u64::from(WIDTH), count % u64::from(WIDTH));
        let last = u16::try_from(rest).ok().and_then(|width| Tile::new(content, full, width));
        (0..full).map(move |index| Tile { content, index, width: WIDTH }).chain(last)
    })
}

impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.content {
            Content::Hashes { level } => write!(f, "tile/{level}/")?,
            Content::Entries => f.write_str("tile/entries/")?,
        }
        let mut groups = vec![self.index % 1000];
        let mut rest = self.index / 1000;
        while rest > 0 {
            groups.push(rest % 1000);
            rest /= 1000;
        }
        let last = groups.remove(0);
        groups.iter().rev().try_for_each(|group| write!(f, "x{group:03}/"))?;
        write!(f, "{last:03}")?;
        if self.width < WIDTH { write!(f, ".p/{}", self.width) } else { Ok(()) }
    }
}

impl FromStr for Tile {
    type Err = BadTile;

    fn from_str(text: &str) -> Result<Self, BadTile> {
        let tile = parse(text).ok_or(BadTile)?;
        // One spelling alone: whatever has leading zeros, or more groups than it needs, comes out in another way.
        if tile.to_string() == text { Ok(tile) } else { Err(BadTile) }
    }
}

fn parse(text: &str) -> Option<Tile> {
    let (level, rest) = text.strip_prefix("tile/")?.split_once('/')?;
    let content = if level == "entries" { Content::Entries } else { Content::Hashes { level: number(level)? } };
    let (path, width) = match rest.split_once(".p/") {
        Some((path, width)) => (path, number(width).filter(|width: &u16| *width < WIDTH)?),
        None => (rest, WIDTH),
    };
    let mut index = 0_u64;
    let mut groups = path.split('/').peekable();
    while let Some(group) = groups.next() {
        let digits = if groups.peek().is_some() { group.strip_prefix('x')? } else { group };
        let three: u64 = number(digits).filter(|_| digits.len() == 3)?;
        index = index.checked_mul(1000)?.checked_add(three)?;
    }
    Tile::new(content, index, width)
}

/// Digits alone: `parse` takes a plus sign too.
fn number<N: FromStr>(digits: &str) -> Option<N> {
    digits.parse().ok().filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The hashes that the tiles of a growing tree hold: leaf hashes, and the roots of complete subtrees of 256, 65,536 and so on.
/// About 32 bytes a leaf.
#[derive(Clone, Debug, Default)]
pub struct HashTiles {
    levels: Vec<Vec<Hash>>,
}

impl HashTiles {
    /// The hashes of a tree without leaves.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many leaves there are.
    pub fn size(&self) -> u64 {
        self.levels.first().map_or(0, |leaves| leaves.len() as u64)
    }

    /// All leaf hashes, in order.
    pub fn leaves(&self) -> &[Hash] {
        self.levels.first().map(Vec::as_slice).unwrap_or_default()
    }

    /// Appends a leaf. A tile that is full becomes one hash of the level above.
    pub fn push(&mut self, leaf: Hash) {
        let mut next = Some(leaf);
        for level in 0.. {
            let Some(hash) = next.take() else { return };
            if self.levels.len() == level {
                self.levels.push(Vec::new());
            }
            let hashes = &mut self.levels[level];
            hashes.push(hash);
            if hashes.len().is_multiple_of(usize::from(WIDTH)) {
                next = Some(root_of(&hashes[hashes.len() - usize::from(WIDTH)..]));
            }
        }
    }

    /// The root of the tree.
    pub fn root(&self) -> Hash {
        let mut frontier = Frontier::new();
        for (level, hashes) in self.levels.iter().enumerate().rev() {
            // What stands in full tiles is in the level above already.
            let open = hashes.len() - hashes.len() % usize::from(WIDTH);
            let height = BITS * u32::try_from(level).unwrap_or(u32::MAX);
            hashes[open..].iter().for_each(|hash| frontier.push_subtree(height, *hash));
        }
        frontier.root()
    }

    /// The bytes of a hash tile: its hashes one after the other. `None` if the tree does not have it, or it is a bundle.
    pub fn tile(&self, tile: &Tile) -> Option<Vec<u8>> {
        let Content::Hashes { level } = tile.content() else { return None };
        let hashes = self.levels.get(usize::from(level))?;
        let first = usize::try_from(tile.first()?).ok()?;
        let held = hashes.get(first..first.checked_add(usize::from(tile.width()))?)?;
        Some(held.iter().flat_map(|hash| *hash.as_bytes()).collect())
    }
}

impl Extend<Hash> for HashTiles {
    fn extend<T: IntoIterator<Item = Hash>>(&mut self, leaves: T) {
        leaves.into_iter().for_each(|leaf| self.push(leaf));
    }
}

fn root_of(hashes: &[Hash]) -> Hash {
    let mut frontier = Frontier::new();
    frontier.extend(hashes.iter().copied());
    frontier.root()
}

/// An entry bundle: each record with its length before it, as a big-endian uint16.
pub fn encode_bundle<'r>(records: impl IntoIterator<Item = &'r [u8]>) -> Result<Vec<u8>, BundleError> {
    let mut bytes = Vec::new();
    for (index, record) in records.into_iter().enumerate() {
        let length = u16::try_from(record.len()).map_err(|_| BundleError::TooLong(index))?;
        bytes.extend(length.to_be_bytes());
        bytes.extend_from_slice(record);
    }
    Ok(bytes)
}

/// The records of an entry bundle that must hold `width` of them.
pub fn decode_bundle(bytes: &[u8], width: u16) -> Result<Vec<&[u8]>, BundleError> {
    let mut records = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() && records.len() <= usize::from(width) {
        let cut_off = BundleError::CutOff(records.len());
        let Some((length, after)) = rest.split_first_chunk::<2>() else { return Err(cut_off) };
        let Some((record, after)) = after.split_at_checked(usize::from(u16::from_be_bytes(*length))) else { return Err(cut_off) };
        records.push(record);
        rest = after;
    }
    let found = records.len();
    if found == usize::from(width) { Ok(records) } else { Err(BundleError::Count { expected: width, found }) }
}

#[cfg(test)]
mod tests;
