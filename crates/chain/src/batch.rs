//! A batch: the unit in which the chain grows, is hashed, signed and made durable.
//!
//! The same bytes stand in a disk frame, in a stream message and (without private parts) in an export; the hash covers neither
//! storage fields nor ciphertext, so all three give the same head. `docs/chain-format.md` describes the layout for outsiders.

use aws_lc_rs::digest::{Context, SHA256};
use domain::ids::Hash;
use domain::{ChainTime, Record, SaleId, limits};

use crate::codec::{self, CodecError};
use crate::head::{HeadSigner, SignedHead};

/// The version of the batch and record layout.
pub const FORMAT_VERSION: u32 = 1;
/// The head before the first batch.
pub const GENESIS_HEAD: Hash = [0; 32];

/// Bytes of the hashed header.
const HEADER_HASHED: usize = 52;
/// Bytes before the records: hashed header, length of the records, previous head.
const PREFIX: usize = HEADER_HASHED + 4 + 32;
/// Bytes after the records: head and signature.
const SUFFIX: usize = 32 + 64;
/// Bytes before a record's public part: kind, flags, length of the private part, length of the public part.
const RECORD_PREFIX: usize = 8;
/// The record carries a commitment to a private part.
const FLAG_COMMITMENT: u8 = 1;

/// What a batch says of itself; hashed before its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Whose chain.
    pub sale: SaleId,
    /// Part of the sale; 0 until sales are split.
    pub partition: u32,
    /// Which writer; grows by one with every take-over.
    pub epoch: u64,
    /// When, by chain time; never before the previous batch.
    pub time: ChainTime,
    /// Number of the first record; gapless from 0.
    pub first: u64,
    /// How many records, at least one.
    pub count: u32,
}

impl BatchHeader {
    /// Number of the first record after this batch.
    pub fn next(&self) -> u64 {
        self.first + u64::from(self.count)
    }

    fn encode(&self) -> [u8; HEADER_HASHED] {
        let mut bytes = [0; HEADER_HASHED];
        bytes[0..4].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.partition.to_le_bytes());
        bytes[8..24].copy_from_slice(&self.sale.0);
        bytes[24..32].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.time.0.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.first.to_le_bytes());
        bytes[48..52].copy_from_slice(&self.count.to_le_bytes());
        bytes
    }
}

/// Why bytes are not a batch of this chain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Written by a version with another layout.
    #[error("batch format {0} is not known to this version (it knows {FORMAT_VERSION})")]
    Version(u32),
    /// The lengths inside do not add up.
    #[error("the batch's lengths do not add up")]
    Length,
    /// A record cannot be read.
    #[error("record {number}: {source}")]
    Record {
        /// The record's number.
        number: u64,
        /// What is wrong with it.
        source: CodecError,
    },
    /// The records do not hash to the head that the batch states.
    #[error("the records do not hash to the stated head")]
    Head,
}

/// The encrypted part of a record and the commitment that stands for it in the hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrivatePart {
    /// `SHA-256(salt || plaintext)`.
    pub commitment: Hash,
    /// Nonce and ciphertext under the customer's key for this sale; empty in an export.
    pub sealed: Vec<u8>,
}

/// Collects the records of one batch, hashing as it goes.
pub struct BatchBuilder {
    header: BatchHeader,
    previous: Hash,
    running: Hash,
    bytes: Vec<u8>,
    public: Vec<u8>,
}

impl BatchBuilder {
    /// Starts a batch behind `previous`. The header is hashed first, so `header.count` must be what will be pushed.
    pub fn new(header: BatchHeader, previous: Hash) -> Self {
        let mut bytes = Vec::with_capacity(PREFIX + header.count as usize * 192 + SUFFIX);
        bytes.extend(header.encode());
        bytes.extend([0; 4]);
        bytes.extend(previous);
        let running = hash_header(&previous, &header.encode());
        Self { header, previous, running, bytes, public: Vec::with_capacity(192) }
    }

