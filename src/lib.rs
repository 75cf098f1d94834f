//! Graygate: a gray-release (canary) gateway. Clients on the gray list reach the new version
//! (`pre`), everybody else the old one (`prod`). The lists live in Redis or in a file.
//!
//! # Two planes
//!
//! The *data plane* is N workers, each a thread that serves its connections in a straight,
//! blocking style. It never waits for Redis, for a lock between workers, or for a log. The
//! *control plane* is plain threads: they read lists, write logs, answer the admin listeners. They
//! meet at [`snapshot`]s, which are replaced by one pointer swap, at [`metrics`], which one worker writes
//! and anybody may read, at the queues of the [`logs`], and at a flag for the end.
//!
//! # The map, from the top
//!
//! | module | what it is for |
//! |---|---|
//! | [`cli`] | what the command line can ask for, one file a command |
//! | [`run`] | the order of the start, of a reload, and of the end |
//! | [`admin`] | `/healthz`, `/lists`, `/peers`, `/explain`, `/config`, `/metrics`; accepting what is held |
//! | [`release`] | whether the new version is worse than the old one; moving a release forward and back |
//! | [`fleet`] | how the gateways on one Redis know of each other: the heartbeat |
//! | [`store`] | where lists come from, and how they come into force |
//! | [`proxy`] | listeners, a connection (`session`), a request (`exchange`), bodies and tunnels (`body`) |
//! | [`upstream`] | choosing a peer, connecting to it, idle connections |
//! | [`route`] | who is served by whom, and why; pure |
//! | [`logs`] | the access log's line, the error log's events, and their writers |
//! | [`metrics`] | counters, a set for each worker |
//! | [`config`] | the ini file, and what a reload changes |
//! | [`lists`] | the lists as values: entries, ranges, findings; pure |
//! | [`http`] | HTTP as bytes: heads, framing, chunks; the PROXY protocol; who the client is; no I/O |
//! | [`process`] | signals, pid file, privileges, threads that are started again when they panic |
//! | [`net`] | sockets, coroutines, deadlines: the only place that calls the runtime |
//! | [`memory`] | buffers, memory kept for reuse, advice to the kernel |
//! | [`snapshot`], [`error`] | values that every layer uses; `error` names what can go wrong |
//!
//! Imports go downwards in this table. `http`, `lists` and `route` know no sockets, clocks,
//! threads or Redis; only `proxy` knows both `route` and `upstream`.
//!
//! `docs/architecture.md` has the picture, the states of a session and of an exchange, the invariants,
//! where to change what, and the vocabulary.
//!
//! # How a request flows
//!
//! [`proxy::listeners`] accepts a connection and gives it to a worker, where it is a `session`. That reads
//! the head under a deadline. The head is judged (`proxy::plan`, by the rules of [`http`]), the client's
//! address is found in it ([`http::client`]), and [`route::decide`](fn@route::decide) names the pool, by one
//! snapshot of the lists. Only then is the head for the peer written ([`http::h1::encode`]). `exchange`
//! tries the pool's peers (`upstream::choose`) until one answers, and `body` streams
//! what follows the heads. One line in the access log, a few counters, next request.
//!
//! # What holds everywhere
//!
//! - Every wait of a session has a deadline, every buffer, queue and number of tries a bound.
//! - Every refusal, failure and close has one name, see [`error`].
//! - A connection stays on one worker from its first byte to its last, so what is a worker's own needs no
//!   lock.

pub mod admin;
pub mod cli;
pub mod config;
pub mod error;
pub mod fleet;
pub mod http;
pub mod lists;
pub mod logs;
pub mod memory;
pub mod metrics;
pub mod net;
pub mod process;
pub mod proxy;
pub mod release;
pub mod route;
pub mod run;
pub mod snapshot;
pub mod store;
pub mod upstream;
