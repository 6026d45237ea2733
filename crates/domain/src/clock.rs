//! Time as the engine sees it. Only the rim reads a clock; the decision core is given chain time.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch, as recorded per batch: `max(previous chain time, wall clock)`.
///
/// It alone decides windows and deadlines, so a replay decides as the first run did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChainTime(pub u64);

impl ChainTime {
    /// This time moved `milliseconds` later; saturates far beyond any calendar.
    pub fn plus(self, milliseconds: u64) -> Self {
        Self(self.0.saturating_add(milliseconds))
    }

    /// RFC 3339 in UTC with milliseconds, the form of every time in the HTTP contract.
    pub fn rfc3339(self) -> String {
        let milliseconds = i64::try_from(self.0).unwrap_or(i64::MAX);
        match jiff::Timestamp::from_millisecond(milliseconds) {
            Ok(timestamp) => format!("{timestamp:.3}"),
            Err(_) => jiff::Timestamp::MAX.to_string(),
        }
    }

    /// Reads an RFC 3339 time with an offset; `None` when it is not one or lies before 1970.
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        let timestamp: jiff::Timestamp = text.parse().ok()?;
        u64::try_from(timestamp.as_millisecond()).ok().map(Self)
    }
}

impl serde::Serialize for ChainTime {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.rfc3339())
    }
}

impl<'de> serde::Deserialize<'de> for ChainTime {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse_rfc3339(&text).ok_or_else(|| {
            serde::de::Error::custom(format!("{text:?} is not an RFC 3339 time such as 2026-11-27T20:00:00Z"))
        })
    }
}

/// The two clocks of a machine. The wall clock may jump, the monotonic one may not; comparing them reveals a jump.
pub trait Clock: Send + Sync {
    /// Milliseconds since the Unix epoch.
    fn wall_milliseconds(&self) -> u64;
    /// Milliseconds since an arbitrary start; never goes back.
    fn monotonic_milliseconds(&self) -> u64;
}

/// The machine's own clocks.
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// A clock whose monotonic side starts at zero now.
    #[expect(clippy::new_without_default, reason = "a default clock would read the time where nobody expects it")]
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn wall_milliseconds(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, milliseconds)
    }

    fn monotonic_milliseconds(&self) -> u64 {
        milliseconds(self.start.elapsed())
    }
}

/// A duration in whole milliseconds.
pub fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
