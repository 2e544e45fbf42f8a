//! What may heal a PKCS#11 failure, and how long to wait for a token that is away. Pure: codes and times in, decisions out.
//!
//! In scope: the class of each return value, and the circuit breaker. Out of scope: doing anything about it (`admin.rs`, `worker.rs`).

use std::time::Duration;

use cryptoki::error::RvError;

use crate::clock::Monotonic;

/// The wait after the first failure; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest wait between two attempts to reach a token, so that signing resumes within about a second of its return.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What may heal a failure, mildest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// The session is gone or poisoned: open another one.
    Session,
    /// Login or handles are gone: log in again and begin a new epoch.
    Login,
    /// The device or the module's own state is gone: initialise the module again.
    Module,
    /// The token is busy or short of something: ask again later.
    Throttle,
    /// Asking again cannot help, and may harm (a PIN try).
    Never,
}

/// The class of a return value (PKCS#11 v3.1 section 5.1).
///
/// Codes that say nothing certain (`CKR_GENERAL_ERROR`, `CKR_DEVICE_ERROR`, vendor codes) begin with a new login; when that fails too, the
/// admin thread goes on to initialise the module again.
pub(super) fn classify(code: RvError) -> Class {
    use RvError as R;
    match code {
        R::SessionClosed | R::SessionHandleInvalid | R::OperationActive | R::OperationNotInitialized | R::BufferTooSmall => Class::Session,
        R::UserNotLoggedIn
        | R::KeyHandleInvalid
        | R::ObjectHandleInvalid
        | R::GeneralError
        | R::DeviceError
        | R::VendorDefined(_)
        | R::UnknownErrorCode(_) => Class::Login,
        // The last one: the token is still being prepared, and SoftHSM goes on saying so until it is initialised again.
        R::DeviceRemoved
        | R::TokenNotPresent
        | R::TokenNotRecognized
        | R::SlotIdInvalid
        | R::CryptokiNotInitialized
        | R::UserPinNotInitialized => Class::Module,
        R::SessionCount | R::HostMemory | R::DeviceMemory | R::FunctionFailed | R::FunctionCanceled | R::Cancel => Class::Throttle,
        // PIN, mechanism, attribute, template and argument errors, and everything that belongs to functions which are never called.
        _ => Class::Never,
    }
}

/// Whether the token judged the PIN: such a code must never be followed by another try with the same PIN. A token whose PIN is still to be
/// set (`CKR_USER_PIN_NOT_INITIALIZED`) has judged nothing: it is being prepared, and the same PIN may be right in a moment.
pub(super) fn concerns_pin(code: RvError) -> bool {
    use RvError as R;
    matches!(code, R::PinIncorrect | R::PinInvalid | R::PinLenRange | R::PinExpired | R::PinLocked | R::PinTooWeak)
}

/// A circuit breaker: closed while the token answers, open after a failure, half-open for one probe when the pause is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Breaker {
    /// The last attempt worked.
    Closed,
    /// No attempt before `until`.
    Open {
        /// How many attempts failed in a row, at least 1.
        failures: u32,
        /// When the next attempt may be made.
        until: Monotonic,
    },
    /// One attempt is being made.
    HalfOpen {
        /// How many attempts failed in a row before it.
        failures: u32,
    },
}

impl Breaker {
    /// Whether an attempt may be made now; if so, the breaker expects its outcome.
    pub(super) fn admits(&mut self, now: Monotonic) -> bool {
        match *self {
            Self::Closed => true,
            Self::Open { until, .. } if now < until => false,
            Self::Open { failures, .. } | Self::HalfOpen { failures } => {
                *self = Self::HalfOpen { failures };
                true
            }
        }
    }

    /// How many attempts failed in a row.
    pub(super) fn failures(self) -> u32 {
        match self {
            Self::Closed => 0,
            Self::Open { failures, .. } | Self::HalfOpen { failures } => failures,
        }
    }

    /// The attempt worked.
    pub(super) fn succeeded(&mut self) {
        *self = Self::Closed;
    }

