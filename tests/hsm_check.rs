//! `claviger hsm check` as a security team runs it: the real command on real SoftHSM tokens.
//!
//! In scope: what it finds and says, that it leaves the token as it was whatever happens to it, its one PIN try, and its exit codes. Out of
//! scope: how the number of workers is chosen (unit tests of the adapter), and speed.

mod harness;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use claviger::clock::SystemClock;
use claviger::inspect::hsm::{self, CheckError, PREFIX, Report, Talk, TrialSettings, Verdict};
use claviger::keystore::pkcs11::Pkcs11Settings;
use claviger_audit::Algorithm;
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::object::{Attribute, AttributeType};
use cryptoki::session::UserType;
use cryptoki::types::AuthPin;
use harness::daemon::BINARY;
use harness::softhsm::PIN;
use harness::{Keyring, Place, Setup, SoftHsm, on_softhsm, until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// The label of the token.
const TOKEN: &str = "new";
/// A PIN that is not the token's.
const WRONG: &str = "4711-wrong";
/// A label that looks like a throw-away key's; its key has another id.
const LOOK_ALIKE: &str = "claviger-hsm-check.r0011223344556677.1-00c0ffee";
/// Lines of a command that are kept for a test that reads them: far more than any run writes.
const LINES: usize = 10_000;

/// A token with foreign objects, and the settings of its PIN file.
struct Bench<'h> {
    hsm: &'h SoftHsm,
    settings: Pkcs11Settings,
}

impl<'h> Bench<'h> {
    fn new(hsm: &'h SoftHsm) -> Self {
        hsm.token(TOKEN);
        hsm.import_pair(TOKEN, LOOK_ALIKE, &[0xaa, 1]);
        hsm.import_pair(TOKEN, "somebody else's", &[0xaa, 2]);
        hsm.loaded().finalize().expect("whoever loads the module in this process begins anew");
        Self { hsm, settings: hsm.settings(TOKEN, PIN) }
    }

    fn state(&self) -> PathBuf {
        self.hsm.state()
    }

    /// The command with this token and these further arguments.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command.args(["hsm", "check", "--token", TOKEN, "--module"]).arg(&self.settings.module);
        command.arg("--pin-file").arg(self.settings.pin.path()).arg("--state").arg(self.state()).args(arguments);
        command.stdin(Stdio::null());
        command
    }

    /// Runs it; neither PIN is ever printed.
    fn run(&self, arguments: &[&str]) -> (i32, Output) {
        let output = self.command(arguments).output().expect("the binary was built");
        for printed in [&output.stdout, &output.stderr] {
            assert!(![PIN, WRONG].iter().any(|pin| text(printed).contains(pin)), "a PIN was printed: {}", text(printed));
        }
        (output.status.code().expect("no signal"), output)
    }

    /// Runs it with JSON output.
    fn report(&self, arguments: &[&str]) -> (i32, Value) {
        let (code, output) = self.run(&[arguments, &["--output", "json"]].concat());
        let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(&output.stderr)));
        (code, report)
    }

    /// Every object of the token, by all that identifies it, asked by another PKCS#11 program than the one under test.
    fn objects(&self) -> BTreeSet<String> {
        let library = Pkcs11::new(&self.settings.module).expect("SoftHSM");
        library.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).expect("initialised");
        let has_label = |slot: &cryptoki::slot::Slot| library.get_token_info(*slot).is_ok_and(|token| token.label() == TOKEN);
        let slot = library.get_slots_with_token().expect("slots").into_iter().find(has_label).expect("the token");
        let session = library.open_ro_session(slot).expect("a session");
        session.login(UserType::User, Some(&AuthPin::from(PIN))).expect("logged in");
        let kinds = [AttributeType::Class, AttributeType::Label, AttributeType::Id, AttributeType::KeyType, AttributeType::EcPoint];
        let told = |object| format!("{:?}", session.get_attributes(object, &kinds).expect("attributes"));
        let objects = session.find_objects(&[Attribute::Token(true)]).expect("found").into_iter().map(told).collect();
        drop(session);
        library.finalize().expect("finalised");
        objects
    }

    /// SoftHSM's own files, one for each object: for tests whose process has loaded the module already.
    fn files(&self) -> BTreeSet<PathBuf> {
        let tokens = self.state().with_file_name("tokens");
        let token = fs::read_dir(tokens).expect("the tokens").next().expect("one token").expect("an entry").path();
        let objects = fs::read_dir(token).expect("the token").map(|entry| entry.expect("an entry").path());
        objects.filter(|path| path.extension().is_some_and(|extension| extension == "object")).collect()
    }

    /// Starts it, and waits until it says something that begins like this.
    fn start(&self, arguments: &[&str], begins: &str) -> (Child, Receiver<String>) {
        let mut child = self.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary was built");
        let lines = BufReader::new(child.stderr.take().expect("standard error is piped"));
        let (send, receive) = sync_channel(LINES);
        std::thread::spawn(move || lines.lines().map_while(Result::ok).for_each(|line| drop(send.try_send(line))));
        until(begins, || {
            let line = receive.try_recv().map_err(|error| error.to_string())?;
            if line.starts_with(begins) { Ok(()) } else { Err(line) }
        });
        (child, receive)
    }

    /// What the library's own entry is given; for tests that play the person at the terminal.
    fn trial(&self) -> TrialSettings {
        let Pkcs11Settings { module, token, pin, state, .. } = self.settings.clone();
        let algorithms = vec![Algorithm::ES256];
        TrialSettings { module, token, pin, state, algorithms, sessions: 4, span: Duration::from_millis(50), tune: false }
    }

    fn check(&self, talk: impl Talk + 'static) -> Result<Report, CheckError> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
        runtime.block_on(hsm::check(self.trial(), Arc::new(SystemClock::start()), Arc::new(talk)))
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).expect("a process of ours that nobody has waited for");
}

