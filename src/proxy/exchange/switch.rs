//! The switch to another protocol, once the peer has agreed to it.

use std::io;
use std::rc::Rc;

use super::{Exchange, Outcome, Stop, Upstream, client_lost};
use crate::error::Close;
use crate::http::h1::encode::{self, Connection, ResponseToClient};
use crate::http::h1::framing::Framing;
use crate::lists::PoolName;
use crate::net::Patience;
use crate::proxy::body::tunnel::{self, Recall, Silence, Twins};
use crate::proxy::disclosure;
use crate::proxy::downstream::{Downstream, Wait};
use crate::proxy::recalls::{Held, TunnelRequest};
use crate::proxy::workspace::Workspace;
use crate::route::Reason;

impl<D: Downstream> Exchange<'_, D> {
    /// Passes the 101 on and carries bytes both ways until the tunnel ends.
    // Out of line: its locals would lie on the stack of every other request, too.
    #[inline(never)]
    pub(super) fn switch_protocols(&mut self, mut upstream: Upstream) -> Result<Outcome, Stop> {
        // Before the client is told, since after that there is no way back.
        let twins = self.twins(&upstream)?;
        upstream.in_use.become_tunnel();
        upstream.stream.probe();
        let Workspace {
            response: head,
            response_options: options,
            added,
            ..
        } = &mut *self.workspace;
        added.clear();
        disclosure::put(added, &self.config.gray, self.tally);
        let response = ResponseToClient {
            head,
            bytes: upstream.buffer.filled(),
            options,
            framing: Framing::None,
            version: self.plan.version,
            connection: Connection::Upgrade,
            added,
        };
        let head_length = self.downstream.head(&response);
        self.tally.note_head(head_length);
        self.tally.status = head.status;
        let tells_its_end = encode::is_websocket(&head.fields, upstream.buffer.filled());
        upstream.buffer.consume(head.len);
        // What the peer has sent after its head belongs to the new protocol already, and so does what
        // the client has sent after its own.
        let limit = self.config.gateway.send_timeout;
        let passed = self.pass_behind_head(upstream.buffer.filled(), &Patience::new(limit));
        // From here on, both sides must be able to see it if anything is lost.
        if let Err(error) = passed {
            upstream.stream.reset();
            return Err(Stop::Over(tunnel_lost(&error)));
        }
        // How long a tunnel stays, and how it ends, is nobody's failure.
        self.tally.count_unit(self.worker);
        let early = self.buffer.filled();
        self.tally.received += early.len() as u64;
        let limit = self.config.gateway.tunnel_timeout;
        let sent = upstream.stream.write_all(early, &Patience::new(limit));
        self.buffer.consume(usize::MAX);
        upstream.buffer.release();
        self.buffer.release();
        if sent.is_err() {
            upstream.stream.reset();
            return Ok(Outcome::Abort(Close::TunnelEnded));
        }
        let recall = self.recall(&twins);
        let held = self.hold(recall.as_ref());
        let worker = Rc::clone(self.worker);
        let silence = Silence {
            limit,
            in_stop: Box::new(move || {
                let stops = worker.gateway().ends_silent_tunnels();
                stops.then(|| worker.config.snapshot().gateway.drain_tunnel_timeout)
            }),
            tells_its_end,
            recall: recall.clone(),
        };
        let carried = match tunnel::carry(self.transport, &upstream.stream, twins, silence) {
            Ok(carried) => carried,
            Err(error) => {
                log::error!("tunnel-failed error={:?}", error.to_string());
                upstream.stream.reset();
                return Ok(Outcome::Abort(Close::TunnelEnded));
            }
        };
        drop(held);
        let metrics = self.worker.metrics();
        let down = carried.down.unwrap_or_default();
        self.tally.received += carried.up;
        self.tally.sent += down;
        metrics.upstream_sent.add(carried.up);
        metrics.upstream_received.add(down);
        if carried.down.is_none() {
            metrics.panics.increment();
            return Ok(Outcome::Abort(Close::Panic));
        }
        let is_recalled = recall.is_some_and(|it| it.is_over());
        let close = match carried.stopped {
            _ if is_recalled => Close::TakenBack,
            true => Close::Draining,
            false => Close::TunnelEnded,
        };
        Ok(match carried.cut {
            true => Outcome::Abort(close),
            false => Outcome::Close(close),
        })
    }

    /// What ends the tunnel if `pre` is taken back from its client: nothing if it has another pool, or is a
    /// tester.
    fn recall(&self, twins: &Twins<D::Transport>) -> Option<Rc<Recall>> {
        let is_pre = self.tally.pool == Some(PoolName::Pre);
        let is_recallable = is_pre && self.tally.reason != Some(Reason::Forced);
        is_recallable.then(|| Rc::new(Recall::of(self.transport, twins)))
    }

    /// Has the worker look after it.
    fn hold(&self, recall: Option<&Rc<Recall>>) -> Option<Held<'_>> {
        let recall = Rc::clone(recall?);
        let request = TunnelRequest {
            head: self.workspace.asking.as_slice().into(),
            client: self.tally.client,
            by_proxy: self.plan.by_proxy,
            visitor: self.tally.visitor,
            peer: self.tally.peer?,
            service: self.candidates.service(),
        };
        let worker = self.worker;
        let (serving, config) = (worker.serving.snapshot(), worker.config.snapshot());
        Some(worker.recalls.hold(request, recall, &serving, &config))
    }

    /// Writes the head that was passed on, and these bytes after it.
    fn pass_behind_head(&mut self, bytes: &[u8], patience: &Patience) -> io::Result<()> {
        let wait = Wait {
            patience,
            until_readable: false,
        };
        let (some, taken) = self.downstream.piece(bytes, wait);
        taken?;
        let (rest, written) = self.downstream.flush(wait);
        written?;
        self.tally.sent += (some + rest) as u64;
        Ok(())
    }
}

/// How a tunnel ends if the answer cannot be passed on to the client.
fn tunnel_lost(error: &io::Error) -> Outcome {
    match client_lost(error) {
        Outcome::Close(close) => Outcome::Abort(close),
        outcome => outcome,
    }
}
