//! The log on a real disk.

mod damage;
mod log;
mod reader;
mod support;
