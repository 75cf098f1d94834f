//! The admin listener, for operators and their tools: `/healthz`, `/lists`, `/peers`, `/explain`, `/config`
//! and `/metrics`; and `POST /lists/accept?digest=…`, which accepts a held change.
//!
//! | module | what it is for |
//! |---|---|
//! | `listener` | the socket and its threads: one request per connection, a limited number at a time |
//! | `requests` | which page is asked for, and who may have it |
//! | `pages` | what a page says |
//! | `degraded` | what a gateway that serves lacks |
//! | `metrics` | the counters as Prometheus text |
//! | `view` | what all of them look at |

mod answer;
mod degraded;
mod host;
pub(crate) mod listener;
mod metrics;
pub(crate) mod pages;
mod query;
pub(crate) mod requests;
pub(crate) mod view;
