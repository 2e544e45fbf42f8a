//! From a configuration to the parts of a daemon: rules, callers, routes, wishes, keystores.
//!
//! In scope: translation, used at start, at reload and by offline commands alike. Out of scope: starting anything, and reading files (policy
//! texts are arguments), but for those that say who the witnesses are.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use claviger_audit::event::Purpose;
use claviger_audit::keyrings::{Keyring, Keyrings};
use claviger_audit::trust::{Policy, Witness};

use crate::clock::Clock;
use crate::config::{Bind, Config, KeyringConfig, KeystoreConfig, Pkcs11Config, Subject, Surface, VaultConfig, WitnessConfig, files};
use crate::http::public::IssuerPage;
use crate::http::{Callers, PublicRoutes};
use crate::journal::pseudonym::SubjectMode;
use crate::keystore::Keystore;
#[cfg(feature = "aws-kms")]
use crate::keystore::aws_kms::AwsKmsKeystore;
use crate::keystore::pkcs11::{Pkcs11Keystore, Pkcs11Settings};
use crate::keystore::vault::{self, VaultKeystore, VaultSettings};
use crate::policy::{self, JwsProfile, KeyringFacts, PolicyErrors, PolicySet, Profile, Vocabulary};
use crate::rotation::reconcile::KeyringWish;
use crate::signer::{KeyringRules, Keystores, Rules, Shape};
use crate::witness::{self, MOST_WITNESSES, Target};

/// The keyrings as the configuration wants them.
pub fn wishes(config: &Config) -> Vec<KeyringWish> {
    let wishes = config.keyrings.values().map(|keyring| KeyringWish {
        name: keyring.name.clone(),
        purpose: keyring.purpose,
        issuer: keyring.issuer.clone(),
        issuer_url: issuer_url(config, keyring),
        typ: keyring.profile.typ.clone(),
        algorithm: keyring.algorithm,
        keystore: keyring.keystore.clone(),
        standby_keystore: keyring.standby_keystore.clone(),
        timing: keyring.timing,
    });
    wishes.collect()
}

fn issuer_url(config: &Config, keyring: &KeyringConfig) -> Option<String> {
    config.issuers.get(keyring.issuer.as_ref()?).map(|issuer| issuer.url.clone())
}

/// What policies may speak about: the keyrings of the file, and those that only the log still knows.
pub fn vocabulary(config: &Config, keyrings: Option<&Keyrings>) -> Vocabulary {
    let configured = config.keyrings.values().map(|keyring| KeyringFacts {
        name: keyring.name.clone(),
        purpose: policy_purpose(keyring.purpose),
        issuer: issuer_url(config, keyring),
        audiences: keyring.profile.audiences.clone(),
        policy_claims: keyring.policy_claims.clone(),
    });
    let unconfigured = |keyring: &&Keyring| !config.keyrings.contains_key(&keyring.name);
    let logged = keyrings.into_iter().flat_map(Keyrings::all).filter(unconfigured).map(|keyring| KeyringFacts {
        name: keyring.name.clone(),
        purpose: policy_purpose(keyring.purpose),
        issuer: keyring.issuer_url.clone(),
        audiences: Vec::new(),
        policy_claims: BTreeMap::new(),
    });
    let attributes = config.callers.values().flat_map(|caller| caller.attributes.names().map(str::to_owned)).collect();
    Vocabulary { keyrings: configured.chain(logged).collect(), caller_attributes: attributes }
}

fn policy_purpose(purpose: Purpose) -> policy::Purpose {
    match purpose {
        Purpose::Jwt => policy::Purpose::Jwt,
        Purpose::Jws => policy::Purpose::Jws,
    }
}

/// The policies of these texts.
pub fn policies(config: &Config, keyrings: Option<&Keyrings>, files: &[(String, String)]) -> Result<PolicySet, PolicyErrors> {
    PolicySet::load(files, &vocabulary(config, keyrings))
}

/// The rules by which the signer works.
pub fn rules(config: &Config, policies: Option<PolicySet>) -> Rules {
    let rows = config.keyrings.values().map(|keyring| (keyring.name.clone(), keyring_rules(config, keyring)));
    Rules { keyrings: rows.collect(), policies }
}

