//! The ticket of a stream: lets whoever has it open one stream of events of one purchase, for a few seconds.
//!
//! A browser's `EventSource` sends no header, so the stream cannot ask for the access token, and a token does not belong into an address.
//! Every gate of a deployment believes the ticket of every other. That it is used once is for the gate that opens the stream to see.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use domain::{ChainTime, Pseudonym, PurchaseId, SaleId};

use crate::ids::{IdKeys, bytes_of, text};
use crate::keys::{first, mac, take};

const PREFIX: &str = "st_";
const SIGNED_BYTES: usize = 16 + 8 + 8;
const MAC_BYTES: usize = 16;
const TICKET_BYTES: usize = SIGNED_BYTES + MAC_BYTES;
/// Whole groups of three bytes leave base64 no spare bits, so one ticket has one spelling.
const _: () = assert!(TICKET_BYTES.is_multiple_of(3));

/// What a ticket says beside the purchase that it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamTicket {
    /// Whose purchase it is.
    pub customer: Pseudonym,
    /// From when on it opens nothing any more.
    pub expires_at: ChainTime,
    /// Drawn for each ticket; tells it from every other.
    pub nonce: [u8; 8],
}

impl IdKeys {
    /// `"st_"` and base64url of customer (16), end in Unix milliseconds (8, little-endian), nonce (8), MAC over these and the purchase (16).
    pub fn seal_stream_ticket(&self, sale: SaleId, purchase: PurchaseId, ticket: &StreamTicket) -> String {
        let mut bytes = [0; TICKET_BYTES];
        bytes[..16].copy_from_slice(&ticket.customer.0);
        bytes[16..24].copy_from_slice(&ticket.expires_at.0.to_le_bytes());
        bytes[24..SIGNED_BYTES].copy_from_slice(&ticket.nonce);
        let mac = self.stream_mac(sale, purchase, &bytes[..SIGNED_BYTES]);
        bytes[SIGNED_BYTES..].copy_from_slice(&mac);
        text(PREFIX, &bytes)
    }

    /// Reads a ticket for this purchase, whether it has expired or not; `None` for anything that these keys did not make for it.
    pub fn open_stream_ticket(&self, sale: SaleId, purchase: PurchaseId, ticket: &str) -> Option<StreamTicket> {
        let bytes: [u8; TICKET_BYTES] = bytes_of(PREFIX, ticket)?;
        let (signed, sent) = bytes.split_at(SIGNED_BYTES);
        verify_slices_are_equal(&self.stream_mac(sale, purchase, signed), sent).ok()?;
        let mut fields = signed;
        Some(StreamTicket {
            customer: Pseudonym(take(&mut fields)),
            expires_at: ChainTime(u64::from_le_bytes(take(&mut fields))),
            nonce: take(&mut fields),
        })
    }

    fn stream_mac(&self, sale: SaleId, purchase: PurchaseId, signed: &[u8]) -> [u8; MAC_BYTES] {
        first(&mac(&self.stream, &[b"doorbuster stream v1", &sale.0, &purchase.0, signed]))
    }
}
