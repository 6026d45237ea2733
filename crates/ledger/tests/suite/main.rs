//! The ledger's tests from outside: books, service and vault by their public calls.

mod books;
mod place;
mod service;
mod services;
mod support;
mod vault;
mod vault_contract;
mod vault_postgres;
mod vault_tls;
