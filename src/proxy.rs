//! The data plane: from an accepted connection to the last byte of its last response.
//!
//! From the top, and imports go downwards here, too:
//!
//! | module | what it is for |
//! |---|---|
//! | [`listeners`] | accepts connections and distributes them; the drain that ends them all |
//! | `workers` | what a worker can be asked for: serve a connection, flush its log, end idle waits |
//! | `session` | one downstream connection: reads heads, keeps the connection, parks it or closes it |
//! | `exchange` | one request: the attempts on peers, in wire order |
//! | `pinned` | connections to peers that serve one client connection only |
//! | `disclosure` | what clients are told of the decision, where the settings say so |
//! | `tally` | what is noted about a request, for the access log and the counters |
//! | `worker` | what one worker has for its requests; none of it needs a lock |
//! | `reports`, `claims`, `kept_for`, `workspace`, `logged_head` | parts of what a worker has |
//! | `request_ids`, `visitors` | ids for requests and for visitors that have none |
//! | `recalls` | which tunnels end because `pre` was taken back from their clients |
//! | `chooser` | which peer a worker asks next |
//! | [`units`] | which requests are counted for the verdict on a release |
//! | `plan` | what a request asks for |
//! | `http1` | a client that speaks HTTP/1, and a plain socket as its transport |
//! | `body` | bodies in both directions, uploads, tunnels |
//! | `downstream` | a client as the exchange and the bodies see it, whatever it speaks |
//! | `gateway` | what all workers share: snapshots, counters (each worker its own), the flag for a drain |
//! | `listening` | an address at which the gateway listens, as its connections know it |
//! | [`moved`] | connections that go on in another process, as that one has to know them |
//! | [`doubts`] | doubts about what trusted proxies say |
//! | `failsafe` | clean-up after a panic, which ends one connection only |

mod body;
mod chooser;
mod claims;
mod disclosure;
pub mod doubts;
mod downstream;
mod exchange;
mod failsafe;
mod gateway;
mod http1;
mod kept_for;
pub mod listeners;
mod listening;
mod logged_head;
pub mod moved;
mod pinned;
mod plan;
mod recalls;
mod reports;
mod request_ids;
mod session;
mod tally;
pub mod units;
mod visitors;
mod worker;
pub(crate) mod workers;
mod workspace;

pub use gateway::Gateway;
pub use listening::Listening;
