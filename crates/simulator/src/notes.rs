//! Clients' notes as the auditor reads them, one JSON object per line.

use std::fmt::Write;

use admission::Answer;
use data_encoding::BASE64URL_NOPAD;
use domain::PurchaseId;

/// All lines so far. Times are those of the last batch, since the clients' own clocks are not what is tested.
#[derive(Default)]
pub(crate) struct Notes {
    text: String,
    requests: u64,
}

impl Notes {
    /// Notes a purchase before it is sent; gives its number.
    pub(crate) fn sent(&mut self, at: u64, item: u16, customer: usize, key: u32, quantity: u32) -> u64 {
        self.requests += 1;
        let request = self.requests;
        self.line(format_args!(
            r#"{{"note":"sent","at_ms":{at},"request":{request},"sale":"drop","item":"item-{item}","customer":"c{customer}","key":"k{key}","quantity":{quantity}}}"#
        ));
        request
    }

    /// Purchases sent so far.
    pub(crate) fn requests(&self) -> u64 {
        self.requests
    }

    /// The reply never came.
    pub(crate) fn lost(&mut self, request: u64, at: u64) {
        self.line(format_args!(r#"{{"note":"lost","at_ms":{at},"request":{request}}}"#));
    }

    /// A purchase was answered.
    pub(crate) fn answered(&mut self, request: u64, answer: &Answer, at: u64) {
        match answer {
            Answer::Granted(grant, receipt) => {
                let (code, purchase) = (grant.status.name(), public(grant.purchase));
                let proof = receipt.as_ref().map_or_else(String::new, |receipt| {
                    let hash = BASE64URL_NOPAD.encode(&receipt.record_hash);
                    format!(r#","position":{},"record_hash":"{hash}""#, receipt.position)
                });
                self.line(format_args!(
                    r#"{{"note":"answered","at_ms":{at},"request":{request},"status":201,"code":"{code}","purchase":"{purchase}"{proof}}}"#
                ));
            }
            Answer::Refused { refusal, position, .. } => {
                let code = refusal.code();
                self.line(format_args!(
                    r#"{{"note":"answered","at_ms":{at},"request":{request},"status":409,"code":"{code}","position":{position}}}"#
                ));
            }
            Answer::Grants(_) | Answer::Sale(_) => {}
        }
    }

    /// An end was acknowledged: `confirmed` or `cancelled`.
    pub(crate) fn ended(&mut self, how: &str, purchase: PurchaseId, at: u64) {
        let purchase = public(purchase);
        self.line(format_args!(r#"{{"note":"{how}","at_ms":{at},"purchase":"{purchase}"}}"#));
    }

    /// The file's content.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.text, "{line}").expect("a string takes everything");
    }
}

/// The public form, without a MAC: auditors cannot check one.
fn public(purchase: PurchaseId) -> String {
    let mut bytes = [0; 24];
    bytes[4..16].copy_from_slice(&purchase.0);
    format!("pu_{}", BASE64URL_NOPAD.encode(&bytes))
}
