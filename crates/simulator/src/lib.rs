//! The real code under a fake disk and fake clocks, from a seed: owner, chain, books and clients, judged by a naive model and by
//! the auditor. The same seed gives the same bytes. Nothing here is used by the engine.

mod bookkeeping;
pub mod disk;
mod foresight;
mod hour;
mod judge;
mod life;
pub mod naive;
mod notes;
mod plan;
mod provider;
mod shoppers;
mod simulation;

pub use hour::{Hour, HourTally, live_an_hour};
pub use simulation::{Failure, Outcome, SimulationOptions, Tally, simulate};
