//! Sales for tests: open at once, generous, and then changed by each test where it matters.

use std::time::{SystemTime, UNIX_EPOCH};

use domain::{ChainTime, Currency, ItemDefinition, SaleDefinition};

/// A sale that is open already, with `stock` units of the item `boot`. Its limits are never in the way.
pub fn open_sale(name: &str, stock: u32) -> SaleDefinition {
    sale_of(name, vec![item("boot", stock)])
}

/// A sale of these items that is open already.
pub fn sale_of(name: &str, items: Vec<ItemDefinition>) -> SaleDefinition {
    let now = now_milliseconds();
    SaleDefinition {
        sale: name.to_owned(),
        title: "A sale of the tests".to_owned(),
        currency: Currency(*b"EUR"),
        passes_open_at: ChainTime(now - 1_000),
        opens_at: ChainTime(now - 1_000),
        closes_at: ChainTime(now + 3_600_000),
        spread_milliseconds: 0,
        hold_seconds: 600,
        grace_seconds: 0,
        pass_seconds: 3_600,
        grants_per_pass_max: 1_000,
        grants_per_customer_max: 1_000,
        limit_per_customer: 1_000_000,
        // What comes back can be had at once.
        resale_delay_milliseconds: 0,
        unpaid_releases_max: 1_000,
        hold_extension_seconds: 900,
        coupons: Vec::new(),
        settle_after_seconds: 3_600,
        external_id: None,
        test: false,
        items,
    }
}

/// An item with that many units for 49.00 each.
pub fn item(name: &str, stock: u32) -> ItemDefinition {
    ItemDefinition {
        item: name.to_owned(),
        title: format!("The {name} of the tests"),
        stock,
        price: 4_900,
        limit_per_customer: 1_000_000,
        sku: None,
        external_id: None,
        points: 0,
    }
}

/// A PNG file of one brown pixel.
pub const SMALL_PICTURE: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x02\0\0\0\x90wS\xde\0\0\0\x0cIDATx\xdacX\x11\xa9\x0f\0\x02\xdd\x011\x82\xb9\xb7i\0\0\0\0IEND\xaeB`\x82";

/// The wall clock.
pub fn now_milliseconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    u64::try_from(since.as_millis()).expect("milliseconds fit for a while")
}
