//! Proofs from logs of every small size: what is made holds, and nothing that differs from it does.

use std::io::{BufRead, Cursor};
use std::time::Duration;

use base64::Engine as _;
use ed25519_dalek::{Signer as _, SigningKey};
use proptest::prelude::*;

use super::*;
use crate::event::{Event, LogCreated, LogHeartbeat, LogKind};
use crate::jwk::PublicKey;
use crate::line::genesis_prev;
use crate::merkle::{Frontier, Hash, leaf_hash};
use crate::note::{VerifierKey, signed_note};
use crate::record::{Asked, Record};
use crate::time::Timestamp;
use crate::verify::{LogFiles, NoteFile, Receipt, Segment};

const ORIGIN: &str = "log.example/uses/a";

/// A log of `size` records, with nothing in it but heartbeats.
struct Log {
    lines: Vec<Vec<u8>>,
}

fn secret(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn key(origin: &str, seed: u8) -> VerifierKey {
    VerifierKey::from_jwk(origin, &PublicKey::from_ed25519(secret(seed).verifying_key().as_bytes())).unwrap()
}

fn trust(more: &str) -> Policy {
    format!("log {}\n{more}", key(ORIGIN, 1)).parse().unwrap()
}

impl Log {
    fn new(size: u64, boot: &str) -> Self {
        let own = key(ORIGIN, 1).to_string();
        let mut prev = genesis_prev(ORIGIN, &own);
        let mut lines = Vec::new();
        for seq in 0..size {
            let event = match seq {
                0 => Event::LogCreated(LogCreated {
                    origin: ORIGIN.into(),
                    key: own.clone(),
                    keystore: "hsm".into(),
                    locator: "slot/1".into(),
                    installation: "prod".into(),
                    version: "0.1.0".into(),
                }),
                _ => Event::LogHeartbeat(LogHeartbeat {}),
            };
            let time = Timestamp::from_seconds(1_767_225_600) + Duration::from_mins(seq);
            // Two histories differ from the third record on.
            let boot = if seq < 2 { "one".into() } else { boot.into() };
            let asked = Asked::default();
            let record = Record { log: LogKind::Uses, seq, time, prev, durable: seq, node: "a".into(), boot, asked, event };
            let line = record.to_line().unwrap();
            prev = leaf_hash(&line);
            lines.push(line);
        }
        Self { lines }
    }

    fn root(&self, size: u64) -> Hash {
        let mut frontier = Frontier::new();
        frontier.extend(self.lines.iter().take(usize::try_from(size).unwrap()).map(|line| leaf_hash(line)));
        frontier.root()
    }

    fn leaf(&self, seq: u64) -> Hash {
        leaf_hash(&self.lines[usize::try_from(seq).unwrap()])
    }

    fn note(&self, size: u64) -> Note {
        let text = Checkpoint::new(ORIGIN, size, self.root(size)).to_string();
        signed_note(&text, &[(&key(ORIGIN, 1), secret(1).sign(text.as_bytes()).to_bytes())]).unwrap()
    }

    /// The log with these notes beside it.
    fn files(&self, notes: impl IntoIterator<Item = Note>) -> LogFiles<'static> {
        let bytes: Vec<u8> = self.lines.iter().flat_map(|line| [line.as_slice(), b"\n"].concat()).collect();
        let open = move || Ok(Box::new(Cursor::new(bytes.clone())) as Box<dyn BufRead>);
        let notes = notes.into_iter().enumerate().map(|(number, note)| file(&format!("{number}.checkpoint"), &note));
        let segment = Segment { name: "segment".into(), open: Box::new(open) };
        LogFiles { name: "uses".into(), segments: vec![segment], notes: notes.collect() }
    }
}

fn file(name: &str, note: &Note) -> NoteFile {
    NoteFile { name: name.into(), bytes: note.to_string().into_bytes() }
}

/// The line of a trust file for a witness, and its signature line under a checkpoint (C2SP tlog-cosignature).
fn witness(seed: u8, time: u64, text: &str) -> (String, String) {
    let name = format!("w{seed}.example");
    let typed = [&[4], secret(seed).verifying_key().as_bytes().as_slice()].concat();
    let id = Hash::digest(&[name.as_bytes(), b"\n", &typed].concat());
    let encode = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
    let signature = secret(seed).sign(format!("cosignature/v1\ntime {time}\n{text}").as_bytes());
    let bytes = [&id.as_bytes()[..4], &time.to_be_bytes(), &signature.to_bytes()].concat();
    let policy = format!("witness w{seed} {name}+{}+{}\n", &id.to_string()[..8], encode(&typed));
    (policy, format!("\u{2014} {name} {}\n", encode(&bytes)))
}

