//! How the gateways on one Redis know of each other.
//!
//! Each writes a key with a time to live (`heartbeat`), which says who it is and what it holds
//! (`node`, `release`), and adds its name to an index, so that the others can be found without searching the
//! server (`nodes`). What others have written is shown as `plain` text. Nothing here reads or changes the
//! lists.

pub(crate) mod heartbeat;
pub(crate) mod index;
pub(crate) mod node;
pub(crate) mod nodes;
pub(crate) mod plain;
pub(crate) mod release;
