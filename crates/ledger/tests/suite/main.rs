//! The ledger's tests from outside: books, service and vault by their public calls.

mod books;
mod service;
mod support;
mod vault;
