//! A customer of one sale, who notes every purchase request before it leaves and what became of it.

use std::io;
use std::sync::Arc;

use crowd::notes::{AnsweredNote, SentNote};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use crate::sales::now_milliseconds;
use crate::server::Reach;
use crate::stream::Events;
use crate::wire::{Connection, Reply, Request};
use crate::{AUDIENCE, ISSUER, SECRET};

/// A shop's token for `subject`, good for an hour.
pub fn token_of(subject: &str) -> String {
    let expires = now_milliseconds() / 1_000 + 3_600;
    sign_with(
        SECRET,
        &Header::new(Algorithm::HS256),
        &json!({ "iss": ISSUER, "aud": AUDIENCE, "sub": subject, "exp": expires }),
    )
}

/// Any claims under any header and secret.
pub fn sign_with(secret: &str, header: &Header, claims: &Value) -> String {
    encode(header, claims, &EncodingKey::from_secret(secret.as_bytes())).expect("the claims can be signed")
}

/// Somebody with a token, and with a pass for one sale.
#[derive(Clone)]
pub struct Customer {
    reach: Arc<Reach>,
    name: String,
    sale: String,
    /// The access token.
    pub token: String,
    /// The pass; empty until one was taken.
    pub pass: String,
}

impl Customer {
    pub(crate) fn new(reach: Arc<Reach>, name: &str, sale: &str) -> Self {
        Self { reach, name: name.to_owned(), sale: sale.to_owned(), token: token_of(name), pass: String::new() }
    }

    /// Asks for a pass and keeps it when there is one.
    pub fn take_pass(&mut self) -> Reply {
        let reply = self.asks(Request::post(&format!("/v1/sales/{}/passes", self.sale)));
        if reply.status == 201 {
            self.pass = reply.text("pass");
        }
        reply
    }

    /// Sends any request with the customer's token.
    pub fn asks(&self, request: Request) -> Reply {
        request.bearer(&self.token).send(self.reach.public())
    }

    /// One unit, under this key.
    pub fn buy(&self, item: &str, key: &str) -> Reply {
        self.attempt(item, key, 1).send()
    }

    /// A purchase request that can still be changed.
    pub fn attempt(&self, item: &str, key: &str, quantity: u32) -> Attempt<'_> {
        let request = Request::post(&format!("/v1/sales/{}/items/{item}/purchases", self.sale))
            .bearer(&self.token)
            .header("doorbuster-pass", &self.pass)
            .header("idempotency-key", key)
            .json(&json!({ "quantity": quantity }));
        Attempt { customer: self, item: item.to_owned(), key: key.to_owned(), quantity, request }
    }

    /// A purchase as it stands.
    pub fn purchase(&self, purchase: &str) -> Reply {
        self.asks(Request::get(&format!("/v1/purchases/{purchase}")))
    }

    /// Asks for a ticket for a stream of events.
    pub fn take_ticket(&self, purchase: &str) -> Reply {
        self.asks(Request::post(&format!("/v1/purchases/{purchase}/stream-tickets")))
    }

    /// A stream of a purchase's events.
    pub fn watch(&self, purchase: &str) -> Events {
        Events::open(self.reach.public(), &self.take_ticket(purchase).is(201, "").text("location"))
    }

    /// An order as it stands.
    pub fn order(&self, order: &str) -> Reply {
        self.asks(Request::get(&format!("/v1/orders/{order}")))
    }

    /// Gives a hold back, and notes it when it is acknowledged; an error means that the outcome is unknown.
    pub fn try_cancel(&self, order: &str) -> io::Result<Reply> {
        let request = Request::post(&format!("/v1/orders/{order}/cancel")).bearer(&self.token);
        let reply = request.try_send(self.reach.public())?;
        if reply.status == 200 {
            self.reach.note(|notes| notes.cancelled(&reply.text("purchase")));
        }
        Ok(reply)
    }

    /// Gives a hold back.
    pub fn cancel(&self, order: &str) -> Reply {
        self.try_cancel(order).expect("the public listener answers")
    }
}

/// A purchase request before it leaves.
pub struct Attempt<'a> {
    customer: &'a Customer,
    item: String,
    key: String,
    quantity: u32,
    request: Request,
}

impl Attempt<'_> {
    /// Changes the request, but not what it buys.
    #[must_use]
    pub fn changed(mut self, change: impl FnOnce(Request) -> Request) -> Self {
        self.request = change(self.request);
        self
    }

    /// The request itself, for sending it without a note.
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// Notes it, sends it over a connection of its own, and notes the answer.
    ///
    /// # Panics
    /// When there is no whole answer.
    pub fn send(&self) -> Reply {
        self.try_send().unwrap_or_else(|error| panic!("{} under {}: {error}", self.item, self.key))
    }

    /// Notes it and sends it over a connection of its own. An error before the connection stands is not noted: nothing was sent.
    pub fn try_send(&self) -> io::Result<Reply> {
        self.try_send_on(&mut Connection::open(self.customer.reach.public())?)
    }

    /// Notes it, sends it over this connection, and notes the answer or that none came.
    pub fn try_send_on(&self, connection: &mut Connection) -> io::Result<Reply> {
        let Customer { reach, name, sale, .. } = self.customer;
        let sent = SentNote { sale, item: &self.item, customer: name, key: &self.key, quantity: self.quantity };
        let number = reach.note(|notes| notes.sent(&sent));
        match connection.ask(&self.request) {
            Ok(reply) => {
                note_answer(reach, number, &reply);
                if reply.status == 201 {
                    reach.keep_receipt(sale, &reply);
                }
                Ok(reply)
            }
            Err(error) => {
                reach.note(|notes| notes.lost(number));
                Err(error)
            }
        }
    }
}

fn note_answer(reach: &Reach, number: u64, reply: &Reply) {
    let (json, code) = (reply.json(), reply.code());
    let receipt = &json["receipt"];
    let answered = AnsweredNote {
        status: reply.status,
        code: &code,
        purchase: json["purchase"].as_str(),
        order: json["order"].as_str(),
        position: receipt["position"].as_u64().or(json["position"].as_u64()),
        record_hash: receipt["record_hash"].as_str(),
    };
    reach.note(|notes| notes.answered(number, &answered));
}
