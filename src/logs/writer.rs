//! Log targets: a bounded queue and one writer thread for each log.
//!
//! Whoever logs never waits: lines are put into the queue, or dropped and counted when it is
//! full (a disk that is full or slow, a stalled reader behind a pipe). The access log and the error log have
//! threads of their own, so that a stalled access log does not silence the errors.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;

use crate::config::LogTarget;
use crate::logs::syslog::Syslog;
use crate::process::supervised;

/// Most bytes that wait for a writer.
const QUEUE: usize = 8 * 1024 * 1024;

/// Most batches that wait for a writer. Under light traffic each worker sends a small one at every tick,
/// 40 times a second, and a short stall must not lose lines.
const QUEUE_BATCHES: usize = 4096;

/// What a batch takes in the queue besides its bytes, roughly.
const OVERHEAD: usize = 64;

/// A batch with this many bytes is sent on.
pub(crate) const BATCH: usize = 32 * 1024;

/// How many bytes the last line of a full batch exceeds that by, unless the line is unusually long.
const LAST_LINE: usize = 4096;

/// How many written batches keep their memory for reuse.
const SPARE: usize = 256;

/// How many batches are allocated for each worker in advance: one that is being filled, and those that
/// wait for the writer or are being written.
const AHEAD: usize = 8;

/// The name of the log that reports trouble with the others.
pub const ERROR_LOG: &str = "error";

/// How long anything waits for a log to be written, for instance the end of the process.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);

/// Whole lines on their way to a log.
#[derive(Default)]
pub(crate) struct Batch {
    /// The lines, each with its line feed.
    pub bytes: Vec<u8>,
    /// How many.
    pub lines: u64,
}

impl Batch {
    fn size(&self) -> usize {
        self.bytes.len() + OVERHEAD
    }
}

enum LogOrder {
    Write(Batch),
    /// Makes the writer check whether something was ordered for its target.
    Wake,
    /// Reports when everything before it has been written.
    Flush(Sender<()>),
    Stop,
}

/// Lines that were lost.
struct LostLines {
    base: Instant,
    lines: AtomicU64,
    /// When the last one was, in milliseconds.
    last: AtomicU64,
}

impl LostLines {
    fn new() -> Self {
        Self {
            base: Instant::now(),
            lines: AtomicU64::new(0),
            last: AtomicU64::new(0),
        }
    }

    fn note(&self, lines: u64) {
        if lines > 0 {
            let passed = u64::try_from(self.base.elapsed().as_millis());
            self.last
                .store(passed.unwrap_or(u64::MAX), Ordering::Relaxed);
            self.lines.fetch_add(lines, Ordering::Relaxed);
        }
    }

    fn since_last(&self) -> Option<Duration> {
        let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
        let any = self.lines.load(Ordering::Relaxed) > 0;
        any.then(|| self.base.elapsed().saturating_sub(last))
    }
}

/// The sending end of a log: takes lines without waiting. Cheap to clone.
#[derive(Clone)]
pub struct LogQueue {
    orders: Sender<LogOrder>,
    /// Memory of written batches, for reuse.
    spare: Receiver<Vec<u8>>,
    give_back: Sender<Vec<u8>>,
    /// Bytes in the queue.
    held: Arc<AtomicUsize>,
    dropped: Arc<LostLines>,
    off: Arc<AtomicBool>,
}

impl LogQueue {
    /// Allocates batches in advance for one more worker.
    pub(crate) fn provide(&self) {
        for _ in 0..AHEAD {
            // Where there are enough of them, it goes.
            let _ = self.give_back.try_send(room_for_a_batch());
        }
    }

    /// True when the writer has fallen so far behind that a new batch would take new memory.
    pub(crate) fn is_behind(&self) -> bool {
        self.spare.is_empty() && self.held.load(Ordering::Acquire) > 0
    }

    /// An empty batch, with room for as many lines as go into one.
    pub(crate) fn new_batch(&self) -> Batch {
        let spare = self.spare.try_recv();
        Batch {
            bytes: spare.unwrap_or_else(|_| room_for_a_batch()),
            lines: 0,
        }
    }

    /// Hands over whole lines; when the queue is full they are dropped and counted.
    pub(crate) fn send(&self, batch: Batch) {
        if self.is_off() || batch.lines == 0 {
            return;
        }
        let (lines, size) = (batch.lines, batch.size());
        let room = self.held.fetch_add(size, Ordering::AcqRel) + size <= QUEUE;
        if !room || self.orders.try_send(LogOrder::Write(batch)).is_err() {
            self.held.fetch_sub(size, Ordering::AcqRel);
            self.dropped.note(lines);
        }
    }

