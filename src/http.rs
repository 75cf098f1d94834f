//! HTTP as bytes: here what all versions share, in [`h1`] HTTP/1 on the wire. Bytes in, verdict out; no
//! I/O.
//!
//! Nothing here knows sockets, clocks or lists, so that each rule is a table of byte strings. A
//! message that arrives in pieces gives the same result as in one: *incomplete*, *complete* and
//! *refused* are three outcomes.
//!
//! Syntax is RFC 9110 and RFC 9112 at their strictest: what two parsers could read in two ways is
//! refused rather than repaired. Heads are never passed through: what is sent on is written anew from
//! the parsed form (`encode`), so that nothing passes unseen. Lines that would come out byte for byte
//! the same are copied.

pub(crate) mod authentication;
pub(crate) mod bytes;
pub mod client;
pub(crate) mod cookies;
pub mod fields;
pub mod h1;
pub(crate) mod keep_alive;
pub mod limits;
pub mod proxy_protocol;
pub mod query;
pub(crate) mod request_id;
pub(crate) mod span;
pub mod subject;
pub mod version;
pub(crate) mod visitor;
