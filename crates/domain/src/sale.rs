//! A sale as the shop defines it, and the rules that a definition has to keep.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::clock::ChainTime;
use crate::limits;
use crate::money::Currency;

/// What one sale sells, when, and under which limits. Fixed by the `created` record; stock changes are records of their own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SaleDefinition {
    /// The shop's name of the sale in URLs: small letters, digits, hyphens.
    #[schema(example = "winter-drop")]
    pub sale: String,
    /// What customers read.
    pub title: String,
    /// ISO 4217 code of every price in the sale.
    #[schema(value_type = String, example = "EUR")]
    pub currency: Currency,
    /// From when passes are given out. Default: at once.
    #[serde(default)]
    #[schema(value_type = String, format = DateTime)]
    pub passes_open_at: ChainTime,
    /// From when holds are granted.
    #[schema(value_type = String, format = DateTime)]
    pub opens_at: ChainTime,
    /// From when no new hold is granted.
    #[schema(value_type = String, format = DateTime)]
    pub closes_at: ChainTime,
    /// Slots are spread over this many milliseconds after the opening; 0 gives everyone the opening itself.
    #[serde(default)]
    pub spread_milliseconds: u64,
    /// How long a winner has to pay.
    #[serde(default = "default_hold_seconds")]
    pub hold_seconds: u64,
    /// How long after the pay-by time a hold is kept for a payment on its way.
    #[serde(default = "default_grace_seconds")]
    pub grace_seconds: u64,
    /// How long a pass lives.
    #[serde(default = "default_pass_seconds")]
    pub pass_seconds: u64,
    /// Grants that one pass carries before a new pass is needed.
    #[serde(default = "default_grants_per_pass_max")]
    pub grants_per_pass_max: u32,
    /// Grants that one customer may have in this sale, ended ones included; bounds hold-and-drop.
    #[serde(default = "default_grants_per_customer_max")]
    pub grants_per_customer_max: u32,
    /// Holds of one customer that may end unpaid or given back before further ones are refused: against hold-and-drop.
    #[serde(default = "default_unpaid_releases_max")]
    pub unpaid_releases_max: u32,
    /// How much longer than `hold_seconds` and `grace_seconds` a hold is kept while a payment of it is under way.
    #[serde(default = "default_hold_extension_seconds")]
    pub hold_extension_seconds: u64,
    /// Live units of all items that one customer may have.
    pub limit_per_customer: u32,
    /// A unit may be free for this long before `sold_out` counts as a lie (INV-10), in milliseconds.
    #[serde(default = "default_resale_delay_milliseconds")]
    pub resale_delay_milliseconds: u64,
    /// How long after closing, at the earliest, the sale settles; late payments may retake units until then.
    #[serde(default = "default_settle_after_seconds")]
    pub settle_after_seconds: u64,
    /// The sale's name in the shop's own systems; comes back with its orders. Left out of the definition's bytes where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_id: Option<String>,
    /// Whether this is a rehearsal. Said wherever the sale or its orders are shown; nothing else differs.
    #[serde(default, skip_serializing_if = "is_false")]
    pub test: bool,
    /// What is sold.
    pub items: Vec<ItemDefinition>,
    /// What makes it cheaper.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub coupons: Vec<CouponDefinition>,
}

/// A coupon of a sale. The chain has a keyed hash of its code in place of the code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CouponDefinition {
    /// The code, as the operator gives it; absent once the sale is created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "SPRING10")]
    pub code: Option<String>,
    /// The code's number in this deployment; the engine fills it in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<u64>,
    /// Per cent off the price, 1 to 100; what is left is rounded up to a whole minor unit.
    pub percent: u8,
    /// Orders that may use it at a time; one that ends unpaid gives it back.
    #[serde(default = "default_uses_max")]
    pub uses_max: u32,
}

/// One item of a sale.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ItemDefinition {
    /// The shop's name of the item in URLs: small letters, digits, hyphens.
    #[schema(example = "boot-42")]
    pub item: String,
    /// What customers read.
    pub title: String,
    /// Units at the start.
    pub stock: u32,
    /// Price of one unit in minor units of the sale's currency.
    pub price: u64,
    /// Live units of this item that one customer may have.
    pub limit_per_customer: u32,
    /// The shop's stock keeping unit; comes back with its orders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sku: Option<String>,
    /// The item's name in the shop's own systems; comes back with its orders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_id: Option<String>,
    /// Points that a customer gets for each unit of a paid order.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub points: u32,
}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_zero(value: &u32) -> bool {
    *value == 0
}