fn keyring_rules(config: &Config, keyring: &KeyringConfig) -> KeyringRules {
    let profile = &keyring.profile;
    let token_life = keyring.timing.token_life();
    let shape = match keyring.purpose {
        Purpose::Jwt => {
            // A claim that policies read has its type checked as any other: a wrong one is the caller's mistake, not a policy's.
            let mut claim_types = profile.claim_types.clone();
            claim_types.extend(keyring.policy_claims.iter().map(|(claim, kind)| (claim.clone(), *kind)));
            Shape::Jwt(Profile {
                typ: profile.typ.clone().unwrap_or_default(),
                issuer: issuer_url(config, keyring).unwrap_or_default(),
                audiences: profile.audiences.clone(),
                token_ttl: token_life,
                clock_skew: keyring.timing.skew(),
                required: profile.required.clone(),
                forbidden: profile.forbidden.clone(),
                max_bytes: profile.max_bytes,
                subject_pattern: profile.subject_pattern.clone(),
                claim_types,
            })
        }
        Purpose::Jws => {
            Shape::Jws(JwsProfile { typ: profile.typ.clone(), content_types: profile.content_types.clone(), max_bytes: profile.max_bytes })
        }
    };
    KeyringRules { name: keyring.name.clone(), shape, token_life }
}

/// The callers that the configuration knows.
pub fn callers(config: &Config) -> Callers {
    let rows = config.callers.iter().map(|(identity, caller)| (identity.clone(), caller.attributes.clone(), caller.token_sha256));
    Callers::new(rows)
}

/// Every public address: those of the file, and the own sets of keyrings that only the log still knows.
pub fn routes(config: &Config, keyrings: &Keyrings) -> PublicRoutes {
    let pages = config.issuers.iter().map(|(name, issuer)| {
        let members = config.keyrings.values().filter(|keyring| keyring.issuer.as_ref() == Some(name));
        let mut algorithms: Vec<String> = members.map(|keyring| keyring.algorithm.name().to_owned()).collect();
        algorithms.sort();
        algorithms.dedup();
        IssuerPage {
            name: name.clone(),
            url: issuer.url.clone(),
            path: issuer.path.trim_end_matches('/').to_owned(),
            default: issuer.default,
            discovery: issuer.discovery,
            algorithms,
        }
    });
    let logged = keyrings.all().map(|keyring| keyring.name.clone());
    PublicRoutes::new(&pages.collect::<Vec<_>>(), config.keyrings.keys().cloned().chain(logged))
}

/// Opens every keystore; each opens on its own threads, so a dead one delays nothing.
pub fn keystores(config: &Config, clock: &Arc<dyn Clock>) -> Keystores {
    config.keystores.iter().map(|(name, settings)| (name.clone(), open(settings, config, clock))).collect()
}

fn open(settings: &KeystoreConfig, config: &Config, clock: &Arc<dyn Clock>) -> Arc<dyn Keystore> {
    match settings {
        KeystoreConfig::Pkcs11(pkcs11) => Arc::new(Pkcs11Keystore::open(pkcs11_settings(pkcs11, config), clock.clone())),
        #[cfg(feature = "aws-kms")]
        KeystoreConfig::AwsKms(settings) => Arc::new(AwsKmsKeystore::open(settings.clone(), clock.clone())),
        KeystoreConfig::Vault(vault) => Arc::new(VaultKeystore::open(vault_settings(vault), clock.clone())),
    }
}

fn pkcs11_settings(pkcs11: &Pkcs11Config, config: &Config) -> Pkcs11Settings {
    Pkcs11Settings {
        module: pkcs11.module.clone(),
        token: pkcs11.token.clone(),
        workers: usize::from(pkcs11.workers),
        pin: pkcs11.pin.clone(),
        profile: pkcs11.profile.clone(),
        state: config.state.clone(),
        queue_wait: pkcs11.queue_wait,
        hang_after: pkcs11.hang_after,
    }
}

/// The certificates of authorities are read here; that they cannot be used is for the keystore to tell, as everything else that is wrong with it.
pub fn vault_settings(config: &VaultConfig) -> VaultSettings {
    let tls = match &config.ca_file {
        None => vault::tls_config(None),
        Some(file) => {
            let bytes = files::bytes(file).map_err(|error| error.to_string());
            bytes.and_then(|bytes| vault::tls_config(Some(&bytes)).map_err(|error| format!("ca_file {}: {error}", file.display())))
        }
    };
    VaultSettings {
        address: config.address.clone(),
        mount: config.mount.clone(),
        namespace: config.namespace.clone(),
        tls,
        login: config.login.clone(),
        in_flight: config.in_flight,
    }
}

