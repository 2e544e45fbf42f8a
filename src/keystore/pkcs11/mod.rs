//! The PKCS#11 adapter.
