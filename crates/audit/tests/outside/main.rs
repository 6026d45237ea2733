//! The outside reader against chains, logs, books, notes and exports that are written by hand: the good ones are clean, and each
//! doctored one is reported under exactly its own promise.

mod answers;
mod books;
mod chain;
mod exports;
mod log;
mod projections;
mod segments;
mod sketch;
mod vectors;
