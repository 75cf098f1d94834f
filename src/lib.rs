//! Graygate: a gray-release (canary) gateway. Clients on the gray list reach the new version
//! (`pre`), everybody else the old one (`prod`). The lists live in Redis or in a file.
//!
//! # Two planes
//!
//! The *data plane* is N workers, each a thread that serves its connections in a straight,
//! blocking style. It never waits for Redis, for a lock between workers, or for a log. The
//! *control plane* is plain threads: they read lists, write logs, answer the admin listener. They
//! meet at [`snapshot`]s, which are replaced by one pointer swap, and at a flag for the end.
//!
//! # The map, from the top
//!
//! | module | what it is for |
//! |---|---|
//! | [`cli`] | what the command line can ask for, one file a command |
//! | [`run`] | the order of the start, of a reload, and of the end |
//! | [`admin`] | `/healthz`, `/lists`, `/explain`, `/config`, `/metrics` |
//! | [`fleet`] | the gateways on one Redis, as they know of each other |
//! | [`store`] | where lists come from, and how they come into force |
//! | [`proxy`] | listeners, a connection (`session`), a request (`exchange`), bodies and tunnels (`body`) |
//! | [`upstream`] | connecting to peers, idle connections |
//! | [`route`] | who is served by whom, and why; pure |
//! | [`logs`] | records and their writers |
//! | [`config`] | the ini file |
//! | [`lists`] | the lists as values; pure |
//! | [`http`] | HTTP as bytes: heads, framing, chunks; what a proxy in front says before them; no I/O |
//! | [`process`] | signals, pid file, privileges, threads that are not to be missed |
//! | [`net`] | sockets and coroutines: the only place that names the runtime |
//! | [`memory`] | buffers, memory kept for reuse, advice to the kernel |
//! | [`snapshot`], [`metrics`], [`error`] | values that every layer speaks of |
//!
//! Imports go downwards in this table. `http`, `lists` and `route` know no sockets, clocks,
//! threads or Redis; only `proxy` knows both `route` and `upstream`.
//!
//! `docs/architecture.md` has the picture, the states of a session and of an exchange, the invariants,
//! where to change what, and the vocabulary.
//!
//! # How a request flows
//!
//! [`proxy::listeners`] accepts and gives the connection to a worker. `session` reads the head under a
//! deadline, [`http`] judges it and finds the client's address, [`route::decide`](fn@route::decide) takes one
//! snapshot of the lists and names the pool. Only then the head for the peer is written. `exchange` tries
//! the pool's peers, `relay` streams the bodies. One line in the access log, a few counters, next request.
//!
//! # What holds everywhere
//!
//! - Every wait has a deadline, every buffer, queue and number of tries a bound.
//! - Every refusal, failure and close has one name, see [`error`].
//! - A connection lives and dies on one worker, so what is a worker's own needs no lock.

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
pub mod route;
pub mod run;
pub mod snapshot;
pub mod store;
pub mod upstream;
