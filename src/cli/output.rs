//! What people and programs read: tables and sentences for the one, JSON for the other.
//!
//! In scope: standard output and standard error of the command line; `NO_COLOR` and pipes are honoured by the stream. Out of scope: what is
//! said.

use std::fmt::Display;
use std::io::Write as _;

use comfy_table::{ContentArrangement, Table, presets};
use owo_colors::OwoColorize as _;
use serde_json::Value;

use super::exit;

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Tables and sentences.
    #[default]
    Table,
    /// One JSON document.
    Json,
}

/// A command that did not succeed: its exit code and what to say.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub code: u8,
    /// What happened, and what to do.
    pub text: String,
}

impl Failure {
    /// A failure.
    pub fn new(code: u8, text: impl Display) -> Self {
        Self { code, text: text.to_string() }
    }
}

/// What a command returns: its exit code, or a failure that is still to be said.
pub type Outcome = Result<u8, Failure>;

/// Prints a line. A reader that went away (`| head`) ends nothing that matters.
pub fn line(text: impl Display) {
    let _ = writeln!(anstream::stdout(), "{text}");
}

/// Says something beside the result, on standard error.
pub fn remark(text: impl Display) {
    let _ = writeln!(anstream::stderr(), "{text}");
}

/// Says what went wrong.
pub fn failure(failure: &Failure) -> u8 {
    let _ = writeln!(anstream::stderr(), "{} {}", "claviger:".red().bold(), failure.text);
    failure.code
}

/// Prints a JSON document.
pub fn json(value: &Value) -> u8 {
    line(serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string()));
    exit::OK
}

/// Prints a table; an empty one is said in words.
pub fn table(head: &[&str], rows: Vec<Vec<String>>, nothing: &str) {
    if rows.is_empty() {
        line(nothing);
        return;
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(head.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
    table.add_rows(rows);
    line(table);
}

/// The text of a JSON member, or a dash.
pub fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
