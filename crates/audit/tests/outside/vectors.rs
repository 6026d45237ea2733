//! The test vectors of `docs/chain-format.md`, so that document and code cannot part.

use chain::frame::{FrameHeader, FrameKind, encode_frame};
use chain::{BatchBuilder, BatchHeader, HeadSigner, head};
use data_encoding::HEXLOWER;
use domain::{ChainTime, Record, SaleId};

use crate::sketch::customer;

const SALE: SaleId = SaleId([7; 16]);

#[test]
fn the_documents_vectors_are_what_the_code_gives() {
    let signer = HeadSigner::from_seed(&[9; 32]);
    let header =
        BatchHeader { sale: SALE, partition: 0, epoch: 1, time: ChainTime(1_800_000_000_000), first: 0, count: 1 };
    let mut builder = BatchBuilder::new(header, [0; 32]);
    let record_hash = builder.push(&Record::Epoch(1), None);
    let batch = builder.finish(&signer);
    assert_eq!(record_hash, batch.head.head, "one record: its hash is the head");
    let parsed = chain::Batch::parse(&batch.bytes).unwrap();
    let frame = FrameHeader {
        kind: FrameKind::Batch,
        segment: 1,
        partition: 0,
        offset: 4096,
        next: 1,
        number: 0,
        durable_through: 0,
        payload: batch.bytes.len() as u32,
    };
    let mut framed = Vec::new();
    encode_frame(&frame, &batch.bytes, &mut framed);
    let secret = [3; 32];
    let vectors = [
        ("public key", signer.public_key().to_vec()),
        ("batch", batch.bytes.clone()),
        ("running hash after the header", parsed.running_start().to_vec()),
        ("head", batch.head.head.to_vec()),
        ("signed message", batch.head.message()),
        ("signature", batch.head.signature.to_vec()),
        ("frame header", framed[..64].to_vec()),
        ("slot commitment", head::slot_commitment(SALE, &secret).to_vec()),
        ("slot", head::slot_offset(&secret, customer(10), 1_000).to_string().into_bytes()),
    ];
    let document = include_str!("../../../../docs/chain-format.md");
    let packed: String = document.split_whitespace().collect();
    for (name, bytes) in vectors {
        let text = if name == "slot" { String::from_utf8(bytes).unwrap() } else { HEXLOWER.encode(&bytes) };
        assert!(packed.contains(&text), "{name}: {text}");
    }
}
