//! The never-rules as tables, and the few that are not a table. To change what a room may do, change a row here and say why.
//!
//! In scope: what can be read off the sources. Out of scope: what clippy holds (`.clippy.toml`) and what the dependency graph holds
//! (`tests/run.sh` asks `cargo tree`).

use crate::source::{Source, lines_with, reaches};

/// A rule that was broken, and where.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    pub(crate) place: String,
    pub(crate) rule: &'static str,
    pub(crate) what: String,
}

/// In `rooms`, but for `except`, production code names none of `banned`.
pub(crate) struct ImportRule {
    pub(crate) name: &'static str,
    rooms: &'static [&'static str],
    except: &'static [&'static str],
    banned: &'static [&'static str],
}

/// In `rooms`, but for `except`, no such word stands in code.
pub(crate) struct WordRule {
    pub(crate) name: &'static str,
    rooms: &'static [&'static str],
    except: &'static [&'static str],
    scope: Scope,
    words: &'static [&'static str],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    Production,
    Tests,
    Everywhere,
}

const EVERYTHING: &[&str] = &["src", "audit", "tests"];
const PRODUCTION: &[&str] = &["src", "audit/src"];
const PURE: &[&str] = &["src/rotation", "src/policy", "src/jose"];

/// More lines than this tell two stories.
pub(crate) const LINES_PER_FILE: usize = 500;

pub(crate) const IMPORT_RULES: &[ImportRule] = &[
    ImportRule {
        name: "pure rooms import no port and no shell",
        rooms: PURE,
        except: &[],
        banned: &[
            "crate::keystore",
            "crate::journal",
            "crate::http",
            "crate::cli",
            "crate::signer",
            "crate::rotator",
            "crate::inspect",
            "crate::config",
            "crate::secret",
            "crate::clock::Clock",
            "crate::clock::SystemClock",
        ],
    },
    ImportRule {
        name: "pure rooms do no I/O, async, tracing or randomness",
        rooms: PURE,
        except: &[],
        banned: &[
            "tokio",
            "tracing",
            "std::fs",
            "std::net::TcpListener",
            "std::net::TcpStream",
            "std::net::UdpSocket",
            "std::net::ToSocketAddrs",
            "std::env",
            "std::process",
            "std::thread",
            "std::os",
            "rustix",
            "getrandom",
            "rand",
            "hyper",
            "axum",
        ],
    },
    ImportRule {
        name: "audit knows no runtime, no socket and no environment",
        rooms: &["audit/src"],
        except: &["audit/src/main"],
        banned: &["tokio", "mio", "hyper", "tracing", "std::net", "std::env", "std::process", "std::thread"],
    },
    ImportRule {
        name: "only clock reads time",
        rooms: PRODUCTION,
        except: &["src/clock", "audit/src/main"],
        banned: &["std::time::Instant", "std::time::SystemTime", "tokio::time::Instant", "chrono::Utc::now", "chrono::Local"],
    },
    ImportRule {
        name: "http calls the shell, never a keystore or a journal",
        rooms: &["src/http"],
        except: &[],
        banned: &["crate::keystore", "crate::journal", "crate::cli"],
    },
    ImportRule { name: "cli reaches keystores through inspect", rooms: &["src/cli"], except: &[], banned: &["crate::keystore"] },
    ImportRule {
        name: "the shell imports no edge",
        rooms: &[
            "src/signer",
            "src/rotator",
            "src/witness",
            "src/logbook",
            "src/inspect",
            "src/journal",
            "src/keystore",
            "src/config",
            "src/secret",
            "src/clock",
        ],
        except: &[],
        banned: &["crate::http", "crate::cli", "axum"],
    },
    ImportRule {
        name: "keystore adapters and journals know no story",
        rooms: &["src/keystore", "src/journal"],
        except: &[],
        banned: &[
            "crate::signer",
            "crate::rotator",
            "crate::witness",
            "crate::logbook",
            "crate::inspect",
            "crate::rotation",
            "crate::policy",
        ],
    },
    ImportRule {
        name: "adapters never import each other",
        rooms: &["src/keystore/pkcs11"],
        except: &[],
        banned: &["crate::keystore::aws_kms", "crate::keystore::vault"],
    },
    ImportRule {
        name: "adapters never import each other",
        rooms: &["src/keystore/aws_kms"],
        except: &[],
        banned: &["crate::keystore::pkcs11", "crate::keystore::vault"],
    },
    ImportRule {
        name: "adapters never import each other",
        rooms: &["src/keystore/vault"],
        except: &[],
        banned: &["crate::keystore::pkcs11", "crate::keystore::aws_kms"],
    },
    ImportRule {
        name: "vendor types stay in their adapter",
        rooms: PRODUCTION,
        except: &["src/keystore/pkcs11"],
        banned: &["cryptoki", "cryptoki_sys"],
    },
    ImportRule {
        name: "vendor types stay in their adapter",
        rooms: PRODUCTION,
        except: &["src/keystore/aws_kms"],
        banned: &["aws_sdk_kms", "aws_sdk_sts", "aws_config", "aws_credential_types", "aws_smithy_types", "aws_smithy_runtime_api"],
    },
    ImportRule {
        name: "vendor types stay in their adapter",
        rooms: PRODUCTION,
        except: &["src/keystore/vault"],
        banned: &["vaultrs", "rustify", "reqwest"],
    },
    ImportRule { name: "vendor types stay in their adapter", rooms: PRODUCTION, except: &["src/policy"], banned: &["cedar_policy"] },
    ImportRule {
        name: "only config, main and secret read arguments and environment",
        rooms: PRODUCTION,
        except: &["src/config", "src/main", "src/secret", "audit/src/main"],
        banned: &["std::env"],
    },
    ImportRule {
        name: "only journal, config and secret open files",
        rooms: &["src"],
        except: &[
            "src/journal",
            "src/config",
            "src/main",
            "src/secret",
            "src/keystore/pkcs11/pin",    // the mark of a PIN that is being tried: it must outlive a crash
            "src/http/listener",          // the file of a Unix socket is its own: left over, it is removed
            "src/keystore/pkcs11/module", // resolves links, so that one library is never loaded under two names
        ],
        banned: &["std::fs", "tokio::fs", "rustix::fs"],
    },
];

