//! The attack corpus: whoever changes a byte, a line, a note or a file of a log, or tells it again, meets an exit code that is never 0.
//!
//! In scope: every byte, every line, every place, over whole pairs of logs; which exit code each attack must give. Out of scope: one file
//! per way to be wrong, which lies in `testdata/defect` (test `golden`), and bytes that nobody thought of (`fuzz`).

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too: what fails here fails the test that asked")]

#[path = "../golden/builder.rs"]
#[expect(dead_code, reason = "the test `golden` uses more of it")]
mod builder;
mod bytes;
mod composed;
mod corpus;
mod folders;
#[path = "../golden/forge.rs"]
mod forge;
mod forgeries;
mod lines;
mod notes;
mod segments;
mod uncovered;
