//! The promises, checked from outside: the audit with the clients' notes, and every sale's export proven offline.

use std::path::{Path, PathBuf};

use audit::{AuditReport, Status};

use crate::waiting::eventually;

/// Audits a data folder and asserts that nothing contradicts a promise. A promise that had nothing to be checked on is no fault
/// here: a test of one refusal has no holds.
pub fn audit_is_clean(data: &Path, notes: Option<&Path>) -> AuditReport {
    let report = audit::audit(data, None, notes, &mut |_| {}).unwrap_or_else(|error| panic!("no audit: {error}"));
    let reports = report.promises.values().chain(report.proof.values());
    assert!(reports.clone().all(|report| report.violations == 0 && report.status != Status::Broken), "{report}");
    report
}

/// Audits and asserts that every promise was checked on something and kept.
pub fn audit_is_complete(data: &Path, notes: Option<&Path>) -> AuditReport {
    let report = audit_is_clean(data, notes);
    assert!(report.ok, "{report}");
    report
}

/// Exports a sale into `folder` and proves the export under the key that the shop published, with receipts.
pub fn verify_sale(data: &Path, sale: &str, key: &str, receipts: &[PathBuf], folder: &Path) {
    let file = folder.join(format!("{sale}.chain"));
    audit::export(data, Some(sale), &file).unwrap_or_else(|error| panic!("{sale} cannot be exported: {error}"));
    let key = data_encoding::BASE64URL_NOPAD.decode(key.as_bytes()).ok().and_then(|key| key.try_into().ok());
    let report = audit::verify(&file, Some(key.expect("a published key has 32 bytes")), receipts);
    let report = report.unwrap_or_else(|error| panic!("{sale} cannot be verified: {error}"));
    let nothing = report.promises.values().chain(report.proof.values()).all(|report| report.violations == 0);
    assert!(nothing, "{report}");
    eventually("the export's removal", || std::fs::remove_file(&file).ok());
}
