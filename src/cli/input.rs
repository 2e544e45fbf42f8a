//! What commands read from files that people name; `-` is standard input.
//!
//! In scope: strict reading, and errors that name the file. Out of scope: what the content means.

use std::path::Path;

use serde_json::{Map, Value};

use super::exit;
use super::output::Failure;
use crate::config::files;

/// A JSON object with one reading only.
pub(super) fn json_object(file: &Path) -> Result<Map<String, Value>, Failure> {
    let bytes = read(file)?;
    let bad = |what: String| Failure::new(exit::DATA, format!("{} is not a JSON object with one reading: {what}", file.display()));
    claviger_audit::json::check_request(&bytes).map_err(|defect| bad(defect.to_string()))?;
    serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))
}

/// The bytes.
pub(super) fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    files::bytes(file).map_err(|error| Failure::new(exit::NOT_FOUND, error))
}
