//! A C2SP witness that is not ours, over our log: it cosigns while the log grows, and each refusal of the specification has its code.
//!
//! In scope: what we send (checkpoints, consistency proofs) and what we read (cosignatures, sizes), by the text of C2SP tlog-witness.
//! Out of scope: the daemon's own client.

use std::io::Read as _;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use claviger_audit::checkpoint::Checkpoint;
use claviger_audit::merkle::{Hash, consistency_proof};
use claviger_audit::note::{Note, NoteError, VerifierKey};
use tempfile::TempDir;

use crate::process::{Response, Witness};
use crate::signers::{Signer, line, note};
use crate::{leaves, root};

const LOG: &str = "log.example/keys";
const TIME: u64 = 1_800_000_000;

/// A log, and a witness that knows it.
struct Scene {
    log: Signer,
    tree: Vec<Hash>,
    state: TempDir,
    witness: Witness,
}

fn scene(more: &[&str]) -> Scene {
    let (log, state) = (Signer::ed25519(LOG, 1), tempfile::tempdir().unwrap());
    let witness = Witness::start(state.path(), &[log.key.to_string()], &[&["-time", &TIME.to_string()], more].concat());
    Scene { log, tree: leaves(1, 80), state, witness }
}

fn checkpoint(tree: &[Hash], size: u64) -> String {
    Checkpoint::new(LOG, size, root(&tree[..usize::try_from(size).unwrap()])).to_string()
}

fn body(old: u64, proof: &[Hash], note: &str) -> Vec<u8> {
    let hashes: String = proof.iter().map(|hash| STANDARD.encode(hash.as_bytes()) + "\n").collect();
    format!("old {old}\n{hashes}\n{note}").into_bytes()
}

impl Scene {
    /// What the log sends when it grew from `old` to `new`.
    fn request(&self, old: u64, new: u64) -> Vec<u8> {
        body(old, &consistency_proof(&self.tree, old, new).unwrap(), &note(&checkpoint(&self.tree, new), &[&self.log]))
    }

    fn grow(&self, old: u64, new: u64) -> Response {
        self.witness.post(&self.request(old, new))
    }

    fn key(&self) -> VerifierKey {
        self.witness.vkey.parse().unwrap()
    }

    /// The note of `size` with the lines that the witness answered, verified by us; gives the time of the cosignature.
    fn cosigned(&self, size: u64, answer: &Response) -> Result<Option<u64>, NoteError> {
        let whole = note(&checkpoint(&self.tree, size), &[&self.log]) + &answer.body;
        let verified = Note::parse(whole.as_bytes())?.verify(&[self.key(), self.log.key.clone()])?;
        assert!(verified.by(&self.key()) && verified.by(&self.log.key));
        Ok(verified.iter().find(|signature| signature.key == self.key()).unwrap().time)
    }

    fn newest(&self) -> Response {
        let hash = Hash::digest(LOG.as_bytes());
        self.witness.request(&format!("GET /{hash}/checkpoint"), b"")
    }

    /// The witness refuses these bodies with this status, and forgets nothing over it.
    fn refuses(&self, status: u16, bodies: &[Vec<u8>]) {
        let before = self.newest();
        for body in bodies {
            let answer = self.witness.post(body);
            assert_eq!(answer.status, status, "{answer:?} to {}", String::from_utf8_lossy(body));
        }
        assert_eq!(self.newest(), before);
    }
}

#[test]
fn a_growing_log_is_cosigned_and_remembered() {
    let scene = scene(&[]);
    assert_eq!(scene.newest().status, 404);
    let sizes = [0, 0, 1, 5, 5, 64, 70];
    for (old, new) in std::iter::once((0, 0)).chain(sizes.into_iter().zip(sizes.into_iter().skip(1))) {
        let answer = scene.grow(old, new);
        assert_eq!(answer.status, 200, "{old} to {new}: {answer:?}");
        assert_eq!(scene.cosigned(new, &answer), Ok(Some(TIME)), "{old} to {new}");
        let newest = scene.newest();
        let served = Note::parse(newest.body.as_bytes()).unwrap();
        let keys = [scene.key(), scene.log.key.clone()];
        let (read, signatures) = Checkpoint::from_note(&served, LOG, &keys).unwrap();
        assert_eq!((newest.status, read.to_string()), (200, checkpoint(&scene.tree, new)));
        assert!(signatures.by(&keys[0]) && signatures.by(&keys[1]));
    }
    // Another process with the same memory is the same witness.
    let (vkey, newest) = (scene.witness.vkey.clone(), scene.newest());
    let logs = [scene.log.key.to_string()];
    assert!(scene.witness.terminate());
    let again = Scene { witness: Witness::start(scene.state.path(), &logs, &[]), ..scene };
    assert_eq!((again.witness.vkey.clone(), again.newest()), (vkey, newest));
    let answer = again.grow(70, 71);
    // This one goes by the clock, which is past the day on which the test was written.
    assert!(again.cosigned(71, &answer).unwrap() > Some(1_760_000_000));
    assert!(again.witness.close());
}

