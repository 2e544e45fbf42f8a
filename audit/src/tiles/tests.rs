//! The specification's own examples, trees of many sizes, and everything that is nearly an address or a bundle.

use proptest::prelude::*;

use super::*;
use crate::merkle::leaf_hash;

fn hashes(level: u8, index: u64, width: u16) -> Tile {
    Tile::new(Content::Hashes { level }, index, width).unwrap()
}

#[test]
fn the_examples_of_the_specification() {
    let tile = hashes(0, 1_234_067, WIDTH);
    assert_eq!(tile.to_string(), "tile/0/x001/x234/067");
    assert_eq!("tile/0/x001/x234/067".parse(), Ok(tile));
    let bundle = Tile::new(Content::Entries, 1_234_067, 8).unwrap();
    assert_eq!(bundle.to_string(), "tile/entries/x001/x234/067.p/8");
    assert_eq!("tile/entries/x001/x234/067.p/8".parse(), Ok(bundle));
}

/// "A tree of size 70,000 will be represented by ..." and "a tree of size 256 ...", from the section on partial tiles.
#[test]
fn the_trees_of_the_specification() {
    let shape = |size: u64, content: Content| {
        let tiles: Vec<Tile> = of_tree(size).filter(|tile| tile.content() == content).collect();
        let full = tiles.iter().filter(|tile| tile.width() == WIDTH).count();
        let partial: Vec<u16> = tiles.iter().map(Tile::width).filter(|width| *width < WIDTH).collect();
        (full, partial)
    };
    let level = |level| Content::Hashes { level };
    assert_eq!(shape(70_000, level(0)), (273, vec![112]));
    assert_eq!(shape(70_000, level(1)), (1, vec![17]));
    assert_eq!(shape(70_000, level(2)), (0, vec![1]));
    assert_eq!(shape(70_000, level(3)), (0, vec![]));
    assert_eq!(shape(70_000, Content::Entries), (273, vec![112]));
    assert_eq!((shape(256, level(0)), shape(256, level(1))), ((1, vec![]), (0, vec![1])));
    assert_eq!(of_tree(0).count(), 0, "empty tiles must not be served");
}

#[test]
fn an_address_has_one_spelling() {
    let good = ["tile/0/000", "tile/0/000.p/1", "tile/63/999", "tile/entries/x001/000", "tile/1/x018/x446/x744/x073/x709/x551/615"];
    for text in good {
        assert_eq!(text.parse::<Tile>().unwrap().to_string(), text);
    }
    let bad = [
        "",
        "tile",
        "tile/",
        "tile/0",
        "tile/0/",
        "tile/0/0",
        "tile/0/00",
        "tile/0/0000",
        "tile/0/x000",
        "tile/0/x000/000",
        "tile/0/001/000",
        "tile/0/x001/x000",
        "tile/0/X001/000",
        "tile/0/x1/000",
        "tile/0/+00",
        "tile/0/000/",
        "tile/00/000",
        "tile/01/000",
        "tile/64/000",
        "tile/-1/000",
        "tile/+1/000",
        "tile/data/000",
        "tile/0/000.p/0",
        "tile/0/000.p/01",
        "tile/0/000.p/256",
        "tile/0/000.p/",
        "tile/0/000.p",
        "tile/0/000.p/1/2",
        "tile/0/000.p/1.p/1",
        "/tile/0/000",
        "tile/0/000 ",
        "tile/0/x018/x446/x744/x073/x709/x551/616",
        "tile/0/x999/x999/x999/x999/x999/x999/x999/999",
    ];
    for text in bad {
        assert_eq!(text.parse::<Tile>(), Err(BadTile), "{text}");
    }
    assert_eq!(Tile::new(Content::Entries, 0, 0), None);
    assert_eq!(Tile::new(Content::Entries, 0, 257), None);
    assert_eq!(Tile::new(Content::Hashes { level: 64 }, 0, 1), None);
}

#[test]
fn a_tree_has_its_own_tiles_and_no_other() {
    assert!(hashes(0, 0, 255).is_within(255) && !hashes(0, 0, WIDTH).is_within(255));
    assert!(hashes(1, 0, 1).is_within(256) && !hashes(1, 0, 1).is_within(255));
    assert!(hashes(0, 1, 3).is_within(300), "the tile of an earlier tree, of size 259");
    assert!(!hashes(0, 1, 45).is_within(300));
    assert!(!hashes(63, 0, 1).is_within(u64::MAX) && hashes(7, 0, 255).is_within(u64::MAX));
    assert!(!hashes(0, u64::MAX, 1).is_within(u64::MAX), "no overflow");
}

