//! Memory: buffers of connections and what is kept for reuse, and what the allocator and the kernel are told
//! of it.

pub mod advice;
pub mod buffer;
pub(crate) mod free_list;
