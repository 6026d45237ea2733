//! The real code under a fake disk, from a seed.

pub mod disk;
