//! The places for open streams and the tickets that were used for them: bounded, and each place free again when its stream ends.
//!
//! Gates of a cluster share which tickets were used, in Redis. While it is away each knows its own only, and a ticket opens a stream at each
//! gate, all of them its customer's.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domain::{ChainTime, Pseudonym, Refusal, SaleOrdinal, limits};
use gate::StreamTicket;
use limiter::{Once, Spent};
use prometheus_client::metrics::gauge::Gauge;

use crate::app::App;

/// A customer differs from sale to sale, and so the bound is one of a customer in a sale.
type Whose = (SaleOrdinal, Pseudonym);

/// All streams of a process.
pub(crate) struct Streams {
    table: Mutex<Table>,
    gauge: Gauge,
}

struct Table {
    open: usize,
    of_customers: HashMap<Whose, usize>,
    /// The tickets.
    used: Once<[u8; 8]>,
}

impl Streams {
    pub(crate) fn new(gauge: Gauge) -> Arc<Self> {
        let used = Once::new(limits::STREAM_TICKETS_USED_MAX);
        Arc::new(Self { table: Mutex::new(Table { open: 0, of_customers: HashMap::new(), used }), gauge })
    }

    /// Uses a ticket for a place. A ticket for which there is no room is not used.
    pub(crate) fn enter(
        self: &Arc<Self>,
        sale: SaleOrdinal,
        ticket: &StreamTicket,
        now: ChainTime,
    ) -> Result<Place, Refusal> {
        let whose = (sale, ticket.customer);
        let mut table = self.lock();
        if table.used.is_spent(ticket.nonce, ticket.expires_at.0, now.0) {
            return Err(Refusal::TicketInvalid);
        }
        let of_customer = table.of_customers.get(&whose).copied().unwrap_or_default();
        if table.open >= limits::STREAMS_MAX
            || of_customer >= limits::STREAMS_PER_CUSTOMER_MAX
            || table.used.spend(ticket.nonce, ticket.expires_at.0, now.0) != Spent::Now
        {
            return Err(Refusal::Overloaded);
        }
        table.of_customers.insert(whose, of_customer + 1);
        table.open += 1;
        self.gauge.inc();
        Ok(Place { streams: Arc::clone(self), whose })
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Uses a ticket, which has a place here, up at all gates; `false` where one of them knows it already.
pub(crate) async fn spend(app: &App, sale: SaleOrdinal, ticket: &StreamTicket, now: ChainTime) -> bool {
    let Some(shared) = app.engine.shared() else { return true };
    let name = [&sale.0.to_le_bytes()[..], &ticket.expires_at.0.to_le_bytes(), &ticket.nonce].concat();
    let within = Duration::from_millis(ticket.expires_at.0.saturating_sub(now.0));
    // Unknown is not used: somebody whose phone changes networks needs the stream just then.
    shared.spend("stream", app.limits.addresses.hash(&name), within).await != Some(false)
}

/// A stream's place; leaving it frees the place.
pub(crate) struct Place {
    streams: Arc<Streams>,
    whose: Whose,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.streams.lock();
        table.open -= 1;
        if let Some(of_customer) = table.of_customers.get_mut(&self.whose) {
            *of_customer -= 1;
            if *of_customer == 0 {
                table.of_customers.remove(&self.whose);
            }
        }
        self.streams.gauge.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALE: SaleOrdinal = SaleOrdinal(1);
    const NOW: ChainTime = ChainTime(1_000_000);

    fn ticket(customer: u64, nonce: u64) -> StreamTicket {
        let mut pseudonym = [0; 16];
        pseudonym[..8].copy_from_slice(&customer.to_le_bytes());
        StreamTicket { customer: Pseudonym(pseudonym), expires_at: NOW.plus(10_000), nonce: nonce.to_le_bytes() }
    }

    fn outcome(entered: Result<Place, Refusal>) -> Option<Refusal> {
        entered.err()
    }

    #[test]
    fn a_ticket_is_used_once_and_until_it_expires() {
        let streams = Streams::new(Gauge::default());
        assert_eq!(outcome(streams.enter(SALE, &ticket(1, 1), NOW)), None);
        for later in [0, 9_999, 10_000, 1_000_000] {
            let again = streams.enter(SALE, &ticket(1, 1), NOW.plus(later));
            assert_eq!(outcome(again), Some(Refusal::TicketInvalid), "{later} ms later");
        }
        assert_eq!(outcome(streams.enter(SALE, &ticket(1, 2), NOW.plus(10_000))), Some(Refusal::TicketInvalid));
        assert_eq!(outcome(streams.enter(SALE, &ticket(1, 3), NOW.plus(9_999))), None);
    }

    #[test]
    fn a_customer_has_a_few_places_and_gets_them_back() {
        let streams = Streams::new(Gauge::default());
        let mut places: Vec<_> =
            (0..4).map(|nonce| streams.enter(SALE, &ticket(1, nonce), NOW).map_err(Refusal::code).unwrap()).collect();
        assert_eq!(outcome(streams.enter(SALE, &ticket(1, 4), NOW)), Some(Refusal::Overloaded));
        assert_eq!(outcome(streams.enter(SALE, &ticket(2, 5), NOW)), None, "nobody else is in the way");
        places.pop();
        assert_eq!(outcome(streams.enter(SALE, &ticket(1, 4), NOW)), None, "what was refused is not used");
        drop(places);
        assert_eq!(streams.gauge.get(), 0);
        assert!(streams.lock().of_customers.is_empty());
    }

    #[test]
    fn a_process_has_so_many_places() {
        let streams = Streams::new(Gauge::default());
        let enter = |customer: u64| streams.enter(SALE, &ticket(customer, customer), NOW);
        let mut places: Vec<_> = (0..1_024).map(|customer| enter(customer).map_err(Refusal::code).unwrap()).collect();
        assert_eq!(streams.gauge.get(), 1_024);
        assert_eq!(outcome(enter(5_000)), Some(Refusal::Overloaded));
        places.pop();
        assert_eq!(outcome(enter(5_000)), None);
    }

    #[test]
    fn used_tickets_are_remembered_within_bounds() {
        let streams = Streams::new(Gauge::default());
        for nonce in 0..limits::STREAM_TICKETS_USED_MAX as u64 {
            assert_eq!(outcome(streams.enter(SALE, &ticket(nonce, nonce), NOW)), None);
        }
        let (another, later) = (u64::MAX, NOW.plus(10_000));
        assert_eq!(outcome(streams.enter(SALE, &ticket(1, another), NOW)), Some(Refusal::Overloaded));
        let fresh = StreamTicket { expires_at: later.plus(1), ..ticket(1, another) };
        assert_eq!(outcome(streams.enter(SALE, &fresh, later)), None, "those that have expired make room");
        assert_eq!(streams.lock().used.len(), 1);
    }
}