#[test]
fn level_one_holds_roots_of_full_tiles() {
    let mut tiles = HashTiles::new();
    let leaves: Vec<Hash> = (0..600_u64).map(|n| leaf_hash(&n.to_be_bytes())).collect();
    tiles.extend(leaves.iter().copied());
    let expected: Vec<u8> = [root_of(&leaves[..256]), root_of(&leaves[256..512])].iter().flat_map(|hash| *hash.as_bytes()).collect();
    assert_eq!(tiles.tile(&hashes(1, 0, 2)), Some(expected));
    assert_eq!(tiles.tile(&hashes(1, 0, 3)), None);
    assert_eq!(tiles.tile(&hashes(0, 2, 88)).unwrap().len(), 88 * 32);
    assert_eq!(tiles.tile(&hashes(0, 2, 89)), None);
    assert_eq!(tiles.tile(&Tile::new(Content::Entries, 0, 1).unwrap()), None);
    assert_eq!((tiles.size(), tiles.leaves()), (600, leaves.as_slice()));
}

#[test]
fn the_root_of_a_tall_tree() {
    let (mut tiles, mut frontier) = (HashTiles::new(), Frontier::new());
    for n in 0..70_000_u64 {
        tiles.push(leaf_hash(&n.to_be_bytes()));
        frontier.push(leaf_hash(&n.to_be_bytes()));
    }
    assert_eq!(tiles.root(), frontier.root());
    for tile in of_tree(70_000).filter(|tile| tile.content() != Content::Entries) {
        assert_eq!(tiles.tile(&tile).unwrap().len(), usize::from(tile.width()) * 32, "{tile}");
    }
}

#[test]
fn a_bundle_is_read_as_it_was_written_and_not_otherwise() {
    let records: [&[u8]; 3] = [b"one", b"", b"three"];
    let bytes = encode_bundle(records).unwrap();
    assert_eq!(bytes, b"\x00\x03one\x00\x00\x00\x05three");
    assert_eq!(decode_bundle(&bytes, 3), Ok(records.to_vec()));
    assert_eq!(decode_bundle(&bytes, 2), Err(BundleError::Count { expected: 2, found: 3 }));
    assert_eq!(decode_bundle(&bytes, 4), Err(BundleError::Count { expected: 4, found: 3 }));
    assert_eq!(decode_bundle(&bytes[..bytes.len() - 1], 3), Err(BundleError::CutOff(2)));
    assert_eq!(decode_bundle(&bytes[..6], 3), Err(BundleError::CutOff(1)));
    let longest = vec![b'x'; LONGEST_ENTRY];
    assert_eq!(decode_bundle(&encode_bundle([longest.as_slice()]).unwrap(), 1), Ok(vec![longest.as_slice()]));
    let longer = vec![b'x'; LONGEST_ENTRY + 1];
    assert_eq!(encode_bundle([longer.as_slice()]), Err(BundleError::TooLong(0)));
}

proptest! {
    #[test]
    fn tiles_give_the_root_of_every_tree(size in 0_u64..1500) {
        let mut tiles = HashTiles::new();
        tiles.extend((0..size).map(|n| leaf_hash(&n.to_be_bytes())));
        prop_assert_eq!(tiles.root(), root_of(tiles.leaves()));
        for tile in of_tree(size) {
            prop_assert!(tile.is_within(size));
            // The specification's own form of the width of a partial tile.
            if let Content::Hashes { level } = tile.content() && tile.width() < WIDTH {
                prop_assert_eq!(u64::from(tile.width()), size / 256_u64.pow(u32::from(level)) % 256);
            }
        }
    }

    #[test]
    fn what_is_written_is_read(level in 0_u8..64, index: u64, width in 1_u16..=256) {
        let tile = hashes(level, index, width);
        prop_assert_eq!(tile.to_string().parse(), Ok(tile));
    }

    #[test]
    fn no_text_breaks_the_parser(text in "tile/(entries|[0-9]{1,2})/[x0-9/.p]{0,20}") {
        if let Ok(tile) = text.parse::<Tile>() {
            prop_assert_eq!(tile.to_string(), text);
        }
    }
}
