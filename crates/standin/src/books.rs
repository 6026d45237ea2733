//! The provider's own books: every payment and refund, to the cent. Pure: no clock, no randomness, no input or output.
//!
//! Written without a look at the engine's side, so that a reconciliation compares two opinions.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

/// Where a payment stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The customer has it in hand.
    Waiting,
    /// The customer tried and was declined; may try again.
    Declined,
    /// A bank has it in hand; cannot be cancelled.
    Processing,
    /// Paid. Final.
    Succeeded,
    /// Ended without money. Final.
    Cancelled,
}

/// One payment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payment {
    /// The provider's name of it.
    pub reference: String,
    /// The idempotency key of its creation.
    pub key: String,
    /// What the engine keeps with it.
    pub metadata: BTreeMap<String, String>,
    /// What was asked for, in minor units.
    pub asked: u64,
    /// In which currency; ISO 4217, capital letters.
    pub asked_currency: String,
    /// The currency of everything below. The one asked for, unless another one was captured.
    pub currency: String,
    /// What the customer's bank has set aside.
    pub authorised: u64,
    /// What was taken from the customer.
    pub captured: u64,
    /// What went back to the customer, at most `captured`.
    pub refunded: u64,
    /// Where it stands.
    pub state: State,
    /// Whether it says that its money is real.
    pub live: bool,
}

/// One refund.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refund {
    /// The provider's name of it.
    pub reference: String,
    /// The payment's reference.
    pub payment: String,
    /// The idempotency key that it was asked for with.
    pub key: String,
    /// What the engine keeps with it.
    pub metadata: BTreeMap<String, String>,
    /// How much goes back.
    pub amount: u64,
    /// The payment's.
    pub currency: String,
}

/// Everything, as a reconciliation reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Captured in all, by currency.
    pub captured: BTreeMap<String, u64>,
    /// Refunded in all, by currency.
    pub refunded: BTreeMap<String, u64>,
    /// Every payment, in the order in which they were made.
    pub payments: Vec<Payment>,
    /// Every refund, in the order in which they were made.
    pub refunds: Vec<Refund>,
    /// How often more was asked back than there was.
    pub refunds_refused: u64,
}

/// Why something is not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such payment.
    Missing,
    /// The key was used for something else.
    KeyReused,
    /// The payment's state does not allow it.
    State,
    /// More than was captured and not given back yet, or nothing.
    TooMuch,
}

/// The books.
#[derive(Debug, Default)]
pub(crate) struct Books {
    payments: Vec<Payment>,
    refunds: Vec<Refund>,
    by_reference: HashMap<String, usize>,
    by_key: HashMap<String, usize>,
    refund_by_key: HashMap<String, usize>,
    refunds_refused: u64,
}

/// What a creation asks for.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// Idempotency key.
    pub(crate) key: String,
    /// Minor units.
    pub(crate) amount: u64,
    /// Capital letters.
    pub(crate) currency: String,
    /// What to keep with it.
    pub(crate) metadata: BTreeMap<String, String>,
    /// Real money.
    pub(crate) live: bool,
}

impl Books {
    /// Makes a payment, or finds the one made under that key; `true` if it is new.
    pub(crate) fn create(&mut self, asked: Asked) -> Result<(&Payment, bool), Refusal> {
        if let Some(&index) = self.by_key.get(&asked.key) {
            let known = &self.payments[index];
            let is_same = (known.asked, &known.asked_currency, &known.metadata)
                == (asked.amount, &asked.currency, &asked.metadata);
            return if is_same { Ok((known, false)) } else { Err(Refusal::KeyReused) };
        }
        let index = self.payments.len();
        let reference = format!("pi_{index:08}");
        self.by_key.insert(asked.key.clone(), index);
        self.by_reference.insert(reference.clone(), index);
        self.payments.push(Payment {
            reference,
            key: asked.key,
            metadata: asked.metadata,
            asked: asked.amount,
            asked_currency: asked.currency.clone(),
            currency: asked.currency,
            authorised: 0,
            captured: 0,
            refunded: 0,
            state: State::Waiting,
            live: asked.live,
        });
        Ok((&self.payments[index], true))
    }

    /// A payment.
    pub(crate) fn payment(&self, reference: &str) -> Result<&Payment, Refusal> {
        self.by_reference.get(reference).map(|&index| &self.payments[index]).ok_or(Refusal::Missing)
    }

    /// The refunds of a payment.
    pub(crate) fn refunds<'a>(&'a self, reference: &'a str) -> impl Iterator<Item = &'a Refund> {
        self.refunds.iter().filter(move |refund| refund.payment == reference)
    }

    /// The customer's bank says no for now.
    pub(crate) fn decline(&mut self, reference: &str) -> Result<&Payment, Refusal> {
        self.turn(reference, &[State::Waiting, State::Declined], |payment| payment.state = State::Declined)
    }

    /// The customer has agreed and a bank works on it.
    pub(crate) fn process(&mut self, reference: &str) -> Result<&Payment, Refusal> {
        self.turn(reference, &[State::Waiting, State::Declined], |payment| {
            payment.state = State::Processing;
            payment.authorised = payment.asked;
        })
    }

    /// Takes the money, once.
    pub(crate) fn capture(&mut self, reference: &str, amount: u64, currency: &str) -> Result<&Payment, Refusal> {
        self.turn(reference, &[State::Waiting, State::Declined, State::Processing], |payment| {
            payment.state = State::Succeeded;
            payment.authorised = amount;
            payment.captured = amount;
            currency.clone_into(&mut payment.currency);
        })
    }

