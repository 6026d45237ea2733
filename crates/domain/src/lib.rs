//! The words and the pure rules of a flash sale: ids, money, time, sales, records, refusals, promises.
//!
//! Nothing here does input or output, reads a clock or draws a random number; every other crate speaks in these types.

pub mod clock;
pub mod fault;
pub mod human_check;
pub mod ids;
pub mod limits;
pub mod money;
pub mod payment;
pub mod promise;
pub mod record;
pub mod refusal;
pub mod role;
pub mod sale;
pub mod stage;

pub use clock::{ChainTime, Clock, milliseconds};
pub use human_check::HumanCheck;
pub use ids::{OrderSequence, Pseudonym, PurchaseId, PurchaseNumber, SaleId, SaleOrdinal, Unit, Units};
pub use money::{Currency, Money};
pub use payment::{AttemptStatus, ParkReason, ParkedPayment, PaymentFact, Received};
pub use promise::Promise;
pub use record::{Record, RecordKind};
pub use refusal::Refusal;
pub use role::{Right, Role};
pub use sale::{CouponDefinition, ItemDefinition, SaleDefinition, SalePhase};
pub use stage::Stage;
