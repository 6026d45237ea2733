//! A cluster of real servers, and what breaks in it. Each test has a sale of its own; the cluster is shared, and healed in between.

mod belonging;
mod crowd;
mod events;
mod faults;
mod limits;
mod named;
mod pages;
mod paths;
mod payments;
mod streams;
