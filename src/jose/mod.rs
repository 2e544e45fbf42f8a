//! JOSE as an issuer needs it: signing input, compact serialisation, and the check of every signature before it leaves.
//!
//! In scope: RFC 7515 and RFC 7797 byte work, and verification with the published public key. Out of scope: signing (keystores do it), keys
//! and sets (`claviger_audit` has them), claims (`policy::profile`).

mod jws;
mod verify;

pub use jws::{Protected, SigningInput};
pub use verify::{BadPublicKey, SignatureMismatch, Verifier};