    /// The attempt failed: waits twice as long as before, at most [`LONGEST_PAUSE`], of which `random` takes away up to a half, so that
    /// many daemons do not knock on one device in step. Returns when the next attempt may be made.
    pub(super) fn failed(&mut self, now: Monotonic, random: u8) -> Monotonic {
        let failures = self.failures().saturating_add(1);
        let full = FIRST_PAUSE.saturating_mul(1 << (failures - 1).min(16)).min(LONGEST_PAUSE);
        let until = now.plus(full.saturating_sub(full / 512 * u32::from(random)));
        *self = Self::Open { failures, until };
        until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_has_its_codes() {
        use RvError as R;
        let table = [
            (Class::Session, vec![R::SessionClosed, R::SessionHandleInvalid, R::OperationActive, R::OperationNotInitialized]),
            (Class::Login, vec![R::UserNotLoggedIn, R::KeyHandleInvalid, R::ObjectHandleInvalid, R::GeneralError, R::DeviceError]),
            (Class::Login, vec![R::VendorDefined(0x8000_0001), R::UnknownErrorCode(0x7fff_ffff)]),
            (Class::Module, vec![R::DeviceRemoved, R::TokenNotPresent, R::SlotIdInvalid, R::CryptokiNotInitialized]),
            (Class::Throttle, vec![R::SessionCount, R::HostMemory, R::DeviceMemory, R::FunctionFailed]),
            (Class::Module, vec![R::TokenNotRecognized, R::UserPinNotInitialized]),
            (Class::Never, vec![R::PinIncorrect, R::PinLocked, R::PinExpired, R::PinInvalid, R::PinLenRange]),
            (Class::Never, vec![R::MechanismInvalid, R::MechanismParamInvalid, R::CurveNotSupported, R::KeyFunctionNotPermitted]),
            (Class::Never, vec![R::AttributeValueInvalid, R::AttributeTypeInvalid, R::TemplateInconsistent, R::TemplateIncomplete]),
            (Class::Never, vec![R::DataLenRange, R::ArgumentsBad, R::FunctionNotSupported, R::ActionProhibited]),
        ];
        for (class, codes) in table {
            for code in codes {
                assert_eq!(classify(code), class, "{code:?}");
            }
        }
    }

    #[test]
    fn what_concerns_the_pin_is_never_tried_again() {
        for code in [RvError::PinIncorrect, RvError::PinLocked, RvError::PinExpired, RvError::PinInvalid, RvError::PinLenRange] {
            assert!(concerns_pin(code) && classify(code) == Class::Never, "{code:?}");
        }
        for code in [RvError::DeviceError, RvError::UserPinNotInitialized, RvError::UserAlreadyLoggedIn] {
            assert!(!concerns_pin(code), "{code:?}");
        }
    }

    #[test]
    fn the_breaker_opens_doubles_probes_and_closes() {
        let mut breaker = Breaker::Closed;
        let mut now = Monotonic::at(Duration::from_secs(100));
        assert!(breaker.admits(now));
        for expected in [50, 100, 200, 400, 800, 1000, 1000] {
            let until = breaker.failed(now, 0);
            assert_eq!(until.since(now), Duration::from_millis(expected));
            assert!(!breaker.admits(now));
            now = until;
            assert!(breaker.admits(now), "one probe when the pause is over");
        }
        breaker.succeeded();
        assert_eq!(breaker.failures(), 0);
        assert!(breaker.admits(now));
    }

    #[test]
    fn jitter_takes_at_most_half() {
        let now = Monotonic::at(Duration::ZERO);
        for failures in [1, 5, 40, u32::MAX] {
            for random in [0, 1, 128, 255] {
                let mut breaker = Breaker::HalfOpen { failures };
                let pause = breaker.failed(now, random).since(now);
                assert!(pause <= LONGEST_PAUSE && pause >= FIRST_PAUSE / 2, "{pause:?}");
            }
        }
    }
}
