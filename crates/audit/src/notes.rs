//! Clients' notes: what the crowd says that it sent and was told. `docs/notes-format.md` describes the lines.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use chain::digest::GrantStatus;
use data_encoding::BASE64URL_NOPAD;
use domain::ids::Hash;
use domain::record::ReleaseReason;
use domain::{Promise, Pseudonym, PurchaseId};
use serde::Deserialize;

use crate::model::{FreeSpans, Grant, Model};
use crate::replay::{Named, Replayed};
use crate::tally::Tally;

/// How far a client's clock may stand from the chain's, in milliseconds, before a true `sold_out` is doubted.
const CLOCK_DISTANCE_MILLISECONDS: u64 = 1_000;

/// Why notes cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotesError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("line {line}: {reason}")]
    Line { line: u64, reason: String },
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    note: Cow<'a, str>,
    at_ms: u64,
    request: Option<u64>,
    #[serde(borrow)]
    sale: Option<Cow<'a, str>>,
    #[serde(borrow)]
    item: Option<Cow<'a, str>>,
    #[serde(borrow)]
    customer: Option<Cow<'a, str>>,
    #[serde(borrow)]
    key: Option<Cow<'a, str>>,
    quantity: Option<u32>,
    #[serde(borrow)]
    code: Option<Cow<'a, str>>,
    #[serde(borrow)]
    purchase: Option<Cow<'a, str>>,
    position: Option<u64>,
    #[serde(borrow)]
    record_hash: Option<Cow<'a, str>>,
}

/// A request as it was sent; names are numbers of interned text.
#[derive(Clone, Copy)]
struct Sent {
    sale: u32,
    item: u32,
    quantity: u32,
    customer: u32,
    key: u32,
    at: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Code {
    Held,
    Confirmed,
    Released,
    Pending,
    SoldOut,
    KeyReused,
}

struct Answer {
    sent: Sent,
    at: u64,
    code: Code,
    purchase: Option<PurchaseId>,
    position: Option<u64>,
    record_hash: Option<Hash>,
}

/// A confirmation or a cancellation that somebody was told has happened.
struct Acknowledged {
    purchase: PurchaseId,
    code: Code,
    found: bool,
}

/// All notes of one file.
#[derive(Default)]
pub(crate) struct Notes {
    names: HashMap<String, u32>,
    /// (sale, customer, key) to a number.
    keys: HashMap<(u32, u32, u32), u32>,
    /// Per key, the distinct (item, quantity) that were sent under it.
    bodies: Vec<Vec<(u32, u32)>>,
    answers: Vec<Answer>,
    acknowledged: Vec<Acknowledged>,
}

impl Notes {
    /// Reads the file. A last line without its end is what a killed client leaves behind, and is passed over.
    pub(crate) fn read(path: &Path) -> Result<Self, NotesError> {
        let mut notes = Self::default();
        let mut requests = HashMap::new();
        let mut reader = BufReader::with_capacity(1 << 20, File::open(path)?);
        let mut text = Vec::new();
        let mut line = 0;
        while reader.read_until(b'\n', &mut text)? > 0 {
            line += 1;
            if text.last() == Some(&b'\n') && !text.trim_ascii().is_empty() {
                notes.add(&text, &mut requests).map_err(|reason| NotesError::Line { line, reason })?;
            }
            text.clear();
        }
        Ok(notes)
    }

    fn add(&mut self, text: &[u8], requests: &mut HashMap<u64, Sent>) -> Result<(), String> {
        let line: Line<'_> = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        match &*line.note {
            "sent" => {
                let sent = self.sent(&line)?;
                let twice = requests.insert(required(line.request, "request")?, sent).is_some();
                if twice { Err("the request number was used before".to_owned()) } else { Ok(()) }
            }
            "answered" => {
                let request = required(line.request, "request")?;
                let sent = *requests.get(&request).ok_or("no request of that number was noted as sent")?;
                let code = match &*required(line.code, "code")? {
                    "held" => Code::Held,
                    "confirmed" => Code::Confirmed,
                    "released" => Code::Released,
                    "pending" => Code::Pending,
                    "sold_out" => Code::SoldOut,
                    "key_reused" => Code::KeyReused,
                    _ => return Ok(()),
                };
                let purchase = line.purchase.map(|text| purchase_id(&text)).transpose()?;
                if purchase.is_none() && matches!(code, Code::Held | Code::Confirmed | Code::Released) {
                    return Err("a win without its purchase".to_owned());
                }
                let record_hash = line.record_hash.map(|text| hash(&text)).transpose()?;
                let (at, position) = (line.at_ms, line.position);
                self.answers.push(Answer { sent, at, code, purchase, position, record_hash });
                Ok(())
            }
            "confirmed" | "cancelled" => {
                let purchase = purchase_id(&required(line.purchase, "purchase")?)?;
                let code = if line.note == "confirmed" { Code::Confirmed } else { Code::Released };
                self.acknowledged.push(Acknowledged { purchase, code, found: false });
                Ok(())
            }
            // What became of a lost request nobody was told, so either outcome is fine.
            "lost" => Ok(()),
            other => Err(format!("a note {other:?} is not known")),
        }
    }