    /// Ends it without money.
    pub(crate) fn cancel(&mut self, reference: &str) -> Result<&Payment, Refusal> {
        self.turn(reference, &[State::Waiting, State::Declined], |payment| payment.state = State::Cancelled)
    }

    /// Gives money back, or finds the refund that was made under that key; `true` if it is new.
    pub(crate) fn refund(
        &mut self,
        key: &str,
        reference: &str,
        amount: u64,
        metadata: BTreeMap<String, String>,
    ) -> Result<(&Refund, bool), Refusal> {
        if let Some(&index) = self.refund_by_key.get(key) {
            let known = &self.refunds[index];
            let is_same = (known.payment.as_str(), known.amount, &known.metadata) == (reference, amount, &metadata);
            return if is_same { Ok((known, false)) } else { Err(Refusal::KeyReused) };
        }
        let index = *self.by_reference.get(reference).ok_or(Refusal::Missing)?;
        let payment = &mut self.payments[index];
        if amount == 0 || amount > payment.captured - payment.refunded {
            self.refunds_refused += 1;
            return Err(Refusal::TooMuch);
        }
        payment.refunded += amount;
        let place = self.refunds.len();
        self.refund_by_key.insert(key.to_owned(), place);
        self.refunds.push(Refund {
            reference: format!("re_{place:08}"),
            payment: reference.to_owned(),
            key: key.to_owned(),
            metadata,
            amount,
            currency: payment.currency.clone(),
        });
        Ok((&self.refunds[place], true))
    }

    /// Idempotency keys do not live for ever.
    pub(crate) fn forget_keys(&mut self) {
        self.by_key.clear();
        self.refund_by_key.clear();
    }

    /// Everything.
    pub(crate) fn totals(&self) -> Totals {
        let (payments, refunds) = (self.payments.clone(), self.refunds.clone());
        let mut totals = Totals { payments, refunds, refunds_refused: self.refunds_refused, ..Totals::default() };
        for payment in &self.payments {
            *totals.captured.entry(payment.currency.clone()).or_default() += payment.captured;
            *totals.refunded.entry(payment.currency.clone()).or_default() += payment.refunded;
        }
        totals
    }

    fn turn(
        &mut self,
        reference: &str,
        from: &[State],
        change: impl FnOnce(&mut Payment),
    ) -> Result<&Payment, Refusal> {
        let index = *self.by_reference.get(reference).ok_or(Refusal::Missing)?;
        let payment = &mut self.payments[index];
        if !from.contains(&payment.state) {
            return Err(Refusal::State);
        }
        change(payment);
        Ok(payment)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{Asked, Books, Refusal, State};

    fn asked(key: &str, amount: u64) -> Asked {
        Asked { key: key.to_owned(), amount, currency: "EUR".to_owned(), metadata: BTreeMap::new(), live: false }
    }

    fn with_one() -> (Books, String) {
        let mut books = Books::default();
        let reference = books.create(asked("a", 1_500)).unwrap().0.reference.clone();
        (books, reference)
    }

    #[test]
    fn one_key_makes_one_payment() {
        let (mut books, reference) = with_one();
        let (again, is_new) = books.create(asked("a", 1_500)).unwrap();
        assert_eq!((again.reference.as_str(), is_new), (reference.as_str(), false));
        assert_eq!(books.create(asked("a", 1_501)).unwrap_err(), Refusal::KeyReused);
        assert_eq!(books.totals().payments.len(), 1);
    }

    #[test]
    fn money_is_taken_once_and_never_after_a_cancellation() {
        let (mut books, reference) = with_one();
        books.decline(&reference).unwrap();
        books.process(&reference).unwrap();
        assert_eq!(books.cancel(&reference), Err(Refusal::State));
        books.capture(&reference, 1_500, "EUR").unwrap();
        assert_eq!(books.capture(&reference, 1_500, "EUR"), Err(Refusal::State));
        assert_eq!(books.cancel(&reference), Err(Refusal::State));
        let other = books.create(asked("b", 100)).unwrap().0.reference.clone();
        books.cancel(&other).unwrap();
        assert_eq!(books.capture(&other, 100, "EUR"), Err(Refusal::State));
        assert_eq!(books.totals().captured["EUR"], 1_500);
    }

    #[test]
    fn no_more_goes_back_than_was_taken_and_one_key_gives_back_once() {
        let (mut books, reference) = with_one();
        let refund = |books: &mut Books, key: &str, amount| {
            books.refund(key, &reference, amount, BTreeMap::new()).map(|(_, new)| new)
        };
        assert_eq!(refund(&mut books, "r0", 1), Err(Refusal::TooMuch), "nothing was captured yet");
        books.capture(&reference, 1_500, "EUR").unwrap();
        assert_eq!(refund(&mut books, "r0", 0), Err(Refusal::TooMuch));
        assert_eq!(refund(&mut books, "r0", 1_501), Err(Refusal::TooMuch));
        assert_eq!(refund(&mut books, "r0", 1_000), Ok(true));
        assert_eq!(refund(&mut books, "r0", 1_000), Ok(false));
        assert_eq!(refund(&mut books, "r0", 999), Err(Refusal::KeyReused));
        assert_eq!(refund(&mut books, "r1", 501), Err(Refusal::TooMuch));
        assert_eq!(refund(&mut books, "r1", 500), Ok(true));
        let totals = books.totals();
        assert_eq!((totals.captured["EUR"], totals.refunded["EUR"]), (1_500, 1_500));
        assert_eq!(totals.payments[0].state, State::Succeeded);
        assert_eq!(books.refunds(&reference).count(), 2);
    }
}
