//! Outgoing heads, written anew from what was parsed.
//!
//! Fields that mean nothing to a gateway are passed on as received, in their order, names and values
//! byte for byte; lines that would be written exactly as they were received are copied, several at a
//! time. Everything that frames a message, belongs to one connection, or says who the client is, is
//! written here and not copied, except for the length of a body that does not follow (in the answer to a
//! HEAD, or a 304), which frames nothing.

mod answer;
mod chunked;
mod lines;
mod request;
mod response;
mod text;
mod upgrade;

pub use chunked::{chunk_line, last_chunk};
pub use request::{Amendment, RequestToPeer, request};
pub use response::{Connection, ResponseToClient, interim, response};
pub use upgrade::wants_upgrade;

pub(crate) use answer::{Answer, answer, refusal};
pub(crate) use request::max_forwards;
pub(crate) use text::put_ip;
pub(crate) use upgrade::{is_websocket, protocols_asked, switches_as_asked};
