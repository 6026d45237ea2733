//! A sale with an owner on a disk in memory, asked one turn at a time. The clocks stand still unless a test moves them.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use admission::{
    Answer, Command, Grant, GrantStatus, Guards, Owner, OwnerError, OwnerOptions, PurchaseRequest, Query, Request, Wish,
};
use chain::HeadSigner;
use chain::head::{pseudonym_commitment, slot_commitment};
use domain::record::{Counts, Created};
use domain::{
    ChainTime, CouponDefinition, Currency, ItemDefinition, ParkReason, ParkedPayment, Pseudonym, PurchaseId,
    PurchaseNumber, Refusal, SaleDefinition, SaleId, SaleOrdinal,
};
use simulator::disk::FakeDisk;

/// When every test begins, and when its sale opens.
pub(crate) const OPENS_AT: u64 = 1_800_000_000_000;
const FOLDER: &str = "sales/drop";
const SALE: SaleId = SaleId([3; 16]);

/// One item with that stock; limits that are in nobody's way.
pub(crate) fn definition(stock: u32) -> SaleDefinition {
    SaleDefinition {
        sale: "drop".to_owned(),
        title: "Drop".to_owned(),
        currency: Currency(*b"EUR"),
        passes_open_at: ChainTime(0),
        opens_at: ChainTime(OPENS_AT),
        closes_at: ChainTime(OPENS_AT + 600_000),
        spread_milliseconds: 0,
        hold_seconds: 60,
        grace_seconds: 5,
        pass_seconds: 600,
        grants_per_pass_max: 100,
        grants_per_customer_max: 100,
        limit_per_customer: 100,
        resale_delay_milliseconds: 1_000,
        unpaid_releases_max: 1_000,
        hold_extension_seconds: 900,
        coupons: Vec::new(),
        external_id: None,
        test: false,
        settle_after_seconds: 30,
        items: vec![item("boot", stock), item("sock", 1_000)],
    }
}

fn item(name: &str, stock: u32) -> ItemDefinition {
    let title = name.to_owned();
    let (sku, external_id) = (None, None);
    ItemDefinition {
        item: name.to_owned(),
        title,
        stock,
        price: 4_900,
        limit_per_customer: 100,
        sku,
        external_id,
        points: 0,
    }
}

/// A coupon of that hash.
pub(crate) fn coupon(hash: u64, percent: u8, uses_max: u32) -> CouponDefinition {
    CouponDefinition { code: None, hash: Some(hash), percent, uses_max }
}

/// A report that is not believed.
pub(crate) fn parked(evidence: u64, reason: u8) -> ParkedPayment {
    let reason = ParkReason::from_number(reason).unwrap();
    let reference = format!("pay_{evidence}").into_bytes();
    ParkedPayment { reason, evidence, amount: 4_900 + evidence, currency: Currency(*b"EUR"), reference }
}

/// The customer of that number; all of a customer's bytes differ from those of any other.
pub(crate) fn customer(number: u32) -> Pseudonym {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&chain::batch::hash(&[b"customer", &number.to_le_bytes()])[..16]);
    Pseudonym(bytes)
}

/// What a customer wishes: the first item, with a fresh pass and a slot at the opening.
pub(crate) fn wish(number: u32, quantity: u32) -> Wish {
    Wish {
        customer: customer(number),
        item: 0,
        quantity,
        coupon: 0,
        pass: u64::from(number) + 1,
        pass_expires_at: ChainTime(u64::MAX),
        slot_offset: 0,
    }
}

/// A wish under a key of its customer, with the ids that a gate computes.
pub(crate) fn request(wish: Wish, key: u32) -> PurchaseRequest {
    let mut purchase = [0; 12];
    purchase.copy_from_slice(&chain::batch::hash(&[&wish.customer.0, &key.to_le_bytes()])[..12]);
    let mut body_hash = [0; 16];
    let body = chain::batch::hash(&[&wish.item.to_le_bytes(), &wish.quantity.to_le_bytes()]);
    body_hash.copy_from_slice(&body[..16]);
    PurchaseRequest { wish, purchase: PurchaseId(purchase), key_hash: [key as u8; 16], body_hash }
}

/// A purchase as an owner takes it.
pub(crate) fn purchase(wish: Wish, key: u32) -> Command {
    Command::Purchase(request(wish, key))
}

/// The counter of one sale.
pub(crate) struct Counter {
    pub(crate) disk: FakeDisk,
    pub(crate) owner: Owner,
    pub(crate) wall: u64,
    pub(crate) monotonic: u64,
}

fn options() -> OwnerOptions {
    OwnerOptions { signer: HeadSigner::from_seed(&[5; 32]), slot_secret: [6; 32], guards: Guards::ON }
}

