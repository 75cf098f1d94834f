//! What may be asked where.
//!
//! | | pages | lists of clients | changes |
//! |---|---|---|---|
//! | `socket` | all | shown | yes: its mode decides who connects |
//! | `listen` on loopback | all | with `expose = full` | with the token |
//! | `listen` elsewhere | all, with the token | with `expose = full` | with the token |
//! | `metrics` | `/metrics`, `/healthz` | none there | no |

use std::net::SocketAddr;

use crate::admin::token::Token;
use crate::config::{Expose, is_loopback};
use crate::error::AdminRefusal;

/// One way to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AdminDoor {
    /// `[admin] socket`.
    Socket,
    /// `[admin] listen`, at this address.
    Listen(SocketAddr),
    /// `[admin] metrics`.
    Metrics,
}

/// Which pages there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pages {
    All,
    /// `/metrics` and `/healthz`.
    Figures,
}

/// What whoever sent a request may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AdminRights {
    pub(super) pages: Pages,
    /// What tells who is on a list of clients.
    pub(super) clients: bool,
    /// Whether something may be changed; if not, why not.
    pub(super) change: Result<(), AdminRefusal>,
}

impl AdminDoor {
    /// Whether a web page could have a browser send a request here, so that its `Host` matters.
    pub(super) fn is_open_to_browsers(self) -> bool {
        self != Self::Socket
    }

    /// The rights of a request with this `Authorization`.
    ///
    /// # Errors
    /// It may have nothing at all.
    pub(super) fn rights(
        self,
        expose: Expose,
        token: Option<&Token>,
        authorization: Option<&[u8]>,
    ) -> Result<AdminRights, AdminRefusal> {
        let addr = match self {
            Self::Socket => {
                return Ok(AdminRights {
                    pages: Pages::All,
                    clients: true,
                    change: Ok(()),
                });
            }
            Self::Metrics => {
                return Ok(AdminRights {
                    pages: Pages::Figures,
                    clients: false,
                    change: Err(AdminRefusal::ReadOnly),
                });
            }
            Self::Listen(addr) => addr,
        };
        let change = match (token, authorization) {
            (None, _) => Err(AdminRefusal::ReadOnly),
            (Some(_), None) => Err(AdminRefusal::NoToken),
            (Some(token), Some(it)) if token.is_in(it) => Ok(()),
            (Some(_), Some(_)) => return Err(AdminRefusal::WrongToken),
        };
        if change.is_err() && !is_loopback(addr) {
            return Err(AdminRefusal::NoToken);
        }
        Ok(AdminRights {
            pages: Pages::All,
            clients: expose == Expose::Full,
            change,
        })
    }
}
