//! Two or three attacks at once: none hides another.

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::builder::Story;
use super::corpus::{Pair, Truth};

/// An attack on whatever file its numbers choose.
#[derive(Clone, Debug)]
enum Attack {
    Flip(Index, Index, u8),
    Cut(Index, Index),
    DropLine(Index, Index),
    DoubleLine(Index, Index),
    MoveLine(Index, Index, Index),
    CopyLine(Index, Index, Index, Index),
    InsertByte(Index, Index, u8),
    RemoveByte(Index, Index),
    Remove(Index),
    Overwrite(Index, Index),
    Carriage(Index, Index),
}

fn attack() -> impl Strategy<Value = Attack> {
    let place = || any::<Index>();
    prop_oneof![
        4 => (place(), place(), 0_u8..8).prop_map(|(file, byte, bit)| Attack::Flip(file, byte, bit)),
        2 => (place(), place()).prop_map(|(file, length)| Attack::Cut(file, length)),
        2 => (place(), place()).prop_map(|(file, line)| Attack::DropLine(file, line)),
        1 => (place(), place()).prop_map(|(file, line)| Attack::DoubleLine(file, line)),
        2 => (place(), place(), place()).prop_map(|(file, from, to)| Attack::MoveLine(file, from, to)),
        1 => (place(), place(), place(), place()).prop_map(|(a, line, b, to)| Attack::CopyLine(a, line, b, to)),
        2 => (place(), place(), select(b"\0\n\r 0a\"{}\xef\xff".to_vec())).prop_map(|(file, at, byte)| Attack::InsertByte(file, at, byte)),
        2 => (place(), place()).prop_map(|(file, at)| Attack::RemoveByte(file, at)),
        1 => place().prop_map(Attack::Remove),
        1 => (place(), place()).prop_map(|(a, b)| Attack::Overwrite(a, b)),
        1 => (place(), place()).prop_map(|(file, line)| Attack::Carriage(file, line)),
    ]
}

impl Attack {
    fn on(&self, pair: &Pair) -> Pair {
        let names = pair.names("");
        if names.is_empty() {
            return pair.clone();
        }
        let name = |index: &Index| index.get(&names).as_str();
        let bytes = |file: &Index, change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = pair.bytes(name(file)).to_vec();
            if !bytes.is_empty() {
                change(&mut bytes);
            }
            pair.with(name(file), &bytes)
        };
        let lines = |file: &Index, change: &dyn Fn(&mut Vec<Vec<u8>>)| {
            pair.with_lines(name(file), |lines| {
                if !lines.is_empty() {
                    change(lines);
                }
            })
        };
        match self {
            Self::Flip(file, byte, bit) => bytes(file, &|bytes| {
                let at = byte.index(bytes.len());
                bytes[at] ^= 1 << bit;
            }),
            Self::Cut(file, length) => bytes(file, &|bytes| bytes.truncate(length.index(bytes.len()))),
            Self::InsertByte(file, at, byte) => bytes(file, &|bytes| bytes.insert(at.index(bytes.len()), *byte)),
            Self::RemoveByte(file, at) => bytes(file, &|bytes| _ = bytes.remove(at.index(bytes.len()))),
            Self::DropLine(file, line) => lines(file, &|lines| drop(lines.remove(line.index(lines.len())))),
            Self::DoubleLine(file, line) => {
                lines(file, &|lines| lines.insert(line.index(lines.len()), lines[line.index(lines.len())].clone()))
            }
            Self::MoveLine(file, from, to) => lines(file, &|lines| {
                let line = lines.remove(from.index(lines.len()));
                lines.insert(to.index(lines.len() + 1), line);
            }),
            Self::CopyLine(from, line, file, to) => {
                let source = pair.lines(name(from));
                lines(file, &|lines| {
                    if !source.is_empty() {
                        lines.insert(to.index(lines.len()), line.get(&source).clone());
                    }
                })
            }
            Self::Carriage(file, line) => lines(file, &|lines| {
                let index = line.index(lines.len());
                let line = &mut lines[index];
                line.insert(line.len() - 1, b'\r');
            }),
            Self::Remove(file) => pair.without(|other| other == name(file)),
            Self::Overwrite(file, with) => pair.with(name(file), pair.bytes(name(with))),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]
    #[test]
    fn attacks_do_not_hide_each_other(attacks in prop::collection::vec(attack(), 2..=3), pins in 0_usize..4, busy: bool) {
        let truth = Truth::new(if busy { Story::Busy } else { Story::Valid });
        let attacked = attacks.iter().fold(truth.pair.clone(), |pair, attack| attack.on(&pair));
        let options = [&truth.old_heads, &truth.new_heads, &truth.receipt, &truth.min_size][pins];
        let report = attacked.verify(options);
        // Some attacks take a checkpoint away, or one undoes the other. Then what is verified is less, or all, of the truth.
        if report.verdict.exit_code() == 0 {
            prop_assert_eq!(report.logs.len(), 2);
            for (log, folder) in report.logs.iter().zip(["log/keys/", "log/uses/"]) {
                let covered = |pair: &Pair| pair.log_lines(folder).into_iter().take(usize::try_from(log.size).unwrap()).collect::<Vec<_>>();
                prop_assert!(log.size > 0);
                prop_assert_eq!(covered(&attacked), covered(&truth.pair));
            }
        } else {
            prop_assert!(!report.findings.list().is_empty());
        }
    }
}