pub(crate) const WORD_RULES: &[WordRule] = &[
    WordRule {
        name: "only journal and secret write files",
        rooms: PRODUCTION,
        except: &[
            "src/journal",
            "src/secret",
            "src/keystore/pkcs11/pin",
            "src/http/listener",
            "audit/src/command/writing",
            "audit/src/command/pull",
        ], // writing: heads and proofs
        scope: Scope::Production,
        words: &["OpenOptions", "File::create", "File::create_new", "fs::write", "fs::rename", "fs::remove_file", "fs::remove_dir_all"],
    },
    WordRule {
        name: "no unwrap outside tests",
        rooms: PRODUCTION,
        except: &[],
        scope: Scope::Production,
        words: &[".unwrap()", ".unwrap_err()"],
    },
    WordRule {
        name: "no private key has a type here",
        rooms: PRODUCTION,
        except: &[],
        scope: Scope::Production,
        words: &["ed25519_dalek::SigningKey", "ecdsa::SigningKey", "EcdsaKeyPair", "Ed25519KeyPair", "RsaKeyPair", "rsa::KeyPair"],
    },
    WordRule {
        name: "no unfinished code",
        rooms: EVERYTHING,
        except: &[],
        scope: Scope::Everywhere,
        words: &["todo!", "unimplemented!", "dbg!"],
    },
    WordRule { name: "no ignored test", rooms: EVERYTHING, except: &[], scope: Scope::Everywhere, words: &["#[ignore", "ignore ="] },
    WordRule {
        name: "no sleep in tests",
        rooms: EVERYTHING,
        // Another process cannot be awaited but by looking again; the loop has bounds, and a name for what it waits for.
        except: &["tests/harness/wait"],
        scope: Scope::Tests,
        words: &["sleep(", "sleep_until(", "sleep_ms("],
    },
    WordRule {
        name: "no unsafe code",
        rooms: EVERYTHING,
        except: &["tests/fault-module"], // a C interface is made of it; its own lints ask for the reason of each block
        scope: Scope::Everywhere,
        words: &["unsafe", "no_mangle"],
    },
    WordRule {
        name: "no globals",
        rooms: PRODUCTION,
        except: &["src/keystore/pkcs11"], // one registry of loaded libraries: C_Initialize is the process's, not ours
        scope: Scope::Production,
        words: &["static", "lazy_static!", "thread_local!"],
    },
    WordRule {
        name: "no shared blocking pool, no exit behind main's back",
        rooms: PRODUCTION,
        except: &[],
        scope: Scope::Production,
        words: &["spawn_blocking", "process::exit", "process::abort"],
    },
    WordRule {
        name: "no unbounded queue",
        rooms: PRODUCTION,
        except: &[],
        scope: Scope::Production,
        words: &["unbounded_channel", "mpsc::channel()", "unbounded("],
    },
];