    /// Waits, for a bounded time, until everything that was sent before has been written.
    pub fn flush(&self) {
        let deadline = Instant::now() + FLUSH_LIMIT;
        let (done, outcome) = bounded(1);
        if self
            .orders
            .send_deadline(LogOrder::Flush(done), deadline)
            .is_ok()
        {
            let _ = outcome.recv_deadline(deadline);
        }
    }

    /// Lines that were lost: the queue was full, or the target could not be written.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.lines.load(Ordering::Relaxed)
    }

    /// For how long none has been lost; `None` when none ever was.
    pub(crate) fn since_dropped(&self) -> Option<Duration> {
        self.dropped.since_last()
    }

    /// Bytes that wait for the writer.
    pub fn queued(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// True when nobody reads this log, so that no lines are wanted.
    pub(crate) fn is_off(&self) -> bool {
        self.off.load(Ordering::Relaxed)
    }
}

fn room_for_a_batch() -> Vec<u8> {
    Vec::with_capacity(BATCH + LAST_LINE)
}

/// A log with its writer thread.
pub struct Log {
    queue: LogQueue,
    /// What the writer does before it writes on.
    sink_orders: Sender<SinkOrder>,
    is_file: AtomicBool,
    thread: Option<JoinHandle<()>>,
}

/// What a writer is asked to do with its target.
enum SinkOrder {
    /// Opens the file anew; says whether that was possible.
    Reopen(Sender<bool>),
    /// Writes there from now on.
    Replace(LogSink),
}

/// Another target for a log, which has been opened already.
pub(crate) struct NewTarget {
    sink: LogSink,
    is_off: bool,
    is_file: bool,
}

impl NewTarget {
    /// Opens `target` for the log called `name`; a file by `open_file`.
    ///
    /// # Errors
    /// When the file cannot be opened; the message names it.
    pub(crate) fn open(
        name: &str,
        target: &LogTarget,
        open_file: impl FnOnce(&Path) -> io::Result<File>,
    ) -> io::Result<Self> {
        Ok(Self {
            sink: LogSink::open(name, target, open_file)?,
            is_off: *target == LogTarget::Off,
            is_file: matches!(target, LogTarget::File(_)),
        })
    }
}

/// A file that is being opened anew.
pub(crate) struct Reopening(Option<Receiver<bool>>);

/// What became of a [`Reopening`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reopened {
    /// It was opened anew, or is not a file.
    Done,
    /// It could not be opened, which has been logged; the old one stays in use.
    Failed,
    /// Its writer is busy, and will do it as soon as it can.
    Late,
}

impl Reopening {
    /// Waits, for a bounded time, for the outcome.
    pub(crate) fn wait(self) -> Reopened {
        let Some(outcome) = self.0 else {
            return Reopened::Done;
        };
        match outcome.recv_timeout(FLUSH_LIMIT) {
            Ok(true) => Reopened::Done,
            Ok(false) => Reopened::Failed,
            Err(_) => Reopened::Late,
        }
    }
}

impl Log {
    /// Opens `target` and starts its writer, a thread called `name`. A file is opened by
    /// `open_file`.
    ///
    /// # Errors
    /// When the file cannot be opened; the message names it.
    pub fn open(
        name: &str,
        target: &LogTarget,
        open_file: impl FnOnce(&Path) -> io::Result<File>,
    ) -> io::Result<Self> {
        let target = NewTarget::open(name, target, open_file)?;
        let (orders, inbox) = bounded(QUEUE_BATCHES);
        let (give_back, spare) = bounded(SPARE);
        let held = Arc::new(AtomicUsize::new(0));
        let dropped = Arc::new(LostLines::new());
        let (sink_orders, asked) = unbounded();
        let queue = LogQueue {
            orders,
            spare,
            give_back: give_back.clone(),
            held: Arc::clone(&held),
            dropped: Arc::clone(&dropped),
            off: Arc::new(AtomicBool::new(target.is_off)),
        };
        let mut writer = Writer {
            name: name.to_owned(),
            sink: target.sink,
            inbox,
            give_back,
            held,
            dropped,
            sink_orders: asked,
            torn: false,
            complained: None,
        };
        let thread = supervised::spawn(&format!("{name}-log"), move || writer.run())?;
        Ok(Self {
            queue,
            sink_orders,
            is_file: AtomicBool::new(target.is_file),
            thread: Some(thread),
        })
    }

    /// The sending end.
    pub fn queue(&self) -> LogQueue {
        self.queue.clone()
    }

    /// Opens the file anew, after it was renamed. If that fails, the writer logs it.
    pub(crate) fn reopen(&self) -> Reopening {
        if !self.is_file.load(Ordering::Relaxed) {
            return Reopening(None);
        }
        let (done, outcome) = bounded(1);
        self.order(SinkOrder::Reopen(done));
        Reopening(Some(outcome))
    }

