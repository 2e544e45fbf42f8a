//! What a module and a token say of themselves.
//!
//! In scope: `CK_INFO`, `CK_TOKEN_INFO`, `CK_MECHANISM_INFO`, and what they mean for Claviger. Out of scope: whether it is true (the other
//! files of this folder try). Nothing here logs in or opens a session.

use claviger_audit::Algorithm;
use claviger_audit::algorithm::KeyShape;
use cryptoki::context::Pkcs11;
use cryptoki::mechanism::{MechanismInfo, MechanismType};
use cryptoki::slot::{Limit, Slot, TokenInfo};

use super::FEWEST_SESSIONS;
use super::report::{Check, MechanismRow, Verdict};
use crate::keystore::pkcs11::fault::Fault;

/// `CK_INFO` (PKCS#11 v3.1 section 3.2).
pub(super) fn module(library: &Pkcs11) -> Result<Vec<Check>, Fault> {
    let info = library.get_library_info()?;
    let said = |name: &str, value: String| Check::new(name, value, Verdict::Ok);
    Ok(vec![
        said("module.manufacturer", info.manufacturer_id().to_owned()),
        said("module.description", info.library_description().to_owned()),
        said("module.version", info.library_version().to_string()),
        said("module.cryptoki_version", info.cryptoki_version().to_string()),
    ])
}

/// `CK_TOKEN_INFO` (PKCS#11 v3.1 section 3.2).
pub(super) fn token(slot: Slot, token: &TokenInfo) -> Vec<Check> {
    let said = |name: &str, value: String| Check::new(name, value, Verdict::Ok);
    let mut checks = vec![
        said("token.label", token.label().to_owned()),
        said("token.serial", token.serial_number().to_owned()),
        said("token.slot", slot.id().to_string()),
        said("token.manufacturer", token.manufacturer_id().to_owned()),
        said("token.model", token.model().to_owned()),
        said("token.firmware", token.firmware_version().to_string()),
        said("token.hardware", token.hardware_version().to_string()),
    ];
    checks.push(sessions("token.max_sessions", token.max_session_count(), FEWEST_SESSIONS as u64));
    checks.push(sessions("token.max_rw_sessions", token.max_rw_session_count(), 1));
    let flag = |name: &str, value: bool, verdict: Verdict, means: &str| {
        let text = if verdict == Verdict::Ok { value.to_string() } else { format!("{value}: {means}") };
        Check::new(name, text, verdict)
    };
    let fails_if = |value: bool| if value { Verdict::Fails } else { Verdict::Ok };
    let notes_if = |value: bool| if value { Verdict::Note } else { Verdict::Ok };
    let protected = token.protected_authentication_path();
    checks.extend([
        flag("token.write_protected", token.write_protected(), fails_if(token.write_protected()), "no key can be made"),
        flag("token.login_required", token.login_required(), notes_if(!token.login_required()), "keys may be usable without a PIN"),
        flag("token.protected_authentication_path", protected, notes_if(protected), "Claviger gives the PIN in C_Login, not at a keypad"),
        flag("pin.initialised", token.user_pin_initialized(), fails_if(!token.user_pin_initialized()), "the user has no PIN yet"),
        flag(
            "pin.count_low",
            token.user_pin_count_low(),
            notes_if(token.user_pin_count_low()),
            "a wrong PIN was given since the last login",
        ),
        flag("pin.final_try", token.user_pin_final_try(), fails_if(token.user_pin_final_try()), "one more wrong PIN locks it"),
        flag("pin.locked", token.user_pin_locked(), fails_if(token.user_pin_locked()), "the security officer must set a new one"),
        flag("pin.to_be_changed", token.user_pin_to_be_changed(), notes_if(token.user_pin_to_be_changed()), "change it first"),
        said("pin.length", format!("{} to {}", token.min_pin_length(), token.max_pin_length())),
    ]);
    checks
}

