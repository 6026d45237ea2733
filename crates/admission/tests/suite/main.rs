//! Admission from outside: verdicts, keys, failures that others shipped, the gates' view, and a comparison with the naive model.

mod counter;
mod failures;
mod idempotency;
mod payments;
mod precedence;
mod properties;
mod twin;
mod verdicts;
mod view;
