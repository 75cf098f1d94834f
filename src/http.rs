//! HTTP as bytes: what is common to its versions here, HTTP/1 on the wire in [`h1`]. Bytes in, verdict out;
//! no I/O.
//!
//! Nothing here knows sockets, clocks or lists, so that each rule is a table of byte strings. A
//! message that arrives in pieces gives the same result as in one: *incomplete*, *complete* and
//! *refused* are three outcomes.
//!
//! Syntax is RFC 9110 and RFC 9112 at their strictest: what two parsers could read in two ways is
//! refused rather than repaired. Heads are never copied through: what goes on is written anew
//! from the parsed form (`encode`), so that nothing unseen passes; where a line's bytes are just what
//! would be written, they are copied, which is the same.

pub mod authentication;
pub mod bytes;
pub mod client;
pub mod fields;
pub mod h1;
pub mod limits;
pub mod proxy_protocol;
pub(crate) mod span;
pub mod version;
