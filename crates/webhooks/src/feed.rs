//! The feed: events for whoever asks, page by page. A cursor holds all there is to know of where somebody stands, so it is good on every
//! process with books, after every restart, and for as long as the sales are kept.

use std::collections::BTreeMap;
use std::sync::Arc;

use data_encoding::BASE64URL_NOPAD;
use domain::SaleOrdinal;
use engine::{Engine, Sale};

use crate::event::Event;
use crate::reading::{EventError, Readers, Wanted};

/// Events on one page at most.
pub const EVENTS_PER_PAGE_MAX: usize = 1_000;

/// The first byte of a cursor's bytes.
const CURSOR_VERSION: u8 = 1;
/// Bytes of a sale in a cursor: its number, and the first record that was not told.
const CURSOR_SALE_BYTES: usize = 4 + 8;

/// Where a reader of the feed stands in every sale. Opaque to readers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The first record that was not looked at; a sale that is missing has not been looked at at all.
    next: BTreeMap<u32, u64>,
    /// Whose turn it is, so that a busy sale does not keep the others waiting.
    turn: u32,
}

impl Cursor {
    /// Reads a cursor; `None` for anything that [`Cursor::encode`] did not give.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok()?;
        let (&[CURSOR_VERSION, a, b, c, d], sales) = bytes.split_first_chunk()? else { return None };
        let (sales, []) = sales.as_chunks::<CURSOR_SALE_BYTES>() else { return None };
        let sale = |&[a, b, c, d, ref position @ ..]: &[u8; CURSOR_SALE_BYTES]| {
            (u32::from_be_bytes([a, b, c, d]), u64::from_be_bytes(*position))
        };
        Some(Self { next: sales.iter().map(sale).collect(), turn: u32::from_be_bytes([a, b, c, d]) })
    }

    /// The cursor as text for a URL: 11 characters and 16 per sale at most.
    pub fn encode(&self) -> String {
        let mut bytes = vec![CURSOR_VERSION];
        bytes.extend(self.turn.to_be_bytes());
        for (ordinal, next) in &self.next {
            bytes.extend(ordinal.to_be_bytes());
            bytes.extend(next.to_be_bytes());
        }
        BASE64URL_NOPAD.encode(&bytes)
    }
}

/// One page of the feed.
#[derive(Debug)]
pub struct Page {
    /// Of one sale in the order of its chain; several sales follow each other in no order.
    pub events: Vec<Event>,
    /// Where the next page begins.
    pub cursor: Cursor,
    /// Whether there may be more already.
    pub more: bool,
}

/// Answers who asks for events.
#[derive(Default)]
pub struct Feed {
    readers: Readers,
}

impl Feed {
    /// The events behind a cursor, `limit` at most ([`EVENTS_PER_PAGE_MAX`] is the bound), of these sales. Blocks.
    pub fn page(
        &self,
        engine: &Engine,
        sales: &[Arc<Sale>],
        mut cursor: Cursor,
        limit: usize,
    ) -> Result<Page, EventError> {
        let limit = limit.clamp(1, EVENTS_PER_PAGE_MAX);
        let mut events = Vec::new();
        let begin = sales.iter().position(|sale| sale.ordinal >= SaleOrdinal(cursor.turn)).unwrap_or(0);
        let mut more = false;
        for sale in sales[begin..].iter().chain(&sales[..begin]) {
            let next = cursor.next.entry(sale.ordinal.0).or_default();
            let found = self.readers.read(engine, sale, &Wanted::from(*next, limit - events.len()))?;
            *next = found.next;
            events.extend(found.events);
            more |= found.next < found.end;
            if events.len() >= limit {
                // The sale that filled the page is the last one to be asked next time.
                cursor.turn = sale.ordinal.0.saturating_add(1);
                more = true;
                break;
            }
        }
        Ok(Page { events, cursor, more })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back_and_nothing_else_does() {
        for cursor in [
            Cursor::default(),
            Cursor { next: [(1, 0), (7, u64::MAX)].into(), turn: 3 },
            Cursor { next: (1..=256).map(|ordinal| (ordinal, u64::from(ordinal) << 40)).collect(), turn: 1 },
        ] {
            let text = cursor.encode();
            assert_eq!(Cursor::parse(&text), Some(cursor), "{text}");
            assert_eq!(Cursor::parse(&text[..text.len() - 2]), None);
        }
        for text in ["", "x", "AA", "AgAAAAA", "AQAAAAA=", "AQAAAAAA", "../etc"] {
            assert_eq!(Cursor::parse(text), None, "{text}");
        }
    }
}