fn entries(folder: &Path) -> usize {
    fs::read_dir(folder).expect("the folder").count()
}

/// The rows of a table of the report, by the text in `key`.
fn row<'r>(report: &'r Value, table: &str, key: &str, name: &str) -> &'r Value {
    let rows = report[table].as_array().unwrap_or_else(|| panic!("no {table} in {report}"));
    rows.iter().find(|row| row[key] == name).unwrap_or_else(|| panic!("no {name} in {table}: {report}"))
}

/// Labels in a list of the report's `cleanup`, sorted.
fn labels(report: &Value, list: &str) -> Vec<String> {
    let labels = report["cleanup"][list].as_array().expect("a list").iter();
    labels.map(|label| label.as_str().expect("a label").to_owned()).collect()
}

#[test]
fn a_sound_token_is_told_as_such_and_left_as_it_was() {
    on_softhsm("a_sound_token_is_told_as_such_and_left_as_it_was", |hsm| {
        let bench = Bench::new(hsm);
        let before = bench.objects();
        assert_eq!(before.len(), 4, "two foreign key pairs: {before:?}");
        let (code, report) = bench.report(&["--yes", "--seconds", "1"]);
        assert_eq!(code, 0, "{report}");
        assert_eq!((&report["usable"], &report["complete"]), (&true.into(), &true.into()));
        assert_eq!(row(&report, "checks", "check", "token.label")["result"], TOKEN);
        for algorithm in Algorithm::ALL {
            let tried = row(&report, "algorithms", "algorithm", algorithm.name());
            assert_eq!((&tried["verified"], &tried["destroyed"], &tried["verdict"]), (&true.into(), &true.into(), &"ok".into()), "{tried}");
            assert!(tried["generate_us"].as_u64() > Some(0) && tried["sign_us"].is_u64(), "{tried}");
            assert_eq!(row(&report, "features", "feature", &format!("signing.{algorithm}"))["verdict"], "ok");
        }
        // What SoftHSM is known for, and why the daemon checks lengths itself.
        assert_eq!(row(&report, "algorithms", "algorithm", "ES256")["wrong_length"], "signed");
        assert_eq!(report["attributes"].as_array().map(Vec::len), Some(5 * 15), "five kinds of keys: {report}");
        assert_eq!(row(&report, "attributes", "attribute", "never-extractable")["found"], true);
        for feature in ["admission", "find_or_create", "destroy", "recovery", "concurrency"] {
            assert_eq!(row(&report, "features", "feature", feature)["verdict"], "ok", "{report}");
        }
        assert_eq!((&report["sessions"]["opened"], &report["sessions"]["read_only"]), (&64.into(), &true.into()));
        let workers: Vec<u64> = report["load"].as_array().expect("steps").iter().filter_map(|step| step["workers"].as_u64()).collect();
        assert_eq!(workers, [1, 2, 4, 8]);
        for step in report["load"].as_array().expect("steps") {
            let spans: Vec<u64> = ["p50_us", "p90_us", "p99_us", "max_us"].iter().filter_map(|name| step[*name].as_u64()).collect();
            assert!(spans.len() == 4 && spans.is_sorted() && step["signatures"].as_u64() > Some(0) && step["failure"].is_null(), "{step}");
        }
        assert_eq!(report["cleanup"], serde_json::json!({ "created": 7, "left": [], "removed_leftovers": [], "kept_leftovers": [] }));
        assert_eq!(bench.objects(), before);
        assert_eq!(entries(&bench.state()), 0, "no PIN marker is left after a good login");
    });
}

