//! What every bench needs: CPU time, floors of the disk, and the lines of a report.
//!
//! In scope: what more than one bench uses. Out of scope: what only one measures.

pub(crate) mod cpu;
pub(crate) mod floor;
pub(crate) mod table;

use std::error::Error;

/// What goes wrong in a bench is told to a person, and ends the run.
pub(crate) type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;
