//! No PIN in anything that anybody could read: log lines of every level, errors, states, the module's own status.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use claviger::keystore::pkcs11::Pkcs11Keystore;
use claviger::keystore::{Keystore as _, Locator};
use claviger_audit::Algorithm;
use serde_json::json;

use crate::support::faults::with_faults;
use crate::support::softhsm::PIN;
use crate::{Bench, Forward, name};

const WRONG: &str = "8888-wrong";

/// Everything that was written, for all clones.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Written {
    fn add(&self, line: impl std::fmt::Debug) {
        writeln!(self.clone(), "{line:?}").expect("memory");
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

#[test]
fn no_pin_is_told_whatever_goes_wrong() {
    with_faults("secrets::no_pin_is_told_whatever_goes_wrong", |hsm, faults| {
        let written = Written::default();
        let writer = written.clone();
        // With what the PKCS#11 wrapper logs for itself.
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone()).init();
        tracing::info!("the log is caught");

        let bench = Bench::new(hsm, faults);
        for function in
            ["C_Login", "C_OpenSession", "C_GetTokenInfo", "C_GetSlotList", "C_SignInit", "C_Sign", "C_FindObjects", "C_GenerateKeyPair"]
        {
            for code in ["CKR_DEVICE_ERROR", "CKR_DEVICE_REMOVED", "CKR_DEVICE_MEMORY", "CKR_ARGUMENTS_BAD", "CKR_PIN_LOCKED"] {
                faults.fail(function, code, json!({ "times": 1 }));
                faults.tell(json!({ "do": "logout" }));
                written.add(bench.sign(0));
                written.add(bench.runtime.block_on(bench.keystore.create(&name(3), Algorithm::ES256)));
                written.add(bench.runtime.block_on(bench.keystore.destroy(&Locator::new("00".repeat(20)))));
                written.add(bench.runtime.block_on(bench.keystore.health()));
                written.add(bench.keystore.state());
                written.add(faults.status());
                faults.reset();
                if (function, code) == ("C_Login", "CKR_PIN_LOCKED") {
                    // As an operator would who has the PIN unlocked.
                    let marker = std::fs::read_dir(hsm.state()).expect("the state folder").next().expect("a marker").expect("an entry");
                    std::fs::remove_file(marker.path()).expect("our own file");
                }
                bench.heals();
            }
        }
        for pin in [WRONG, PIN] {
            let settings = hsm.settings("faulty", pin);
            written.add(&settings);
            faults.tell(json!({ "do": "drop-sessions" }));
            let keystore = Pkcs11Keystore::open(settings, Forward::start());
            written.add(bench.runtime.block_on(keystore.health()));
            written.add(bench.runtime.block_on(keystore.inventory("faulty")));
            written.add(faults.say("{\"do\":\"pin-counter\",\"tries\":\"4711-right\"}").to_string().len());
            written.add(faults.status());
        }
        let text = written.text();
        assert!(text.contains("the log is caught") && text.contains("DeviceError") && text.contains("refused the PIN"), "{text}");
        for secret in [PIN, WRONG, "0815-officer"] {
            assert!(!text.contains(secret), "{secret} was told");
        }
    });
}
