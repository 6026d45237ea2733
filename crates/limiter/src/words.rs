//! Words of eight bytes that stand for keys, in sets of eight and without a lock: what the tables of this crate are made of.
//!
//! A key's word has a part of its hash in the upper bits, never zero, and what its table wants to know of it below. Whoever is new and finds
//! all places of its set taken gets the one that is worth least. A word is read and changed as a whole.

use std::sync::atomic::{AtomicU64, Ordering};

/// Places of a set; with words of eight bytes, a set is a cache line.
const WAYS: usize = 8;

/// Places for the words of keys whose hashes lie near each other.
pub(crate) type Set = [AtomicU64; WAYS];

/// Which of `count` sets is a key's: the upper 40 bits of its hash as a fraction of all; the lower ones tell keys of a set apart.
pub(crate) fn place(hash: u64, count: usize) -> usize {
    (((hash >> 24) * count as u64) >> 40) as usize
}

/// A set as it was a moment ago, with an eye on one key.
pub(crate) struct Look<'a> {
    set: &'a Set,
    words: [u64; WAYS],
    tag: u64,
    bits: u32,
    known: Option<usize>,
}

impl<'a> Look<'a> {
    /// At the key with that hash, in its set. The lower `bits` of a word are the table's.
    pub(crate) fn at(set: &'a Set, hash: u64, bits: u32) -> Self {
        let tag = (hash & ((1 << (u64::BITS - bits)) - 1)).max(1);
        let words = set.each_ref().map(|word| word.load(Ordering::Relaxed));
        let known = words.iter().position(|word| word >> bits == tag);
        Self { set, words, tag, bits, known }
    }

    /// The table's bits of the key's word; `None` if it has none.
    pub(crate) fn word(&self) -> Option<u64> {
        self.known.map(|way| self.of(self.words[way]))
    }

    /// Gives the key these bits, in its own place or in the one that is worth least. `false`: somebody was faster, so look again.
    pub(crate) fn put(&self, bits: u64, worth: impl Fn(u64) -> u64) -> bool {
        let worth_of = |way: &usize| if self.words[*way] == 0 { 0 } else { worth(self.of(self.words[*way])) };
        let least = || (0..WAYS).min_by_key(worth_of).unwrap_or(0);
        self.exchange(self.known.unwrap_or_else(least), self.tag << self.bits | bits)
    }

    /// Takes the key's word away. `false`: somebody was faster, so look again.
    pub(crate) fn clear(&self) -> bool {
        self.known.is_none_or(|way| self.exchange(way, 0))
    }

    fn exchange(&self, way: usize, word: u64) -> bool {
        self.set[way].compare_exchange(self.words[way], word, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    fn of(&self, word: u64) -> u64 {
        word & ((1 << self.bits) - 1)
    }
}

/// A table that takes all of its memory when it is made.
pub(crate) struct Words {
    sets: Box<[Set]>,
    bits: u32,
}

impl Words {
    /// Takes up to `bytes_max`, and a set at least. The lower `bits` of a word are the table's.
    pub(crate) fn new(bytes_max: usize, bits: u32) -> Self {
        let count = (bytes_max / size_of::<Set>()).max(1);
        Self { sets: (0..count).map(|_| Set::default()).collect(), bits }
    }

    /// Looks at the key with that hash.
    pub(crate) fn look(&self, hash: u64) -> Look<'_> {
        Look::at(&self.sets[place(hash, self.sets.len())], hash, self.bits)
    }

    /// The table's bits of every word.
    pub(crate) fn all(&self) -> impl Iterator<Item = u64> {
        let words = self.sets.iter().flatten().map(|word| word.load(Ordering::Relaxed));
        words.filter(|word| *word != 0).map(|word| word & ((1 << self.bits) - 1))
    }

    /// Bytes that it takes.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&*self.sets)
    }
}