fn sessions(name: &str, limit: Limit, fewest: u64) -> Check {
    match limit {
        Limit::Max(most) if most < fewest => Check::new(name, format!("{most}; Claviger needs {fewest}"), Verdict::Fails),
        Limit::Max(most) => Check::new(name, most.to_string(), Verdict::Ok),
        Limit::Infinite => Check::new(name, "no limit", Verdict::Ok),
        Limit::Unavailable => Check::new(name, "not said", Verdict::Ok),
    }
}

/// For each algorithm, whether the token says that it has the two mechanisms that Claviger uses. It must both list a mechanism and tell of
/// it: SoftHSM tells of mechanisms that its configuration took off the list.
pub(super) fn mechanisms(library: &Pkcs11, slot: Slot) -> Result<Vec<MechanismRow>, Fault> {
    let listed = library.get_mechanism_list(slot)?;
    let info = |kind: MechanismType| listed.contains(&kind).then(|| library.get_mechanism_info(slot, kind).ok()).flatten();
    let row = |algorithm: Algorithm| {
        let (generate, sign) = mechanisms_of(algorithm);
        let makes_keys = info(generate).filter(MechanismInfo::generate_key_pair);
        let sizes = makes_keys.map(|info| (info.min_key_size(), info.max_key_size()));
        let can_sign = info(sign).is_some_and(|info| info.sign());
        let offered = sizes.is_some() && can_sign;
        let verdict = match sizes.filter(|_| can_sign) {
            None => Verdict::Absent,
            Some(range) if fits(algorithm.key_shape(), range) => Verdict::Ok,
            // Some modules give sizes in bytes, or none: it is tried all the same.
            Some(_) => Verdict::Note,
        };
        MechanismRow {
            algorithm: algorithm.name().to_owned(),
            generate: generate.to_string(),
            generate_sizes: sizes,
            sign: sign.to_string(),
            can_sign,
            offered,
            verdict,
        }
    };
    Ok(Algorithm::ALL.into_iter().map(row).collect())
}

/// The mechanisms that make a key for the algorithm and that sign with it: those of `objects.rs` and `mechanism.rs`.
fn mechanisms_of(algorithm: Algorithm) -> (MechanismType, MechanismType) {
    use Algorithm as A;
    match algorithm {
        A::ES256 | A::ES384 | A::ES512 => (MechanismType::ECC_KEY_PAIR_GEN, MechanismType::ECDSA),
        A::RS256 | A::RS384 | A::RS512 => (MechanismType::RSA_PKCS_KEY_PAIR_GEN, MechanismType::RSA_PKCS),
        A::PS256 | A::PS384 | A::PS512 => (MechanismType::RSA_PKCS_KEY_PAIR_GEN, MechanismType::RSA_PKCS_PSS),
        A::EdDSA | A::Ed25519 => (MechanismType::ECC_EDWARDS_KEY_PAIR_GEN, MechanismType::EDDSA),
    }
}

/// Whether keys of this shape lie within a range of sizes. Ed25519 is 255 or 256 bits, as one counts.
fn fits(shape: KeyShape, (smallest, largest): (usize, usize)) -> bool {
    let within = |bits: usize| (smallest..=largest).contains(&bits);
    match shape {
        KeyShape::P256 => within(256),
        KeyShape::P384 => within(384),
        KeyShape::P521 => within(521),
        KeyShape::Rsa => within(2048),
        KeyShape::Ed25519 => within(255) || within(256),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_judged_in_bits() {
        assert!(fits(KeyShape::P521, (112, 521)) && !fits(KeyShape::P521, (112, 384)) && !fits(KeyShape::P521, (14, 66)));
        assert!(fits(KeyShape::Rsa, (512, 16384)) && !fits(KeyShape::Rsa, (3072, 4096)) && !fits(KeyShape::Rsa, (0, 0)));
        assert!(fits(KeyShape::Ed25519, (255, 255)) && fits(KeyShape::Ed25519, (256, 456)));
    }

    #[test]
    fn too_few_sessions_fail() {
        assert_eq!(sessions("s", Limit::Max(1), 2).verdict, Verdict::Fails);
        assert_eq!(sessions("s", Limit::Max(2), 2).verdict, Verdict::Ok);
        assert_eq!(sessions("s", Limit::Infinite, 2).result, "no limit");
    }
}
