//! Memory: connections' buffers, what is kept for reuse, and advice to the allocator and the kernel.

pub mod advice;
pub mod buffer;
pub(crate) mod free_list;
pub(crate) mod zeroed;
