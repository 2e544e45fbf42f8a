//! The key log over HTTP: tiles and records lead to the root of the served checkpoint, and every byte is the disk's.

use claviger_audit::checkpoint::Checkpoint;
use claviger_audit::jwks::{self, SetName};
use claviger_audit::keyrings::Keyrings;
use claviger_audit::merkle::{Frontier, Hash, leaf_hash};
use claviger_audit::note::Note;
use claviger_audit::record::Record;
use claviger_audit::tiles::{Content, decode_bundle, of_tree};
use claviger_audit::trust::Policy;

use crate::harness::setup::{BEARER, STRANGER};
use crate::harness::witness::Witness;
use crate::harness::{Address, Client, on_softhsm};
use crate::{fs, log_keys, reader, until, wait_stored, witnessed};

#[test]
fn tiles_and_records_lead_to_the_served_root() {
    on_softhsm("served::tiles_and_records_lead_to_the_served_root", |hsm| {
        let witnesses = [Witness::start("w1", 11)];
        let place = witnessed(hsm, &witnesses, "quorum w1");
        let mut daemon = place.start();
        // More than one tile: each denied verb is a record, and so is each that is carried out.
        let kid = place.admin_socket().get("/admin/keyrings/access").ok()["active"].as_str().expect("a key").to_owned();
        for verb in ["suspend", "resume"].iter().cycle().take(300) {
            let body = serde_json::json!({ "reason": "test" });
            assert_eq!(place.admin_socket().post(&format!("/admin/keys/{kid}/{verb}"), &body).status, 200);
        }
        let size = place.admin_socket().get("/admin/status").ok()["log"]["keys"]["size"].as_u64().expect("a size");
        wait_stored(&place, [size, 1]);

        let mut reader = reader(&place);
        let answer = reader.get("/log/keys/checkpoint");
        assert_eq!((answer.status, answer.header("content-type")), (200, "text/plain; charset=utf-8"));
        assert_eq!(answer.header("cache-control"), "no-cache");
        let note = Note::parse(&answer.body).expect("a note");
        let policy = Policy::parse(&fs::read(place.root().join("witnesses.policy")).expect("our own file")).expect("our own policy");
        let keys: Vec<_> = log_keys(&place).into_iter().chain(policy.keys()).collect();
        let (checkpoint, _) = Checkpoint::from_note(&note, "test.example/claviger/keys", &keys).expect("the log's own");
        assert!(checkpoint.size > 256);
        let witnessed = reader.get("/log/keys/witnessed.checkpoint");
        let (stored, signatures) =
            Checkpoint::from_note(&Note::parse(&witnessed.body).expect("a note"), "test.example/claviger/keys", &keys)
                .expect("the log's own");
        assert!(policy.quorum_met(&signatures).is_ok() && stored.size >= size);

        let (mut lines, mut leaves, mut frontier) = (Vec::new(), Vec::new(), Frontier::new());
        for tile in of_tree(checkpoint.size) {
            let answer = reader.get(&format!("/log/keys/{tile}"));
            assert_eq!((answer.status, answer.header("content-type")), (200, "application/octet-stream"), "{tile}");
            assert_eq!(answer.header("cache-control"), "public, max-age=31536000, immutable");
            match tile.content() {
                Content::Entries => {
                    lines.extend(decode_bundle(&answer.body, tile.width()).expect("a bundle").into_iter().map(<[u8]>::to_vec));
                }
                Content::Hashes { level: 0 } => {
                    leaves.extend(answer.body.chunks_exact(32).map(|hash| Hash::from_bytes(hash.try_into().expect("32 bytes"))));
                }
                Content::Hashes { .. } => {
                    let hash = Hash::from_bytes(answer.body[..32].try_into().expect("32 bytes"));
                    let mut first = Frontier::new();
                    first.extend(leaves[..256].iter().copied());
                    assert_eq!(hash, first.root(), "{tile}");
                }
            }
        }
        assert_eq!(lines.iter().map(|line| leaf_hash(line)).collect::<Vec<_>>(), leaves);
        frontier.extend(leaves);
        assert_eq!((frontier.size(), frontier.root()), (checkpoint.size, checkpoint.root));

        let mut fetched = Vec::new();
        while (fetched.len() as u64) < checkpoint.size {
            let answer = reader.get(&format!("/log/keys/records?from={}&limit=100", fetched.len()));
            assert_eq!((answer.status, answer.header("content-type")), (200, "application/jsonl"));
            assert!(answer.header("claviger-log-size").parse::<u64>().expect("a size") >= checkpoint.size);
            let before = fetched.len();
            fetched.extend(answer.body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec));
            assert!((1..=100).contains(&(fetched.len() - before)));
        }
        assert_eq!(fetched[..lines.len()], lines);
        let disk = fs::read(place.log().join("keys/00000000000000000000.jsonl")).expect("the key log");
        assert!(disk.starts_with(&[lines.join(&b'\n'), b"\n".to_vec()].concat()), "every byte is the disk's");

        for (path, code) in
            [("tile/0/0", 404), ("tile/x/000", 404), ("tile/0/999", 404), ("tile/1/001", 404), ("records?from=x", 400), ("", 404)]
        {
            assert_eq!(reader.get(&format!("/log/keys/{path}")).status, code, "{path}");
        }
        assert_eq!(daemon.anonymous().get("/log/keys/checkpoint").status, 404, "a listener that does not serve it has no such address");
        place.check(daemon);
    });
}

