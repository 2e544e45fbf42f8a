//! Tests of the whole writer: on a real disk (`real`), and on one that fails and crashes as told (`crash`, `fake`).

mod crash;
mod fake;
mod following;
mod harness;
mod real;
