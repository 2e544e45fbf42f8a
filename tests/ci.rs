//! What the README tells people to put into their CI, done as they would do it: pasted, against a daemon that serves its key log.
//!
//! In scope: the README's lines, `audit/ci/verify.sh`, and the steps of `audit/action.yml`, each with the exit code that a job would get. Out of
//! scope: what GitHub and GitLab do around them (caches, schedules), and the verdicts themselves (`claviger-audit` has tests of its own).

mod harness;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use harness::{Address, Daemon, Keyring, Place, Setup, on_softhsm};
use serde_json::json;

const REPOSITORY: &str = env!("CARGO_MANIFEST_DIR");
/// Where the README's log is served.
const README_LOG: &str = "https://auth.example.org/log/keys";

/// A job's folder, with a checkout of Claviger and the trust file in it.
struct Job {
    folder: PathBuf,
    log: String,
    jwks: String,
}

fn read(file: &str) -> String {
    fs::read_to_string(Path::new(REPOSITORY).join(file)).expect("a file of this repository")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Job {
    fn new(place: &Place<'_>, daemon: &mut Daemon) -> Self {
        let tcp: Vec<String> = daemon.addresses(4).iter().filter_map(address).collect();
        let [public, shown] = &tcp[..] else { panic!("two TCP listeners, not {tcp:?}") };
        let folder = place.root().join("job");
        fs::create_dir(&folder).expect("a new folder");
        symlink(REPOSITORY, folder.join("claviger")).expect("a new link");
        fs::copy(place.trust(), folder.join("claviger.trust")).expect("the trust file");
        Self { folder, log: format!("http://{shown}/log/keys"), jwks: format!("http://{public}/.well-known/jwks.json") }
    }

    /// A shell in the job's folder, in which what the job installs is found first.
    fn shell(&self, program: &str, script: &str, variables: &[(&str, &str)]) -> Output {
        let tools = self.folder.join("tools");
        let mut command = Command::new(program);
        command.args(["-e", "-c", &format!("export PATH=\"{}/bin:$PATH\"\n{script}", tools.display())]).current_dir(&self.folder);
        // A release build of the auditor is kept between runs, beside the other builds of this repository.
        command.env("CARGO_INSTALL_ROOT", &tools).env("CARGO_TARGET_DIR", Path::new(REPOSITORY).join("target/ci"));
        command.env_remove("GITHUB_ACTIONS").env_remove("GITHUB_STEP_SUMMARY").envs(variables.iter().copied());
        command.output().expect("a shell")
    }

    /// The script in a later run.
    fn verify(&self, variables: &[(&str, &str)]) -> (i32, String) {
        let mut all = vec![("CLAVIGER_LOG", self.log.as_str()), ("CLAVIGER_TRUST", "claviger.trust")];
        all.extend(variables);
        let output = self.shell("sh", "sh claviger/audit/ci/verify.sh", &all);
        (output.status.code().expect("an exit code"), text(&output.stdout) + &text(&output.stderr))
    }
}

fn address(address: &Address) -> Option<String> {
    match address {
        Address::Tcp(address) => Some(address.to_string()),
        Address::Unix(_) => None,
    }
}

/// The README's shell lines for CI, as they stand there.
fn pasted() -> String {
    let readme = read("README.md");
    let section = readme.split("## Verify your rotations in CI").nth(1).expect("the section");
    section.split("```sh\n").nth(1).and_then(|rest| rest.split("```").next()).expect("its shell lines").to_owned()
}

/// The script of the action's step with this name.
fn step(name: &str) -> String {
    let action = read("audit/action.yml");
    let step = action.split("    - name: ").find(|step| step.starts_with(name)).expect("a step").to_owned();
    let script = step.split("      run: |\n").nth(1).expect("its script");
    script.lines().map(|line| line.trim_start().to_owned() + "\n").collect()
}

fn installation(hsm: &harness::SoftHsm) -> Place<'_> {
    let shown = "\n[[listener]]\nbind = \"127.0.0.2:0\"\nserves = [\"log\"]\n";
    Place::new(hsm, Setup::new().keyring(Keyring::jwt("access", "ES256")).more(shown))
}