    /// Adds a record and returns its hash: what a receipt names.
    pub fn push(&mut self, record: &Record, private: Option<&PrivatePart>) -> Hash {
        self.public.clear();
        codec::encode(record, &mut self.public);
        assert!(self.public.len() <= limits::RECORD_PUBLIC_BYTES_MAX, "a record outgrew its bound");
        let kind = record.kind() as u8;
        let flags = if private.is_some() { FLAG_COMMITMENT } else { 0 };
        let sealed = private.map_or(&[][..], |part| &part.sealed);
        assert!(sealed.len() <= limits::RECORD_PRIVATE_BYTES_MAX, "a private part outgrew its bound");
        self.bytes.extend([kind, flags]);
        self.bytes.extend((sealed.len() as u16).to_le_bytes());
        self.bytes.extend((self.public.len() as u32).to_le_bytes());
        self.bytes.extend(&self.public);
        let commitment = private.map(|part| &part.commitment);
        if let Some(commitment) = commitment {
            self.bytes.extend(commitment);
            self.bytes.extend(sealed);
        }
        self.running = hash_record(&self.running, kind, flags, &self.public, commitment);
        self.running
    }

    /// Signs the head and gives the batch's bytes.
    pub fn finish(mut self, signer: &HeadSigner) -> EncodedBatch {
        let records = self.bytes.len() - PREFIX;
        self.bytes[HEADER_HASHED..HEADER_HASHED + 4].copy_from_slice(&(records as u32).to_le_bytes());
        let head = signer.sign(&self.header, self.running);
        self.bytes.extend(head.head);
        self.bytes.extend(head.signature);
        EncodedBatch { header: self.header, previous: self.previous, head, bytes: self.bytes }
    }
}

/// A batch ready to be appended.
#[derive(Clone, Debug)]
pub struct EncodedBatch {
    /// Its header.
    pub header: BatchHeader,
    /// The head that it extends.
    pub previous: Hash,
    /// The head after it, signed.
    pub head: SignedHead,
    /// All of it as bytes.
    pub bytes: Vec<u8>,
}

/// One record inside parsed batch bytes.
#[derive(Clone, Debug)]
pub struct RecordBytes<'a> {
    /// Number in the chain.
    pub number: u64,
    /// Kind number.
    pub kind: u8,
    flags: u8,
    /// Public bytes.
    pub public: &'a [u8],
    /// Commitment to the private part, if there is one.
    pub commitment: Option<&'a Hash>,
    /// Encrypted private part; empty in an export.
    pub sealed: &'a [u8],
}

impl RecordBytes<'_> {
    /// The record as a value.
    pub fn decode(&self) -> Result<Record, BatchError> {
        codec::decode(self.kind, self.public).map_err(|source| BatchError::Record { number: self.number, source })
    }

    /// The chain's hash after this record, given the one before it.
    pub fn hash(&self, before: &Hash) -> Hash {
        hash_record(before, self.kind, self.flags, self.public, self.commitment)
    }
}

/// A parsed batch over borrowed bytes. Parsing checks lengths; [`Batch::verify`] checks hashes.
#[derive(Clone, Debug)]
pub struct Batch<'a> {
    /// Its header.
    pub header: BatchHeader,
    /// The head that it extends.
    pub previous: Hash,
    /// The head after it with the signature, as stated; not yet checked.
    pub head: SignedHead,
    records: &'a [u8],
}