fn default_hold_seconds() -> u64 {
    600
}
fn default_grace_seconds() -> u64 {
    5
}
fn default_pass_seconds() -> u64 {
    1_800
}
fn default_grants_per_pass_max() -> u32 {
    5
}
fn default_grants_per_customer_max() -> u32 {
    10
}
fn default_unpaid_releases_max() -> u32 {
    1_000
}
fn default_hold_extension_seconds() -> u64 {
    900
}
fn default_uses_max() -> u32 {
    1
}
fn default_resale_delay_milliseconds() -> u64 {
    1_000
}
fn default_settle_after_seconds() -> u64 {
    3_600
}

/// Where a sale is in its life. A pause is a flag beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum SalePhase {
    /// Created; not open for purchases.
    Planned = 0,
    /// Holds are granted.
    Open = 1,
    /// No new hold; open ones end, late payments may retake units.
    Closed = 2,
    /// Over; every unit is sold, free or withdrawn.
    Settled = 3,
}

impl SalePhase {
    /// The phase's name in the HTTP contract.
    pub fn name(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Open => "open",
            Self::Closed => "closed",
            Self::Settled => "settled",
        }
    }
}

/// Whether `name` can stand in a URL and as a folder: 1 to 40 small letters, digits and inner hyphens.
pub fn name_is_valid(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= limits::NAME_CHARACTERS_MAX
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
}

impl SaleDefinition {
    /// The index of the item of that name, as records carry it.
    pub fn item_index(&self, item: &str) -> Option<u16> {
        self.items.iter().position(|candidate| candidate.item == item).and_then(|index| u16::try_from(index).ok())
    }

    /// The index of the coupon of that hash; `None` for zero and for one that the sale does not have.
    pub fn coupon_index(&self, hash: u64) -> Option<usize> {
        self.coupons.iter().position(|coupon| hash != 0 && coupon.hash == Some(hash))
    }

    /// The price of some units of an item, less what the coupon takes off, in minor units.
    pub fn price(&self, item: u16, quantity: u32, coupon: Option<usize>) -> u64 {
        let full = self.items[usize::from(item)].price * u64::from(quantity);
        full - coupon.map_or(0, |index| full * u64::from(self.coupons[index].percent) / 100)
    }

    /// Checks every rule of a definition. The error says which field is wrong and what would be right.
    pub fn validate(&self) -> Result<(), String> {
        check(name_is_valid(&self.sale), "sale: use 1 to 40 small letters, digits and inner hyphens")?;
        check(title_is_valid(&self.title), "title: use 1 to 200 characters without control characters")?;
        check(self.opens_at < self.closes_at, "closes_at: must be later than opens_at")?;
        check(self.passes_open_at <= self.opens_at, "passes_open_at: must not be later than opens_at")?;
        check(
            self.closes_at.0.saturating_sub(self.opens_at.0) <= limits::SECONDS_MAX * 1_000,
            "closes_at: a sale may be open for a year at most",
        )?;
        check(self.closes_at.0 < limits::TIME_MAX / 2, "closes_at: too far in the future")?;
        check(
            self.spread_milliseconds < self.closes_at.0 - self.opens_at.0,
            "spread_milliseconds: must be shorter than the sale, so that everyone's slot comes",
        )?;
        check(u32::try_from(self.spread_milliseconds).is_ok(), "spread_milliseconds: 49 days at most")?;
        check((1..=limits::SECONDS_MAX).contains(&self.hold_seconds), "hold_seconds: 1 to a year")?;
        check(self.grace_seconds <= limits::SECONDS_MAX, "grace_seconds: a year at most")?;
        check((1..=limits::SECONDS_MAX).contains(&self.pass_seconds), "pass_seconds: 1 to a year")?;
        check(self.settle_after_seconds <= limits::SECONDS_MAX, "settle_after_seconds: a year at most")?;
        check(self.resale_delay_milliseconds <= 3_600_000, "resale_delay_milliseconds: an hour at most")?;
        check((1..=1_000).contains(&self.grants_per_pass_max), "grants_per_pass_max: 1 to 1,000")?;
        check((1..=1_000).contains(&self.grants_per_customer_max), "grants_per_customer_max: 1 to 1,000")?;
        check((1..=1_000).contains(&self.unpaid_releases_max), "unpaid_releases_max: 1 to 1,000")?;
        check(self.hold_extension_seconds <= limits::SECONDS_MAX, "hold_extension_seconds: a year at most")?;
        check(self.limit_per_customer >= 1, "limit_per_customer: at least 1")?;
        let external = "use 1 to 64 printable characters, or leave it out";
        check(external_is_valid(self.external_id.as_deref()), &format!("external_id: {external}"))?;
        check((1..=limits::ITEMS_MAX).contains(&self.items.len()), "items: 1 to 64")?;
        for (index, item) in self.items.iter().enumerate() {
            let at = |rule: &str| format!("items[{index}].{rule}");
            check(name_is_valid(&item.item), &at("item: use 1 to 40 small letters, digits and inner hyphens"))?;
            check(title_is_valid(&item.title), &at("title: use 1 to 200 characters without control characters"))?;
            check(item.stock <= limits::UNITS_PER_ITEM_MAX, &at("stock: 100,000,000 at most"))?;
            check(item.limit_per_customer >= 1, &at("limit_per_customer: at least 1"))?;
            check(
                item.price.saturating_mul(u64::from(limits::QUANTITY_MAX) * 100) <= limits::INTEGER_MAX,
                &at("price: too large for exact arithmetic"),
            )?;
            check(external_is_valid(item.sku.as_deref()), &at(&format!("sku: {external}")))?;
            check(external_is_valid(item.external_id.as_deref()), &at(&format!("external_id: {external}")))?;
            check(item.points <= limits::POINTS_PER_UNIT_MAX, &at("points: 1,000,000 at most"))?;
            let twin = self.items[..index].iter().any(|earlier| earlier.item == item.item);
            check(!twin, &at("item: the name stands twice"))?;
        }
        self.validate_coupons()
    }