    /// Writes to another target from now on. What was sent before goes to the old one, unless its writer is
    /// stalled there.
    pub(crate) fn switch(&self, target: NewTarget) {
        self.queue.flush();
        self.order(SinkOrder::Replace(target.sink));
        self.is_file.store(target.is_file, Ordering::Relaxed);
        self.queue.off.store(target.is_off, Ordering::Relaxed);
    }

    fn order(&self, order: SinkOrder) {
        // The other order only wakes the writer; a busy one checks before its next batch.
        if self.sink_orders.send(order).is_ok() {
            let _ = self.queue.orders.try_send(LogOrder::Wake);
        }
    }

    /// Writes what is queued and ends the writer; does not wait for one that is stalled.
    pub fn close(mut self) {
        let deadline = Instant::now() + FLUSH_LIMIT;
        let stop = self.queue.orders.send_deadline(LogOrder::Stop, deadline);
        if stop.is_err() {
            return;
        }
        let Some(thread) = self.thread.take() else {
            return;
        };
        while !thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

enum LogSink {
    Off,
    /// Standard output or standard error, unbuffered.
    Stream(File),
    File {
        path: PathBuf,
        file: File,
    },
    /// Each line is a message of its own.
    Syslog(Box<Syslog>),
}

impl LogSink {
    fn open(
        name: &str,
        target: &LogTarget,
        open_file: impl FnOnce(&Path) -> io::Result<File>,
    ) -> io::Result<Self> {
        Ok(match target {
            LogTarget::Off => Self::Off,
            LogTarget::Stdout => Self::stream(&io::stdout())?,
            LogTarget::Stderr => Self::stream(&io::stderr())?,
            LogTarget::File(path) => Self::File {
                path: path.clone(),
                file: open_file(path)?,
            },
            LogTarget::Syslog(target) => {
                Self::Syslog(Box::new(Syslog::new(target, name == ERROR_LOG)))
            }
        })
    }

    fn stream(stream: &impl AsFd) -> io::Result<Self> {
        let own = stream.as_fd().try_clone_to_owned()?;
        Ok(Self::Stream(own.into()))
    }

    /// Writes some of `bytes`, and returns how many.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            // Lines for syslog are sent one by one instead.
            Self::Off | Self::Syslog(_) => Ok(bytes.len()),
            Self::Stream(file) | Self::File { file, .. } => file.write(bytes),
        }
    }

    fn reopen(&mut self) -> io::Result<()> {
        if let Self::File { path, file } = self {
            // This must not wait for a reader: the lines that come meanwhile would be lost.
            *file = open_file(path, Links::Follow, Duration::ZERO)?;
        }
        Ok(())
    }
}

/// Whether a log file may be a symbolic link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Links {
    /// It may.
    Follow,
    /// It may not: those who can create links in its folder have fewer rights than the process.
    Refuse,
}

/// Readable and writable for the owner, readable for its group, and nothing for others: lines contain
/// addresses and targets, and targets contain secrets.
const MODE: u32 = 0o640;

/// Opens a log file, or creates it. A pipe (FIFO) must have a reader, for which this waits for this long
/// at most.
///
/// # Errors
/// The kernel's, with the path; `TimedOut` for a pipe that nobody reads.
pub(crate) fn open_file(path: &Path, links: Links, wait: Duration) -> io::Result<File> {
    let named =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let deadline = Instant::now() + wait;
    loop {
        match open_now(path, links) {
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) && is_pipe(path) => {
                if Instant::now() >= deadline {
                    let what = "a pipe (FIFO) that nobody reads";
                    return Err(named(io::Error::new(io::ErrorKind::TimedOut, what)));
                }
                std::thread::sleep(PIPE_LOOK);
            }
            outcome => return outcome.map_err(named),
        }
    }
}

/// True when a log at `path` would be written into a pipe that nobody reads at present.
pub(crate) fn is_unread_pipe(path: &Path) -> bool {
    let mut options = OpenOptions::new();
    let writes = options.write(true).custom_flags(libc::O_NONBLOCK);
    is_pipe(path)
        && writes
            .open(path)
            .is_err_and(|error| error.raw_os_error() == Some(libc::ENXIO))
}

/// The pause between two checks for the reader of a pipe.
const PIPE_LOOK: Duration = Duration::from_millis(20);

fn is_pipe(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|it| it.file_type().is_fifo())
}

fn open_now(path: &Path, links: Links) -> io::Result<File> {
    let links = match links {
        Links::Follow => 0,
        Links::Refuse => libc::O_NOFOLLOW,
    };
    let mut options = OpenOptions::new();
    // Otherwise the kernel would wait for the reader of a pipe, for ever.
    let options = options.append(true).create(true).mode(MODE);
    let file = options.custom_flags(links | libc::O_NONBLOCK).open(path)?;
    // But writing may wait for a reader that is slow for a moment: that is what the queue is for.
    let flags = OFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GETFL)?);
    fcntl(&file, FcntlArg::F_SETFL(flags - OFlag::O_NONBLOCK))?;
    Ok(file)
}

