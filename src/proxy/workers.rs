//! What a worker can be asked to do: serve a connection, hand over its log lines, end its idle waits.
//! Its own state is created at the first call, and stays with its thread.

use std::cell::OnceCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::gateway::Gateway;
use super::session::{self, Arrival, Sessions};
use super::worker::Worker;
use crate::net::{self, Accepted};

thread_local! {
    static SESSIONS: OnceCell<Rc<Sessions>> = const { OnceCell::new() };
}

/// The calling worker's own; created at the first call.
fn here(gateway: &Arc<Gateway>) -> Rc<Sessions> {
    SESSIONS.with(|cell| Rc::clone(cell.get_or_init(|| begin(Arc::clone(gateway)))))
}

fn begin(gateway: Arc<Gateway>) -> Rc<Sessions> {
    let sessions = Rc::new(Sessions::new(Worker::new(gateway)));
    let housekeeper = Rc::clone(&sessions);
    net::set_housekeeping(move || {
        housekeeper.worker.housekeeping(|now| {
            session::sweep_parked(&housekeeper, now);
            housekeeper.has_parked()
        })
    });
    session::watch_parked(&sessions);
    sessions
}

/// Serves a connection, on the calling worker, until it ends or is parked. A panic ends this connection
/// only. Returns it when the worker has no descriptor for it.
///
/// # Errors
/// The connection.
pub(super) fn serve(
    gateway: &Arc<Gateway>,
    connection: Accepted,
    arrival: &Arrival,
) -> Result<(), Accepted> {
    session::serve(&here(gateway), connection, arrival)
}

/// Hands the workers' remaining lines over to the access log's writer.
pub(crate) fn flush_access_logs(gateway: &Arc<Gateway>) {
    let (done, outcome) = crossbeam_channel::unbounded();
    let of_workers = Arc::clone(gateway);
    let flush = move |_| {
        here(&of_workers).worker.access_log.flush();
        let _ = done.send(());
    };
    if net::on_each_worker(flush).is_ok() {
        for _ in 0..net::workers() {
            // A worker that does not answer keeps its lines.
            let _ = outcome.recv_timeout(Duration::from_secs(1));
        }
    }
    let listening = gateway.listening.load();
    listening.iter().for_each(|it| it.own_lines().tell_rest());
}

/// Ends the idle waits of every worker, so that each session notices the drain.
///
/// # Errors
/// As [`net::spawn`].
pub(super) fn interrupt_idle(gateway: &Arc<Gateway>) -> io::Result<()> {
    let gateway = Arc::clone(gateway);
    net::on_each_worker(move |_| {
        net::interrupt_idle();
        session::sweep_parked(&here(&gateway), Instant::now());
    })
}
