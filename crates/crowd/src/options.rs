//! What a crowd is told before it starts, and why it may refuse to start. Nothing here runs anything.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::bots::Kind;
use crate::network::BOTS_BITS;
use crate::solving::Solving;

/// One run of a crowd. Serialises to JSON, so that a parent process can hand it over.
///
/// It has no `Debug` form because it carries secrets.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CrowdOptions {
    /// The public listeners, several where gates serve the same sale; loopback only.
    pub public: Vec<SocketAddr>,
    /// The admin listeners, where the crowd plays the shop's checkout; loopback only.
    pub admin: Vec<SocketAddr>,
    /// Bearer token of the admin listener.
    pub admin_token: String,
    /// The sale's name. Its opening time is read from the server.
    pub sale: String,
    /// The items that people want; everyone wants one of them, drawn evenly.
    pub items: Vec<String>,
    /// How many people come.
    pub shoppers: u32,
    /// Everyone arrives within this many seconds: a burst at the start, then ever fewer.
    pub seconds: u64,
    /// For this many seconds after the last arrival, people who found the sale sold out keep looking again.
    pub linger_seconds: u64,
    /// Everything random is drawn from this.
    pub seed: u64,
    /// Where the clients' notes go; an existing file is replaced.
    pub notes: PathBuf,
    /// Write each `sent` note to the file before the request's first byte leaves. Needed where processes are killed.
    pub flush_each: bool,
    /// The shop's HS256 secret, with which the shoppers' access tokens are signed.
    pub token_secret: Vec<u8>,
    /// The tokens' `iss`.
    pub issuer: String,
    /// The tokens' `aud`.
    pub audience: String,
    /// Connections to the public listener at most.
    pub connections: usize,
    /// Passes asked for per second before the arrivals begin.
    pub passes_per_second: u32,
    /// A person whose question has no final answer stops asking after this many seconds.
    pub give_up_seconds: u64,
    /// A reply that takes longer than this is given up as lost and asked for again with the same key.
    pub reply_milliseconds_max: u64,
    /// How winners pay.
    pub checkout: Checkout,
    /// Share of the winners who pay, 0 to 1.
    pub paid_share: f64,
    /// Share of the winners who cancel; those who neither pay nor cancel let their hold expire.
    pub cancel_share: f64,
    /// Winners pay or cancel within this many milliseconds.
    pub decide_milliseconds_max: u64,
    /// Share of the people who hang up before their first reply has come and ask again with the same key.
    pub lost_reply_share: f64,
    /// Share of the people who click twice at once, with one key.
    pub double_click_share: f64,
    /// Share of the people who look again after hearing that all units are taken.
    pub return_share: f64,
    /// Codes of coupons that people have heard of. Whether the sale knows them is not the crowd's business.
    pub coupons: Vec<String>,
    /// Share of the people who send one of `coupons` along, drawn evenly; refused, they do without.
    pub coupon_share: f64,
    /// Share of the paid orders whose money the shop gives back. Needs a checkout that knows of payments.
    pub refund_share: f64,
    /// Bots that come too. People then are where people are: at the page when it opens, behind a network, with a finger to move. And
    /// everybody has an address, told as a proxy tells it, so the server has to trust this machine as one.
    pub bots: Option<BotOptions>,
}

/// Bots beside the people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BotOptions {
    /// What they do: operators are of these kinds in turn.
    pub kinds: Vec<Kind>,
    /// Accounts that are bots', whoever runs them.
    pub accounts: u32,
    /// Accounts of each operator who has many; everybody else has one.
    pub accounts_per_operator: u32,
    /// Addresses of each operator who has many; everybody else has one.
    pub addresses_per_operator: u32,
    /// The human check before everybody's first pass, people's too; `None`: there is none.
    pub solving: Option<Solving>,
}

/// As many as their network has.
const BOT_ADDRESSES_MAX: u64 = 1 << BOTS_BITS;

impl BotOptions {
    fn fits(&self) -> bool {
        let addresses = u64::from(self.accounts) * u64::from(self.addresses_per_operator);
        !self.kinds.is_empty() && (1..=BOT_ADDRESSES_MAX).contains(&addresses) && self.accounts_per_operator >= 1
    }
}

/// How winners pay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Checkout {
    /// In the shop, which confirms the order and says no more about it.
    #[default]
    Confirmed,
    /// In the shop, which reports every attempt at a provider of its own.
    Reported,
    /// At the engine's provider, the sandbox: the customer is sent to its page.
    Provider,
}

impl Default for CrowdOptions {
    fn default() -> Self {
        Self {
            public: Vec::new(),
            admin: Vec::new(),
            admin_token: String::new(),
            sale: String::new(),
            items: Vec::new(),
            shoppers: 20_000,
            seconds: 10,
            linger_seconds: 10,
            seed: 1,
            notes: PathBuf::from("notes.jsonl"),
            flush_each: false,
            token_secret: Vec::new(),
            issuer: "shop".to_owned(),
            audience: "doorbuster".to_owned(),
            connections: 512,
            passes_per_second: 4_000,
            give_up_seconds: 30,
            reply_milliseconds_max: 10_000,
            checkout: Checkout::default(),
            paid_share: 0.6,
            cancel_share: 0.1,
            decide_milliseconds_max: 2_000,
            lost_reply_share: 0.05,
            double_click_share: 0.05,
            return_share: 0.1,
            coupons: Vec::new(),
            coupon_share: 0.0,
            refund_share: 0.0,
            bots: None,
        }
    }
}

