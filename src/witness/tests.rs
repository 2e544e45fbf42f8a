//! Gathering, with real checkpoints and a clock that is set by hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use claviger_audit::Timestamp;
use claviger_audit::event::{ConfigLoaded, Event, LogCreated, LogKind};
use claviger_audit::jwk::PublicKey;
use claviger_audit::merkle::Hash;
use claviger_audit::note::{Note, VerifierKey};
use claviger_audit::record::Asked;
use claviger_audit::trust::Policy;
use tokio::runtime::Handle;

use super::Gathering;
use crate::clock::{Clock, Monotonic};
use crate::journal::{Checkpointer, KeyLog, Opening, SignNote, Signed, create};

const ORIGIN: &str = "test.example/claviger/keys";
const ROUND: Duration = Duration::from_secs(10);

struct ManualClock(AtomicU64);

impl Clock for ManualClock {
    fn wall(&self) -> Timestamp {
        Timestamp::from_millis(i64::try_from(self.0.load(Ordering::SeqCst)).unwrap())
    }

    fn monotonic(&self) -> Monotonic {
        Monotonic::at(Duration::from_millis(self.0.load(Ordering::SeqCst)))
    }
}

fn pair(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
}

fn witness_key(seed: u8) -> VerifierKey {
    let (name, key) = (format!("w{seed}.example"), [&[4], pair(seed).public_key().as_ref()].concat());
    let id = Hash::digest(&[name.as_bytes(), b"\n", &key].concat()).to_string();
    format!("{name}+{}+{}", &id[..8], STANDARD.encode(&key)).parse().unwrap()
}

fn cosign(seed: u8, checkpoint: &Signed) -> String {
    let (key, note) = (witness_key(seed), Note::parse(checkpoint.note.as_bytes()).unwrap());
    let signature = pair(seed).sign(format!("cosignature/v1\ntime 7\n{}", note.text()).as_bytes());
    let bytes = [key.id().as_bytes(), 7_u64.to_be_bytes().as_slice(), signature.as_ref()].concat();
    format!("\u{2014} {} {}", key.name(), STANDARD.encode(bytes))
}

/// A key log with its first checkpoint, whose checkpoints come when they are asked for.
struct Scene {
    _folder: tempfile::TempDir,
    keys: KeyLog,
    checkpoints: Checkpointer,
    policy: Arc<Policy>,
    clock: Arc<ManualClock>,
}