#[test]
fn the_readmes_lines_work_when_pasted() {
    on_softhsm("the_readmes_lines_work_when_pasted", |hsm| {
        let place = installation(hsm);
        let mut daemon = place.start();
        let job = Job::new(&place, &mut daemon);

        let lines = pasted();
        assert!(lines.contains(README_LOG), "{lines}");
        let output = job.shell("sh", &lines.replace(README_LOG, &job.log), &[]);
        assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
        assert_eq!(text(&output.stdout).matches("verified (exit 0)").count(), 2, "{}", text(&output.stdout));
        assert!(job.folder.join(".claviger-heads/keys").is_file(), "the head is remembered");

        // More records, later: the log extends what was remembered, and the live set is its own.
        let reloaded = place.admin_socket().post("/admin/reload", &json!({}));
        assert_eq!(reloaded.status, 200, "{}", reloaded.text());
        let (code, said) = job.verify(&[("CLAVIGER_JWKS", &job.jwks)]);
        assert_eq!(code, 0, "{said}");

        let rogue = job.folder.join("rogue.json");
        fs::write(&rogue, r#"{"keys":[]}"#).expect("a new file");
        let (code, said) = job.verify(&[("CLAVIGER_JWKS", "rogue.json")]);
        assert_eq!(code, 15, "{said}");

        // A log that is older than what was remembered.
        let copy = job.folder.join("old/keys");
        fs::create_dir_all(&copy).expect("a new folder");
        let segment = fs::read_to_string(job.folder.join(".claviger-copy/keys/00000000000000000000.jsonl")).expect("the copy");
        let kept: String = segment.split_inclusive('\n').take(3).collect();
        fs::write(copy.join("00000000000000000000.jsonl"), kept).expect("a new file");
        let (code, said) = job.verify(&[("CLAVIGER_LOG", "old")]);
        assert_eq!(code, 11, "{said}");

        fs::remove_dir_all(job.folder.join(".claviger-heads")).expect("the remembered heads");
        let (code, said) = job.verify(&[]);
        assert_eq!(code, 16, "a cache that was lost is no first run: {said}");
        place.check(daemon);
    });
}

#[test]
fn the_action_annotates_and_gives_the_verdict() {
    on_softhsm("the_action_annotates_and_gives_the_verdict", |hsm| {
        let place = installation(hsm);
        let mut daemon = place.start();
        let job = Job::new(&place, &mut daemon);
        let inputs = |log: &str| {
            let set = [
                ("GITHUB_ACTIONS", "true"),
                ("GITHUB_ACTION_PATH", "claviger/audit"),
                ("GITHUB_PATH", "path"),
                ("GITHUB_OUTPUT", "output"),
                ("GITHUB_STEP_SUMMARY", "summary.md"),
                ("TOOLS", "tools"),
                ("CLAVIGER_TRUST", "claviger.trust"),
                ("CLAVIGER_FIRST_RUN", "true"),
            ];
            let mut all: Vec<(String, String)> = set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            all.push(("CLAVIGER_LOG".to_owned(), log.to_owned()));
            all
        };
        let run = |script: &str, log: &str| {
            let variables = inputs(log);
            let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            // The build of the first test serves here too; the action names a folder of its own for it.
            let output = job.shell("bash", &script.replace(" --target-dir \"$TOOLS/target\"", ""), &variables);
            (output.status.code().expect("an exit code"), text(&output.stdout) + &text(&output.stderr))
        };
        let (code, said) = run(&step("Install"), &job.log);
        assert_eq!(code, 0, "{said}");
        assert_eq!(fs::read_to_string(job.folder.join("path")).expect("what the step adds to the path"), "tools/bin\n");

        let (code, said) = run(&step("Verify"), &job.log);
        assert_eq!(code, 0, "{said}");
        assert!(said.contains("::notice"), "{said}");
        assert!(fs::read_to_string(job.folder.join("summary.md")).expect("a summary").contains("verified"));

        let segment = job.folder.join(".claviger-copy/keys/00000000000000000000.jsonl");
        let changed = fs::read_to_string(&segment).expect("the copy").replacen("\"installation\":\"test\"", "\"installation\":\"tent\"", 1);
        fs::write(&segment, changed).expect("the copy");
        let (code, said) = run(&step("Verify"), ".claviger-copy");
        assert_eq!(code, 10, "{said}");
        assert!(said.lines().any(|line| line.starts_with("::error ") && line.contains("exit 10 tampered")), "{said}");
        assert_eq!(fs::read_to_string(job.folder.join("output")).expect("the outputs"), "exit-code=0\nexit-code=10\n");
        place.check(daemon);
    });
}

#[test]
fn every_variable_of_the_script_is_explained_and_handed_on() {
    let (script, action, gitlab) = (read("audit/ci/verify.sh"), read("audit/action.yml"), read("audit/ci/gitlab.yml"));
    let used: Vec<&str> = script.lines().filter(|line| !line.starts_with('#')).flat_map(|line| line.split("${").skip(1)).collect();
    let names = used.iter().filter_map(|rest| rest.split([':', '}', '-']).next()).filter(|name| name.starts_with("CLAVIGER_"));
    let mut count = 0;
    for name in names {
        assert!(script.contains(&format!("#   {name} ")), "{name} is not explained");
        // The format follows from where it runs, and the copy is nobody's business.
        let handed_on = ["CLAVIGER_FORMAT", "CLAVIGER_COPY"].contains(&name) || action.contains(&format!("{name}: ${{{{ inputs."));
        assert!(handed_on, "{name} is no input of the action");
        count += 1;
    }
    assert!(count >= 10, "{count} variables");
    let unknown =
        gitlab.split("CLAVIGER_").skip(1).map(|rest| rest.split(|c: char| !c.is_ascii_uppercase() && c != '_').next().unwrap_or_default());
    for name in unknown.filter(|name| *name != "SOURCE") {
        assert!(script.contains(&format!("#   CLAVIGER_{name} ")), "CLAVIGER_{name} is not known to the script");
    }
}