pub(crate) const HEADER: &str = "a file opens with //! and says what it does";
pub(crate) const LENGTH: &str = "a file tells one story";
pub(crate) const HOSTS: &str = "no package registry is named";

/// Everything that is wrong with one Rust file.
pub(crate) fn judge(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut found = |line: usize, rule, what: String| findings.push(Finding { place: format!("{}:{line}", source.path), rule, what });
    if !source.text.starts_with("//! ") {
        found(1, HEADER, "no //! on the first line".to_owned());
    }
    let lines = source.text.lines().count();
    if lines > LINES_PER_FILE {
        found(lines, LENGTH, format!("{lines} lines; at most {LINES_PER_FILE}"));
    }
    let named = source.named_paths();
    for rule in IMPORT_RULES.iter().filter(|rule| applies(source, rule.rooms, rule.except)) {
        for path in named.iter().filter(|named| rule.banned.iter().any(|banned| reaches(&named.path, banned))) {
            found(path.line, rule.name, path.path.clone());
        }
    }
    for rule in WORD_RULES.iter().filter(|rule| applies(source, rule.rooms, rule.except)) {
        let production = (rule.scope != Scope::Tests).then_some(&source.production);
        let tests = (rule.scope != Scope::Production).then_some(&source.tests);
        for code in production.into_iter().chain(tests) {
            for word in rule.words {
                for line in lines_with(code, word) {
                    found(line, rule.name, (*word).to_owned());
                }
            }
        }
    }
    findings.sort();
    findings.dedup();
    findings
}

/// The registries that a text names. The names are put together here, so that this file names none itself.
pub(crate) fn judge_hosts(path: &str, text: &str) -> Vec<Finding> {
    let hosts = [
        ["crates", "io"],
        ["pypi", "org"],
        ["pythonhosted", "org"],
        ["npmjs", "org"],
        ["npmjs", "com"],
        ["proxy.golang", "org"],
        ["yarnpkg", "com"],
    ];
    let hosts: Vec<String> = hosts.iter().map(|parts| parts.join(".")).collect();
    let named = |line: &str| hosts.iter().find(|host| line.to_ascii_lowercase().contains(host.as_str())).cloned();
    let lines = text.lines().enumerate();
    lines.filter_map(|(index, line)| Some(Finding { place: format!("{path}:{}", index + 1), rule: HOSTS, what: named(line)? })).collect()
}

fn applies(source: &Source, rooms: &[&str], except: &[&str]) -> bool {
    rooms.iter().any(|room| source.is_in(room)) && !except.iter().any(|room| source.is_in(room))
}
