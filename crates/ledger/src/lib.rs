//! The ledger: the books of every sale and the vault beside them.
//!
//! The books are a projection: they follow the chains at their own pace, commit their offset with their effects, and can be
//! deleted and rebuilt at any time. The vault is primary data: it is synced before anything rests on it and is never rebuilt.
//! This crate decides nothing about a purchase; it writes down what a chain says, or parks what it cannot believe.

pub mod books;
pub mod service;
pub mod store;
pub mod vault;

pub use books::{Applied, Books, BooksError, Service};
pub use service::{BooksService, FollowState, Pace, StepError, step};
pub use store::StoreError;
pub use vault::{
    AdminToken, AdminTokens, CustomerError, DeploymentKeys, KeptBlock, KeptBlocks, KeptPicture, KeptShowcases,
    KnownCustomer, NewAdminToken, NewCustomer, PictureFile, PostgresOptions, PostgresVault, SaleSecrets, Vault,
    VaultError, VaultService, VaultStore,
};