struct Writer {
    name: String,
    sink: LogSink,
    inbox: Receiver<LogOrder>,
    give_back: Sender<Vec<u8>>,
    held: Arc<AtomicUsize>,
    dropped: Arc<LostLines>,
    sink_orders: Receiver<SinkOrder>,
    /// The last line was not written completely.
    torn: bool,
    complained: Option<Instant>,
}

impl Writer {
    fn run(&mut self) {
        while let Ok(order) = self.inbox.recv() {
            while let Ok(order) = self.sink_orders.try_recv() {
                match order {
                    // Who asked may have lost patience.
                    SinkOrder::Reopen(done) => drop(done.try_send(self.reopen())),
                    SinkOrder::Replace(sink) => (self.sink, self.torn) = (sink, false),
                }
            }
            match order {
                LogOrder::Write(batch) => {
                    self.write(&batch);
                    self.held.fetch_sub(batch.size(), Ordering::AcqRel);
                    self.give_back(batch.bytes);
                }
                LogOrder::Wake => {}
                // Who asked may have lost patience.
                LogOrder::Flush(done) => drop(done.try_send(())),
                LogOrder::Stop => return,
            }
        }
    }

    fn give_back(&self, mut bytes: Vec<u8>) {
        // A single event of the error log is not worth keeping; nor is a batch that a long last line has
        // doubled.
        if (BATCH..=3 * BATCH).contains(&bytes.capacity()) {
            bytes.clear();
            // Where there are enough of them, it goes.
            let _ = self.give_back.try_send(bytes);
        }
    }

    /// Opens the file anew; true when that succeeded. Until then the old one stays.
    fn reopen(&mut self) -> bool {
        let outcome = self.sink.reopen();
        match &outcome {
            Ok(()) => self.torn = false,
            Err(error) => self.say("log-reopen-failed", error),
        }
        outcome.is_ok()
    }

    /// Writes a batch. What cannot be written is counted, and does not run into the next line.
    fn write(&mut self, batch: &Batch) {
        if let LogSink::Syslog(syslog) = &mut self.sink {
            let (lost, why) = syslog.send(&batch.bytes);
            self.dropped.note(lost);
            if let Some(error) = why {
                self.complain("log-write-failed", &error);
            }
            return;
        }
        let mut rest = &batch.bytes[..];
        let outcome = self.end_torn_line().and_then(|()| {
            while !rest.is_empty() {
                match self.sink.write(rest) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(count) => rest = &rest[count..],
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        });
        if let Err(error) = outcome {
            let written = &batch.bytes[..batch.bytes.len() - rest.len()];
            self.torn |= written.last().is_some_and(|byte| *byte != b'\n');
            let lost = memchr::memchr_iter(b'\n', rest).count() as u64;
            self.dropped.note(lost);
            self.complain("log-write-failed", &error);
        }
    }

    fn end_torn_line(&mut self) -> io::Result<()> {
        if self.torn && self.sink.write(b"\n")? == 1 {
            self.torn = false;
        }
        Ok(())
    }

    /// Reports it, but not more often than every ten seconds.
    fn complain(&mut self, event: &str, error: &io::Error) {
        let recently = |at: Instant| at.elapsed() < Duration::from_secs(10);
        if self.complained.is_some_and(recently) {
            return;
        }
        self.complained = Some(Instant::now());
        self.say(event, error);
    }

    /// Reports it in the error log; or, if that is the log in trouble, on standard error, which is the
    /// last place left.
    fn say(&self, event: &str, error: &io::Error) {
        let (log, error) = (&self.name, error.to_string());
        if log == ERROR_LOG {
            let line = format!("{event} log={log} error={error:?}\n");
            let _ = io::stderr().lock().write_all(line.as_bytes());
        } else {
            log::error!("{event} log={log} error={error:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_a_batch_is_used_again_although_its_last_line_was_long() {
        let log = Log::open("access", &LogTarget::Off, |_| unreachable!()).unwrap();
        let queue = LogQueue {
            off: Arc::default(),
            ..log.queue()
        };
        for (last_line, is_kept) in [(100, true), (LAST_LINE + 100, true), (3 * BATCH, false)] {
            let mut batch = queue.new_batch();
            batch.bytes.resize(BATCH - 1, b'x');
            batch.bytes.resize(BATCH - 1 + last_line, b'y');
            batch.lines = 2;
            queue.send(batch);
            queue.flush();
            assert_eq!(!queue.spare.is_empty(), is_kept, "{last_line}");
            let next = queue.new_batch();
            assert!(next.bytes.is_empty());
            assert!(queue.spare.is_empty());
        }
        log.close();
    }
}
