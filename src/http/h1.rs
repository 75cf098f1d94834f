//! TODO-MODULE-DOC

pub mod body;
pub mod chunked;
pub mod encode;
pub mod framing;
pub mod head;
pub(crate) mod runs;