    fn sent(&mut self, line: &Line<'_>) -> Result<Sent, String> {
        let sale = self.name(required(line.sale.as_deref(), "sale")?);
        let item = self.name(required(line.item.as_deref(), "item")?);
        let customer = self.name(required(line.customer.as_deref(), "customer")?);
        let key_name = self.name(required(line.key.as_deref(), "key")?);
        let new = self.bodies.len() as u32;
        let key = *self.keys.entry((sale, customer, key_name)).or_insert(new);
        if key == new {
            self.bodies.push(Vec::new());
        }
        let quantity = line.quantity.unwrap_or(1);
        let bodies = &mut self.bodies[key as usize];
        if !bodies.contains(&(item, quantity)) {
            bodies.push((item, quantity));
        }
        Ok(Sent { sale, item, quantity, customer, key, at: line.at_ms })
    }

    fn name(&mut self, text: &str) -> u32 {
        if let Some(name) = self.names.get(text) {
            return *name;
        }
        let name = self.names.len() as u32;
        self.names.insert(text.to_owned(), name);
        name
    }

    /// The records that answers about a sale name.
    pub(crate) fn records(&self, sale: &str) -> Vec<u64> {
        let Some(sale) = self.names.get(sale) else { return Vec::new() };
        let of_sale = self.answers.iter().filter(|answer| answer.sent.sale == *sale && answer.purchase.is_some());
        of_sale.filter_map(|answer| answer.position).collect()
    }

    /// Checks every answer about a sale against its chain.
    pub(crate) fn check(&mut self, sale: &str, replayed: &Replayed, model: &Model, tally: &mut Tally) {
        self.check_acknowledged(model, tally);
        let Some(sale) = self.names.get(sale).copied() else { return };
        let item_names: Vec<Option<u32>> = model.items.iter().map(|item| self.names.get(&item.name).copied()).collect();
        let mut checker = Checker {
            notes: self,
            replayed,
            model,
            spans: model.items.iter().map(|item| item.free_spans()).collect(),
            item_names,
            purchase_of_key: HashMap::new(),
            key_of_purchase: HashMap::new(),
            pseudonyms: HashMap::new(),
            tally,
        };
        let answers = self.answers.iter().filter(|answer| answer.sent.sale == sale);
        answers.clone().for_each(|answer| checker.check_purchase(answer));
        answers.for_each(|answer| checker.check_refusal(answer));
    }

    fn check_acknowledged(&mut self, model: &Model, tally: &mut Tally) {
        for acknowledged in &mut self.acknowledged {
            let Some((number, grant)) = model.grant_of(acknowledged.purchase) else { continue };
            acknowledged.found = true;
            let code = acknowledged.code;
            let true_word = match code {
                Code::Confirmed => grant.status == GrantStatus::Confirmed,
                _ => grant.released.is_some_and(|reason| reason != ReleaseReason::Expired),
            };
            tally.check(Promise::DurableAnswer, true_word, || {
                let what = if code == Code::Confirmed { "confirmation" } else { "cancellation" };
                format!("the acknowledged {what} of hold {number} is not in the chain")
            });
        }
    }

    /// Acknowledged purchases that no chain had, once all sales were checked.
    pub(crate) fn check_all_found(&self, tally: &mut Tally) {
        for acknowledged in self.acknowledged.iter().filter(|acknowledged| !acknowledged.found) {
            let purchase = data_encoding::HEXLOWER.encode(&acknowledged.purchase.0);
            tally.broken(Promise::DurableAnswer, || {
                format!("purchase {purchase} was acknowledged as ended but is in no chain")
            });
        }
    }
}

/// The answers about one sale, as they are gone through.
struct Checker<'a> {
    notes: &'a Notes,
    replayed: &'a Replayed,
    model: &'a Model,
    spans: Vec<Option<FreeSpans>>,
    /// The interned name of each item.
    item_names: Vec<Option<u32>>,
    purchase_of_key: HashMap<u32, PurchaseId>,
    key_of_purchase: HashMap<PurchaseId, u32>,
    pseudonyms: HashMap<u32, Option<Pseudonym>>,
    tally: &'a mut Tally,
}

