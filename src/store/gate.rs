//! Between what a store says and what comes into force: lists wait here until they settle, and
//! suspicious changes until somebody accepts them.

pub(crate) mod door;
pub mod guard;
mod listed;
