//! Customers and purchases as the auditor knows them: rows by number, found by id through tables that hold numbers only.
//!
//! A million holds pass through here in well under a second, and what that costs is waiting for memory: so most customers, who
//! have one purchase of one item, cost one look-up, a batch's look-ups are begun together, and purchase ids are sorted at the end.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use domain::{Pseudonym, PurchaseId};
use hashbrown::HashTable;

/// One customer of the sale.
pub(crate) struct Customer {
    pub(crate) pseudonym: Pseudonym,
    /// The slot that the customer's first hold states.
    pub(crate) slot_offset: u32,
    /// Units held or bought in the whole sale.
    pub(crate) live: u32,
    /// Purchases granted, ended ones included.
    pub(crate) grants: u32,
    /// Holds that ended unpaid or were given back, and were not taken again.
    pub(crate) unpaid_releases: u32,
    /// The first of them.
    first_grant: u32,
    /// The first item that the customer got, and live units of it; other items are in `People::live_of_others`.
    item: u16,
    live_of_item: u32,
}

struct Purchase {
    id: PurchaseId,
    customer: u32,
    key_hash: [u8; 16],
}

/// All customers, purchase ids and keys of a sale.
pub(crate) struct People {
    pub(crate) customers: Vec<Customer>,
    purchases: Vec<Purchase>,
    by_pseudonym: HashTable<u32>,
    /// Ids with their grants' numbers, sorted; made at the end.
    by_purchase: Vec<(PurchaseId, u32)>,
    /// Keys of customers with several purchases.
    by_key: HashMap<(u32, [u8; 16]), u32>,
    live_of_others: HashMap<(u32, u16), u32>,
    seeds: Seeds,
}

impl People {
    pub(crate) fn new() -> Self {
        Self {
            customers: Vec::new(),
            purchases: Vec::new(),
            by_pseudonym: HashTable::new(),
            by_purchase: Vec::new(),
            by_key: HashMap::new(),
            live_of_others: HashMap::new(),
            seeds: Seeds::draw(),
        }
    }

    /// Makes room for up to that many more purchases, so that nothing grows among them.
    pub(crate) fn reserve(&mut self, purchases: usize) {
        let Self { customers, purchases: rows, by_pseudonym, seeds, .. } = self;
        by_pseudonym.reserve(purchases, |row| seeds.hash(customers[*row as usize].pseudonym));
        customers.reserve(purchases);
        rows.reserve(purchases);
    }

    /// Looks customers up without using what is found: independent look-ups wait for memory together, and those that follow find
    /// it in the cache.
    pub(crate) fn warm(&self, pseudonyms: impl Iterator<Item = Pseudonym>) {
        let Self { customers, by_pseudonym, seeds, .. } = self;
        let known = pseudonyms.filter(|pseudonym| {
            by_pseudonym.find(seeds.hash(*pseudonym), |row| customers[*row as usize].pseudonym == *pseudonym).is_some()
        });
        std::hint::black_box(known.count());
    }

    /// The customer's row; a new one is made at the first hold.
    pub(crate) fn customer(&mut self, pseudonym: Pseudonym, slot_offset: u32, item: u16) -> u32 {
        let Self { customers, by_pseudonym, seeds, purchases, .. } = self;
        let hash = seeds.hash(pseudonym);
        let same = |row: &u32| customers[*row as usize].pseudonym == pseudonym;
        if let Some(row) = by_pseudonym.find(hash, same) {
            return *row;
        }
        let row = customers.len() as u32;
        by_pseudonym.insert_unique(hash, row, |row| seeds.hash(customers[*row as usize].pseudonym));
        let first_grant = purchases.len() as u32;
        customers.push(Customer {
            pseudonym,
            slot_offset,
            live: 0,
            grants: 0,
            unpaid_releases: 0,
            first_grant,
            item,
            live_of_item: 0,
        });
        row
    }

    /// Adds the next purchase; tells whether the key is new to the customer.
    pub(crate) fn add_purchase(&mut self, id: PurchaseId, customer: u32, key_hash: [u8; 16]) -> bool {
        let Self { customers, purchases, by_key, .. } = self;
        let number = purchases.len() as u32;
        let row = &mut customers[customer as usize];
        row.grants += 1;
        let key_is_new = if row.grants == 1 {
            true
        } else {
            let first = row.first_grant;
            by_key.entry((customer, purchases[first as usize].key_hash)).or_insert(first);
            *by_key.entry((customer, key_hash)).or_insert(number) == number
        };
        purchases.push(Purchase { id, customer, key_hash });
        key_is_new
    }

    /// Sorts all purchase ids.
    pub(crate) fn sorted_purchases(&self) -> Vec<(PurchaseId, u32)> {
        let mut sorted: Vec<_> = (0..).zip(&self.purchases).map(|(number, purchase)| (purchase.id, number)).collect();
        sorted.sort_unstable();
        sorted
    }

    /// Keeps the sorted ids; gives the numbers of grants whose id an earlier one has.
    pub(crate) fn index(&mut self, sorted: Vec<(PurchaseId, u32)>) -> Vec<u32> {
        self.by_purchase = sorted;
        self.by_purchase.windows(2).filter(|pair| pair[0].0 == pair[1].0).map(|pair| pair[1].1).collect()
    }

    /// The number of the first grant with that id; known at the end only.
    pub(crate) fn find(&self, id: PurchaseId) -> Option<u32> {
        let index = self.by_purchase.partition_point(|(other, _)| *other < id);
        self.by_purchase.get(index).filter(|(found, _)| *found == id).map(|(_, number)| *number)
    }

    /// The purchase id of a grant.
    pub(crate) fn purchase(&self, number: u32) -> Option<PurchaseId> {
        self.purchases.get(number as usize).map(|purchase| purchase.id)
    }

    /// The customer of a grant.
    pub(crate) fn customer_of(&self, number: u32) -> Option<Pseudonym> {
        let purchase = self.purchases.get(number as usize)?;
        Some(self.customers[purchase.customer as usize].pseudonym)
    }

    /// The customer gets units; gives the live units of the item and of the sale afterwards.
    pub(crate) fn gain(&mut self, customer: u32, item: u16, units: u32) -> (u32, u32) {
        let row = &mut self.customers[customer as usize];
        row.live += units;
        let of_item = if row.item == item {
            &mut row.live_of_item
        } else {
            self.live_of_others.entry((customer, item)).or_insert(0)
        };
        *of_item += units;
        (*of_item, row.live)
    }

    /// The customer gives units back.
    pub(crate) fn lose(&mut self, customer: u32, item: u16, units: u32) {
        let row = &mut self.customers[customer as usize];
        row.live = row.live.saturating_sub(units);
        let of_item = if row.item == item {
            &mut row.live_of_item
        } else {
            self.live_of_others.entry((customer, item)).or_insert(0)
        };
        *of_item = of_item.saturating_sub(units);
    }
}

/// Secret numbers of this run: whoever wrote the chain cannot choose pseudonyms that collide.
#[derive(Clone, Copy)]
struct Seeds(u64, u64);

impl Seeds {
    fn draw() -> Self {
        Self(RandomState::new().hash_one(1), RandomState::new().hash_one(2))
    }

    /// One folded multiplication, as wyhash does it: pseudonyms are uniform already, so it only has to bring in the seeds.
    fn hash(self, pseudonym: Pseudonym) -> u64 {
        let id = u128::from_le_bytes(pseudonym.0);
        let product = u128::from(id as u64 ^ self.0) * u128::from((id >> 64) as u64 ^ self.1);
        (product as u64) ^ (product >> 64) as u64
    }
}
