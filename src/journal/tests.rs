//! Tests of the whole writer: on a real disk (`real`), and on one that fails and crashes as told (`crash`, `fake`).

mod adopt;
mod crash;
mod fake;
mod harness;
mod real;
