//! The admin listeners, for operators and their tools: `/healthz`, `/lists`, `/peers`, `/explain`, `/config`
//! and `/metrics`; and `POST /lists/accept?digest=…`, which accepts a held change.
//!
//! There are three, each with rights of its own (`door`): a Unix socket, which serves everything to root and
//! the gateway's group; an address at which the pages can be read; and one for `/metrics` and `/healthz`
//! alone.
//!
//! | module | what it is for |
//! |---|---|
//! | `door` | what may be asked where |
//! | `socket` | the file of the Unix socket: who may connect, and whether a living process has it |
//! | `token` | what changes over TCP require |
//! | `listener` | the threads of a listener: one request per connection, a limited number at a time |
//! | `requests` | which page is asked for, and who may have it |
//! | `pages` | what a page says |
//! | `degraded` | what a gateway that serves lacks |
//! | `metrics` | the counters as Prometheus text |
//! | `view` | what all of them look at |

mod answer;
mod degraded;
pub(crate) mod door;
mod host;
pub(crate) mod listener;
mod metrics;
pub(crate) mod pages;
pub(crate) mod query;
pub(crate) mod requests;
mod served;
pub(crate) mod socket;
pub(crate) mod token;
pub(crate) mod view;