impl Scene {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock(AtomicU64::new(1_800_000_000_000)));
        let opening = Opening::local(LogKind::Keys, folder.path().join("keys"), clock.clone(), "n1".to_owned(), "b00t".to_owned());
        let public = PublicKey::from_ed25519(pair(1).public_key().as_ref().try_into().unwrap());
        let created = LogCreated {
            origin: ORIGIN.to_owned(),
            key: VerifierKey::from_jwk(ORIGIN, &public).unwrap().to_string(),
            keystore: "soft".to_owned(),
            locator: "01".to_owned(),
            installation: "test".to_owned(),
            version: "0.1.0".to_owned(),
        };
        create(&opening, LogKind::Keys, Asked::default(), created).unwrap();
        let opened = KeyLog::open(&opening).unwrap();
        let sign: SignNote = Arc::new(|text: Vec<u8>| -> crate::journal::checkpoint::BoxFuture<_> {
            Box::pin(async move { Ok(pair(1).sign(&text).as_ref().to_vec()) })
        });
        let checkpoints = opened.coverage.start(Arc::new(move |_| sign.clone()), Handle::current()).unwrap();
        let witness = |seed: u8| format!("witness w{seed} {}\n", witness_key(seed));
        let policy = format!("{}{}{}group g 2 w2 w3 w4\nquorum g\n", witness(2), witness(3), witness(4));
        let scene = Self { _folder: folder, keys: opened.log, checkpoints, policy: Arc::new(policy.parse().unwrap()), clock };
        scene.grow().await;
        scene
    }

    /// One more record, and a checkpoint over it.
    async fn grow(&self) -> Arc<Signed> {
        self.keys.record(Event::ConfigLoaded(ConfigLoaded { sha256: Hash::digest(b"x") })).await.unwrap();
        self.checkpoints.checkpoint_now().await.unwrap();
        self.checkpoints.newest().borrow().clone().unwrap()
    }

    fn gathering(&self) -> Gathering {
        Gathering::new(self.checkpoints.clone(), &self.policy, ROUND)
    }

    fn candidate(&self, gathering: &Gathering) -> Arc<Signed> {
        gathering.candidate(self.clock.monotonic()).unwrap()
    }

    fn add(&self, gathering: &Gathering, seed: u8, checkpoint: &Signed) {
        let place = self.checkpoints.follower().settle(checkpoint.size, checkpoint.root).unwrap();
        gathering.add(usize::from(seed) - 2, checkpoint, &cosign(seed, checkpoint), &place);
    }

    fn pass(&self, span: Duration) {
        self.clock.0.fetch_add(u64::try_from(span.as_millis()).unwrap(), Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn all_witnesses_meet_on_one_checkpoint_although_newer_ones_come() {
    let scene = Scene::new().await;
    let gathering = scene.gathering();
    let first = scene.candidate(&gathering);
    scene.add(&gathering, 2, &first);
    assert_eq!(gathering.witnessed(), 0);
    let newer = scene.grow().await;
    assert_eq!(scene.candidate(&gathering), first, "the one before has no quorum yet");
    assert!(gathering.has(0, first.size) && !gathering.has(1, first.size));
    scene.add(&gathering, 4, &first);
    assert_eq!(gathering.witnessed(), first.size);
    assert_eq!(scene.candidate(&gathering), newer, "the quorum is reached: the newest is next");
    // The third is late, and is kept all the same.
    scene.add(&gathering, 3, &first);
    let note = gathering.witnessed_note().unwrap();
    assert_eq!(Note::parse(note.as_bytes()).unwrap().signatures().len(), 4);
    assert_eq!(gathering.note_of(&first), *note);
    assert_eq!(gathering.note_of(&newer), newer.note);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_round_in_vain_gives_way_and_an_older_one_never_replaces_a_newer() {
    let scene = Scene::new().await;
    let gathering = scene.gathering();
    let first = scene.candidate(&gathering);
    scene.add(&gathering, 2, &first);
    let second = scene.grow().await;
    scene.pass(ROUND / 2);
    assert_eq!(scene.candidate(&gathering), first);
    scene.pass(ROUND / 2);
    assert_eq!(scene.candidate(&gathering), second);
    scene.add(&gathering, 2, &second);
    scene.add(&gathering, 3, &second);
    assert_eq!(gathering.witnessed(), second.size);
    // The quorum for the first comes too late to be the newest.
    scene.add(&gathering, 4, &first);
    assert_eq!(gathering.witnessed(), second.size);
    let stored = scene.checkpoints.stored_witnessed().unwrap().unwrap();
    assert_eq!(stored, gathering.witnessed_note().unwrap().as_bytes());
    assert!(String::from_utf8(stored).unwrap().starts_with(&format!("{ORIGIN}\n{}\n", second.size)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_restart_remembers_who_cosigned_and_believes_no_broken_file() {
    let scene = Scene::new().await;
    let gathering = scene.gathering();
    let first = scene.candidate(&gathering);
    scene.add(&gathering, 2, &first);
    scene.add(&gathering, 3, &first);
    let again = scene.gathering();
    assert_eq!((again.witnessed(), again.remembered(0), again.remembered(2)), (first.size, first.size, 0));
    assert_eq!(again.witnessed_note(), gathering.witnessed_note());
    let newer = scene.grow().await;
    assert_eq!(scene.candidate(&again), newer, "what was witnessed before is not waited for");
    // Another log's note, half of one, and one that is newer than the log.
    let place = scene.checkpoints.follower().settle(first.size, first.root).unwrap();
    let note = gathering.witnessed_note().unwrap();
    let ahead = note.replace(&format!("\n{}\n", first.size), "\n1000\n");
    for bad in [note.replace(ORIGIN, "other.example"), note[..note.len() / 2].to_owned(), ahead, String::new()] {
        scene.checkpoints.store_witnessed(&bad, &place).unwrap();
        let broken = scene.gathering();
        assert_eq!((broken.witnessed(), broken.remembered(0), broken.witnessed_note()), (0, 0, None), "{bad}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_line_that_is_no_cosignature_reaches_no_quorum() {
    let scene = Scene::new().await;
    let gathering = scene.gathering();
    let first = scene.candidate(&gathering);
    let place = scene.checkpoints.follower().settle(first.size, first.root).unwrap();
    scene.add(&gathering, 2, &first);
    let foreign = Signed { note: first.note.replace(&format!("\n{}\n", first.size), "\n9\n"), ..(*first).clone() };
    gathering.add(1, &first, &cosign(3, &foreign), &place);
    assert_eq!(gathering.witnessed(), 0);
}