#[test]
fn after_a_new_initialisation_an_old_handle_is_seen_to_sign_with_another_key() {
    on_softhsm("after_a_new_initialisation_an_old_handle_is_seen_to_sign_with_another_key", |hsm| {
        let bench = Bench::new(hsm);
        let (code, report) = bench.report(&["--yes", "--seconds", "1", "--algorithm", "ES256", "--sessions", "3"]);
        assert_eq!(code, 0, "it is a note, because Claviger's handles carry an epoch: {report}");
        let said = |check: &str| row(&report, "checks", "check", check)["result"].as_str().expect("a text").to_owned();
        assert!(said("reinitialise.numbers").contains("names the other key now"), "{report}");
        assert!(said("reinitialise.old_handle").contains("SIGNS WITH ANOTHER KEY"), "{report}");
        assert!(said("logout.handle_without_login").starts_with("does not sign: CKR_"), "{report}");
        assert_eq!(said("close.login"), "gone with the last session");
        assert_eq!(row(&report, "features", "feature", "signing.RS256")["verdict"], "absent", "it was not asked for");
        let steps: Vec<u64> = report["load"].as_array().expect("steps").iter().filter_map(|step| step["workers"].as_u64()).collect();
        assert_eq!(steps, [1, 2], "one of the three sessions holds the login");
    });
}

#[test]
fn people_read_tables_and_the_line_for_their_settings() {
    on_softhsm("people_read_tables_and_the_line_for_their_settings", |hsm| {
        let bench = Bench::new(hsm);
        let (code, output) = bench.run(&["--yes", "--seconds", "1", "--algorithm", "ES256", "--tune"]);
        let (table, progress) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(code, 0, "{table}{progress}");
        for part in ["token.serial", "CKM_EC_KEY_PAIR_GEN", "never-extractable", "signatures a second", "find_or_create", "workers = "] {
            assert!(table.contains(part), "{part} in {table}");
        }
        assert!(table.contains("Everything that Claviger needs works on this token."), "{table}");
        assert!(!table.contains('\u{1b}'), "no colours in a pipe");
        assert!(progress.contains("… under load: ES256, workers: 1"), "{progress}");
    });
}

/// A command that names everything by its token.
fn by_uri(bench: &Bench<'_>, uri: &str) -> Output {
    let mut command = Command::new(BINARY);
    command.args(["hsm", "check", "--yes", "--seconds", "1", "--algorithm", "ES256", "--token", uri, "--state"]).arg(bench.state());
    command.stdin(Stdio::null()).output().expect("the binary was built")
}

#[test]
fn a_uri_names_module_token_and_pin_file_and_never_a_pin() {
    on_softhsm("a_uri_names_module_token_and_pin_file_and_never_a_pin", |hsm| {
        let bench = Bench::new(hsm);
        let (module, pin) = (bench.settings.module.display(), bench.settings.pin.path().display());
        let sound = by_uri(&bench, &format!("pkcs11:token={TOKEN}?module-path={module}&pin-source=file:{pin}"));
        assert_eq!(sound.status.code(), Some(0), "{}", text(&sound.stderr));
        for (uri, part) in [
            (format!("pkcs11:token={TOKEN}?module-path={module}&pin-value=9876"), "pin-value"),
            (format!("pkcs11:token={TOKEN}?module-path={module}"), "pin-source"),
            (format!("pkcs11:token={TOKEN}?pin-source=file:{pin}"), "--module"),
        ] {
            let refused = by_uri(&bench, &uri);
            let said = text(&refused.stderr);
            assert!(refused.status.code() == Some(64) && said.contains(part) && !said.contains("9876"), "{uri}: {said}");
        }
    });
}