    fn validate_coupons(&self) -> Result<(), String> {
        check(self.coupons.len() <= limits::COUPONS_MAX, "coupons: 64 at most")?;
        for (index, coupon) in self.coupons.iter().enumerate() {
            let at = |rule: &str| format!("coupons[{index}].{rule}");
            let code_is_valid =
                |code: &String| (1..=64).contains(&code.len()) && code.bytes().all(|b| b.is_ascii_graphic());
            check(
                coupon.code.as_ref().is_none_or(code_is_valid),
                &at("code: 1 to 64 printable characters, no spaces"),
            )?;
            let named = coupon.code.is_some() != coupon.hash.is_some();
            check(named, &at("code: needed; the hash is the engine's to fill in"))?;
            check(coupon.hash.is_none_or(|hash| (1..=limits::INTEGER_MAX).contains(&hash)), &at("hash: out of range"))?;
            check((1..=100).contains(&coupon.percent), &at("percent: 1 to 100"))?;
            check(coupon.uses_max >= 1, &at("uses_max: at least 1"))?;
            let same = |earlier: &CouponDefinition| earlier.code == coupon.code && earlier.hash == coupon.hash;
            check(!self.coupons[..index].iter().any(same), &at("code: stands twice"))?;
        }
        Ok(())
    }
}

impl SaleDefinition {
    /// The first field by name in which another definition differs from this one, with both values; `None` where they are the same.
    pub fn first_difference(&self, other: &Self) -> Option<String> {
        let json = |definition| serde_json::to_value(definition).unwrap_or_default();
        difference("", &json(self), &json(other))
    }
}

/// Compares part by part. A field that is left out is `null`.
fn difference(path: &str, ours: &Value, other: &Value) -> Option<String> {
    let below = |path: &str, name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match (ours, other) {
        (Value::Object(ours), Value::Object(other)) => {
            let names: std::collections::BTreeSet<_> = ours.keys().chain(other.keys()).collect();
            names.into_iter().find_map(|name| {
                difference(
                    &below(path, name),
                    ours.get(name).unwrap_or(&Value::Null),
                    other.get(name).unwrap_or(&Value::Null),
                )
            })
        }
        (Value::Array(ours), Value::Array(other)) if ours.len() == other.len() => {
            let pairs = ours.iter().zip(other).enumerate();
            pairs.into_iter().find_map(|(index, (ours, other))| difference(&format!("{path}[{index}]"), ours, other))
        }
        (Value::Array(ours), Value::Array(other)) => {
            Some(format!("{path}: {} in the sale that exists, {} here", ours.len(), other.len()))
        }
        _ => (ours != other).then(|| format!("{path}: {ours} in the sale that exists, {other} here")),
    }
}

fn external_is_valid(name: Option<&str>) -> bool {
    name.is_none_or(|name| {
        !name.trim().is_empty()
            && name.chars().count() <= limits::EXTERNAL_CHARACTERS_MAX
            && !name.chars().any(char::is_control)
    })
}

