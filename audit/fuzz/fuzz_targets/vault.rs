//! Files of an audit device of Vault, from whatever the fuzzer makes up. What must hold is in `claviger_audit_fuzz`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| claviger_audit_fuzz::backend::check_vault(data));
