//! Where the lists come from, and how they come into force.
//!
//! A store (Redis, or a lists file) is watched by a thread of its own, which reads all three lists at
//! once and hands them to the `Publisher`. The publisher parses them, holds back what must not come
//! into force ([`gate::guard`]), and replaces the snapshot that the workers read with one pointer swap.
//! Each list is judged by itself: one that cannot be accepted keeps its last good value, while the
//! others may change. What is in force is kept on disk ([`copy`]), for a start without the store.
//!
//! Not here: what the lists mean ([`crate::lists`], [`crate::route`]).

mod cause;
mod confirmed;
pub mod copy;
mod entries;
pub(crate) mod file;
mod findings;
pub(crate) mod flaps;
pub mod format;
pub mod gate;
pub(crate) mod heavy;
mod name;
mod publisher;
mod reading;
pub(crate) mod redis;
mod seen;
mod status;

pub(crate) use self::cause::{Cause, Mode};
pub use self::entries::Entries;
pub(crate) use self::gate::guard::By;
pub use self::name::StoreName;
pub(crate) use self::publisher::{Feed, HandedLists, HandedService, Publisher, TakenLists};
pub use self::reading::Fault;
pub(crate) use self::reading::{Reading, ReleaseReading, ReleaseWatch, ServiceReading, StoredText};
pub(crate) use self::seen::{ListsWatch, SeenList, SeenLists};
pub(crate) use self::status::{ServiceStatus, Status, StoreFinding};