impl<'a> Batch<'a> {
    /// Reads a batch; `bytes` must be exactly one.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BatchError> {
        if bytes.len() < PREFIX + SUFFIX {
            return Err(BatchError::Length);
        }
        let version = u32_at(bytes, 0);
        if version != FORMAT_VERSION {
            return Err(BatchError::Version(version));
        }
        let header = BatchHeader {
            partition: u32_at(bytes, 4),
            sale: SaleId(array_at(bytes, 8)),
            epoch: u64_at(bytes, 24),
            time: ChainTime(u64_at(bytes, 32)),
            first: u64_at(bytes, 40),
            count: u32_at(bytes, 48),
        };
        let records = u32_at(bytes, HEADER_HASHED) as usize;
        if bytes.len() != PREFIX + records + SUFFIX || header.count == 0 {
            return Err(BatchError::Length);
        }
        let head = SignedHead {
            sale: header.sale,
            partition: header.partition,
            epoch: header.epoch,
            next: header.first.checked_add(u64::from(header.count)).ok_or(BatchError::Length)?,
            time: header.time,
            head: array_at(bytes, PREFIX + records),
            signature: array_at(bytes, PREFIX + records + 32),
        };
        Ok(Self {
            header,
            previous: array_at(bytes, HEADER_HASHED + 4),
            head,
            records: &bytes[PREFIX..PREFIX + records],
        })
    }

    /// The records in order. An item is an error where the lengths inside do not add up; nothing follows it.
    pub fn records(&self) -> Records<'a> {
        Records { number: self.header.first, end: self.header.next(), rest: self.records }
    }

    /// Recomputes the head from the records and compares it with the stated one.
    pub fn verify(&self) -> Result<(), BatchError> {
        let mut running = self.running_start();
        for record in self.records() {
            running = record?.hash(&running);
        }
        if running == self.head.head { Ok(()) } else { Err(BatchError::Head) }
    }

    /// The running hash before the first record.
    pub fn running_start(&self) -> Hash {
        hash_header(&self.previous, &self.header.encode())
    }

    /// The same batch without the encrypted private parts: what an export holds.
    pub fn without_private_parts(&self) -> Result<Vec<u8>, BatchError> {
        let mut bytes = Vec::with_capacity(PREFIX + self.records.len() + SUFFIX);
        bytes.extend(self.header.encode());
        bytes.extend([0; 4]);
        bytes.extend(self.previous);
        for record in self.records() {
            let record = record?;
            bytes.extend([record.kind, record.flags, 0, 0]);
            bytes.extend((record.public.len() as u32).to_le_bytes());
            bytes.extend(record.public);
            bytes.extend(record.commitment.into_iter().flatten());
        }
        let records = bytes.len() - PREFIX;
        bytes[HEADER_HASHED..HEADER_HASHED + 4].copy_from_slice(&(records as u32).to_le_bytes());
        bytes.extend(self.head.head);
        bytes.extend(self.head.signature);
        Ok(bytes)
    }
}

/// Iterator over the records of a batch.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    number: u64,
    end: u64,
    rest: &'a [u8],
}

impl<'a> Records<'a> {
    fn take(&mut self) -> Option<RecordBytes<'a>> {
        let (prefix, rest) = self.rest.split_first_chunk::<RECORD_PREFIX>()?;
        let [kind, flags, private_low, private_high, length @ ..] = *prefix;
        let (public, rest) = rest.split_at_checked(u32::from_le_bytes(length) as usize)?;
        let sealed_length = usize::from(u16::from_le_bytes([private_low, private_high]));
        let (commitment, sealed, rest) = match flags {
            0 if sealed_length == 0 => (None, &[][..], rest),
            FLAG_COMMITMENT => {
                let (commitment, rest) = rest.split_first_chunk::<32>()?;
                let (sealed, rest) = rest.split_at_checked(sealed_length)?;
                (Some(commitment), sealed, rest)
            }
            _ => return None,
        };
        self.rest = rest;
        Some(RecordBytes { number: self.number, kind, flags, public, commitment, sealed })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<RecordBytes<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.number == self.end && self.rest.is_empty() {
            return None;
        }
        let taken = if self.number < self.end { self.take() } else { None };
        if taken.is_some() {
            self.number += 1;
        } else {
            (self.number, self.rest) = (self.end, &[]);
        }
        Some(taken.ok_or(BatchError::Length))
    }
}

fn hash_header(previous: &Hash, header: &[u8; HEADER_HASHED]) -> Hash {
    hash(&[&[0], previous, header])
}

fn hash_record(before: &Hash, kind: u8, flags: u8, public: &[u8], commitment: Option<&Hash>) -> Hash {
    let length = (public.len() as u32).to_le_bytes();
    hash(&[&[1], before, &[kind, flags], &length, public, commitment.map_or(&[][..], |hash| hash)])
}

/// SHA-256 over the parts in order.
pub fn hash(parts: &[&[u8]]) -> Hash {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}
