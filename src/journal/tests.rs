//! Tests of the whole writer: on a real disk (`real`), on one that fails and crashes as told (`crash`, `faults`, `fake`), and while its key
//! changes (`turning`).

mod adopt;
mod crash;
mod fake;
mod faults;
mod following;
mod harness;
mod living;
mod prune;
mod real;
mod turning;
