//! Ways to get a token: what is sent, and what a refusal means.
//!
//! In scope: one login by AppRole, by a Kubernetes service account or by a token that somebody else made; one renewal. Out of scope: when
//! (`session.rs`). Secrets are read from their files at each login, so that a new one needs no restart.

use std::fmt;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use vaultrs::api::EndpointMiddleware;
use vaultrs::api::auth::approle::requests::LoginWithApproleRequest;
use vaultrs::api::auth::kubernetes::requests::LoginWithKubernetesRequest;
use vaultrs::api::token::requests::{LookupTokenSelfRequest, RenewTokenSelfRequest};

use super::address::VaultPath;
use super::api::{Auth, TokenFacts, envelope};
use super::fault::{Call, Fault, judged};
use super::transport::{Answer, Transport};
use crate::secret::SecretFile;

/// How to get a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VaultLogin {
    /// Vault's auth method `approle`.
    AppRole {
        /// Where the method is mounted, below `auth/`.
        mount: VaultPath,
        /// Which role: not secret by itself.
        role_id: String,
        /// The file with the secret id.
        secret_id: SecretFile,
    },
    /// Vault's auth method `kubernetes`.
    Kubernetes {
        /// Where the method is mounted, below `auth/`.
        mount: VaultPath,
        /// Which role.
        role: String,
        /// The file with the service account's token.
        token: SecretFile,
    },
    /// A token that somebody else makes, such as Vault's agent.
    Token {
        /// The file with the token.
        token: SecretFile,
    },
}

/// A token and how long it lives.
pub(super) struct Grant {
    /// Goes with every request that it is good for.
    pub(super) middle: EndpointMiddleware,
    /// How long it lives; `None`: for ever.
    pub(super) lease: Option<Duration>,
    /// Whether its life can be made longer.
    pub(super) renewable: bool,
}

impl fmt::Display for VaultLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AppRole { mount, role_id, .. } => write!(f, "role_id {role_id} at auth/{mount}"),
            Self::Kubernetes { mount, role, .. } => write!(f, "role {role} at auth/{mount}"),
            Self::Token { .. } => f.write_str("a token in a file"),
        }
    }
}

impl VaultLogin {
    /// Whether logging in again makes a new token.
    pub(super) fn makes_tokens(&self) -> bool {
        !matches!(self, Self::Token { .. })
    }

    /// The file that is read at each login.
    pub(super) fn secret_file(&self) -> &SecretFile {
        match self {
            Self::AppRole { secret_id: file, .. } | Self::Kubernetes { token: file, .. } | Self::Token { token: file } => file,
        }
    }

    /// Reads the secret.
    pub(super) fn secret(&self) -> Result<SecretString, Fault> {
        self.secret_file().read().map_err(|error| Fault::Credential(error.to_string()))
    }

    /// Logs in with this secret, within `limit`.
    pub(super) async fn log_in(
        &self,
        transport: &Transport,
        namespace: Option<&VaultPath>,
        secret: &SecretString,
        limit: Duration,
    ) -> Result<Grant, Fault> {
        let secret = secret.expose_secret();
        match self {
            Self::AppRole { mount, role_id, .. } => {
                let (mount, secret_id) = (mount.to_string(), secret.to_owned());
                let call = Call { capability: "update", path: format!("auth/{mount}/login") };
                let login = LoginWithApproleRequest { mount, role_id: role_id.clone(), secret_id };
                let answer = transport.exchange(&login, &anonymous(namespace), limit).await?;
                granted(judged(answer, &call).map_err(|fault| self.refused(fault, secret))?, namespace)
            }
            Self::Kubernetes { mount, role, .. } => {
                let (mount, jwt) = (mount.to_string(), secret.to_owned());
                let call = Call { capability: "update", path: format!("auth/{mount}/login") };
                let login = LoginWithKubernetesRequest { mount, role: role.clone(), jwt };
                let answer = transport.exchange(&login, &anonymous(namespace), limit).await?;
                granted(judged(answer, &call).map_err(|fault| self.refused(fault, secret))?, namespace)
            }
            Self::Token { .. } => {
                let middle = with_token(secret, namespace)?;
                let call = Call { capability: "read", path: "auth/token/lookup-self".to_owned() };
                let answer = transport.exchange(&LookupTokenSelfRequest {}, &middle, limit).await?;
                let answer = judged(answer, &call).map_err(|fault| self.refused(fault, secret))?;
                let facts =
                    envelope::<TokenFacts>(&answer.body)?.data.ok_or_else(|| Fault::Nonsense("it says nothing of the token".to_owned()))?;
                Ok(Grant { middle, lease: lease(facts.ttl), renewable: facts.renewable })
            }
        }
    }