impl CrowdOptions {
    /// How long before the opening the crowd has to start so that everyone has a pass when it opens.
    ///
    /// A crowd that starts later begins its arrivals that much after the opening.
    pub fn passes_take(&self) -> Duration {
        Duration::from_secs_f64(f64::from(self.accounts()) / f64::from(self.passes_per_second.max(1)))
            + Duration::from_secs(1)
            + self.solving().map_or(Duration::ZERO, Solving::takes_at_most)
    }

    pub(crate) fn solving(&self) -> Option<Solving> {
        self.bots.as_ref().and_then(|bots| bots.solving)
    }

    /// People and bots: people have the first numbers, from 0.
    pub(crate) fn accounts(&self) -> u32 {
        self.shoppers.saturating_add(self.bots.as_ref().map_or(0, |bots| bots.accounts))
    }

    pub(crate) fn give_up(&self) -> Duration {
        Duration::from_secs(self.give_up_seconds)
    }

    pub(crate) fn reply_time_max(&self) -> Duration {
        Duration::from_millis(self.reply_milliseconds_max)
    }

    pub(crate) fn validate(&self) -> Result<(), CrowdError> {
        let mut addresses = self.public.iter().chain(&self.admin);
        if let Some(address) = addresses.find(|address| !address.ip().is_loopback()) {
            return Err(CrowdError::NotLoopback(*address));
        }
        let named =
            |addresses: &[SocketAddr]| !addresses.is_empty() && addresses.iter().all(|address| address.port() != 0);
        let shares = [
            self.paid_share,
            self.cancel_share,
            self.lost_reply_share,
            self.double_click_share,
            self.return_share,
            self.coupon_share,
            self.refund_share,
        ];
        let rules = [
            (named(&self.public) && named(&self.admin), "public, admin: name at least one, with its port"),
            (domain::sale::name_is_valid(&self.sale), "sale: not a sale's name"),
            (!self.items.is_empty(), "items: name at least one"),
            (self.items.iter().all(|item| domain::sale::name_is_valid(item)), "items: not an item's name"),
            (self.shoppers >= 1, "shoppers: at least 1"),
            ((1..=86_400).contains(&self.seconds), "seconds: 1 to a day"),
            (self.linger_seconds <= 86_400, "linger_seconds: a day at most"),
            ((1..=86_400).contains(&self.give_up_seconds), "give_up_seconds: 1 to a day"),
            ((1..=86_400_000).contains(&self.reply_milliseconds_max), "reply_milliseconds_max: 1 to a day"),
            (self.decide_milliseconds_max <= 86_400_000, "decide_milliseconds_max: a day at most"),
            ((1..=16_384).contains(&self.connections), "connections: 1 to 16,384"),
            (self.passes_per_second >= 1, "passes_per_second: at least 1"),
            (shares.iter().all(|share| (0.0..=1.0).contains(share)), "shares: 0 to 1"),
            (self.paid_share + self.cancel_share <= 1.0, "paid_share, cancel_share: together 1 at most"),
            (
                self.lost_reply_share + self.double_click_share <= 1.0,
                "lost_reply_share, double_click_share: together 1 at most",
            ),
            (self.coupon_share == 0.0 || !self.coupons.is_empty(), "coupon_share: name at least one of coupons"),
            (
                self.refund_share == 0.0 || self.checkout != Checkout::Confirmed,
                "refund_share: who only confirms orders has no payments to give back",
            ),
            (!self.token_secret.is_empty(), "token_secret: missing"),
            (
                self.bots.as_ref().is_none_or(BotOptions::fits),
                "bots: name at least one of kinds; accounts times addresses_per_operator: 1 to 268,435,456; accounts_per_operator: at least 1",
            ),
        ];
        match rules.iter().find(|(holds, _)| !holds) {
            Some((_, rule)) => Err(CrowdError::OptionInvalid(rule)),
            None => Ok(()),
        }
    }
}

/// Why a crowd did not start or could not finish. What single requests ran into stands in the report instead.
#[derive(Debug, thiserror::Error)]
pub enum CrowdError {
    /// Definite: nothing was sent. A crowd is aimed at the own machine only.
    #[error("{0} is not a loopback address; a crowd is never aimed at another machine")]
    NotLoopback(SocketAddr),
    /// Definite: nothing was sent.
    #[error("{0}")]
    OptionInvalid(&'static str),
    /// Definite: no purchase was sent, because the sale could not be read.
    #[error("the sale cannot be read: {0}")]
    SaleUnreadable(String),
    /// Definite: nothing was sent, because tokens cannot be signed.
    #[error("access tokens cannot be signed: {0}")]
    TokenUnsigned(String),
    /// Unknown: requests may have been sent whose notes are missing, so an audit of this run proves nothing.
    #[error("the notes cannot be written: {0}")]
    Notes(std::io::Error),
    /// Definite: nothing was sent.
    #[error("the crowd's runtime cannot start: {0}")]
    Runtime(std::io::Error),
}
