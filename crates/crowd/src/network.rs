//! What lies between somebody and the server: how long a request travels, and from which address it comes. Loopback has neither, so both
//! are made here, and only in a crowd with bots.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::time::Duration;

use http::HeaderValue;

use crate::bots::Kind;
use crate::run::Crowd;

/// What a proxy writes, as this crowd stands for one.
pub(crate) const FORWARDED_FOR: &str = "x-forwarded-for";
/// To the server and back, in milliseconds: from a good line at home to a bad phone network.
pub(crate) const ROUND_TRIP_MILLISECONDS: RangeInclusive<u64> = 80..=400;
/// From what somebody sees to what their finger does, in milliseconds.
pub(crate) const REACTION_MILLISECONDS: RangeInclusive<u64> = 300..=3_000;
/// The page sends so many milliseconds later, at random, where the slot is the opening: `JITTER_MS` in `crates/pages/assets/core.js`.
pub(crate) const PAGE_JITTER_MILLISECONDS: RangeInclusive<u64> = 0..=300;

/// People's addresses, one each (100.64.0.0/10), and the operators' (240.0.0.0/4): networks that nobody has on the internet.
const PEOPLE_FROM: u32 = u32::from_be_bytes([100, 64, 0, 0]);
const PEOPLE_BITS: u32 = 22;
const BOTS_FROM: u32 = u32::from_be_bytes([240, 0, 0, 0]);
pub(crate) const BOTS_BITS: u32 = 28;

/// How long a request travels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Path {
    pub(crate) there: Duration,
    pub(crate) back: Duration,
}

impl Path {
    /// Half of it each way.
    pub(crate) fn of_round_trip(time: Duration) -> Self {
        Self { there: time / 2, back: time / 2 }
    }
}

impl Crowd {
    /// Whom this account's next request is from, in the words of a proxy; `None` where nobody stands between.
    pub(crate) fn forwarded_for(&self, account: u32) -> Option<HeaderValue> {
        self.options.bots.as_ref()?;
        let Some(operator) = self.bots.operator_of(account) else {
            return Some(header(of_network(PEOPLE_FROM, PEOPLE_BITS, account).to_string()));
        };
        let real = of_network(BOTS_FROM, BOTS_BITS, operator.next_address());
        Some(header(match operator.kind {
            // What a client writes stands on the left; the proxy adds on the right whom it talked to.
            Kind::HeaderForger => {
                let claimed = Ipv4Addr::from(self.random.borrow_mut().u32(..));
                format!("{claimed}, 127.0.0.1, {real}")
            }
            _ => real.to_string(),
        }))
    }
}

fn of_network(from: u32, bits: u32, number: u32) -> Ipv4Addr {
    Ipv4Addr::from(from | number & ((1 << bits) - 1))
}

fn header(text: String) -> HeaderValue {
    HeaderValue::try_from(text).expect("addresses are visible ASCII")
}
