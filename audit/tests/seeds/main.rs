//! What the fuzz targets of `fuzz` assert, replayed on their seeds without a fuzzer; and the seeds, which come from the golden files.
//!
//! `CLAVIGER_WRITE_GOLDEN=1` writes them instead, after a change of the format. Out of scope: inputs that a fuzzer makes up (`fuzz/run.sh`).

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too: what fails here fails the test that asked")]

#[path = "../../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "in its own package this is a library")]
mod bodies;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use claviger_audit::backend::Backend;
use claviger_audit::checkpoint::Checkpoint;
use claviger_audit::json;
use claviger_audit::jwk::{Curve, PublicKey};
use claviger_audit::merkle::Hash;
use claviger_audit::note::{Note, VerifierKey};
use claviger_audit::proof::{ConsistencyProof, ForkProof, InclusionProof};
use claviger_audit::record::Record;
use claviger_audit::trust::Policy;

/// The golden pair.
const VALID: [&str; 5] = [
    "valid/log/keys/00000000000000000000.jsonl",
    "valid/log/uses/00000000000000000000.jsonl",
    "valid/log/uses/00000000000000000005.jsonl",
    "valid/log/keys/checkpoint",
    "valid/log/uses/checkpoint",
];

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn golden(name: &str) -> Vec<u8> {
    fs::read(here().join("testdata").join(name)).unwrap()
}

fn in_folder(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// Every seed by `target/name`.
type Seeds = BTreeMap<String, Vec<u8>>;

fn seeds() -> Seeds {
    let mut seeds = Seeds::new();
    records(&mut seeds);
    notes(&mut seeds);
    policies(&mut seeds);
    proofs(&mut seeds);
    proof_files(&mut seeds);
    logs(&mut seeds);
    backends(&mut seeds);
    seeds
}

/// One record of each event, and JSON that is none.
fn records(seeds: &mut Seeds) {
    let eventful = ["eventful/log/keys/00000000000000000000.jsonl", "eventful/log/uses/00000000000000000000.jsonl"];
    let valid = VALID.iter().filter(|file| file.strip_suffix(".jsonl").is_some());
    for file in eventful.iter().chain(valid) {
        for line in golden(file).split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let record = Record::parse(line).unwrap();
            seeds.insert(format!("record/{}.{}", record.log.name(), record.event.name()), line.to_vec());
        }
    }
    let strange = r#" {"":[1.5e-3,-1,9007199254740991,true,null],"\u0062\ud83d\ude00":{"a":"\n\"\\\/","b":[[[]]]}}"#;
    seeds.insert("record/strange".to_owned(), strange.into());
}

fn notes(seeds: &mut Seeds) {
    for (name, file) in [("keys", "valid/log/keys/checkpoint"), ("uses", "valid/log/uses/checkpoint"), ("head", "valid/head/keys")] {
        let note = golden(file);
        let text = String::from_utf8(note.clone()).unwrap().split_once("\n\n").unwrap().0.to_owned() + "\n";
        seeds.insert(format!("checkpoint/{name}"), text.clone().into_bytes());
        seeds.insert(format!("note/{name}"), note);
    }
    seeds.insert("checkpoint/extended".to_owned(), b"o\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\nmore\n".to_vec());
    seeds.insert("note/foreign".to_owned(), golden("defect/foreign-checkpoint/log/keys/checkpoint"));
}

/// The keys of the golden trust file, and those of witnesses that nobody has.
fn policies(seeds: &mut Seeds) {
    let trust = String::from_utf8(golden("valid/trust")).unwrap();
    for (index, line) in trust.lines().filter_map(|line| line.strip_prefix("log ")).enumerate() {
        seeds.insert(format!("key/log-{index}"), line.into());
    }
    seeds.insert("key/p256".to_owned(), p256_key().into());
    let [one, two] = [cosigner("one.example", 7), cosigner("two.example", 8)];
    seeds.insert("key/cosigner".to_owned(), one.clone().into());
    let witnesses = format!("witness one {one} https://one.example\nwitness two {two}\n");
    let groups = format!("{trust}{witnesses}group both all one two\ngroup most 1 both\nquorum most\n").replace("quorum none\n", "");
    seeds.insert("policy/groups".to_owned(), groups.into());
    seeds.insert("policy/trust".to_owned(), trust.into());
}

/// Each way to change a proof once, and hashes from nowhere.
fn proofs(seeds: &mut Seeds) {
    for change in 0..8 {
        let hashes: Vec<u8> = (0..=255).cycle().take(16 + 32 * 8).collect();
        let bytes = [[change * 5, 40 - change, change, 3 + change].as_slice(), &hashes].concat();
        seeds.insert(format!("proof/change-{change}"), bytes);
    }
}

/// A proof of each kind, with and without cosignatures.
fn proof_files(seeds: &mut Seeds) {
    for name in ["consistency", "consistency-unsigned", "fork", "fork-of-one-size", "record.tlog-proof", "record-witnessed.tlog-proof"] {
        seeds.insert(format!("proof_file/{name}"), golden(&format!("proofs/{name}")));
    }
}

/// Each file of the golden pair in its own place, under each way to pin; the longest file once.
fn logs(seeds: &mut Seeds) {
    for (place, file) in (0_u8..).zip(VALID) {
        for pin in (0..3).skip(if place == 0 { 2 } else { 0 }) {
            let bytes = [[place + 5 * pin].as_slice(), &golden(file)].concat();
            seeds.insert(format!("log/{place}-{pin}"), bytes);
        }
    }
}

