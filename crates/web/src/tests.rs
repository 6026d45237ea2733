//! Tests of several files at once, which see what no other crate does.

mod any_bytes;
mod instructions;
