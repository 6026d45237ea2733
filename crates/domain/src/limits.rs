//! Every bound of the engine in one place, with their relations checked at compile time.

/// Items in one sale.
pub const ITEMS_MAX: usize = 64;
/// Units of one item, ever (fresh, restocked and withdrawn together).
pub const UNITS_PER_ITEM_MAX: u32 = 100_000_000;
/// Units in one purchase.
pub const QUANTITY_MAX: u32 = 100;
/// Attempts to pay one order at a provider.
pub const PAYMENT_ATTEMPTS_MAX: usize = 16;
/// Orders in one answer about payments under way.
pub const UNSETTLED_MAX: usize = 256;
/// Reports on one order's payments that are not believed; further ones are only counted.
pub const PAYMENTS_PARKED_MAX: usize = 16;
/// Bytes of a provider's name of a payment.
pub const PAYMENT_REFERENCE_BYTES_MAX: usize = 64;
/// Coupons of one sale.
pub const COUPONS_MAX: usize = 64;
/// Points for one unit of an item.
pub const POINTS_PER_UNIT_MAX: u32 = 1_000_000;
/// Units withdrawn by one stock change, since the record lists each.
pub const WITHDRAWN_PER_RECORD_MAX: u32 = 10_000;
/// Decisions in one batch; expiries come on top.
pub const BATCH_DECISIONS_MAX: usize = 1_000;
/// Expiries in one batch, so that purchases never wait behind a wave of them.
pub const BATCH_EXPIRIES_MAX: usize = 256;
/// Bytes of one batch as appended to the chain.
pub const BATCH_BYTES_MAX: usize = 1 << 20;
/// Bytes of one record's public part.
pub const RECORD_PUBLIC_BYTES_MAX: usize = 128 * 1024;
/// Bytes of one record's encrypted private part.
pub const RECORD_PRIVATE_BYTES_MAX: usize = 4 * 1024;
/// Bytes of an idempotency key; printable ASCII.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 128;
/// Bytes of what a shop keeps with a purchase.
pub const ATTRIBUTES_BYTES_MAX: usize = 2 * 1024;
/// Bytes of a purchase request's body.
pub const PURCHASE_BODY_BYTES_MAX: usize = 4 * 1024;
/// Bytes of any request's body on the public listener.
pub const PUBLIC_BODY_BYTES_MAX: usize = 16 * 1024;
/// Bytes of an admin request's body.
pub const ADMIN_BODY_BYTES_MAX: usize = 256 * 1024;
/// Bytes of a request's line and headers.
pub const HEADER_BYTES_MAX: usize = 16 * 1024;
/// Characters of the shop's name of a sale or an item in URLs.
pub const NAME_CHARACTERS_MAX: usize = 40;
/// Characters of a title.
pub const TITLE_CHARACTERS_MAX: usize = 200;
/// Characters of a name that the shop has for a sale or an item in its own systems.
pub const EXTERNAL_CHARACTERS_MAX: usize = 64;
/// Bytes of a sale's definition as the `created` record carries it.
pub const DEFINITION_BYTES_MAX: usize = 64 * 1024;
/// Sales in one deployment.
pub const SALES_MAX: usize = 256;
/// Entries of the block list.
pub const BLOCKS_MAX: usize = 10_000;
/// Requests that wait for one owner; beyond it a gate answers `overloaded`.
pub const INBOX_MAX: usize = 16_384;
/// Streams of events that one process has open.
pub const STREAMS_MAX: usize = 1_024;
/// Streams of events that one customer of a sale has open at one process.
pub const STREAMS_PER_CUSTOMER_MAX: usize = 4;
/// Tickets of streams that a process remembers as used until they expire; beyond it a gate answers `overloaded`.
pub const STREAM_TICKETS_USED_MAX: usize = 16_384;
/// Rounds of one try of a proof of work at its lowest level: the server computes one try for each answer.
pub const PROOF_ROUNDS_MAX: u32 = 50_000;
/// Challenges that a process remembers as used until they expire; beyond it a gate answers `overloaded`.
pub const CHALLENGES_USED_MAX: usize = 262_144;
/// The longest stretch that a sale may be open, be held or spread over, in seconds (a year).
pub const SECONDS_MAX: u64 = 366 * 24 * 60 * 60;
/// The greatest integer that the decision core compares: exact in a double, so that a Lua twin decides alike.
pub const INTEGER_MAX: u64 = (1 << 53) - 1;
/// The last time that a grant can be paid by, in milliseconds since the Unix epoch: beyond the year 10000.
pub const TIME_MAX: u64 = (1 << 48) - 1;
/// Records of a chain; at a million a second they last for twelve days.
pub const RECORDS_MAX: u64 = 1 << 40;
/// Requests let through to the owner per unit that came back, while the sold-out mark stands.
pub const PERMITS_PER_FREE_UNIT: u64 = 4;
/// A wall clock that moves this far from the monotonic one has jumped: the sale pauses.
pub const CLOCK_JUMP_MILLISECONDS_MAX: u64 = 2_000;

const _: () = assert!(RECORD_PUBLIC_BYTES_MAX + RECORD_PRIVATE_BYTES_MAX < BATCH_BYTES_MAX);
const _: () = assert!(IDEMPOTENCY_KEY_BYTES_MAX + ATTRIBUTES_BYTES_MAX + 64 < RECORD_PRIVATE_BYTES_MAX);
const _: () = assert!(ATTRIBUTES_BYTES_MAX < PURCHASE_BODY_BYTES_MAX);
const _: () = assert!(DEFINITION_BYTES_MAX < RECORD_PUBLIC_BYTES_MAX);
const _: () = assert!(WITHDRAWN_PER_RECORD_MAX as usize * 8 < RECORD_PUBLIC_BYTES_MAX);
const _: () = assert!(QUANTITY_MAX as usize * 8 < RECORD_PUBLIC_BYTES_MAX);
const _: () = assert!(BATCH_EXPIRIES_MAX < BATCH_DECISIONS_MAX);
// A release names a grant and a reason; decisions leave half of a batch for what is not theirs.
const _: () = assert!(BATCH_EXPIRIES_MAX * 128 < BATCH_BYTES_MAX / 2);
const _: () = assert!(STREAMS_PER_CUSTOMER_MAX < STREAMS_MAX && STREAMS_MAX <= STREAM_TICKETS_USED_MAX);
const _: () = assert!((UNITS_PER_ITEM_MAX as u64) < INTEGER_MAX);
const _: () = assert!(TIME_MAX / 2 + SECONDS_MAX * 1_000 < TIME_MAX);
const _: () = assert!(POINTS_PER_UNIT_MAX as u64 * UNITS_PER_ITEM_MAX as u64 * (ITEMS_MAX as u64) < INTEGER_MAX);