#[test]
fn a_stale_size_is_told_the_newest_one() {
    let scene = scene(&[]);
    assert_eq!(scene.grow(0, 40).status, 200);
    let stale = Response { status: 409, content_type: "text/x.tlog.size".into(), body: "40\n".into() };
    for (old, new) in [(0, 40), (0, 70), (20, 40), (20, 70), (39, 40), (41, 70)] {
        assert_eq!(scene.grow(old, new), stale, "{old} to {new}");
    }
    assert_eq!(scene.grow(40, 70).status, 200);
}

#[test]
fn a_fork_is_refused() {
    let scene = scene(&[]);
    let other = leaves(2, 80);
    let signed = |tree: &[Hash], size| note(&checkpoint(tree, size), &[&scene.log]);
    let empty = format!("{LOG}\n0\n{}\n", STANDARD.encode(other[0].as_bytes()));
    // Before the first: a proof where none can be, and a root that no empty tree has.
    scene.refuses(422, &[body(0, &other[..1], &signed(&scene.tree, 40)), body(0, &[], &note(&empty, &[&scene.log]))]);
    assert_eq!(scene.grow(0, 40).status, 200);
    let proof = |old, new| consistency_proof(&scene.tree, old, new).unwrap();
    // The history splits after leaf 30: the proof is that of the other history.
    let split = [&scene.tree[..30], &other[30..]].concat();
    let mut damaged = proof(40, 70);
    damaged.swap(0, 1);
    scene.refuses(
        422,
        &[
            body(40, &[], &signed(&other, 40)),
            body(40, &[], &signed(&split, 40)),
            body(40, &consistency_proof(&split, 40, 70).unwrap(), &signed(&split, 70)),
            body(40, &proof(40, 70), &signed(&split, 70)),
            body(40, &damaged, &signed(&scene.tree, 70)),
            body(40, &proof(40, 70)[1..], &signed(&scene.tree, 70)),
            body(40, &[], &signed(&scene.tree, 70)),
            body(40, &other[..1], &signed(&scene.tree, 40)),
            body(40, &[proof(40, 70), other[..1].to_vec()].concat(), &signed(&scene.tree, 70)),
        ],
    );
    assert_eq!(scene.grow(40, 70).status, 200);
}

#[test]
fn whoever_is_not_the_log_is_refused() {
    let scene = scene(&[]);
    let text = checkpoint(&scene.tree, 40);
    let (stranger, namesake) = (Signer::ed25519("stranger.example", 2), Signer::ed25519(LOG, 3));
    let own = scene.log.line(&text);
    let spoiled = line(&scene.log.key, &[0; 64]);
    scene.refuses(
        403,
        &[
            body(0, &[], &note(&text, &[&stranger])),
            body(0, &[], &note(&text, &[&namesake])),
            body(0, &[], &format!("{text}\n{spoiled}")),
            // One good signature does not make up for a bad one, in any order.
            body(0, &[], &format!("{text}\n{own}{spoiled}")),
            body(0, &[], &format!("{text}\n{spoiled}{own}")),
            body(0, &[], &(text.clone() + "\n" + &scene.log.line("another text\n"))),
        ],
    );
    let unknown = text.replace(LOG, "log.example/other");
    scene.refuses(404, &[body(0, &[], &note(&unknown, &[&scene.log]))]);
    // Signatures by unknown keys are ignored.
    assert_eq!(scene.witness.post(&body(0, &[], &note(&text, &[&stranger, &scene.log]))).status, 200);
    assert!(!scene.newest().body.contains("stranger"), "whom the witness does not know, it does not hand on");
}

