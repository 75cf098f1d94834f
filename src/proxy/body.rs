//! Bodies: a request's as one value (`request_body`), streamed through (`relay`) and written as
//! HTTP/1 (`outgoing`), in both directions at once (`upload`), or unread after an upgrade (`tunnel`).

pub(crate) mod outgoing;
pub(crate) mod relay;
pub(crate) mod request_body;
pub(crate) mod tunnel;
pub(crate) mod upload;
