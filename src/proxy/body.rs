//! Bodies: streamed through (`relay`), in both directions at once (`upload`), unread after an upgrade
//! (`tunnel`), or read and dropped (`unwanted`).

pub(crate) mod relay;
pub(crate) mod tunnel;
pub(crate) mod unwanted;
pub(crate) mod upload;
