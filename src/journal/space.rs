//! Room on the disk that holds the logs: how much there is, and when to warn.
//!
//! In scope: the thresholds, and one warning per crossing, however often somebody looks. Out of scope: what a log does when the disk is full
//! (`file`), and who reads the warnings.

use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Below this much free space, in percent, an operator should make room.
pub const LOW_PERCENT: u8 = 20;
/// Below this much, soon.
pub const VERY_LOW_PERCENT: u8 = 10;
/// Room counts as regained only this many percent above a threshold, so that a disk that hovers there is not a warning a second.
const REGAINED_PERCENT: u8 = 1;

/// A file system's space, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// What this user may still write.
    pub free: u64,
    /// All there is.
    pub size: u64,
}

impl Space {
    /// Of the file system that holds this folder.
    pub fn of(folder: &Path) -> io::Result<Self> {
        let disk = rustix::fs::statvfs(folder)?;
        let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
        Ok(Self { free: bytes(disk.f_bavail), size: bytes(disk.f_blocks) })
    }

    /// The free part, from 0 to 1. A file system without blocks has no room.
    #[expect(clippy::cast_precision_loss, reason = "a ratio for people; 53 bits are enough")]
    pub fn ratio(self) -> f64 {
        self.free as f64 / self.size.max(1) as f64
    }

    /// The free part in whole percent, rounded down.
    pub fn percent(self) -> u8 {
        u8::try_from(u128::from(self.free) * 100 / u128::from(self.size.max(1))).unwrap_or(100)
    }

    /// Whether there is enough.
    pub fn room(self) -> Room {
        self.room_above(0)
    }

    fn room_above(self, percent: u8) -> Room {
        let below = |threshold: u8| u128::from(self.free) * 100 < u128::from(self.size.max(1)) * u128::from(threshold + percent);
        if below(VERY_LOW_PERCENT) {
            Room::VeryLow
        } else if below(LOW_PERCENT) {
            Room::Low
        } else {
            Room::Enough
        }
    }
}

/// How much room there is, from good to bad.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Room {
    /// Enough.
    #[default]
    Enough,
    /// Less than [`LOW_PERCENT`].
    Low,
    /// Less than [`VERY_LOW_PERCENT`].
    VeryLow,
}

/// Remembers what was last seen.
#[derive(Debug, Default)]
pub struct SpaceWatch(Mutex<(Room, Option<Space>)>);

impl SpaceWatch {
    /// Takes note of what is free now; the new state of the room, if a threshold was crossed.
    pub fn see(&self, space: Space) -> Option<Room> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = seen.0;
        let room = space.room().max(before.min(space.room_above(REGAINED_PERCENT)));
        *seen = (room, Some(space));
        (room != before).then_some(room)
    }

    /// What was last seen; `None` before the first look.
    pub fn last(&self) -> Option<Space> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_crossing_is_told_once() {
        let watch = SpaceWatch::default();
        let see = |per_mille: u64| watch.see(Space { free: per_mille * 1000, size: 1_000_000 });
        let steps = [
            (500, None),
            (200, None),
            (199, Some(Room::Low)),
            (150, None),
            // Hovering around a threshold is one crossing.
            (201, None),
            (199, None),
            (99, Some(Room::VeryLow)),
            (0, None),
            (105, None),
            (110, Some(Room::Low)),
            (209, None),
            (210, Some(Room::Enough)),
            // From one end to the other at once.
            (10, Some(Room::VeryLow)),
            (900, Some(Room::Enough)),
        ];
        for (step, (per_mille, expected)) in steps.into_iter().enumerate() {
            assert_eq!(see(per_mille), expected, "step {step}: {per_mille} per mille free");
        }
        assert_eq!(watch.last(), Some(Space { free: 900_000, size: 1_000_000 }));
    }

    #[test]
    fn a_disk_without_blocks_has_no_room_and_a_huge_one_does_not_overflow() {
        assert_eq!((Space { free: 0, size: 0 }).room(), Room::VeryLow);
        assert_eq!((Space { free: u64::MAX, size: u64::MAX }).room(), Room::Enough);
        assert!((Space { free: 1, size: 4 }.ratio() - 0.25).abs() < f64::EPSILON);
        assert_eq!((Space { free: 99, size: 1000 }.percent(), Space { free: u64::MAX, size: u64::MAX }.percent()), (9, 100));
    }

    #[test]
    fn the_machine_says_how_much_there_is() {
        let folder = tempfile::tempdir().unwrap();
        let space = Space::of(folder.path()).unwrap();
        assert!(space.size > 0 && space.free <= space.size, "{space:?}");
        assert!(Space::of(Path::new("/nowhere/at/all")).is_err());
    }
}
