//! The sandbox's payments, refunds and callbacks: a state that follows from a file of JSON lines, one per thing that happened.
//!
//! Written before it counts, so a restart of the process loses nothing. It is not synced: no money depends on it.

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::wire::{ATTEMPT_METADATA, REFUND_METADATA};

/// Something that happened. Times are milliseconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub(crate) enum Entry {
    Created { reference: String, key: String, amount: u64, currency: String, return_url: String },
    Declined { reference: String, at: u64 },
    Processing { reference: String, at: u64, due: u64 },
    Paid { reference: String, at: u64, callbacks: u32 },
    Cancelled { reference: String, at: u64 },
    Refunded { refund: String, reference: String, key: String, amount: u64, at: u64 },
    Delivered { delivery: u64 },
}

/// Where a payment stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Waiting,
    Declined,
    Processing { due: u64 },
    Paid,
    Cancelled,
}

impl State {
    /// Whether the customer may still press a button.
    pub(crate) fn is_open(self) -> bool {
        matches!(self, Self::Waiting | Self::Declined)
    }
}

/// One payment.
#[derive(Clone, Debug)]
pub(crate) struct Payment {
    pub(crate) reference: String,
    pub(crate) key: String,
    pub(crate) amount: u64,
    pub(crate) currency: String,
    pub(crate) return_url: String,
    pub(crate) refunded: u64,
    pub(crate) state: State,
}

/// One refund.
#[derive(Clone, Debug)]
struct Refund {
    name: String,
    payment: String,
    amount: u64,
}

/// The state and its file.
pub(crate) struct Store {
    file: File,
    /// Bytes of whole lines in the file.
    length: u64,
    payments: HashMap<String, Payment>,
    by_key: HashMap<String, String>,
    refunds: HashMap<String, Refund>,
    /// Callbacks that nobody has accepted yet, by the number of their delivery.
    undelivered: BTreeMap<u64, String>,
    events: u64,
    deliveries: u64,
}

