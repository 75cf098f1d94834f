//! What stands between what a store says and what comes into force: lists that settle, and changes that are
//! held until somebody lets them in.

pub(crate) mod door;
pub mod guard;
