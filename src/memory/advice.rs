//! Advice to the allocator, the kernel and the processor about the memory of long lists: that it should
//! be returned when it is free, and that it is accessed at random. Where the advice is not supported,
//! nothing changes. And a question: whether there is room for a thread.

// Advice is given by C calls and by addresses.
#![allow(unsafe_code)]

use std::io;

#[cfg(target_os = "linux")]
use nix::libc;

/// Has large blocks returned to the kernel as soon as they are free.
///
/// Otherwise, once the first such block has been freed, glibc takes blocks of up to 32 MiB from its
/// heap, and keeps there what a long list needed for a moment: after some refreshes of a million entries
/// a gateway had up to 114 MB, and with this 47 (`tests/lists_million.rs`).
pub fn return_large_blocks() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        /// In bytes: blocks of this size and above are mapped individually. No request needs one.
        const LARGE: libc::c_int = 1 << 20;

        // SAFETY: it sets a parameter of the allocator, under the allocator's lock.
        let set = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE) };
        debug_assert_eq!(set, 1);
    }
}

/// Moves what is accessed at random into pages of 2 MiB, if the kernel has some.
///
/// With small pages, nearly every access to some 16 MB costs a walk through the page tables as well:
/// with a million IPv6 addresses, that was a quarter of the time of a search.
pub(crate) fn put_in_large_pages<T>(elements: &[T]) {
    /// In bytes: the smallest page size of any system.
    const PAGE: usize = 4096;
    /// Anything smaller may not contain a whole large page.
    const LEAST: usize = 4 << 20;
    /// MADV_COLLAPSE of madvise(2), for which not every libc has a name.
    #[cfg(target_os = "linux")]
    const COLLAPSE: libc::c_int = 25;

    let length = size_of_val(elements);
    if length < LEAST {
        return;
    }
    let start = elements.as_ptr().cast::<u8>().cast_mut();
    let before = start.align_offset(PAGE);
    let pages = (length - before) / PAGE * PAGE;
    #[cfg(target_os = "linux")]
    // SAFETY: the pages are within the elements, and their content does not change. A kernel before 6.1,
    // or one without a free large page, returns an error and moves nothing.
    let _ = unsafe { libc::madvise(start.wrapping_add(before).cast(), pages, COLLAPSE) };
}

/// Asks the kernel for as much as the start of a thread takes, and gives it back: to be called before one
/// is started while the gateway serves. The standard library ends the *process* when a thread, started on a
/// stack that was left from another one, gets no memory for the stack of its signals: at a limit to the
/// memory, or to its areas (`vm.max_map_count`), to which thousands of tunnels come.
///
/// # Errors
/// The kernel's, when there is not so much.
pub(crate) fn room_for_thread() -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        /// Pages that are to be areas of their own: those of two stacks and their guards, and as many again.
        const AREAS: usize = 8;
        const PAGE: usize = 64 * 1024;

        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let length = 2 * AREAS * PAGE;
        // SAFETY: new memory at an address of the kernel's choice, which nobody uses.
        let start =
            unsafe { libc::mmap(std::ptr::null_mut(), length, libc::PROT_NONE, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let mut outcome = Ok(());
        for at in 0..AREAS {
            let page = start.wrapping_byte_add(2 * at * PAGE);
            // SAFETY: within what was mapped above.
            if unsafe { libc::mprotect(page, PAGE, libc::PROT_READ) } != 0 {
                outcome = Err(io::Error::last_os_error());
                break;
            }
        }
        // SAFETY: all that was mapped above, of which nobody has a pointer.
        unsafe { libc::munmap(start, length) };
        outcome
    }
    #[cfg(not(target_os = "linux"))]
    Ok(())
}

/// Starts to load an element into the caches. A useless prefetch costs nothing, so the index is not
/// checked.
pub(crate) fn prefetch<T>(elements: &[T], at: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

        // SAFETY: a prefetch reads nothing, and any address is allowed.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(elements.as_ptr().wrapping_add(at).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (elements, at);
}
