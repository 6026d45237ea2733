//! The program against real servers of a cluster, each started for one test.

mod deployment;
mod preflight;
mod serving;
