//! Makes new inputs of old ones. The same seed makes the same ones of the same.

use fastrand::Rng;

use crate::INPUT_BYTES_MAX;

/// What readers tend to trip over, whatever they read.
const ODD: [&[u8]; 24] = [
    b"\0",
    b"\r\n",
    b"\n",
    b" ",
    b"\t",
    b",",
    b";",
    b":",
    b"=",
    b".",
    b"/",
    b"\"",
    b"{",
    b"[",
    b"}",
    b"-1",
    b"0",
    b"255",
    b"18446744073709551616",
    b"1e309",
    b"\\u0000",
    b"\xff",
    "\u{e9}".as_bytes(),
    "\u{feff}".as_bytes(),
];
/// Changes that are made to one input at once.
const CHANGES_MAX: u32 = 6;

pub(crate) struct Changes {
    rng: Rng,
    /// What the good inputs are made of.
    words: Vec<Vec<u8>>,
}

impl Changes {
    pub(crate) fn new(seed: u64, seeds: &[&[u8]]) -> Self {
        let letters = |bytes: &[u8]| bytes.iter().all(u8::is_ascii_alphanumeric);
        let parts = seeds.iter().flat_map(|seed| seed.chunk_by(|a, b| letters(&[*a]) == letters(&[*b])));
        let mut words: Vec<Vec<u8>> = parts.chain(ODD).map(<[u8]>::to_vec).collect();
        words.sort();
        words.dedup();
        Self { rng: Rng::with_seed(seed), words }
    }

    /// One of the inputs, changed at one or more places.
    pub(crate) fn of(&mut self, inputs: &[Vec<u8>]) -> Vec<u8> {
        let mut input = self.one_of(inputs);
        for _ in 0..self.rng.u32(1..=CHANGES_MAX) {
            self.change(&mut input, inputs);
            input.truncate(INPUT_BYTES_MAX);
        }
        input
    }

    fn one_of(&mut self, from: &[Vec<u8>]) -> Vec<u8> {
        self.rng.choice(from).cloned().unwrap_or_default()
    }

    fn change(&mut self, input: &mut Vec<u8>, inputs: &[Vec<u8>]) {
        let range = self.range(input.len());
        match self.rng.u32(0..9) {
            0 => input.iter_mut().skip(range.start).take(1).for_each(|byte| *byte ^= 1 << self.rng.u32(0..8)),
            1 => input.iter_mut().skip(range.start).take(1).for_each(|byte| *byte = self.rng.u8(..)),
            2 => drop(input.drain(range)),
            3 => {
                let (part, times) = (input[range.clone()].to_vec(), self.rng.usize(1..=40));
                input.splice(range.end..range.end, part.repeat(times));
            }
            4 => {
                let words = self.words.len();
                let word = self.words[self.rng.usize(..words)].clone();
                input.splice(range.start..range.start, word);
            }
            5 => {
                let words = self.words.len();
                let word = self.words[self.rng.usize(..words)].clone();
                input.splice(range, word);
            }
            6 => {
                // The front of one and the end of another.
                let other = self.one_of(inputs);
                let from = self.rng.usize(..=other.len());
                input.truncate(range.start);
                input.extend(&other[from..]);
            }
            7 => {
                let other = self.one_of(inputs);
                let part = self.range(other.len());
                input.splice(range, other[part].to_vec());
            }
            _ => {
                let part = input[range.clone()].to_vec();
                let to = self.rng.usize(..=input.len() - part.len());
                input.drain(range);
                input.splice(to..to, part);
            }
        }
    }

    /// A part of so many bytes: mostly a short one, as most things are that a reader tells apart.
    fn range(&mut self, length: usize) -> std::ops::Range<usize> {
        let start = self.rng.usize(..=length);
        let longest = if self.rng.bool() { 4 } else { length };
        start..start + self.rng.usize(..=(length - start).min(longest))
    }
}
