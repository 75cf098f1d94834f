//! The data plane: from an accepted connection to the last byte of its last response.
//!
//! From the top, and imports go downwards here, too:
//!
//! | module | what it is for |
//! |---|---|
//! | [`listeners`] | accepts connections and shares them out; the end of all of them |
//! | [`workers`] | what a worker is called for: a connection, its log's last lines, the end of idle waits |
//! | `session` | one downstream connection: reads heads, keeps the connection, parks it or closes it |
//! | `exchange` | one request: the attempts on peers, in wire order |
//! | `pinned` | connections to peers that serve one client connection only |
//! | `tally` | what is noted of a request, for the access log and the counters |
//! | `worker` | what one worker has for its requests: no lock is needed for any of it |
//! | `reports`, `claims`, `workspace`, `logged_head` | parts of that |
//! | `plan` | what a request asks for |
//! | `http1` | a client that speaks HTTP/1, and what a plain socket is to it |
//! | `body` | bodies in both directions, uploads, tunnels |
//! | `downstream` | a client as the exchange and the bodies see it, whatever it speaks |
//! | `gateway` | what all workers share: cells that are read, counters of their own each, one flag |
//! | [`doubts`] | what trusted proxies have said and was not believed |
//! | `failsafe` | a panic ends its connection, and everything that belongs to it |

mod body;
mod claims;
pub mod doubts;
mod downstream;
mod exchange;
mod failsafe;
mod gateway;
mod http1;
pub mod listeners;
mod logged_head;
mod pinned;
mod plan;
mod reports;
mod session;
mod tally;
mod worker;
pub mod workers;
mod workspace;

pub use gateway::Gateway;
