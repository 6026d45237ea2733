//! Exports: a good one is proven, and no byte of it can be changed, added or taken away.

use std::path::{Path, PathBuf};

use audit::{ExportError, VerifyError, VerifyReport, export, verify};
use chain::HeadSigner;
use data_encoding::BASE64URL_NOPAD;
use domain::Record;
use serde_json::json;

use crate::log;
use crate::sketch::*;

struct Exported {
    folder: Folder,
    file: PathBuf,
    bytes: Vec<u8>,
}

fn exported(sketch: &Sketch) -> Exported {
    let folder = sketch.data();
    let file = folder.0.join("sale.chain");
    export(&folder.0, None, &file).unwrap();
    let bytes = std::fs::read(&file).unwrap();
    Exported { folder, file, bytes }
}

/// The first batches only, since the tests that flip every byte prove as many files as there are bytes.
fn short() -> Exported {
    let mut sketch = Sketch::good();
    sketch.batches.truncate(3);
    exported(&sketch)
}

fn is_proven(result: Result<VerifyReport, VerifyError>) -> bool {
    result.is_ok_and(|report| report.ok)
}

fn own_key() -> [u8; 32] {
    HeadSigner::from_seed(&SEED).public_key()
}

#[test]
fn a_good_export_is_proven_with_and_without_its_key() {
    let Exported { folder, file, bytes } = exported(&Sketch::good());
    let summary = export(&folder.0, Some(NAME), &file).unwrap();
    assert_eq!((summary.batches, summary.records, summary.bytes), (15, 21, bytes.len() as u64));
    assert_eq!(std::fs::read(&file).unwrap(), bytes, "the same chain gives the same file");
    for key in [None, Some(own_key())] {
        let report = verify(&file, key, &[]).unwrap();
        assert!(report.ok, "{report}");
        assert_eq!((report.sale.as_str(), report.head), (NAME, summary.head.clone()));
        assert_eq!(report.proof["heads"].checked, 15);
        assert!(report.proof["slots"].checked > 0);
        assert_eq!(report.promises["INV-4"].status.name(), "not_applicable");
    }
}

#[test]
fn an_export_has_no_private_parts() {
    let Exported { bytes, .. } = exported(&Sketch::good());
    assert!(!bytes.windows(40).any(|window| window == [8; 40]), "the sealed parts stay at home");
    assert!(bytes.windows(32).any(|window| window == [6; 32]), "their commitments do not");
}

#[test]
fn every_flipped_byte_is_noticed() {
    let Exported { folder: _folder, file, bytes } = short();
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        std::fs::write(&file, &flipped).unwrap();
        assert!(!is_proven(verify(&file, None, &[])), "byte {at} of {}", bytes.len());
    }
}

#[test]
fn a_flipped_byte_is_noticed_even_when_the_file_digest_is_made_to_fit() {
    let Exported { folder: _folder, file, bytes } = short();
    let covered = bytes.len() - 32;
    for at in 0..covered {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        let digest = chain::batch::hash(&[&flipped[..covered]]);
        flipped[covered..].copy_from_slice(&digest);
        std::fs::write(&file, &flipped).unwrap();
        assert!(!is_proven(verify(&file, Some(own_key()), &[])), "byte {at} of {covered}");
    }
}

#[test]
fn truncated_and_extended_exports_are_refused() {
    let Exported { folder: _folder, file, bytes } = short();
    for length in 0..bytes.len() {
        std::fs::write(&file, &bytes[..length]).unwrap();
        assert!(!is_proven(verify(&file, None, &[])), "{length} of {} bytes", bytes.len());
    }
    for extra in [1, 32, 80, 4096] {
        let mut longer = bytes.clone();
        longer.extend(vec![0; extra]);
        std::fs::write(&file, &longer).unwrap();
        assert!(!is_proven(verify(&file, None, &[])), "{extra} bytes more");
    }
}

#[test]
fn a_chain_of_another_key_is_refused() {
    let Exported { folder: _folder, file, .. } = exported(&Sketch::good());
    assert!(matches!(verify(&file, Some([1; 32]), &[]), Err(VerifyError::KeyForeign { .. })));
    let forged = exported(&Sketch { seed: [1; 32], ..Sketch::good() });
    let report = verify(&forged.file, None, &[]).unwrap();
    assert_eq!(broken(&report.promises, &report.proof), ["heads"]);
}

#[test]
fn a_broken_promise_in_an_export_is_reported() {
    let mut sketch = Sketch::good();
    sketch.batches[1].time = 9_000;
    let report = verify(&exported(&sketch).file, None, &[]).unwrap();
    assert_eq!(broken(&report.promises, &report.proof), ["INV-8"]);
    assert!(report.to_string().ends_with("verify: FAILED"));
}