/// What two keystores wrote down beside a golden pair: each kind of entry once.
fn backends(seeds: &mut Seeds) {
    let trail = golden(
        "reconciled/aws/AWSLogs/111122223333/CloudTrail/eu-central-1/2026/01/01/111122223333_CloudTrail_eu-central-1_20260101T0005Z_e1.json",
    );
    seeds.insert("cloudtrail/events".to_owned(), trail);
    seeds.insert("cloudtrail/digest".to_owned(), br#"{"digestStartTime":"2026-01-01T00:00:00Z","logFiles":[]}"#.to_vec());
    seeds.insert("vault/entries".to_owned(), golden("reconciled/vault/audit.log"));
    let joined = br#"{"time":"2026-01-01T00:0{"time":"2026-01-01T01:00:00.5+01:00","type":"response","request":{"path":"a/sign/prod.access.1-00000001/sha2-256"}}"#;
    seeds.insert("vault/joined".to_owned(), joined.to_vec());
}

/// A verifier key whose secret is 32 times 3.
fn p256_key() -> String {
    let secret = p256::ecdsa::SigningKey::from_slice(&[3; 32]).unwrap();
    let point = secret.verifying_key().to_sec1_point(false);
    let public = PublicKey::from_ec_point(Curve::P256, &point.as_bytes()[1..]).unwrap();
    VerifierKey::from_jwk("p256.example", &public).unwrap().to_string()
}

/// The verifier key of a witness (C2SP tlog-cosignature): its identifier is the start of `SHA-256(name || LF || 0x04 || key)`.
fn cosigner(name: &str, seed: u8) -> String {
    let public = ed25519_dalek::SigningKey::from_bytes(&[seed; 32]).verifying_key();
    let typed = [&[4], public.as_bytes().as_slice()].concat();
    let hash = Hash::digest(&[name.as_bytes(), b"\n", &typed].concat());
    format!("{name}+{}+{}", &hash.to_string()[..8], STANDARD.encode(typed))
}

#[test]
fn the_seeds_come_from_the_golden_files() {
    let root = here().join("fuzz/seeds");
    let made = seeds();
    #[expect(clippy::disallowed_methods, reason = "whoever changes the format asks for new files; no program reads this")]
    let asked = std::env::var_os("CLAVIGER_WRITE_GOLDEN").is_some();
    if asked {
        for (name, bytes) in &made {
            fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
            fs::write(root.join(name), bytes).unwrap();
        }
    }
    let name = |path: &Path| path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
    let files = in_folder(&root).into_iter().flat_map(|folder| in_folder(&folder));
    let committed: Seeds = files.map(|path| (name(&path), fs::read(&path).unwrap())).collect();
    let differing: Vec<&String> = made.keys().chain(committed.keys()).filter(|name| made.get(*name) != committed.get(*name)).collect();
    assert!(differing.is_empty(), "{differing:?}");
}

/// A seed that is refused at once would lead a fuzzer nowhere.
#[test]
fn the_seeds_are_what_their_targets_want() {
    for (name, seed) in seeds() {
        let text = str::from_utf8(&seed).unwrap_or_default();
        let wanted = match name.split_once('/').unwrap().0 {
            "record" => json::check_request(&seed).is_ok(),
            "note" => Note::parse(&seed).is_ok(),
            "key" => text.parse::<VerifierKey>().is_ok(),
            "checkpoint" => text.parse::<Checkpoint>().is_ok(),
            "policy" => Policy::parse(&seed).is_ok(),
            "proof" => seed.len() > 4,
            "proof_file" => {
                InclusionProof::parse(&seed).is_ok() || ConsistencyProof::parse(&seed).is_ok() || ForkProof::parse(&seed).is_ok()
            }
            "log" => seed[0] < 15,
            "cloudtrail" => Backend::CloudTrail.read(&mut seed.as_slice(), &mut |_| {}).is_ok(),
            "vault" => Backend::Vault.read(&mut seed.as_slice(), &mut |_| {}).is_ok(),
            other => panic!("{other}: say what a seed of this target is"),
        };
        assert!(wanted, "{name}");
    }
}

#[test]
fn every_target_has_its_body_and_its_seeds() {
    let stems = |folder: &str| -> Vec<String> {
        in_folder(&here().join(folder)).iter().map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
    };
    let mut bodies: Vec<&str> = bodies::TARGETS.iter().map(|(name, _)| *name).collect();
    bodies.sort_unstable();
    assert_eq!(stems("fuzz/fuzz_targets"), bodies);
    assert_eq!(stems("fuzz/seeds"), bodies);
    let manifest = fs::read_to_string(here().join("fuzz/Cargo.toml")).unwrap();
    for name in bodies {
        assert!(manifest.contains(&format!("name = \"{name}\"\npath = \"fuzz_targets/{name}.rs\"")), "{name}");
    }
}

/// Every seed as it is, shortened, and with each of its bits changed once in a while: what a fuzzer would do first.
#[test]
fn what_must_hold_holds_for_the_seeds() {
    let seeds = seeds();
    for (target, check) in bodies::TARGETS {
        let of_target = seeds.iter().filter(|(name, _)| name.split_once('/').unwrap().0 == target);
        let mut count = 0;
        for (_, seed) in of_target {
            check(seed);
            // The long ones take their time.
            let step = seed.len() / 100 + 1;
            for at in (0..seed.len()).step_by(step) {
                check(&seed[..at]);
                let mut changed = seed.clone();
                changed[at] ^= 1 << (at % 8);
                check(&changed);
            }
            count += 1;
        }
        assert!(count > 1, "{target} has no seeds");
    }
}