#[test]
fn without_a_yes_nothing_is_touched() {
    on_softhsm("without_a_yes_nothing_is_touched", |hsm| {
        let bench = Bench::new(hsm);
        fs::remove_dir(bench.state()).expect("an empty folder");
        let before = bench.files();
        let (code, output) = bench.run(&[]);
        assert_eq!(code, 64, "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains("say --yes") && output.stdout.is_empty(), "{}", text(&output.stderr));
        assert!(bench.files() == before && !bench.state().exists());
    });
}

#[test]
fn a_wrong_pin_is_tried_once_over_two_runs() {
    on_softhsm("a_wrong_pin_is_tried_once_over_two_runs", |hsm| {
        let bench = Bench::new(hsm);
        hsm.settings(TOKEN, WRONG);
        let (code, output) = bench.run(&["--yes"]);
        assert_eq!(code, 77, "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains("PinIncorrect"), "{}", text(&output.stderr));
        let marker = fs::read_dir(bench.state()).expect("the state folder").next().expect("a marker").expect("an entry").path();
        let written = fs::read(&marker).expect("the marker");
        let (code, output) = bench.run(&["--yes"]);
        assert_eq!(code, 77);
        assert!(text(&output.stderr).contains("refused before"), "{}", text(&output.stderr));
        // The marker has fresh random bytes at each try, so an unchanged marker means that nothing was tried.
        assert_eq!(fs::read(&marker).expect("the marker"), written, "no second try");
        hsm.settings(TOKEN, PIN);
        let (code, report) = bench.report(&["--yes", "--seconds", "1", "--algorithm", "ES256"]);
        assert_eq!((code, entries(&bench.state())), (0, 0), "{report}");
        let warned = row(&report, "checks", "check", "pin.count_low");
        assert_eq!(warned["verdict"], "note", "the token remembers the wrong try: {warned}");
    });
}

#[test]
fn what_a_kill_leaves_is_found_and_exactly_that_is_removed() {
    on_softhsm("what_a_kill_leaves_is_found_and_exactly_that_is_removed", |hsm| {
        let bench = Bench::new(hsm);
        let (before, clean) = (bench.objects(), bench.files());
        let arguments = ["--yes", "--seconds", "60", "--algorithm", "ES256"];
        let (mut child, _lines) = bench.start(&arguments, "… under load");
        signal(&child, Signal::KILL);
        child.wait().expect("our own child");
        let left = bench.objects();
        assert_eq!(left.len(), before.len() + 4, "two key pairs are left: {left:?}");
        assert!(left.is_superset(&before));

        let files = bench.files();
        let declined = bench.check(Person { allows: false, panics_at: None }).expect("a report");
        assert!(declined.usable && declined.cleanup.removed_leftovers.is_empty(), "{declined:?}");
        assert_eq!((declined.cleanup.kept_leftovers.len(), bench.files()), (2, files), "who declines keeps them");

        let (code, report) = bench.report(&["--yes", "--seconds", "1", "--algorithm", "ES256"]);
        assert_eq!(code, 0, "{report}");
        assert_eq!(labels(&report, "removed_leftovers"), declined.cleanup.kept_leftovers);
        assert!(labels(&report, "removed_leftovers").iter().all(|label| label.starts_with(PREFIX)), "{report}");
        assert_eq!(bench.files(), clean);
        let (_, report) = bench.report(&["--yes", "--seconds", "1", "--algorithm", "ES256"]);
        assert_eq!(row(&report, "checks", "check", "leftovers")["result"], "none of an earlier check");
    });
}

#[test]
fn a_signal_ends_it_and_its_keys() {
    on_softhsm("a_signal_ends_it_and_its_keys", |hsm| {
        let bench = Bench::new(hsm);
        let (before, clean) = (bench.objects(), bench.files());
        for kind in [Signal::TERM, Signal::INT, Signal::HUP] {
            let arguments = ["--yes", "--seconds", "60", "--algorithm", "ES256", "--output", "json"];
            let (child, _lines) = bench.start(&arguments, "… under load");
            assert_eq!(bench.files().len(), clean.len() + 4, "its two key pairs are there");
            signal(&child, kind);
            let output = child.wait_with_output().expect("our own child");
            assert_eq!(output.status.code(), Some(75), "{}", text(&output.stdout));
            let report: Value = serde_json::from_slice(&output.stdout).expect("a report");
            assert_eq!((&report["complete"], &report["usable"]), (&false.into(), &false.into()));
            assert!(labels(&report, "left").is_empty(), "{report}");
            assert_eq!((bench.objects(), bench.files()), (before.clone(), clean.clone()));
        }
    });
}

/// A person at the terminal; one who makes the check panic at some point.
struct Person {
    allows: bool,
    panics_at: Option<&'static str>,
}

impl Talk for Person {
    fn progress(&self, text: &str) {
        assert!(self.panics_at.is_none_or(|begins| !text.starts_with(begins)), "a test made the check panic");
    }

    fn may_remove(&self, _labels: &[String]) -> bool {
        self.allows
    }
}

#[test]
fn a_panic_leaves_no_key() {
    on_softhsm("a_panic_leaves_no_key", |hsm| {
        let bench = Bench::new(hsm);
        let before = bench.files();
        for moment in ["under load", "logging out"] {
            let outcome = bench.check(Person { allows: false, panics_at: Some(moment) });
            assert_eq!(outcome.err(), Some(CheckError::Crashed));
            assert_eq!(bench.files(), before, "{moment}");
        }
    });
}

/// Takes all tokens out of the module's sight when the check comes to the ends of logins.
struct Thief {
    tokens: PathBuf,
}

impl Talk for Thief {
    fn progress(&self, text: &str) {
        if text.starts_with("logging out") {
            fs::rename(&self.tokens, self.tokens.with_file_name("unseen")).expect("both in one folder");
            fs::create_dir(&self.tokens).expect("an empty folder in its place");
        }
    }

    fn may_remove(&self, _labels: &[String]) -> bool {
        false
    }
}

#[test]
fn keys_of_a_token_that_goes_away_are_told_and_removed_by_the_next_check() {
    on_softhsm("keys_of_a_token_that_goes_away_are_told_and_removed_by_the_next_check", |hsm| {
        let bench = Bench::new(hsm);
        let before = bench.objects();
        let report = bench.check(Thief { tokens: bench.state().with_file_name("tokens") }).expect("a report");
        assert!(report.complete && !report.usable, "{report:?}");
        assert_eq!(report.cleanup.left.len(), 2, "{report:?}");
        let failing = report.features.iter().filter(|feature| feature.verdict == Verdict::Fails);
        assert_eq!(failing.map(|feature| feature.feature.as_str()).collect::<Vec<_>>(), ["recovery"], "{report:?}");
        hsm.hide_tokens(false);
        let (code, next) = bench.report(&["--yes", "--seconds", "1", "--algorithm", "ES256"]);
        assert_eq!((code, labels(&next, "removed_leftovers")), (0, report.cleanup.left), "{next}");
        assert_eq!(bench.files().len(), 1 + before.len(), "the token's own file, and the foreign objects");
    });
}

#[test]
fn what_the_token_does_not_offer_is_absent_or_fails_if_it_must_work() {
    on_softhsm("what_the_token_does_not_offer_is_absent_or_fails_if_it_must_work", |hsm| {
        let bench = Bench::new(hsm);
        let configuration = hsm.configuration();
        let text = fs::read_to_string(&configuration).expect("our own file");
        // SoftHSM overlooks the first one of such a list.
        fs::write(&configuration, format!("{text}slots.mechanisms = -CKM_MD5,CKM_ECDSA,CKM_RSA_PKCS_PSS\n")).expect("our own file");
        let (code, report) = bench.report(&["--yes", "--seconds", "1"]);
        assert_eq!(code, 0, "{report}");
        for (algorithm, verdict) in [("ES256", "absent"), ("PS256", "absent"), ("RS256", "ok"), ("EdDSA", "ok")] {
            assert_eq!(row(&report, "features", "feature", &format!("signing.{algorithm}"))["verdict"], verdict, "{algorithm}: {report}");
        }
        let (code, report) = bench.report(&["--yes", "--seconds", "1", "--algorithm", "EdDSA", "--algorithm", "ES256"]);
        assert_eq!((code, &report["usable"]), (1, &false.into()), "{report}");
        assert_eq!(row(&report, "features", "feature", "signing.ES256")["verdict"], "fails");
        assert_eq!(row(&report, "features", "feature", "signing.EdDSA")["verdict"], "ok");
    });
}

#[test]
fn a_keystore_of_the_configuration_is_checked_beside_its_keys() {
    on_softhsm("a_keystore_of_the_configuration_is_checked_beside_its_keys", |hsm| {
        let place = Place::new(hsm, Setup::new().keyring(Keyring::jwt("access", "ES256")));
        let daemon = place.start();
        let checked = place.claviger(&["hsm", "check", "--keystore", "hsm", "--yes", "--seconds", "1", "--algorithm", "ES256"]);
        assert!(checked.status.success(), "{}{}", text(&checked.stdout), text(&checked.stderr));
        let missing = place.claviger(&["hsm", "check", "--keystore", "other", "--yes"]);
        assert_eq!(missing.status.code(), Some(66), "{}", text(&missing.stderr));
        place.check(daemon);
    });
}

#[test]
fn without_a_state_folder_the_users_own_is_used() {
    on_softhsm("without_a_state_folder_the_users_own_is_used", |hsm| {
        let bench = Bench::new(hsm);
        hsm.settings(TOKEN, WRONG);
        let mut command = Command::new(BINARY);
        command.args(["hsm", "check", "--yes", "--token", TOKEN, "--module"]).arg(&bench.settings.module);
        command.arg("--pin-file").arg(bench.settings.pin.path()).env("XDG_STATE_HOME", bench.state());
        let refused = command.output().expect("the binary was built");
        assert_eq!(refused.status.code(), Some(77), "{}", text(&refused.stderr));
        let folder = bench.state().join("claviger");
        assert_eq!((fs::metadata(&folder).expect("the folder").mode() & 0o777, entries(&folder)), (0o700, 1), "the marker is there");
    });
}

#[test]
fn each_way_to_get_no_report_has_its_code() {
    on_softhsm("each_way_to_get_no_report_has_its_code", |hsm| {
        let bench = Bench::new(hsm);
        let run = |arguments: &[&str]| {
            let output = Command::new(BINARY).args(["hsm", "check", "--yes"]).args(arguments).output().expect("the binary was built");
            (output.status.code().expect("no signal"), text(&output.stderr))
        };
        let module = bench.settings.module.to_str().expect("a plain path");
        let pin = bench.settings.pin.path().to_str().expect("a plain path").to_owned();
        let state = bench.state();
        let state = state.to_str().expect("a plain path");
        let common = |module, token| ["--module", module, "--token", token, "--pin-file", &pin, "--state", state].map(str::to_owned);
        let with = |module, token| run(&common(module, token).iter().map(String::as_str).collect::<Vec<_>>());
        let (code, said) = with(module, "absent");
        assert!(code == 69 && said.contains("absent") && said.contains(TOKEN), "{code} {said}");
        let (code, said) = with("/no/such/module.so", TOKEN);
        assert!(code == 69 && said.contains("/no/such/module.so"), "{code} {said}");
        let (code, said) = with(module, "");
        assert!(code == 64 && said.contains("--token"), "{code} {said}");
        assert_eq!(run(&[]).0, 64);
        assert_eq!(run(&["--module", module]).0, 64);
        assert_eq!(run(&["--sessions", "1"]).0, 2, "what cannot be parsed ends as with every command");
        assert_eq!(run(&["--keystore", "hsm", "--module", module, "--token", TOKEN, "--pin-file", &pin]).0, 64);
        let mut shared = common(module, TOKEN);
        shared[5] = bench.state().with_file_name("shared-pin").to_str().expect("a plain path").to_owned();
        fs::write(&shared[5], PIN).expect("a new file");
        let (code, said) = run(&shared.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(code == 77 && said.contains("others than its owner can reach it"), "{code} {said}");
    });
}