impl Store {
    /// Opens or creates the file. A last line that broke off is cut; anything else that cannot be read is an error.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let length = whole as u64;
        file.set_len(length)?;
        file.seek(SeekFrom::End(0))?;
        let mut store = Self {
            file,
            length,
            payments: HashMap::new(),
            by_key: HashMap::new(),
            refunds: HashMap::new(),
            undelivered: BTreeMap::new(),
            events: 0,
            deliveries: 0,
        };
        for (number, line) in text[..whole].lines().enumerate() {
            let entry = serde_json::from_str(line).map_err(|error| {
                let what = format!("line {} of {}: {error}; delete the file to begin anew", number + 1, path.display());
                io::Error::new(io::ErrorKind::InvalidData, what)
            })?;
            store.apply(entry);
        }
        Ok(store)
    }

    /// Writes what happened and takes it in. After an error nothing happened.
    pub(crate) fn record(&mut self, entry: Entry) -> io::Result<()> {
        let mut line = serde_json::to_vec(&entry)?;
        line.push(b'\n');
        if let Err(error) = self.file.write_all(&line) {
            // Half a line would spoil the next one.
            self.file.set_len(self.length)?;
            return Err(error);
        }
        self.length += line.len() as u64;
        self.apply(entry);
        Ok(())
    }

    pub(crate) fn payment(&self, reference: &str) -> Option<&Payment> {
        self.payments.get(reference)
    }

    pub(crate) fn payment_of_key(&self, key: &str) -> Option<&Payment> {
        self.payments.get(self.by_key.get(key)?)
    }

    /// A refund in the provider's shape.
    pub(crate) fn refund(&self, key: &str) -> Option<Value> {
        let refund = self.refunds.get(key)?;
        let payment = self.payments.get(&refund.payment)?;
        Some(json!({
            "id": refund.name, "object": "refund", "amount": refund.amount, "currency": payment.currency.to_ascii_lowercase(),
            "payment_intent": refund.payment, "metadata": {REFUND_METADATA: key}, "status": "succeeded",
        }))
    }

    /// Every payment that is due at that time, and when the next one after it is.
    pub(crate) fn due(&self, now: u64) -> (Vec<String>, Option<u64>) {
        let (mut due_now, mut next) = (Vec::new(), None);
        for payment in self.payments.values() {
            match payment.state {
                State::Processing { due } if due <= now => due_now.push(payment.reference.clone()),
                State::Processing { due } => next = Some(next.map_or(due, |next: u64| next.min(due))),
                _ => {}
            }
        }
        (due_now, next)
    }

    /// Callbacks that wait, oldest first: number of the delivery, and body.
    pub(crate) fn undelivered(&self) -> Vec<(u64, String)> {
        self.undelivered.iter().map(|(number, body)| (*number, body.clone())).collect()
    }

    fn apply(&mut self, entry: Entry) {
        match entry {
            Entry::Created { reference, key, amount, currency, return_url } => {
                self.by_key.insert(key.clone(), reference.clone());
                let state = State::Waiting;
                let payment =
                    Payment { reference: reference.clone(), key, amount, currency, return_url, refunded: 0, state };
                self.payments.insert(reference, payment);
            }
            Entry::Declined { reference, at } => {
                self.turn(&reference, State::Declined);
                self.tell("payment_intent.payment_failed", &reference, at, 1);
            }
            Entry::Processing { reference, at, due } => {
                self.turn(&reference, State::Processing { due });
                self.tell("payment_intent.processing", &reference, at, 1);
            }
            Entry::Paid { reference, at, callbacks } => {
                self.turn(&reference, State::Paid);
                self.tell("payment_intent.succeeded", &reference, at, callbacks);
            }
            Entry::Cancelled { reference, at } => {
                self.turn(&reference, State::Cancelled);
                self.tell("payment_intent.canceled", &reference, at, 1);
            }
            Entry::Refunded { refund, reference, key, amount, at } => {
                self.refunds.insert(key, Refund { name: refund, payment: reference.clone(), amount });
                if let Some(payment) = self.payments.get_mut(&reference) {
                    payment.refunded += amount;
                }
                self.tell("charge.refunded", &reference, at, 1);
            }
            Entry::Delivered { delivery } => drop(self.undelivered.remove(&delivery)),
        }
    }

    fn turn(&mut self, reference: &str, state: State) {
        if let Some(payment) = self.payments.get_mut(reference) {
            payment.state = state;
        }
    }

    fn tell(&mut self, kind: &str, reference: &str, at: u64, copies: u32) {
        let Some(payment) = self.payments.get(reference) else { return };
        let object = if kind.starts_with("charge.") { payment.charge() } else { payment.shown() };
        self.events += 1;
        let body = json!({
            "id": format!("evt_sandbox_{}", self.events), "object": "event", "created": at / 1_000, "livemode": false,
            "type": kind, "data": {"object": object},
        })
        .to_string();
        for _ in 0..copies {
            self.deliveries += 1;
            self.undelivered.insert(self.deliveries, body.clone());
        }
    }
}

impl Payment {
    /// In the provider's shape.
    pub(crate) fn shown(&self) -> Value {
        let status = match self.state {
            State::Waiting | State::Declined => "requires_payment_method",
            State::Processing { .. } => "processing",
            State::Paid => "succeeded",
            State::Cancelled => "canceled",
        };
        let is_paid = self.state == State::Paid;
        json!({
            "id": self.reference, "object": "payment_intent", "amount": self.amount,
            "amount_received": if is_paid { self.amount } else { 0 }, "currency": self.currency.to_ascii_lowercase(),
            "livemode": false, "status": status, "metadata": {ATTEMPT_METADATA: self.key},
            "latest_charge": if is_paid { self.charge() } else { Value::Null },
            "last_payment_error": if self.state == State::Declined { json!({"code": "card_declined"}) } else { Value::Null },
        })
    }

    fn charge(&self) -> Value {
        json!({
            "id": format!("ch_{}", self.reference), "object": "charge", "payment_intent": self.reference, "amount": self.amount,
            "amount_captured": self.amount, "amount_refunded": self.refunded, "currency": self.currency.to_ascii_lowercase(),
            "livemode": false, "metadata": {ATTEMPT_METADATA: self.key},
        })
    }
}
