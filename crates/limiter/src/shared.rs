//! A limit that several processes, the gates, keep together, with an arbiter between them that counts for all.
//!
//! Most requests do without the arbiter. Each gate may admit a small part of the limit by itself; beyond it the arbiter is asked, which gives
//! a permit, and to a key that asks often some more that this gate may use within a second; a refusal is remembered until another try makes
//! sense. All of it together admits a twentieth more than the limit at most.
//!
//! Whatever a gate admits it also counts for itself. So when the arbiter cannot be asked each gate goes on with its own part of the limit:
//! what it has admitted already is not admitted twice.

use crate::leases::{Known, Leases};
use crate::table::{Limiter, PARTS_MAX};

/// Gates among which a limit can be divided; with more of them each has as if there were so many.
pub const GATES_MAX: u32 = 64;
/// One part in so many, of which each gate has its share, is admitted without asking.
const FREE_PARTS: u32 = 25;
/// One part in so many, of which each gate has its share, is lent in advance at most.
const LENT_PARTS: u32 = 100;
const _: () = assert!(GATES_MAX * FREE_PARTS <= PARTS_MAX);
const _: () = assert!(100 / FREE_PARTS + 100 / LENT_PARTS <= 5);

/// The gates that keep a limit together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gates {
    /// How many there are, this one included.
    pub count: u32,
    /// Whether the arbiter can be asked.
    pub can_ask: bool,
}

impl Gates {
    fn count(self) -> u32 {
        self.count.clamp(1, GATES_MAX)
    }
}

/// What a gate says of a request by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is admitted.
    Admitted,
    /// It is not, for so many milliseconds.
    Refused(u64),
    /// The arbiter has to be asked.
    Ask(Asked),
}

/// What the arbiter has to know beside the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Of all gates together.
    pub per_second: u32,
    /// Of all gates together.
    pub burst: u32,
    /// Permits that it may give beyond the one that is asked for.
    pub extra_max: u32,
}

/// What the arbiter said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lot {
    /// Whether the request is admitted.
    pub is_granted: bool,
    /// Permits beyond it.
    pub extra: u32,
    /// If not: after how many milliseconds another try makes sense.
    pub wait_milliseconds: u64,
}

/// One gate's side of a limit for each of any number of keys.
pub struct SharedLimiter {
    /// All that this gate has admitted, as parts of the limit.
    own: Limiter,
    /// What it has admitted without asking.
    free: Limiter,
    /// What it has admitted to be refused anyway.
    idle: Limiter,
    leases: Leases,
    per_second: u32,
    burst: u32,
}

impl SharedLimiter {
    /// All gates together admit `per_second` requests of each key and `burst` at once. Takes up to `bytes_max`.
    pub fn new(bytes_max: usize, per_second: u32, burst: u32) -> Self {
        Self {
            own: Limiter::new(bytes_max / 4, per_second, burst),
            free: Limiter::new(bytes_max / 4, per_second, burst),
            idle: Limiter::new(bytes_max / 4, per_second, burst),
            leases: Leases::new(bytes_max / 4),
            per_second,
            burst,
        }
    }

    /// Judges a request of the key with that hash.
    pub fn check(&self, hash: u64, now_milliseconds: u64, gates: Gates) -> Verdict {
        match self.leases.take(hash, now_milliseconds) {
            Some(Known::Refused(wait)) => return Verdict::Refused(wait),
            Some(Known::Permit) => return self.admitted(hash, now_milliseconds, gates),
            None if !gates.can_ask => {
                let alone = self.alone(hash, now_milliseconds, gates);
                return alone.map_or_else(Verdict::Refused, |()| Verdict::Admitted);
            }
            None => {}
        }
        let parts = gates.count() * FREE_PARTS;
        if self.burst >= parts && self.free.check_part(hash, now_milliseconds, parts).is_ok() {
            return self.admitted(hash, now_milliseconds, gates);
        }
        let extra_max = self.burst / (LENT_PARTS * gates.count());
        Verdict::Ask(Asked { per_second: self.per_second, burst: self.burst, extra_max })
    }

    /// Judges a request that takes nothing, since it is refused anyway: nobody is asked, and each gate has the whole limit for such.
    pub fn check_idle(&self, hash: u64, now_milliseconds: u64) -> Result<(), u64> {
        match self.leases.refused(hash, now_milliseconds) {
            Some(wait) => Err(wait),
            None => self.idle.check(hash, now_milliseconds),
        }
    }

    /// Takes what the arbiter said of a request. If it is not admitted: for how many milliseconds.
    pub fn heard(&self, hash: u64, now_milliseconds: u64, gates: Gates, lot: Lot) -> Result<(), u64> {
        if !lot.is_granted {
            self.leases.refuse(hash, now_milliseconds, lot.wait_milliseconds);
            return Err(lot.wait_milliseconds);
        }
        self.leases.permit(hash, now_milliseconds, lot.extra);
        self.own.count_part(hash, now_milliseconds, gates.count());
        Ok(())
    }

    /// Judges a request for which the arbiter was asked in vain: this gate's part of the limit counts.
    pub fn alone(&self, hash: u64, now_milliseconds: u64, gates: Gates) -> Result<(), u64> {
        self.own.check_part(hash, now_milliseconds, gates.count())
    }

    fn admitted(&self, hash: u64, now_milliseconds: u64, gates: Gates) -> Verdict {
        self.own.count_part(hash, now_milliseconds, gates.count());
        Verdict::Admitted
    }

    /// Keys that have asked a short while ago. Looks at the whole table.
    pub fn in_use(&self, now_milliseconds: u64) -> usize {
        self.own.in_use(now_milliseconds).max(self.idle.in_use(now_milliseconds))
    }
}

#[cfg(test)]
mod tests;
