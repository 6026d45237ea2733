//! One deployment in one process: its data folder, its keys, its sales with their owners, its vault and its books.
//!
//! This is the one wiring of the engine, alone or as part of a cluster. It decides nothing and speaks no HTTP; `web` serves it, `bench` measures it.

mod blocks;
mod buyer;
mod cluster;
mod data;
mod engine;
mod identities;
mod pass_keys;
mod retention;
mod sale;
mod showcase;
mod tokens;

pub use ::cluster::{News, Order, Roles, Shared, SharedCounts};
pub use blocks::{BlockError, BlockTarget};
pub use buyer::{Buyer, BuyerError};
pub use data::{DataError, DataFolder};
pub use engine::{ClusterSettings, CreateError, Engine, EngineOptions, OnFatal, StartError};
pub use identities::Identities;
pub use pass_keys::PassRing;
pub use retention::AnonymiseError;
pub use sale::{ChainReadError, ChainedRecord, Sale};
pub use showcase::{
    BUTTON_CHARACTERS_MAX, DESCRIPTION_CHARACTERS_MAX, LANGUAGES_MAX, ORIGINS_MAX, Picture, Showcase, ShowcaseError,
    ShowcaseSettings,
};
