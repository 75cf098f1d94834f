//! The gateway's own answers.

use super::{Next, Session};
use crate::config::Config;
use crate::error::{Close, Refusal};
use crate::http::h1::encode::{self, Answer, Connection};
use crate::http::version::Version;
use crate::net::{self, Patience};
use crate::proxy::disclosure;
use crate::proxy::plan::Plan;
use crate::proxy::tally::Tally;

/// After this many of the gateway's own answers in a row, to a client that keeps sending, the worker's
/// other connections have their turn.
const FAIR_ANSWERS: usize = 16;

impl Session<'_> {
    /// Answers a request that is refused for what it is; the connection ends.
    pub(super) fn refuse(
        &mut self,
        config: &Config,
        tally: &mut Tally,
        refusal: Refusal,
        to_head: bool,
    ) -> Next {
        tally.refuse(refusal);
        let answer = Answer {
            status: refusal.status(),
            name: refusal.name(),
            connection: Connection::Close,
            to_head,
            version: Version::Http11,
            added: b"",
        };
        match self.send_answer(config, tally, &answer) {
            Ok(()) => Next::Close(Close::Refused),
            Err(next) => next,
        }
    }

    /// Answers a request that could not be served. The connection stays if the whole request, with its
    /// body, has been read.
    pub(super) fn answer(
        &mut self,
        config: &Config,
        tally: &mut Tally,
        plan: &Plan,
        status: u16,
        name: &'static str,
    ) -> Next {
        let ending = self.worker.gateway().ending(&self.dormant.listening);
        let close = plan.close_reason(self.body.is_complete(), ending);
        let connection = match close {
            None => Connection::KeepAlive,
            Some(_) => Connection::Close,
        };
        let answer = Answer {
            status,
            name,
            connection,
            to_head: plan.is_head,
            version: plan.version,
            added: b"",
        };
        match (self.send_answer(config, tally, &answer), close) {
            (Err(next), _) => next,
            (Ok(()), Some(close)) => Next::Close(close),
            (Ok(()), None) => {
                self.unpaused += 1;
                if self.unpaused >= FAIR_ANSWERS {
                    self.unpaused = 0;
                    net::yield_turn();
                }
                Next::Request
            }
        }
    }

    fn send_answer(
        &mut self,
        config: &Config,
        tally: &mut Tally,
        answer: &Answer<'_>,
    ) -> Result<(), Next> {
        let (mut bytes, mut added) = (Vec::new(), Vec::new());
        disclosure::put(&mut added, &config.gray, tally);
        let answer = Answer {
            added: &added,
            ..*answer
        };
        tally.note_head(encode::answer(&mut bytes, &answer));
        tally.status = answer.status;
        let patience = Patience::new(config.gateway.send_timeout);
        let sent = self.stream.write_all(&bytes, &patience);
        match sent {
            Ok(()) => tally.sent += bytes.len() as u64,
            Err(error) if error.kind() == std::io::ErrorKind::TimedOut => {
                return Err(Next::Abort(Close::SendTimeout));
            }
            Err(_) => return Err(Next::Close(Close::ClientGone)),
        }
        Ok(())
    }
}