/// The first Unix socket that serves `surface`: where the command line finds the daemon.
pub fn socket_of(config: &Config, surface: Surface) -> Option<PathBuf> {
    config.listeners.iter().filter(|listener| listener.serves.contains(&surface)).find_map(|listener| match &listener.bind {
        Bind::Unix(path) => Some(path.clone()),
        Bind::Tcp(_) => None,
    })
}

/// Whom to ask for cosignatures, if anybody; a sentence if the policy file does not say it.
pub fn witnesses(config: &Config) -> Result<Option<witness::Settings>, String> {
    let Some(WitnessConfig { policy: file, timeout, ca_file }) = &config.witnesses else { return Ok(None) };
    let named = |what: String| format!("{}: {what}", file.display());
    let bytes = files::bytes(file).map_err(|error| error.to_string())?;
    let policy = Policy::parse(&bytes).map_err(|error| named(error.to_string()))?;
    if policy.quorum().is_none() {
        return Err(named("`quorum none` asks for no cosignature; name a witness or a group, or remove log.witnesses".to_owned()));
    }
    if policy.witnesses().len() > MOST_WITNESSES {
        return Err(named(format!("more than {MOST_WITNESSES} witnesses are too many to ask")));
    }
    let target = |witness: &Witness| {
        let url = witness.url.as_deref().ok_or_else(|| "its line has no URL; add its submission prefix".to_owned());
        let target = url.and_then(|url| Target::parse(url).map_err(|error| error.to_string()));
        target.map_err(|error| named(format!("witness {}: {error}", witness.name)))
    };
    let targets = policy.witnesses().iter().map(target).collect::<Result<_, String>>()?;
    let authorities = ca_file.as_deref().map(files::bytes).transpose().map_err(|error| error.to_string())?;
    let tls = witness::tls_config(authorities.as_deref()).map_err(|error| error.to_string())?;
    Ok(Some(witness::Settings { policy: Arc::new(policy), targets, timeout: *timeout, tls }))
}

/// How records hold personal data.
pub fn subject_mode(config: &Config) -> SubjectMode {
    match config.audit_subject {
        Subject::Hash => SubjectMode::Hash,
        Subject::Plain => SubjectMode::Plain,
        Subject::Omit => SubjectMode::Omit,
    }
}

/// Policy problems as one text, a line each.
pub fn problems(errors: &PolicyErrors) -> String {
    let line = |problem: &policy::Problem| problem.to_string();
    errors.0.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use claviger_audit::Timestamp;

    use super::*;
    use crate::config;
    use crate::policy::CallerAttributes;
    use crate::policy::table::Table;

    #[test]
    fn the_example_and_the_shipped_policies_fit() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
        let example = include_str!("../config/example.toml");
        let config = Config::parse(example, Path::new("/etc/claviger/claviger.toml"), Some(Path::new("/run/credentials"))).unwrap();
        let files = config::files::policies(&folder).unwrap();
        let policies = policies(&config, None, &files).unwrap();
        assert!(policies.len() > 5, "the shipped policies are there");
        assert_eq!(policies.lint(), []);
        let callers: BTreeMap<String, CallerAttributes> =
            config.callers.iter().map(|(identity, caller)| (identity.to_string(), caller.attributes.clone())).collect();
        let (vocabulary, now) = (vocabulary(&config, None), "2026-01-01T00:00:00.000Z".parse::<Timestamp>().unwrap());
        let mut cases = 0;
        for entry in fs::read_dir(folder.join("tests")).unwrap() {
            let path = entry.unwrap().path();
            let table = Table::parse(&fs::read_to_string(&path).unwrap()).unwrap();
            for case in table.run(&files, &vocabulary, &callers, now).unwrap() {
                assert_eq!(case.difference, None, "{}: {}", path.display(), case.name);
                cases += 1;
            }
        }
        assert!(cases > 20, "the shipped tables are there");
    }
}