    /// A refusal of the credential, told with what to do. Vault may repeat a secret id in its words: then they are left out. What is told goes
    /// into the key log, which others may read: a role's id is half of its credential.
    fn refused(&self, fault: Fault, secret: &str) -> Fault {
        let fault = fault.without(secret);
        let words = match &fault {
            // Vault before 1.14 answers a wrong secret id with 500.
            Fault::Broken { words, .. } if words.contains("invalid secret id") || words.contains("invalid role") => words.as_str(),
            Fault::Refused { words, .. } => words.as_str(),
            Fault::Denied { .. } if self.makes_tokens() => " (permission denied: is the method enabled there?)",
            Fault::Denied { .. } => "",
            Fault::Absent { path, .. } => {
                return Fault::Settings(format!(
                    "there is no login method at {path}: enable it, or correct `mount` of the login, or `namespace`"
                ));
            }
            _ => return fault,
        };
        let file = self.secret_file().path().display();
        Fault::Credential(match self {
            Self::AppRole { mount, .. } => format!(
                "Vault refuses the login at auth/{mount}{words}: the secret id in {file} is not one of `role_id`, or it has expired or was used up, \
                 or this machine's address is not among those that it is bound to; write a new secret id into the file"
            ),
            Self::Kubernetes { mount, role, .. } => format!(
                "Vault refuses the login at auth/{mount}{words}: the service account of the token in {file} is not bound to role {role:?}, or \
                 Vault cannot ask the cluster; correct the role, or how the method is configured"
            ),
            Self::Token { .. } => format!(
                "Vault refuses the token in {file}{words}: it has expired or was revoked, or may not look itself up; write a new token into the file"
            ),
        })
    }
}

/// Makes the life of a token longer.
pub(super) async fn renew(transport: &Transport, middle: &EndpointMiddleware, limit: Duration) -> Result<Grant, Fault> {
    let call = Call { capability: "update", path: "auth/token/renew-self".to_owned() };
    let answer = transport.exchange(&RenewTokenSelfRequest { increment: None }, middle, limit).await?;
    let auth = auth(&judged(answer, &call)?)?;
    Ok(Grant { middle: middle.clone(), lease: lease(auth.lease_duration), renewable: auth.renewable })
}

/// Goes with a request that needs no token.
pub(super) fn anonymous(namespace: Option<&VaultPath>) -> EndpointMiddleware {
    let namespace = namespace.map(|namespace| namespace.as_str().to_owned());
    EndpointMiddleware { token: String::new(), version: "v1".to_owned(), wrap: None, namespace }
}

fn granted(answer: Answer, namespace: Option<&VaultPath>) -> Result<Grant, Fault> {
    let auth = auth(&answer)?;
    Ok(Grant { middle: with_token(&auth.client_token, namespace)?, lease: lease(auth.lease_duration), renewable: auth.renewable })
}

fn auth(answer: &Answer) -> Result<Auth, Fault> {
    envelope::<serde_json::Value>(&answer.body)?.auth.ok_or_else(|| Fault::Nonsense("it grants no token".to_owned()))
}

/// A token becomes a header as it is: whatever cannot stand there is no token.
fn with_token(token: &str, namespace: Option<&VaultPath>) -> Result<EndpointMiddleware, Fault> {
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Fault::Credential(
            "what should be a token holds other characters than those of a token; write the token alone into its file".to_owned(),
        ));
    }
    Ok(EndpointMiddleware { token: token.to_owned(), ..anonymous(namespace) })
}

fn lease(seconds: u64) -> Option<Duration> {
    (seconds > 0).then(|| Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_what_can_stand_in_a_header() {
        assert!(with_token("hvs.CAESIJ", None).is_ok());
        for bad in ["", "a b", "a\nb", "a\r", "ä", "a\0"] {
            assert!(matches!(with_token(bad, None), Err(Fault::Credential(text)) if bad.is_empty() || !text.contains(bad)), "{bad:?}");
        }
    }

    #[test]
    fn a_refusal_never_repeats_the_secret() {
        let login = VaultLogin::AppRole {
            mount: "approle".parse().unwrap(),
            role_id: "role-1".into(),
            secret_id: SecretFile::new("/run/secret-id", None),
        };
        let words = |words: &str| Fault::Refused { status: 400, path: "auth/approle/login".into(), words: words.into() };
        let told = login.refused(words(": invalid secret_id \"s3cr3t\""), "s3cr3t").to_string();
        assert!(!told.contains("s3cr3t") && told.contains("/run/secret-id") && !told.contains("role-1"), "{told}");
        // A part of a long one is as bad.
        let long = "eyJhbGciOiJSUzI1NiJ9.".repeat(40);
        for told in [words(&format!(": no such token {}", &long[..280])), Fault::Broken { status: 500, words: long[..300].to_owned() }] {
            let told = login.refused(told, &long).to_string();
            assert!(!told.contains("eyJhbGci"), "{told}");
        }
        assert!(login.refused(words(": invalid role ID"), "s3cr3t").to_string().contains(": invalid role ID"));
        let old = Fault::Broken { status: 500, words: ": invalid secret id".into() };
        assert!(matches!(login.refused(old, "s3cr3t"), Fault::Credential(_)));
        let storage = Fault::Broken { status: 500, words: ": internal error".into() };
        assert_eq!(login.refused(storage.clone(), "s3cr3t"), storage);
    }
}
