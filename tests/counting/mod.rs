//! A gateway within the test's process, with one worker, and an allocator that counts what this worker's
//! thread asks of it. Clients and origin have threads of their own, which are not counted.

// An allocator is unsafe to write; this one passes everything on.
#![allow(unsafe_code, clippy::unwrap_used, clippy::print_stdout)]
// Each test file uses a part of this.
#![allow(dead_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::Cell;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use graygate::config::{Config, LogTarget};
use graygate::net;

use crate::support::{
    Client, DEADLINE, GatewayInside, Origin, RELEASE, Traffic, wait_for, wait_until,
};

/// Requests that are counted.
const COUNT: usize = 2000;

/// Requests before that: whatever is kept for reuse has been made then.
const WARM_UP: usize = 100;

/// So many make lines for no more than a part of what the log's writer may be behind with.
const PORTION: usize = 50;

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    /// What this thread allocates is counted. Needs no memory and no destructor.
    static COUNTED: Cell<bool> = const { Cell::new(false) };
}

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

/// Where the first ones of a count came from.
static PLACES: Mutex<Vec<Backtrace>> = Mutex::new(Vec::new());

/// Places that are kept: more would only say the same again.
const PLACES_KEPT: usize = 3;

impl Counting {
    fn count() {
        if !COUNTED.get() {
            return;
        }
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // What finding the place allocates is none of the gateway's.
        COUNTED.set(false);
        let mut places = lock(&PLACES);
        if places.len() < PLACES_KEPT {
            places.push(Backtrace::force_capture());
        }
        drop(places);
        COUNTED.set(true);
    }
}

// SAFETY: each call goes on to the system's allocator as it came, and its outcome back as it is, so that
// what that promises is promised here. Counting allocates only while it is switched off, and cannot
// panic.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::count();
        // SAFETY: as the caller has promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::count();
        // SAFETY: as the caller has promised.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Self::count();
        // SAFETY: as the caller has promised; `place` is the system's, since all others are.
        unsafe { System.realloc(place, layout, size) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: as the caller has promised; `place` is the system's, since all others are.
        unsafe { System.dealloc(place, layout) }
    }
}

const INI: &str = "
[gateway]
listen = 127.0.0.1:0
workers = 1
[upstream]
read_timeout = 5s
keepalive_timeout = 1h
[lists]
file = lists
[verdict]
client = header:X-User-Number
";

/// Entries of each kind. All but the last are looked at for the one request that has something of everything,
/// and none for the others.
const ENTRIES: &[&str] = &[
    "10.0.0.0/8",
    "192.168.0.0/16 until=2000-01-01T00:00Z",
    "!header:X-User=nobody",
    "header:X-App-Version>=3.0",
    "header:X-User~*nobody*",
    "cookie:c7=*9 method:GET",
    "query:b=nobody",
    "query:uid=nobody*",
    "host:shop.example.com path:/nobody/*",
    "percent:0.01:header:X-User",
    RELEASE,
    "percent:100:cookie:uid query:uid=\"a b\"",
];

/// A gateway with one worker, which is for the life of the process; and its origin.
pub(crate) struct Served {
    inside: GatewayInside,
    /// Nobody else's allocations are to be among the counted ones.
    turn: Mutex<()>,
    origin: Origin,
}

impl Served {
    /// To be called once.
    pub(crate) fn start(access_log: &LogTarget) -> Self {
        let served = Self {
            inside: GatewayInside::start(INI, access_log),
            turn: Mutex::default(),
            origin: Traffic::origin(),
        };
        served.inside.send_to_both(&served.origin, ENTRIES);
        served.make_spare_connection();
        served
    }

    /// From now on, the access log has this format, and requests have ids.
    pub(crate) fn log_as(&self, format: &str) {
        let ini = INI.replace("workers = 1\n", "workers = 1\nrequest_id = on\n");
        let ini = format!("{ini}[log]\nformat = {format}\n");
        let config = Config::parse(Path::new("/test.ini"), &ini, None).unwrap();
        self.inside.gateway.config.store(config);
    }

    /// Makes a second connection to the origin, which stays idle. With it the pool keeps the memory of
    /// this peer's connections while the other one is in use.
    fn make_spare_connection(&self) {
        let [small, _, body, _] = &Traffic::kinds();
        let mut slow = self.inside.connect();
        let (head, rest) = body.halves();
        slow.send(head);
        let mut other = self.inside.connect();
        wait_until("a second connection", DEADLINE, || {
            small.ask(&mut other, 1);
            self.origin.accepted() == 2
        });
        slow.send(rest);
        assert_eq!(slow.response().status(), 200);
    }

    /// Asks [`COUNT`] times, and checks that this makes no allocation.
    #[track_caller]
    pub(crate) fn check(&self, traffic: &Traffic) {
        self.check_asking(traffic, |client, count| traffic.ask(client, count));
    }

    /// The same where each request counts for the release that is under way.
    #[track_caller]
    pub(crate) fn check_units(&self, traffic: &Traffic) {
        self.check_asking(traffic, |client, count| {
            traffic.ask_as_others(client, count);
        });
    }

    #[track_caller]
    fn check_asking(&self, traffic: &Traffic, ask: impl Fn(&mut Client, usize)) {
        let _turn = self.turn();
        let mut client = self.inside.connect();
        ask(&mut client, WARM_UP);
        let (allocations, places) = count(|| {
            for _ in 0..COUNT / PORTION {
                ask(&mut client, PORTION);
                // What a writer needs that has fallen behind is no request's.
                self.inside.access_log.queue().flush();
            }
        });
        let name = traffic.name;
        println!("{name}: {allocations} allocations by {COUNT} requests");
        assert!(
            allocations == 0,
            "{name}: {allocations} allocations by {COUNT} requests, the first ones at\n{places}"
        );
    }

    /// What `task` allocates on the worker, and where; it is given what was prepared there before.
    pub(crate) fn allocations_of<T>(
        &self,
        prepare: impl FnOnce() -> T + Send + 'static,
        task: impl FnOnce(&mut T) + Send + 'static,
    ) -> (u64, String) {
        let _turn = self.turn();
        let outcome = Arc::new(Mutex::new(None));
        let told = Arc::clone(&outcome);
        net::spawn(0, move || {
            let mut prepared = prepare();
            let before = ALLOCATIONS.load(Ordering::Relaxed);
            COUNTED.set(true);
            task(&mut prepared);
            COUNTED.set(false);
            let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
            *lock(&told) = Some(allocations);
        })
        .unwrap();
        let allocations = wait_for("the task ends", || lock(&outcome).take());
        (allocations, take_places())
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        lock(&self.turn)
    }
}

/// What the worker allocates while `task` runs here, and where it does so first.
fn count(task: impl FnOnce()) -> (u64, String) {
    switch_counting(true);
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    task();
    let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
    switch_counting(false);
    (allocations, take_places())
}

/// Waits until it is done.
fn switch_counting(on: bool) {
    let done = Arc::new(AtomicBool::new(false));
    let switched = Arc::clone(&done);
    net::spawn(0, move || {
        COUNTED.set(on);
        switched.store(true, Ordering::Release);
    })
    .unwrap();
    wait_until("the worker has taken it", DEADLINE, || {
        done.load(Ordering::Acquire)
    });
}

fn take_places() -> String {
    let places = std::mem::take(&mut *lock(&PLACES));
    let places: Vec<String> = places.iter().map(ToString::to_string).collect();
    places.join("\n\n")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
