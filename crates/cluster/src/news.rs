//! What the processes of a cluster tell each other beside the sales, by a list in Redis that all of them read as it grows.
//!
//! It makes things quick and is nobody's only source: the block list is in the vault, and a gate that has missed another one's block counts
//! for itself. Whoever comes late reads what is there.

use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::Duration;

use domain::Clock;

use crate::link::{Link, LinkError};
use crate::options::RedisOptions;
use crate::quiet::Quiet;
use crate::shared::{NEWS, Shared, prefix};

/// So long the server keeps an empty answer back; less than a reply may take.
const WAIT_MILLISECONDS: u64 = 500;
const ENTRIES_PER_READ: usize = 100;
const RETRY_AFTER: Duration = Duration::from_millis(250);
/// Whoever heard of the block list so late has looked at it since.
const BLOCKS_MILLISECONDS: u64 = 10_000;

/// Something that another process told, or this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// The block list in the vault has changed.
    Blocks,
    /// A gate has blocked an address by itself.
    AddressBlocked {
        /// Of the address, as every gate makes it.
        hash: u64,
        /// For how many milliseconds more.
        milliseconds: u64,
    },
}

impl News {
    fn text(self) -> String {
        match self {
            Self::Blocks => "blocks".to_owned(),
            Self::AddressBlocked { hash, milliseconds } => format!("address-blocked {hash:016x} {milliseconds}"),
        }
    }

    /// Reads what was told so long ago; `None` for what a newer version tells, and for what is over.
    fn parse(text: &str, milliseconds_ago: u64) -> Option<Self> {
        let mut words = text.split(' ');
        match (words.next()?, words.next(), words.next()) {
            ("blocks", None, None) => (milliseconds_ago < BLOCKS_MILLISECONDS).then_some(Self::Blocks),
            ("address-blocked", Some(hash), Some(milliseconds)) => {
                let hash = u64::from_str_radix(hash, 16).ok()?;
                let rest = milliseconds.parse::<u64>().ok()?.checked_sub(milliseconds_ago).filter(|rest| *rest > 0)?;
                Some(Self::AddressBlocked { hash, milliseconds: rest })
            }
            _ => None,
        }
    }
}

impl Shared {
    /// Tells every process of the cluster, this one included.
    pub fn tell_news(&self, news: News) {
        self.tell(news.text());
    }
}

/// Entries with their ids, of the one list that is read.
type Read = Option<Vec<(String, Vec<(String, Vec<String>)>)>>;

/// Reads the list from its beginning and passes on what it says, until nobody listens.
pub(crate) async fn follow(options: RedisOptions, clock: Arc<dyn Clock>, listener: SyncSender<News>) {
    let key = format!("{}{NEWS}", prefix(&options, 0));
    let mut link = Link::to(&options, vec![key.clone()]);
    let mut last = "0".to_owned();
    let mut quiet = Quiet::default();
    loop {
        match read(&mut link, &key, &last).await {
            Ok(entries) => {
                quiet.is_over();
                for (id, fields) in entries {
                    // The time in front of the number is the server's.
                    let told_at = id.split('-').next().and_then(|time| time.parse::<u64>().ok()).unwrap_or_default();
                    let ago = clock.wall_milliseconds().saturating_sub(told_at);
                    let news = fields.get(1).and_then(|text| News::parse(text, ago));
                    let passed = news.map(|news| listener.try_send(news));
                    if matches!(passed, Some(Err(TrySendError::Disconnected(_)))) {
                        return;
                    }
                    last = id;
                }
            }
            Err(error) => {
                if quiet.is_due(&error) {
                    tracing::warn!(%error, "what other processes tell is not heard; the block list is looked at now and then");
                }
                tokio::time::sleep(RETRY_AFTER).await;
            }
        }
    }
}

async fn read(link: &mut Link, key: &str, last: &str) -> Result<Vec<(String, Vec<String>)>, LinkError> {
    let mut read = redis::cmd("XREAD");
    read.arg("COUNT").arg(ENTRIES_PER_READ).arg("BLOCK").arg(WAIT_MILLISECONDS).arg("STREAMS").arg(key).arg(last);
    let lists: Read = link.query(&read).await?;
    Ok(lists.into_iter().flatten().flat_map(|(_, entries)| entries).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_read_as_it_was_told_until_it_is_over() {
        let blocked = |milliseconds| News::AddressBlocked { hash: u64::MAX - 7, milliseconds };
        assert_eq!(News::parse(&News::Blocks.text(), 9_999), Some(News::Blocks));
        assert_eq!(News::parse(&News::Blocks.text(), 10_000), None);
        assert_eq!(News::parse(&blocked(10_000).text(), 0), Some(blocked(10_000)));
        assert_eq!(News::parse(&blocked(10_000).text(), 9_999), Some(blocked(1)));
        assert_eq!(News::parse(&blocked(10_000).text(), 10_000), None);
        for text in ["", "blocks now", "address-blocked", "address-blocked x 1", "something newer"] {
            assert_eq!(News::parse(text, 0), None, "{text}");
        }
    }
}
