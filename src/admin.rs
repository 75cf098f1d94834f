//! The admin listener, for operators and their tools: `/healthz`, `/lists`, `/explain`, `/config` and
//! `/metrics`; and `POST /lists/accept?digest=…`, which lets a held change in.

mod host;
pub(crate) mod listener;
mod lists;
mod metrics;