#[test]
fn a_set_names_the_size_of_the_log_that_makes_it() {
    on_softhsm("served::a_set_names_the_size_of_the_log_that_makes_it", |hsm| {
        let witnesses = [Witness::start("w1", 11)];
        let place = witnessed(hsm, &witnesses, "quorum w1");
        let mut daemon = place.start();
        let mut reader = reader(&place);
        for path in ["/.well-known/jwks.json", "/keyrings/access/jwks.json"] {
            let set = daemon.anonymous().get(path);
            let size: usize = set.header("claviger-log-size").parse().expect("a size");
            let lines = until("that many records, covered", || {
                let text = reader.try_get("/log/keys/records")?.text();
                let lines: Vec<String> = text.lines().map(str::to_owned).collect();
                if lines.len() >= size { Ok(lines) } else { Err(format!("{} of {size}", lines.len())) }
            });
            let mut keyrings = Keyrings::default();
            for line in &lines[..size] {
                keyrings.apply(&Record::parse(line.as_bytes()).expect("a record")).expect("a legal one");
            }
            let name = if path.contains("keyrings") { SetName::Keyring("access".to_owned()) } else { SetName::Issuer("main".to_owned()) };
            assert_eq!(jwks::body(&keyrings, &name), Some(set.body), "{path} at {size}");
        }
        place.check(daemon);
    });
}

#[test]
fn a_listener_with_callers_asks_who_reads_and_policies_decide() {
    on_softhsm("served::a_listener_with_callers_asks_who_reads_and_policies_decide", |hsm| {
        let witnesses = [Witness::start("w1", 11)];
        let place = witnessed(hsm, &witnesses, "quorum w1");
        place.edit_config(|text| {
            text.replace(
                "[caller.\"token:demo\"]\ngroups = [\"issuers\"]",
                "[caller.\"token:demo\"]\ngroups = [\"issuers\", \"operators\"]",
            )
        });
        let daemon = place.start();
        let asked = || Client::new(Address::Unix(place.root().join("readers.sock")));
        for path in ["checkpoint", "records", "tile/0/000.p/1", "witnessed.checkpoint"] {
            let path = format!("/log/keys/{path}");
            assert_eq!(asked().get(&path).problem(401), "unauthenticated", "{path}");
            assert_eq!(asked().bearer(STRANGER).get(&path).problem(403), "denied", "{path}");
            until("what may be read", || {
                let answer = asked().bearer(BEARER).try_get(&path)?;
                if answer.status == 200 { Ok(()) } else { Err(answer.text()) }
            });
        }
        assert_eq!(asked().get("/livez").status, 200, "ops beside it asks nobody");
        place.check(daemon);
    });
}
