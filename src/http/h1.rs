//! HTTP/1 on the wire: heads, framing, chunked coding, and how each is written anew (RFC 9112).

pub mod body;
pub mod chunked;
pub mod encode;
pub mod framing;
pub mod head;
pub(crate) mod runs;