/// The receipt of the second record of the third batch, as an answer carries it.
fn receipt(sketch: &Sketch) -> serde_json::Value {
    let batch = &sketch.encode()[2];
    let parsed = chain::Batch::parse(&batch.bytes).unwrap();
    let mut running = parsed.running_start();
    for record in parsed.records() {
        running = record.unwrap().hash(&running);
    }
    let encode = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
    json!({
        "sale_id": SALE.to_string(), "position": batch.header.next() - 1, "record_hash": encode(&running),
        "head": {"epoch": 1, "next": batch.header.next(), "time": batch.header.time.rfc3339(), "head": encode(&batch.head.head),
            "signature": encode(&batch.head.signature)},
    })
}

fn put(folder: &Path, name: &str, value: &serde_json::Value) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, value.to_string()).unwrap();
    path
}

#[test]
fn receipts_are_found_alone_and_inside_an_answer() {
    let sketch = Sketch::good();
    let Exported { folder, file, .. } = exported(&sketch);
    let alone = put(&folder.0, "receipt.json", &receipt(&sketch));
    let answer = put(&folder.0, "answer.json", &json!({"status": "held", "receipt": receipt(&sketch)}));
    let report = verify(&file, Some(own_key()), &[alone, answer]).unwrap();
    assert!(report.ok, "{report}");
    assert_eq!(report.proof["receipts"].checked, 2);
}

#[test]
fn receipts_that_do_not_fit_the_chain_are_reported_and_unreadable_ones_refused() {
    let sketch = Sketch::good();
    let Exported { folder, file, .. } = exported(&sketch);
    let doctored: [(&[&str], serde_json::Value); 6] = [
        (&["position"], json!(3)),
        (&["record_hash"], json!(BASE64URL_NOPAD.encode(&[0; 32]))),
        (&["sale_id"], json!("00".repeat(16))),
        (&["head", "next"], json!(4)),
        (&["head", "signature"], json!(BASE64URL_NOPAD.encode(&[0; 64]))),
        (&["head", "epoch"], json!(2)),
    ];
    for (path, value) in doctored {
        let mut wrong = receipt(&sketch);
        *path.iter().fold(&mut wrong, |value, field| &mut value[*field]) = value;
        let report = verify(&file, None, &[put(&folder.0, "receipt.json", &wrong)]).unwrap();
        assert_eq!(broken(&report.promises, &report.proof), ["receipts"], "{path:?}");
    }
    let nonsense = put(&folder.0, "receipt.json", &json!({"receipt": null}));
    assert!(matches!(verify(&file, None, &[nonsense]), Err(VerifyError::Receipt { .. })));
}

#[test]
fn the_sale_must_be_named_where_there_are_several() {
    let folder = Sketch::good().data();
    let other = folder.0.join("sales").join("autumn-drop");
    std::fs::create_dir_all(&other).unwrap();
    log::write(&other, &Sketch::good().encode());
    let out = folder.0.join("sale.chain");
    let error = export(&folder.0, None, &out).unwrap_err();
    assert!(matches!(&error, ExportError::SaleNotNamed(sales) if sales == &["autumn-drop", NAME]), "{error}");
    assert!(export(&folder.0, Some("spring-drop"), &out).unwrap_err().to_string().contains("autumn-drop, winter-drop"));
    export(&folder.0, Some(NAME), &out).unwrap();
    let report = audit(&folder.0, None);
    let chain = &report.proof["chain"];
    assert_eq!(chain.evidence, ["autumn-drop: the folder holds the chain of \"winter-drop\""]);
}

#[test]
fn a_damaged_log_is_not_exported_and_the_old_file_stays() {
    let mut sketch = Sketch::good();
    let Exported { folder, file, bytes } = exported(&sketch);
    sketch.batches.truncate(4);
    std::fs::remove_file(folder.sale().join("00000001.segment")).unwrap();
    assert!(matches!(export(&folder.0, None, &file), Err(ExportError::Damaged(_))));
    assert_eq!(std::fs::read(&file).unwrap(), bytes);
    assert!(!folder.0.join("sale.chain.tmp").exists());
}

#[test]
fn a_chain_that_does_not_begin_with_created_proves_nothing() {
    let mut sketch = Sketch::good();
    sketch.at(0).retain(|record| !matches!(record, Record::Created(_)));
    let folder = Folder::new();
    log::write(&folder.sale(), &sketch.encode());
    let file = folder.0.join("sale.chain");
    export(&folder.0, None, &file).unwrap();
    assert!(matches!(verify(&file, None, &[]), Err(VerifyError::NoBeginning(_))));
}