fn cosigned(note: &Note, witnesses: &[(u8, u64)]) -> Note {
    let lines: Vec<String> = witnesses.iter().map(|(seed, time)| witness(*seed, *time, note.text()).1).collect();
    Note::parse((note.to_string() + &lines.concat()).as_bytes()).unwrap()
}

fn wanted(seq: u64) -> WantedRecord {
    WantedRecord { seq, leaf: None, with_line: true }
}

fn verdict<T: std::fmt::Debug>(result: Result<T, Refusal>) -> Verdict {
    result.unwrap_err().verdict
}

fn unprovable<T: std::fmt::Debug>(result: Result<T, Unprovable>) -> String {
    match result.unwrap_err() {
        Unprovable::Refused(refusal) => refusal.verdict.name().to_owned(),
        Unprovable::NotFound(_) => "not found".to_owned(),
        Unprovable::Usage(_) => "usage".to_owned(),
        Unprovable::Io(_) => "io".to_owned(),
    }
}

fn question(trust: &Policy) -> Question<'_> {
    Question { trust: Some(trust), ..Question::default() }
}

/// A file with each bit flipped, each line left out, doubled, or swapped with the next, and cut at each byte.
fn damaged(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = (0..bytes.len() * 8)
        .map(|bit| {
            let mut copy = bytes.to_vec();
            copy[bit / 8] ^= 1 << (bit % 8);
            copy
        })
        .collect();
    let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    for at in 0..lines.len() {
        all.push([&lines[..at], &lines[at + 1..]].concat().concat());
        // The same signature twice says nothing new, and notes may hold it.
        if !lines[at].starts_with("\u{2014}".as_bytes()) {
            all.push([&lines[..=at], &lines[at..]].concat().concat());
        }
        let mut swapped = lines.clone();
        swapped.swap(at, (at + 1) % lines.len());
        all.push(swapped.concat());
    }
    all.extend((0..bytes.len()).map(|end| bytes[..end].to_vec()));
    all.push([bytes, b"\n"].concat());
    all.retain(|copy| copy != bytes);
    all
}

#[test]
fn every_record_of_every_log_is_proven() {
    let trust = trust("quorum none\n");
    for size in 1..=70 {
        let log = Log::new(size, "one");
        // Signatures take the time here, so the checkpoint is verified once for each log, and the path for each record.
        let files = log.files([log.note(size)]);
        for seq in 0..size {
            let maker = crate::merkle::ProofMaker::inclusion(seq, size).unwrap();
            let hashes = crate::verify::leaves::prove(&files, maker).unwrap().unwrap();
            let held = crate::merkle::verify_inclusion(&log.leaf(seq), seq, size, &hashes, &log.root(size));
            assert_eq!(held, Ok(()), "record {seq} of {size}");
        }
        let proof = inclusion(&files, &wanted(size - 1), Some(&trust)).unwrap();
        assert_eq!(InclusionProof::parse(proof.to_string().as_bytes()), Ok(proof.clone()));
        let shown = proof.check(&question(&trust)).unwrap();
        assert_eq!((shown.index, shown.size, shown.leaf, shown.record.unwrap().seq), (size - 1, size, log.leaf(size - 1), size - 1));
    }
}

