//! Proofs as files, from whatever the fuzzer makes up. What must hold is in `claviger_audit_fuzz`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| claviger_audit_fuzz::proof_file::check(data));
