//! The adapters against the stand-in and the sandbox, over sockets: one program, so that it is linked once.

mod support;

mod callbacks;
mod client;
mod reconciliation;
mod sandbox;
mod stripe;