#[test]
fn every_pair_of_sizes_is_consistent() {
    let trust = trust("quorum none\n");
    let log = Log::new(70, "one");
    let files = log.files([]);
    for to in 0..=70 {
        for from in 0..=to {
            let stretch = Stretch { from, to: Some(to), notes: Vec::new() };
            let proof = consistency(&files, &stretch, Some(&trust)).unwrap();
            assert_eq!((proof.from.root, proof.to.root), (log.root(from), log.root(to)), "{from} to {to}");
            assert_eq!(ConsistencyProof::parse(proof.to_string().as_bytes()), Ok(proof.clone()));
            assert_eq!(verdict(proof.check(Some(&trust))), Verdict::Unpinned, "nothing is signed");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_record_is_proven_under_any_checkpoint_that_covers_it(size in 1_u64..70, seq in 0_u64..70, covers in 1_u64..70) {
        let (seq, covers) = (seq % size, covers % size + 1);
        let (log, trust) = (Log::new(size, "one"), trust("quorum none\n"));
        let made = inclusion(&log.files([log.note(covers)]), &wanted(seq), Some(&trust));
        if seq < covers {
            let proof = made.unwrap();
            prop_assert_eq!(proof.check(&question(&trust)).unwrap().size, covers);
            let another = Receipt { log: ORIGIN.into(), seq, leaf: leaf_hash(b"another") };
            let refusal = proof.check(&Question { receipt: Some(&another), ..question(&trust) }).unwrap_err();
            prop_assert_eq!(refusal.verdict, Verdict::Tampered);
            prop_assert!(refusal.text.contains("not the one that the receipt names"));
        } else {
            prop_assert_eq!(unprovable(made), "unsigned");
        }
    }

    #[test]
    fn signed_sizes_are_consistent_and_two_histories_are_a_fork(small in 1_u64..40, more in 0_u64..30) {
        let (log, other, trust) = (Log::new(small + more, "one"), Log::new(small, "two"), trust("quorum none\n"));
        let notes = [log.note(small), log.note(small + more)];
        let proof = consistency(&log.files(notes), &Stretch { from: small, ..Stretch::default() }, Some(&trust)).unwrap();
        prop_assert_eq!(ConsistencyProof::parse(proof.to_string().as_bytes()), Ok(proof.clone()));
        prop_assert!(proof.check(Some(&trust)).unwrap().from_signed);
        let grafted = (more > 0).then(|| Grafted { root: log.root(small), hashes: proof.hashes.clone() });
        let fork = ForkProof { shorter: other.note(small), longer: log.note(small + more), grafted };
        prop_assert_eq!(ForkProof::parse(fork.to_string().as_bytes()), Ok(fork.clone()));
        let proven = fork.check(Some(&trust));
        if small > 2 {
            prop_assert_eq!(proven.unwrap().root, log.root(small));
        } else {
            prop_assert_eq!(verdict(proven), Verdict::Tampered, "one history up to the second record");
        }
    }
}

#[test]
fn no_damage_to_a_proof_goes_unseen() {
    let (log, trust) = (Log::new(11, "one"), trust("quorum none\n"));
    let files = log.files([log.note(5), log.note(11)]);
    let proof = inclusion(&files, &wanted(6), Some(&trust)).unwrap().to_string();
    let holds = |bytes: &[u8]| InclusionProof::parse(bytes).is_ok_and(|proof| proof.check(&question(&trust)).is_ok());
    assert!(holds(proof.as_bytes()));
    assert!(damaged(proof.as_bytes()).iter().all(|bytes| !holds(bytes)));

    let stretch = Stretch { from: 5, ..Stretch::default() };
    let grown = consistency(&files, &stretch, Some(&trust)).unwrap();
    let holds = |bytes: &[u8]| ConsistencyProof::parse(bytes).is_ok_and(|proof| proof.check(Some(&trust)).is_ok());
    let text = grown.to_string();
    assert!(holds(text.as_bytes()));
    for bytes in damaged(text.as_bytes()) {
        // The older tree needs no signature of its own: without its note the proof is another one, and it holds.
        let whole = ConsistencyProof::parse(&bytes).is_ok_and(|proof| proof.from_note.is_some());
        assert!(!(whole && holds(&bytes)), "{}", String::from_utf8_lossy(&bytes));
    }

    let grafted = Some(Grafted { root: log.root(5), hashes: grown.hashes });
    let fork = ForkProof { shorter: Log::new(5, "two").note(5), longer: log.note(11), grafted };
    let holds = |bytes: &[u8]| ForkProof::parse(bytes).is_ok_and(|proof| proof.check(Some(&trust)).is_ok());
    assert!(holds(fork.to_string().as_bytes()));
    assert!(damaged(fork.to_string().as_bytes()).iter().all(|bytes| !holds(bytes)));
}

#[test]
fn nothing_is_proven_without_trust() {
    let (log, trust) = (Log::new(5, "one"), trust("quorum none\n"));
    let files = log.files([log.note(5)]);
    let proof = inclusion(&files, &wanted(3), None).unwrap();
    assert_eq!(verdict(proof.check(&Question::default())), Verdict::Unpinned);
    let stranger: Policy = format!("log {}\nquorum none\n", key("another.example", 1)).parse().unwrap();
    assert_eq!(verdict(proof.check(&question(&stranger))), Verdict::Unpinned);
    let impostor: Policy = format!("log {}\nquorum none\n", key(ORIGIN, 2)).parse().unwrap();
    assert_eq!(verdict(proof.check(&question(&impostor))), Verdict::Unsigned);
    assert_eq!(unprovable(inclusion(&files, &wanted(3), Some(&stranger))), "unpinned");
    assert_eq!(unprovable(inclusion(&files, &wanted(3), Some(&impostor))), "unsigned");
    // What the bytes themselves refute needs no trust.
    let other = InclusionProof { index: 2, ..proof.clone() };
    assert_eq!(verdict(other.check(&Question::default())), Verdict::Tampered);
    // A proof that does not hold the record needs the receipt.
    let bare = inclusion(&files, &WantedRecord { with_line: false, ..wanted(3) }, Some(&trust)).unwrap();
    assert_eq!((bare.record.clone(), verdict(bare.check(&question(&trust)))), (None, Verdict::Unpinned));
    let receipt = Receipt { log: ORIGIN.into(), seq: 3, leaf: log.leaf(3) };
    assert!(bare.check(&Question { receipt: Some(&receipt), ..question(&trust) }).is_ok());
    for (wrong, expected) in [
        (Receipt { log: "another.example".into(), ..receipt.clone() }, Verdict::Unpinned),
        (Receipt { seq: 2, ..receipt.clone() }, Verdict::Tampered),
        (Receipt { leaf: log.leaf(2), ..receipt.clone() }, Verdict::Tampered),
    ] {
        assert_eq!(verdict(bare.check(&Question { receipt: Some(&wrong), ..question(&trust) })), expected);
    }
}

#[test]
fn a_proof_is_held_against_receipt_token_and_quorum() {
    let log = Log::new(9, "one");
    let bare = log.note(9);
    let note = cosigned(&bare, &[(2, 1_767_230_000), (3, 1_767_240_000)]);
    let witnesses: Vec<String> = [2, 3, 4].map(|seed| witness(seed, 0, "").0).to_vec();
    let two = trust(&format!("{}group g 2 w2 w3 w4\nquorum g\n", witnesses.concat()));
    let three = trust(&format!("{}group g all w2 w3 w4\nquorum g\n", witnesses.concat()));
    // The newest checkpoint alone is not cosigned; the one that is cosigned is preferred.
    let older = cosigned(&log.note(8), &[(2, 1_767_230_000), (3, 1_767_240_000)]);
    let proof = inclusion(&log.files([bare.clone(), older]), &wanted(1), Some(&two)).unwrap();
    assert_eq!(proof.check(&question(&two)).unwrap().size, 8);
    let proof = inclusion(&log.files([bare.clone(), note]), &wanted(1), Some(&two)).unwrap();
    let shown = proof.check(&question(&two)).unwrap();
    assert_eq!(shown.witnessed.time, Some(Timestamp::from_seconds(1_767_230_000)), "two are needed, so the older one counts");
    assert_eq!(shown.witnessed.cosigners.len(), 2);
    assert_eq!(verdict(proof.check(&question(&three))), Verdict::Unsigned);
    assert_eq!(unprovable(inclusion(&log.files([bare]), &wanted(1), Some(&two))), "unsigned");
    let age = |seconds: u64| Some((Duration::from_secs(seconds), Timestamp::from_seconds(1_767_230_100)));
    assert!(proof.check(&Question { max_age: age(100), ..question(&two) }).is_ok());
    assert_eq!(verdict(proof.check(&Question { max_age: age(99), ..question(&two) })), Verdict::Stale);
    // Without a quorum the time of the record counts: a minute after the first.
    let none = trust("quorum none\n");
    assert_eq!(verdict(proof.check(&Question { max_age: age(100), ..question(&none) })), Verdict::Stale);
    assert!(proof.check(&Question { max_age: age(4_440), ..question(&none) }).is_ok());
    // A heartbeat is about no token.
    assert_eq!(verdict(proof.check(&Question { input: Some(Hash::digest(b"")), ..question(&none) })), Verdict::Tampered);
}

#[test]
fn a_record_that_is_not_there_is_not_proven() {
    let log = Log::new(9, "one");
    let files = || log.files([log.note(7)]);
    assert_eq!(unprovable(inclusion(&files(), &wanted(9), None)), "not found");
    assert_eq!(unprovable(inclusion(&files(), &wanted(8), None)), "unsigned");
    let receipt = |seq, leaf| WantedRecord { leaf: Some(leaf), ..wanted(seq) };
    assert!(inclusion(&files(), &receipt(3, log.leaf(3)), None).is_ok());
    assert_eq!(unprovable(inclusion(&files(), &receipt(3, log.leaf(4)), None)), "tampered");
    assert_eq!(unprovable(inclusion(&files(), &receipt(9, log.leaf(4)), None)), "truncated");
    // Lines that are not those which were signed prove nothing.
    let other = Log::new(9, "two");
    assert_eq!(unprovable(inclusion(&log.files([other.note(7)]), &wanted(3), None)), "tampered");
    assert_eq!(unprovable(inclusion(&log.files([Log::new(20, "one").note(20)]), &wanted(3), None)), "truncated");
    let mut torn = Log::new(9, "one");
    torn.lines[5] = b"\r".to_vec();
    assert_eq!(unprovable(inclusion(&torn.files([log.note(7)]), &wanted(3), None)), "truncated");
    let headless = Log { lines: Log::new(9, "one").lines.split_off(1) };
    assert_eq!(unprovable(inclusion(&headless.files([log.note(7)]), &wanted(3), None)), "unpinned");
}

/// The log key may have signed for lines that no log may have; a proof of them is true, and proves nothing.
#[test]
fn what_is_in_the_tree_must_be_a_record_in_its_place() {
    let trust = trust("quorum none\n");
    let mut log = Log::new(9, "one");
    log.lines.swap(4, 5);
    log.lines[6] = b"no record".to_vec();
    for (seq, why) in [(4, "calls itself record 5"), (6, "no record")] {
        let proof = inclusion(&log.files([log.note(9)]), &wanted(seq), Some(&trust)).unwrap();
        let refusal = proof.check(&question(&trust)).unwrap_err();
        assert_eq!(refusal.verdict, Verdict::Tampered);
        assert!(refusal.text.contains(why), "{refusal}");
    }
}

#[test]
fn notes_from_elsewhere_must_be_of_this_history() {
    let (log, other) = (Log::new(9, "one"), Log::new(9, "two"));
    let given = |note: Note, from| Stretch { from, to: None, notes: vec![file("head", &note)] };
    let files = || log.files([log.note(9)]);
    let proof = consistency(&files(), &given(log.note(4), 4), None).unwrap();
    assert!(proof.from_note.is_some() && proof.to_note.is_some());
    assert_eq!(unprovable(consistency(&files(), &given(other.note(4), 4), None)), "tampered");
    assert_eq!(unprovable(consistency(&files(), &given(Log::new(12, "one").note(12), 4), None)), "truncated");
    let text = Checkpoint::new(ORIGIN, 4, log.root(4)).to_string();
    let foreign = signed_note(&text, &[(&key(ORIGIN, 5), secret(5).sign(text.as_bytes()).to_bytes())]).unwrap();
    assert_eq!(unprovable(consistency(&files(), &given(foreign, 4), None)), "unsigned");
    let sizes = |from, to| Stretch { from, to: Some(to), notes: Vec::new() };
    assert_eq!(unprovable(consistency(&files(), &sizes(5, 4), None)), "usage");
    assert_eq!(unprovable(consistency(&files(), &sizes(5, 10), None)), "not found");
    // Equal sizes are one tree and need one note.
    let same = consistency(&files(), &sizes(9, 9), None).unwrap();
    assert_eq!((same.from_note.clone(), same.hashes.len()), (None, 0));
    assert!(same.check(Some(&trust("quorum none\n"))).unwrap().from_signed);
    assert_eq!(ConsistencyProof::parse(same.to_string().as_bytes()), Ok(same));
}

#[test]
fn what_is_no_fork_proves_none() {
    let (log, other, trust) = (Log::new(9, "one"), Log::new(9, "two"), trust("quorum none\n"));
    let fork = |shorter: Note, longer: Note| ForkProof { shorter, longer, grafted: None };
    assert!(fork(log.note(9), other.note(9)).check(Some(&trust)).is_ok());
    assert_eq!(verdict(fork(log.note(9), log.note(9)).check(Some(&trust))), Verdict::Tampered, "one note twice");
    assert_eq!(verdict(fork(log.note(4), other.note(9)).check(Some(&trust))), Verdict::Tampered, "nothing binds them");
    assert_eq!(verdict(fork(log.note(9), other.note(9)).check(None)), Verdict::Unpinned);
    // Somebody else's signature convicts nobody.
    let text = Checkpoint::new(ORIGIN, 9, other.root(9)).to_string();
    let forged = signed_note(&text, &[(&key(ORIGIN, 5), secret(5).sign(text.as_bytes()).to_bytes())]).unwrap();
    assert_eq!(verdict(fork(log.note(9), forged).check(Some(&trust))), Verdict::Unsigned);
    // A log cannot save itself by a cosignature that does not verify, beside its own signature that does.
    let (witness, line) = witness(2, 1, "another text\n");
    let spoiled = Note::parse((other.note(9).to_string() + &line).as_bytes()).unwrap();
    let watched = self::trust(&format!("{witness}quorum w2\n"));
    assert!(fork(log.note(9), spoiled.clone()).check(Some(&watched)).is_ok());
    let proof = inclusion(&other.files([other.note(9)]), &wanted(1), None).unwrap();
    assert_eq!(verdict(InclusionProof { note: spoiled, ..proof }.check(&question(&watched))), Verdict::Unsigned);
    // A log that only grew, dressed up as a fork.
    let stretch = Stretch { from: 4, to: Some(9), notes: Vec::new() };
    let hashes = consistency(&log.files([]), &stretch, None).unwrap().hashes;
    let grafted = |root| Some(Grafted { root, hashes: hashes.clone() });
    let grown = ForkProof { shorter: log.note(4), longer: log.note(9), grafted: grafted(log.root(4)) };
    assert_eq!(verdict(grown.check(Some(&trust))), Verdict::Tampered);
    let invented = ForkProof { grafted: grafted(other.root(4)), ..grown };
    assert_eq!(verdict(invented.check(Some(&trust))), Verdict::Tampered);
}

#[test]
fn nearly_proofs_are_refused() {
    let log = Log::new(3, "one");
    let proof = inclusion(&log.files([log.note(3)]), &wanted(1), None).unwrap().to_string();
    let why = |text: &str| InclusionProof::parse(text.as_bytes()).unwrap_err().to_string();
    for (from, to, expected) in [
        ("@v1", "@v2", "its first line is not"),
        ("extra ", "extra =", "its extra line is not"),
        ("index 1", "index 01", "no decimal number"),
        ("index 1", "indices 1", "the line `index ...` is missing"),
        ("\n\n", "\n", "is not the base64 of a hash"),
    ] {
        let text = why(&proof.replacen(from, to, 1));
        assert!(text.starts_with("this is no inclusion proof") && text.contains(expected), "{text}");
    }
    let gap = InclusionProof::parse(proof.replacen("\n\n", "\n\n\n", 1).as_bytes()).unwrap();
    assert_eq!(verdict(gap.check(&Question::default())), Verdict::Tampered, "a checkpoint begins with its origin");
    let extra = proof.lines().nth(1).unwrap();
    assert!(why(&proof.replace(extra, "extra ")).contains("its extra line is not"));
    let many = format!("index 1{}", format!("\n{}", text::base64(&[0; 32])).repeat(64));
    assert!(why(&proof.replace("index 1", &many)).contains("more than 63 hashes"));
    assert!(InclusionProof::parse(&vec![b'a'; MAX_PROOF_FILE + 1]).unwrap_err().why.contains("at most"));
    assert!(InclusionProof::parse(b"\xff\n").unwrap_err().why.contains("not UTF-8"));
    let three = [0, 1, 2].map(|_| format!("\n{}", log.note(3))).concat();
    let root = text::base64(log.root(3).as_bytes());
    let consistency = format!("claviger consistency proof v1\norigin {ORIGIN}\nfrom 3 {root}\nto 3 {root}\n{three}");
    assert!(ConsistencyProof::parse(consistency.as_bytes()).unwrap_err().why.contains("more than two notes"));
    assert!(ForkProof::parse(format!("claviger fork proof v1\n{three}").as_bytes()).unwrap_err().why.contains("3 notes"));
    let rootless = format!("claviger fork proof v1\n{root}\n{three}");
    assert!(ForkProof::parse(rootless.as_bytes()).unwrap_err().why.contains("no root"));
}
