//! Customers and purchases as the auditor knows them: compact tables keyed by ids, with rows by number.

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
}

/// All customers, purchase ids and keys of a sale.
#[derive(Default)]
pub(crate) struct People {
    pub(crate) customers: Vec<Customer>,
    by_pseudonym: HashTable<u32>,
    by_purchase: HashTable<u32>,
    by_key: HashTable<u32>,
    live_per_item: HashMap<(u32, u16), u32>,
    purchases: Vec<PurchaseId>,
    keys: Vec<(u32, [u8; 16])>,
    hasher: RandomState,
}

impl People {
    /// The customer's row; a new one is made at the first hold.
    pub(crate) fn customer(&mut self, pseudonym: Pseudonym, slot_offset: u32) -> u32 {
        let Self { customers, by_pseudonym, hasher, .. } = self;
        let hash = hasher.hash_one(pseudonym.0);
        let same = |row: &u32| customers[*row as usize].pseudonym == pseudonym;
        if let Some(row) = by_pseudonym.find(hash, same) {
            return *row;
        }
        let row = customers.len() as u32;
        by_pseudonym.insert_unique(hash, row, |row| hasher.hash_one(customers[*row as usize].pseudonym.0));
        customers.push(Customer { pseudonym, slot_offset, live: 0, grants: 0 });
        row
    }

    /// Adds the next purchase; tells whether its id and its (customer, key) were both new.
    pub(crate) fn add_purchase(&mut self, purchase: PurchaseId, customer: u32, key_hash: [u8; 16]) -> (bool, bool) {
        let Self { purchases, keys, by_purchase, by_key, hasher, .. } = self;
        let number = purchases.len() as u32;
        let hash = hasher.hash_one(purchase.0);
        let id_is_new = by_purchase.find(hash, |number| purchases[*number as usize] == purchase).is_none();
        if id_is_new {
            by_purchase.insert_unique(hash, number, |number| hasher.hash_one(purchases[*number as usize].0));
        }
        let key = (customer, key_hash);
        let hash = hasher.hash_one(key);
        let key_is_new = by_key.find(hash, |number| keys[*number as usize] == key).is_none();
        if key_is_new {
            by_key.insert_unique(hash, number, |number| hasher.hash_one(keys[*number as usize]));
        }
        purchases.push(purchase);
        keys.push(key);
        (id_is_new, key_is_new)
    }

    /// The number of the first grant with that id.
    pub(crate) fn find(&self, purchase: PurchaseId) -> Option<u32> {
        let hash = self.hasher.hash_one(purchase.0);
        self.by_purchase.find(hash, |number| self.purchases[*number as usize] == purchase).copied()
    }

    /// The purchase id of a grant.
    pub(crate) fn purchase(&self, number: u32) -> Option<PurchaseId> {
        self.purchases.get(number as usize).copied()
    }

    /// The customer gets units; gives the live units of the item and of the sale afterwards.
    pub(crate) fn gain(&mut self, customer: u32, item: u16, units: u32) -> (u32, u32) {
        let of_item = self.live_per_item.entry((customer, item)).or_insert(0);
        *of_item += units;
        let row = &mut self.customers[customer as usize];
        row.live += units;
        (*of_item, row.live)
    }

    /// The customer gives units back.
    pub(crate) fn lose(&mut self, customer: u32, item: u16, units: u32) {
        if let Some(of_item) = self.live_per_item.get_mut(&(customer, item)) {
            *of_item = of_item.saturating_sub(units);
        }
        let row = &mut self.customers[customer as usize];
        row.live = row.live.saturating_sub(units);
    }
}