impl Checker<'_> {
    /// An answer that names a purchase: it is in the chain, and it is this key's only one.
    fn check_purchase(&mut self, answer: &Answer) {
        let Some(purchase) = answer.purchase else { return };
        let sent = answer.sent;
        let bound = *self.purchase_of_key.entry(sent.key).or_insert(purchase) == purchase
            && *self.key_of_purchase.entry(purchase).or_insert(sent.key) == sent.key;
        self.tally.check(Promise::Idempotent, bound, || {
            format!("purchase {} shares its key with another, or its id with another key", hex(purchase))
        });
        if answer.code == Code::Pending {
            return;
        }
        let grant = self.model.grant_of(purchase);
        let problem = match grant {
            None => Some("is not in the chain"),
            Some((_, grant)) => self.problem_with(answer, purchase, grant),
        };
        self.tally.check(Promise::DurableAnswer, problem.is_none(), || {
            format!("purchase {}, answered as won, {}", hex(purchase), problem.unwrap_or_default())
        });
        let Some((number, grant)) = grant else { return };
        let body = self.body_of(grant);
        let pseudonym = self.model.customer_of(number);
        let same_customer = *self.pseudonyms.entry(sent.customer).or_insert(pseudonym) == pseudonym;
        self.tally.check(Promise::Idempotent, body == (Some(sent.item), sent.quantity) && same_customer, || {
            format!("purchase {} was given for another body or to another customer", hex(purchase))
        });
    }

    fn problem_with(&self, answer: &Answer, purchase: PurchaseId, grant: &Grant) -> Option<&'static str> {
        let named = answer.position.map(|position| self.replayed.named.get(&position).cloned().unwrap_or_default());
        let Named { hash, purchase: found, .. } = match named {
            Some(named) => named,
            None => Named { hash: answer.record_hash, purchase: Some(purchase), held: None },
        };
        if found != Some(purchase) {
            Some("is not at the position that its receipt names")
        } else if answer.record_hash.is_some() && hash != answer.record_hash {
            Some("has another record hash in the chain than in its receipt")
        } else if answer.code == Code::Confirmed && grant.status != GrantStatus::Confirmed {
            Some("was answered as confirmed, but the chain does not confirm it")
        } else if answer.code == Code::Released && grant.released.is_none() {
            Some("was answered as released, but the chain does not release it")
        } else {
            None
        }
    }

    fn body_of(&self, grant: &Grant) -> (Option<u32>, u32) {
        let item = self.item_names.get(usize::from(grant.item)).copied().flatten();
        (item, self.model.units_of(grant).len() as u32)
    }

    /// `sold_out` and `key_reused`; runs after all purchases are known.
    fn check_refusal(&mut self, answer: &Answer) {
        let sent = answer.sent;
        match answer.code {
            Code::KeyReused => {
                let bound = self.purchase_of_key.get(&sent.key).and_then(|purchase| self.model.grant_of(*purchase));
                let other_body = match bound {
                    Some((_, grant)) => self.body_of(grant) != (Some(sent.item), sent.quantity),
                    None => self.notes.bodies[sent.key as usize].len() > 1,
                };
                self.tally.check(Promise::Idempotent, other_body, || {
                    format!("key_reused for a request sent at {} whose key never had another body", sent.at)
                });
            }
            Code::SoldOut => {
                let problem = self.problem_with_sold_out(answer);
                self.tally.check(Promise::HonestRefusal, problem.is_none(), || {
                    format!("sold_out for a request sent at {}: {}", sent.at, problem.unwrap_or_default())
                });
            }
            Code::Held | Code::Confirmed | Code::Released | Code::Pending => {}
        }
    }

    fn problem_with_sold_out(&self, answer: &Answer) -> Option<String> {
        let Some(index) = self.item_names.iter().position(|name| *name == Some(answer.sent.item)) else {
            return Some("the item is not in the sale".to_owned());
        };
        if let Some(position) = answer.position {
            if position >= self.replayed.end.next {
                return Some(format!("it rests on record {position}, which is not in the chain"));
            }
            if !self.model.items[index].is_empty_after(position) {
                return Some(format!("it rests on record {position}, where units are free"));
            }
        }
        let delay = self.model.definition.resale_delay_milliseconds + CLOCK_DISTANCE_MILLISECONDS;
        let from = answer.sent.at.saturating_sub(delay);
        let free = self.spans[index].as_ref().is_some_and(|spans| spans.covers(from, answer.at));
        free.then(|| format!("a unit was free from {from} or before until the answer at {}", answer.at))
    }
}

fn required<T>(field: Option<T>, name: &str) -> Result<T, String> {
    field.ok_or_else(|| format!("the field {name} is missing"))
}

/// The purchase id inside its public form: `pu_`, then base64url of 4 bytes for the sale, the 12 of the id and 8 of a MAC.
fn purchase_id(text: &str) -> Result<PurchaseId, String> {
    let bytes = text.strip_prefix("pu_").and_then(|text| BASE64URL_NOPAD.decode(text.as_bytes()).ok());
    let id = bytes.filter(|bytes| bytes.len() == 24).and_then(|bytes| bytes[4..16].try_into().ok());
    id.map(PurchaseId).ok_or_else(|| format!("{text:?} is not a purchase id"))
}

fn hash(text: &str) -> Result<Hash, String> {
    let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| format!("{text:?} is not a hash"))
}

fn hex(purchase: PurchaseId) -> String {
    data_encoding::HEXLOWER.encode(&purchase.0)
}
