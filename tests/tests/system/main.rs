//! The system tests: the real binary, over HTTP, with kill -9 where it hurts.

mod command_line;
mod connections;
mod demo;
mod docs_viewer;
mod erasing;
mod events;
mod express;
mod field;
mod folders;
mod handover;
mod identities;
mod kills;
mod load;
mod operator;
mod origins;
mod payments;
mod pending;
mod pictures;
mod provider;
mod refusals;
mod routes;
mod starting;
mod storage;
mod streams;
mod webhooks;
mod winners;
