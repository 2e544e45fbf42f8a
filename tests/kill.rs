//! `kill -9`, again and again, under load: every receipt that a client ever held is provable afterwards.
//!
//! In scope: a process that dies between any two of its instructions. Out of scope: a machine that loses power (the journal's own tests run
//! on a disk that forgets).

mod harness;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use harness::receipts::{Receipt, assert_provable, assert_verifies, lines};
use harness::setup::BEARER;
use harness::{Client, Daemon, Keyring, Place, Setup, on_softhsm, until};
use serde_json::json;

/// How often the daemon is killed; `CLAVIGER_KILL_CYCLES` in the environment says otherwise (a thousand take some four minutes).
const CYCLES: usize = 200;
/// Every so many cycles it is killed while it starts, before anybody was answered.
const EARLY: usize = 5;
/// Every so many cycles the whole log is verified and its heads are remembered; the receipts are looked up in every cycle.
const VERIFIED: usize = 20;
/// How many clients ask, half of them over TCP and half over the Unix socket.
const CLIENTS: usize = 8;
/// The fewest receipts of a cycle, and how many more are asked for from cycle to cycle: the kills fall on ever different moments.
const RECEIPTS: (usize, usize) = (5, 13);
/// The most that a cycle asks for.
const MOST_RECEIPTS: usize = 100;

/// The clients' memory.
#[derive(Default)]
struct Held {
    receipts: Mutex<Vec<Receipt>>,
    count: AtomicUsize,
}

impl Held {
    fn remember(&self, receipt: Receipt) {
        self.receipts.lock().expect("no client panics").push(receipt);
        self.count.fetch_add(1, Ordering::SeqCst);
    }

    fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    fn all(&self) -> Vec<Receipt> {
        self.receipts.lock().expect("no client panicked").clone()
    }
}

/// Asks until the daemon is gone. What is answered must be a token.
fn ask_until_death(mut client: Client, held: &Held) {
    while let Ok(answer) = client.sign("access") {
        held.remember(Receipt::of(&answer.ok()));
    }
}

/// Lets all clients ask until `wanted` more receipts are held, orders a rotation on the way, and kills the daemon under them.
fn load_and_kill(place: &Place<'_>, mut daemon: Daemon, held: &Held, wanted: usize) {
    let aim = held.count() + wanted;
    let tcp = daemon.tcp();
    thread::scope(|scope| {
        for number in 0..CLIENTS {
            let client = if number % 2 == 0 { place.sign_socket() } else { Client::new(tcp.clone()).bearer(BEARER) };
            scope.spawn(move || ask_until_death(client, held));
        }
        let reached = |count: usize| until("receipts", || if held.count() >= count { Ok(()) } else { Err(format!("{}", held.count())) });
        reached(aim - wanted / 2);
        // Allowed or not, as the last rotation lies long enough ago: either way the key log may be mid-record at the kill.
        let rotated = place.admin_socket().post("/admin/keyrings/access/rotate", &json!({}));
        assert!([200, 409].contains(&rotated.status), "{}", rotated.text());
        reached(aim);
        daemon.kill();
    });
}

/// How often it is killed this time.
#[expect(clippy::disallowed_methods, reason = "whoever wants more kills than everybody needs asks for them; no program reads this")]
fn cycles() -> usize {
    std::env::var("CLAVIGER_KILL_CYCLES").map_or(CYCLES, |text| text.parse().expect("CLAVIGER_KILL_CYCLES is a number of cycles"))
}

#[test]
fn every_receipt_outlives_every_kill() {
    on_softhsm("every_receipt_outlives_every_kill", |hsm| {
        let place = Place::new(hsm, Setup::new().keyring(Keyring::jwt("access", "ES256")));
        let (held, cycles) = (Held::default(), cycles());
        for cycle in 0..cycles {
            if cycle % EARLY == EARLY - 1 {
                // SoftHSM rewrites its token file in place at every login, and a kill in that instant destroys the token, whoever asked for
                // the login. So the token is away while the start is killed: the logs are what must survive it.
                hsm.hide_tokens(true);
                let mut daemon = place.spawn();
                daemon.addresses(3);
                daemon.kill();
                hsm.hide_tokens(false);
            }
            let mut daemon = place.spawn();
            daemon.ready();
            if cycle % VERIFIED == 0 {
                place.remember_heads();
            }
            assert_provable(&place, &held.all());
            load_and_kill(&place, daemon, &held, (RECEIPTS.0 + cycle * RECEIPTS.1) % MOST_RECEIPTS + 1);
        }
        let daemon = place.start();
        assert_provable(&place, &held.all());
        place.check(daemon);
        assert_provable(&place, &held.all());
        assert_verifies(&place, &held.all());
        let starts = lines(&place, "keys").iter().filter(|line| line.contains("\"event\":\"daemon.start\"")).count();
        assert!(starts > cycles, "{starts} starts are on record");
    });
}