impl Counter {
    /// Opens the counter of a sale that opens now.
    pub(crate) fn new(definition: &SaleDefinition) -> Self {
        definition.validate().unwrap();
        let disk = FakeDisk::new(1);
        let created = Created {
            ordinal: SaleOrdinal(1),
            slot_commitment: slot_commitment(SALE, &[6; 32]),
            pseudonym_commitment: pseudonym_commitment(SALE, &[7; 32]),
            signing_key: options().signer.public_key(),
            definition: serde_json::to_vec(definition).unwrap(),
        };
        let clocks = (OPENS_AT, 0);
        let files = Arc::new(disk.clone());
        let owner = Owner::create(files, Path::new(FOLDER), SALE, created, options(), clocks).unwrap();
        let (wall, monotonic) = clocks;
        let mut counter = Self { disk, owner, wall, monotonic };
        counter.turn(Vec::new()).unwrap();
        counter
    }

    /// One turn with these requests; their answers in order.
    pub(crate) fn turn(&mut self, requests: Vec<Request>) -> Result<Vec<Answer>, OwnerError> {
        let mut inbox: VecDeque<(Request, ())> = requests.into_iter().map(|request| (request, ())).collect();
        let mut answers = Vec::new();
        let outcome = self.owner.step(self.wall, self.monotonic, &mut inbox, &mut answers);
        assert!(inbox.is_empty(), "a turn takes all that these tests ask");
        outcome.map(|()| answers.into_iter().map(|((), answer)| answer).collect())
    }

    /// One turn with these commands.
    pub(crate) fn decide(&mut self, commands: Vec<Command>) -> Vec<Answer> {
        self.turn(commands.into_iter().map(|command| Request::Decide(command, None)).collect()).unwrap()
    }

    /// One turn with one command.
    pub(crate) fn tell(&mut self, command: Command) -> Answer {
        self.decide(vec![command]).pop().unwrap()
    }

    /// One turn with one question.
    pub(crate) fn ask(&mut self, query: Query) -> Answer {
        self.turn(vec![Request::Read(query)]).unwrap().pop().unwrap()
    }

    /// A purchase that must be granted.
    pub(crate) fn hold(&mut self, wish: Wish, key: u32) -> Grant {
        granted(&self.tell(purchase(wish, key)))
    }

    /// Time passes on both clocks, a second at a time as the owner's thread turns while holds are open.
    pub(crate) fn pass_time(&mut self, milliseconds: u64) {
        let mut left = milliseconds;
        while left > 0 {
            let step = left.min(1_000);
            (self.wall, self.monotonic, left) = (self.wall + step, self.monotonic + step, left - step);
            self.turn(Vec::new()).unwrap();
        }
    }

    /// The process is killed and a new one takes over.
    pub(crate) fn restart(self) -> Self {
        let Self { disk, owner, wall, .. } = self;
        disk.kill_process();
        drop(owner);
        Self::start(disk, wall)
    }

    /// The power goes and comes back, and a new process takes over.
    pub(crate) fn lose_power(self) -> Self {
        let Self { disk, owner, wall, .. } = self;
        disk.lose_power();
        drop(owner);
        Self::start(disk, wall)
    }

    fn start(disk: FakeDisk, wall: u64) -> Self {
        let owner = Owner::open(Arc::new(disk.clone()), Path::new(FOLDER), options(), (wall, 0)).unwrap();
        Self { disk, owner, wall, monotonic: 0 }
    }

    /// Counts of the first item.
    pub(crate) fn counts(&self) -> Counts {
        self.owner.core().counts()[0]
    }

    /// The grant of that number.
    pub(crate) fn grant(&self, number: PurchaseNumber) -> Grant {
        self.owner.core().grant(number).unwrap()
    }
}

/// The grant in an answer.
pub(crate) fn granted(answer: &Answer) -> Grant {
    match answer {
        Answer::Granted(grant, _) => Grant::clone(grant),
        other => panic!("expected a grant, got {other:?}"),
    }
}

/// The grant in an answer, which must be held.
pub(crate) fn held(answer: &Answer) -> Grant {
    let grant = granted(answer);
    assert_eq!(grant.status, GrantStatus::Held);
    grant
}

/// The refusal in an answer.
pub(crate) fn refusal(answer: &Answer) -> Refusal {
    match answer {
        Answer::Refused { refusal, .. } => *refusal,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

/// Counts in the order free, held, sold, withdrawn.
pub(crate) fn counts(free: u32, held: u32, sold: u32, withdrawn: u32) -> Counts {
    Counts { free, held, sold, withdrawn }
}
