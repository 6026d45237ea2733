//! Every bound towards a provider in one place, with their relations checked at compile time.

use std::time::Duration;

/// Bytes of an order's public id in an attempt's key.
pub const ORDER_BYTES_MAX: usize = 64;
/// Bytes of a callback's body. Objects of payments carry the shop's own metadata, 25 KB of it at most, and a few KB of their own.
pub const CALLBACK_BYTES_MAX: usize = 256 * 1024;
/// Bytes of a callback's signature header: room for a dozen signatures.
pub const SIGNATURE_HEADER_BYTES_MAX: usize = 2 * 1024;
/// Seconds between a signature's time and ours. A late delivery is signed anew when it is sent, so what is older was replayed.
pub const SIGNATURE_AGE_SECONDS_MAX: u64 = 5 * 60;
/// Bytes of a provider's answer.
pub const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Refunds of one payment that are looked through for one of ours; the most that a provider lists at once.
pub const REFUNDS_LISTED_MAX: usize = 100;
/// How long a provider remembers an idempotency key at least: within it, a repeated call is the same call.
pub const KEY_LIFE: Duration = Duration::from_secs(24 * 60 * 60);
/// Bytes of a provider's own words that are kept of an error.
pub const WORDS_BYTES_MAX: usize = 200;
/// Seconds that a payment at the sandbox may be put off.
pub const SANDBOX_DELAY_SECONDS_MAX: u64 = 24 * 60 * 60;

const _: () = assert!(CALLBACK_BYTES_MAX < ANSWER_BYTES_MAX);
const _: () = assert!(REFUNDS_LISTED_MAX * 8 * 1024 <= ANSWER_BYTES_MAX);
