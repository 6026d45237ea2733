//! Who may try now: ids that leave the engine, passes, the shop's identities, pseudonyms, and a record's private part.
//!
//! Everything here is a function of its arguments: keys and the time are passed in. Nothing here opens a socket or a file,
//! reads a clock, or decides about stock; an expired pass is opened like any other, because expiry is admission's verdict.

pub mod body;
pub mod eligible;
pub mod identity;
pub mod ids;
pub mod jwks;
mod keys;
pub mod pass;
pub mod private;
pub mod pseudonym;
pub mod sign;
pub mod ticket;

pub use body::body_hash;
pub use eligible::RequiredClaim;
pub use identity::{Disbelief, Identity, IdentityConfig, IdentityConfigError, IdentityVerifier};
pub use ids::{IdKeys, shard_of};
pub use jwks::{JwksError, KeySet};
pub use pass::{OpenPass, Pass, PassError, PassKey, PassKeys, token_hash};
pub use private::{CustomerSaleKey, PrivateError, PrivateText, open_private, seal_private};
pub use pseudonym::{IdentityKey, PseudonymKey};
pub use ticket::StreamTicket;