fn title_is_valid(title: &str) -> bool {
    !title.trim().is_empty()
        && title.chars().count() <= limits::TITLE_CHARACTERS_MAX
        && !title.chars().any(char::is_control)
}

fn check(holds: bool, rule: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(rule.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::SaleDefinition;

    /// A definition as the chains of earlier versions have it; its bytes are hashed.
    const PLAIN: &str = "{\"sale\":\"drop\",\"title\":\"Drop\",\"currency\":\"EUR\",\"passes_open_at\":\"1970-01-01T00:00:00.000Z\",\
        \"opens_at\":\"2026-11-27T20:00:00.000Z\",\"closes_at\":\"2026-11-27T21:00:00.000Z\",\"spread_milliseconds\":0,\
        \"hold_seconds\":600,\"grace_seconds\":5,\"pass_seconds\":1800,\"grants_per_pass_max\":5,\"grants_per_customer_max\":10,\
        \"unpaid_releases_max\":1000,\"hold_extension_seconds\":900,\"limit_per_customer\":1,\"resale_delay_milliseconds\":1000,\"settle_after_seconds\":3600,\"items\":[{\"item\":\"boot\",\
        \"title\":\"Boot\",\"stock\":2,\"price\":1500,\"limit_per_customer\":1}]}";

    fn plain() -> SaleDefinition {
        serde_json::from_str(PLAIN).unwrap()
    }

    #[test]
    fn a_definition_without_the_shops_names_and_points_keeps_its_bytes() {
        assert_eq!(serde_json::to_string(&plain()).unwrap(), PLAIN);
        let mut named = plain();
        (named.external_id, named.test) = (Some("campaign 7".to_owned()), true);
        named.items[0].sku = Some("B-42".to_owned());
        let text = serde_json::to_string(&named).unwrap();
        assert!(text.contains(r#""external_id":"campaign 7","test":true,"items""#), "{text}");
        named.items[0].points = 3;
        let text = serde_json::to_string(&named).unwrap();
        assert!(text.contains(r#""sku":"B-42","points":3}"#), "{text}");
        assert_eq!(serde_json::from_str::<SaleDefinition>(&text).unwrap(), named);
    }

    #[test]
    fn the_shops_names_are_short_and_printable() {
        for (name, is_valid) in [("x", true), ("Größe 42", true), ("", false), (" ", false), ("a\tb", false)] {
            for place in 0..3 {
                let mut definition = plain();
                let item = &mut definition.items[0];
                *[&mut item.sku, &mut item.external_id, &mut definition.external_id][place] = Some(name.to_owned());
                assert_eq!(definition.validate().is_ok(), is_valid, "{name:?}");
            }
        }
        let mut definition = plain();
        definition.items[0].sku = Some("ü".repeat(64));
        definition.validate().unwrap();
        definition.items[0].sku = Some("x".repeat(65));
        assert_eq!(
            definition.validate().unwrap_err(),
            "items[0].sku: use 1 to 64 printable characters, or leave it out"
        );
    }

    #[test]
    fn points_have_a_bound() {
        let mut definition = plain();
        definition.items[0].points = 1_000_000;
        definition.validate().unwrap();
        definition.items[0].points += 1;
        assert_eq!(definition.validate().unwrap_err(), "items[0].points: 1,000,000 at most");
    }

    #[test]
    fn the_first_difference_is_named_with_both_values() {
        let one = plain();
        assert_eq!(one.first_difference(&plain()), None);
        let told = |change: &dyn Fn(&mut SaleDefinition)| {
            let mut other = plain();
            change(&mut other);
            one.first_difference(&other).unwrap()
        };
        let words = told(&|other| other.items[0].price = 1_600);
        assert_eq!(words, "items[0].price: 1500 in the sale that exists, 1600 here");
        let words = told(&|other| other.test = true);
        assert_eq!(words, "test: null in the sale that exists, true here");
        let words = told(&|other| other.items[0].sku = Some("B".to_owned()));
        assert_eq!(words, "items[0].sku: null in the sale that exists, \"B\" here");
        let words = told(&|other| other.items.push(one.items[0].clone()));
        assert_eq!(words, "items: 1 in the sale that exists, 2 here");
        let words = told(&|other| (other.title, other.hold_seconds) = ("Other".to_owned(), 1));
        assert_eq!(words, "hold_seconds: 600 in the sale that exists, 1 here");
    }
}