#[test]
fn what_is_no_request_is_refused() {
    let scene = scene(&[]);
    assert_eq!(scene.grow(0, 40).status, 200);
    let good = String::from_utf8(scene.request(40, 70)).unwrap();
    let bad = |from: &str, to: &str| {
        assert!(good.contains(from), "{from:?} changes nothing");
        good.replacen(from, to, 1).into_bytes()
    };
    let too_many: String = "A".repeat(43) + "=\n";
    scene.refuses(
        400,
        &[
            Vec::new(),
            b"old 40\n".to_vec(),
            bad("old 40", "old 71"),
            bad("old 40", "old 040"),
            bad("old 40", "old +40"),
            bad("old 40", "old  40"),
            bad("old 40", "old"),
            bad("old 40", "size 40"),
            bad("old 40\n", "old 40\r\n"),
            bad("old 40\n", "old 40\nAAAA\n"),
            bad("old 40\n", &format!("old 40\n{}", too_many.repeat(64))),
            bad("=\n\n", "=\n"),
            bad(" log.example/keys ", "  log.example/keys "),
        ],
    );
    // What changes the signed text is not signed: 403, before anyone looks at what it says.
    scene.refuses(403, &[bad("\n70\n", "\n070\n"), bad(&format!("{LOG}\n70"), &format!("{LOG}\nx"))]);
    // Signed, and no checkpoint.
    for text in [format!("{LOG}\nx\n"), format!("{LOG}\n070\n{}\n", STANDARD.encode([1; 32])), format!("{LOG}\n70\nAAAA\n")] {
        scene.refuses(400, &[body(40, &[], &note(&text, &[&scene.log]))]);
    }
    let origin = Hash::digest(LOG.as_bytes()).to_string();
    for path in ["00".repeat(32), origin.to_uppercase(), origin[..63].to_owned()] {
        assert_eq!(scene.witness.request(&format!("GET /{path}/checkpoint"), b"").status, 404);
    }
    assert_eq!(scene.witness.request("GET /add-checkpoint", b"").status, 405);
}

/// The look at the newest checkpoint and its replacement are one step: of many first requests at once, one is the first.
#[test]
fn many_at_once_cannot_roll_it_back() {
    let scene = scene(&[]);
    let answers: Vec<(u64, Response)> = std::thread::scope(|threads| {
        let asking: Vec<_> = (1..=16_u64)
            .map(|size| {
                (
                    size,
                    threads.spawn({
                        let scene = &scene;
                        move || scene.grow(0, size)
                    }),
                )
            })
            .collect();
        asking.into_iter().map(|(size, thread)| (size, thread.join().unwrap())).collect()
    });
    let (first, others): (Vec<_>, Vec<_>) = answers.iter().partition(|(_, answer)| answer.status == 200);
    let [(size, _)] = first.as_slice() else { panic!("{answers:?}") };
    assert!(others.iter().all(|(_, answer)| (answer.status, &answer.body) == (409, &format!("{size}\n"))), "{answers:?}");
}

#[test]
fn a_log_may_sign_with_ecdsa_or_with_two_keys() {
    let (log, ecdsa) = (Signer::ed25519(LOG, 1), Signer::p256(LOG, 2));
    let (state, tree) = (tempfile::tempdir().unwrap(), leaves(1, 9));
    let witness = Witness::start(state.path(), &[log.key.to_string(), ecdsa.key.to_string()], &[]);
    let mut old = 0;
    for (new, signers) in [(3, vec![&ecdsa]), (5, vec![&log, &ecdsa]), (9, vec![&log])] {
        let proof = consistency_proof(&tree, old, new).unwrap();
        assert_eq!(witness.post(&body(old, &proof, &note(&checkpoint(&tree, new), &signers))).status, 200);
        old = new;
    }
}

/// The ways to be a bad witness, as a log meets them.
#[test]
fn a_bad_witness_is_a_bad_witness() {
    let lying = scene(&["-mode", "bad-signature"]);
    let answer = lying.grow(0, 5);
    assert!(answer.status == 200 && matches!(lying.cosigned(5, &answer), Err(NoteError::BadSignature { .. })));
    let timeless = scene(&["-mode", "no-time"]);
    assert_eq!(timeless.cosigned(5, &timeless.grow(0, 5)), Ok(Some(0)));
    assert_eq!(scene(&["-mode", "unavailable"]).grow(0, 5).status, 503);
    let silent = scene(&["-mode", "silent"]);
    let mut stream = silent.witness.send("POST /add-checkpoint", &silent.request(0, 5));
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert!(stream.read(&mut [0]).is_err());
    // It does not hold up its own end.
    assert!(silent.witness.close());
}
