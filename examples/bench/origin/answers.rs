//! What the origin answers to which path.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, memfd_create};

/// Size of the file that big answers are sent from, time and again if they are longer.
pub(super) const FILE: u64 = 64 << 20;
/// What the answer to `/endless` promises: more than any run takes.
const ENDLESS: u64 = 1 << 50;

/// What is answered to a path.
pub(super) struct Answer {
    /// The head, and the body too if it is small.
    pub(super) bytes: Vec<u8>,
    /// How much follows from the file.
    pub(super) from_file: u64,
}

impl Answer {
    fn new(length: u64, more_fields: usize) -> Self {
        let mut head = format!(
            "HTTP/1.1 200 OK\r\nServer: origin\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\n\
             Content-Type: application/octet-stream\r\nContent-Length: {length}\r\n"
        );
        for at in 0..more_fields {
            head.push_str(&format!("X-Field-{at}: the value of field {at}\r\n"));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        let is_small = length <= 16 << 10;
        if is_small {
            bytes.resize(bytes.len() + length as usize, b'x');
        }
        let from_file = if is_small { 0 } else { length };
        Self { bytes, from_file }
    }
}

/// All answers, and the file behind the big ones.
pub(super) struct Answers {
    pub(super) all: Vec<(&'static str, Answer)>,
    pub(super) file: OwnedFd,
}

impl Answers {
    pub(super) fn new() -> io::Result<Self> {
        let file = memfd_create("origin", MemfdFlags::CLOEXEC)?;
        // Its pages are there before the first answer.
        fallocate(&file, FallocateFlags::empty(), 0, FILE)?;
        let all = vec![
            ("/128", Answer::new(128, 0)),
            ("/16k", Answer::new(16 << 10, 0)),
            ("/1m", Answer::new(1 << 20, 0)),
            ("/64m", Answer::new(64 << 20, 0)),
            ("/endless", Answer::new(ENDLESS, 0)),
            // With the four that each answer has.
            ("/fields", Answer::new(128, 26)),
        ];
        Ok(Self { all, file })
    }
}
