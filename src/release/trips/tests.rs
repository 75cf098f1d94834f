//! The states of a trip, and what leads from one to another.

use super::*;
use crate::config::ServiceSettings;
use crate::lists::lists_of;

/// A service with these servers in `pre`.
struct Bench {
    trips: Arc<Trips>,
    in_force: Arc<InForce>,
}

const PRE: [&str; 1] = ["10.0.0.9:80"];
const OTHER: [&str; 1] = ["10.0.0.8:80"];

fn config(lines: &str) -> Config {
    let text = format!("[redis]\nurl = redis://127.0.0.1:1\ntimeout = 100ms\n{lines}");
    Config::parse(std::path::Path::new("/g.ini"), &text, None).unwrap()
}

impl Bench {
    fn new() -> Self {
        Self::with(&config(""), None)
    }

    /// That of a process with these settings, to which this was `handed`.
    fn with(config: &Config, handed: Option<Option<&str>>) -> Self {
        let in_force = Arc::new(InForce::new(1));
        in_force.set_services(&[Arc::new(ServiceSettings::default())]);
        let bell = bounded(1).0;
        let webhook = Webhook::start(config, false).unwrap();
        let trips = Trips::start(config, &in_force, &webhook, bell, handed).unwrap();
        let bench = Self { trips, in_force };
        bench.push(&PRE);
        bench
    }

    fn push(&self, pre: &[&str]) {
        let lists = lists_of(&["1.1.1.1"], pre, &["10.0.0.1:80"]);
        self.in_force.store(lists);
    }

    fn pre(&self) -> Digest {
        self.in_force.load().pre.digest(ListName::Pre)
    }

    /// A trip of what is in `pre`, in this epoch.
    fn trip_in(&self, epoch: &str) -> Trip {
        let pre = self.pre();
        Trip {
            why: "worse".to_owned(),
            by: "gw".to_owned(),
            ..Trip::by_hand(b"", "default", pre, epoch)
        }
    }

    fn trips_now(&self, epoch: &str) -> bool {
        let trip = self.trip_in(epoch);
        self.trips.trip(&ServiceName::default(), trip)
    }

    /// That of the evidence.
    fn epoch(&self) -> String {
        let lists = self.in_force.load();
        let release = self.trips.release(&ServiceName::default(), &lists);
        release.split_once('/').unwrap().1.to_owned()
    }

    fn read(&self, tripped: StoredText, state: StoredText, lost: bool) {
        let read = ReleaseReading {
            tripped,
            state,
            lost,
        };
        self.trips.see(&ServiceName::default(), &read);
    }

    fn reads(&self, text: &str) {
        self.read(text_of(text), StoredText::Absent, false);
    }

    fn reads_none(&self) {
        self.read(StoredText::Absent, StoredText::Absent, false);
    }

    /// Whether gray clients get `prod`; and whether the store is known to have that.
    fn stands(&self) -> Option<bool> {
        let serving = self.in_force.serving();
        let view = self.trips.of(&ServiceName::default());
        let is_tripped = serving.default_service().is_tripped();
        assert!(view.is_none() || is_tripped, "what is shown is in force");
        is_tripped.then(|| view.is_some_and(|it| it.is_stored))
    }
}

fn text_of(text: &str) -> StoredText {
    StoredText::Text(text.as_bytes().to_vec())
}

/// No trip; one that only this gateway has; one that the store has.
const NONE: Option<bool> = None;
const UNWRITTEN: Option<bool> = Some(false);
const STORED: Option<bool> = Some(true);

#[test]
fn a_trip_counts_at_once_and_until_its_key_is_deleted() {
    let bench = Bench::new();
    assert_eq!(bench.stands(), NONE);
    assert!(bench.trips_now(""));
    assert_eq!(bench.stands(), UNWRITTEN);
    assert!(!bench.trips_now(""), "it is taken back already");
    // What was asked before it was written.
    bench.reads_none();
    assert_eq!(bench.stands(), UNWRITTEN);
    bench.reads(&bench.trip_in("").to_json().to_string());
    assert_eq!(bench.stands(), STORED);
    bench.read(StoredText::Unknown, StoredText::Unknown, false);
    assert_eq!(
        bench.stands(),
        STORED,
        "a key that cannot be read says nothing"
    );
    bench.reads_none();
    assert_eq!(bench.stands(), NONE);
    assert!(!bench.trips_now(""), "by the evidence of before");
    assert!(bench.trips_now(&bench.epoch()), "again");
}

#[test]
fn a_deleted_key_has_evidence_begin_anew_in_an_epoch_that_is_the_same_everywhere() {
    let state = |epoch: &str| text_of(&format!("{{\"epoch\":\"{epoch}\"}}"));
    let [one, other] = [(); 2].map(|()| {
        let bench = Bench::new();
        bench.read(text_of("stop"), state("e1"), false);
        bench.read(StoredText::Absent, state("e1"), false);
        bench
    });
    let epoch = one.epoch();
    assert!(epoch != "e1" && epoch.len() == 16, "{epoch}");
    assert_eq!(
        epoch,
        other.epoch(),
        "though each has seen it at its own time"
    );
    // It is written, and stays; or it cannot be, and stays.
    one.read(StoredText::Absent, state(&epoch), false);
    other.read(StoredText::Absent, state("e1"), false);
    assert_eq!((one.epoch(), other.epoch()), (epoch.clone(), epoch.clone()));
    // What is found from now on is no trip of an epoch that is over.
    assert!(!other.trips_now("e1"));
    assert!(other.trips_now(&epoch));
    other.read(StoredText::Absent, state("e1"), false);
    assert_eq!(other.stands(), UNWRITTEN);
    // Another one, another epoch.
    for bench in [&one, &other] {
        let state = bench.trips.known().services[&ServiceName::default()]
            .state
            .epoch
            .clone();
        let trip = bench.trip_in(&epoch).to_json().to_string();
        bench.read(
            text_of(&trip),
            text_of(&format!("{{\"epoch\":\"{state}\"}}")),
            false,
        );
        bench.read(
            StoredText::Absent,
            text_of(&format!("{{\"epoch\":\"{state}\"}}")),
            false,
        );
        assert_eq!(bench.stands(), NONE);
    }
    assert_ne!(one.epoch(), epoch);
    assert_eq!(one.epoch(), other.epoch());
    one.read(StoredText::Absent, state("e2"), false);
    assert_eq!(one.epoch(), "e2");
}

#[test]
fn another_version_ends_it_and_an_empty_pre_does_not() {
    let bench = Bench::new();
    let old = bench.trip_in("");
    assert!(bench.trips_now(""));
    bench.push(&[]);
    bench.trips.tick();
    bench.push(&PRE);
    assert_eq!(bench.stands(), UNWRITTEN);
    bench.push(&OTHER);
    assert_eq!(bench.stands(), NONE);
    bench.trips.tick();
    bench.push(&PRE);
    assert_eq!(bench.stands(), NONE, "it was over");
    assert!(
        !bench
            .trips
            .trip(&ServiceName::default(), Bench::new().trip_in(""))
            || bench.stands().is_some()
    );
    // One that the store has is of its version, whenever that is in force.
    bench.reads(&old.to_json().to_string());
    bench.push(&OTHER);
    assert_eq!(bench.stands(), NONE);
    assert!(
        !bench.trips.trip(&ServiceName::default(), old),
        "that is not in pre"
    );
    bench.push(&PRE);
    assert_eq!(bench.stands(), STORED);
}

#[test]
fn what_the_store_has_lost_is_held_and_what_was_reset_meanwhile_is_not() {
    let bench = Bench::new();
    let text = bench.trip_in("e1").to_json().to_string();
    let state = |epoch: &str| text_of(&format!("{{\"epoch\":\"{epoch}\"}}"));
    let reset = |epoch: &str| {
        let reset = format!("{{\"epoch\":\"{epoch}\",\"by\":\"ann\"}}");
        text_of(&format!("{{\"epoch\":\"{epoch}\",\"reset\":{reset}}}"))
    };
    bench.read(StoredText::Absent, reset("e0"), false);
    bench.read(text_of(&text), state("e1"), false);
    assert_eq!(bench.stands(), STORED);
    bench.read(StoredText::Absent, StoredText::Absent, true);
    assert_eq!(bench.stands(), UNWRITTEN);
    // The lists are back, and nothing else.
    bench.reads_none();
    assert_eq!(bench.stands(), UNWRITTEN);
    bench.read(StoredText::Absent, state("e1"), false);
    assert_eq!(bench.stands(), UNWRITTEN);
    // Another step of a rollout, and a reset of before.
    bench.read(StoredText::Absent, state("e2"), false);
    bench.read(StoredText::Absent, reset("e0"), false);
    assert_eq!(bench.stands(), UNWRITTEN);
    bench.read(StoredText::Absent, reset("e2"), false);
    assert_eq!(bench.stands(), NONE);
    let lists = bench.in_force.load();
    let release = bench.trips.release(&ServiceName::default(), &lists);
    assert_eq!(release, format!("{}/e2", bench.pre()));
}

#[test]
fn a_text_is_about_the_version_that_was_there_when_it_was_first_seen() {
    let bench = Bench::new();
    for text in ["1", "the basket loses items", "{\"by\":\"ann\"}", ""] {
        bench.push(&PRE);
        bench.reads(text);
        assert_eq!(bench.stands(), STORED, "{text}");
        bench.push(&OTHER);
        bench.reads(text);
        assert_eq!(bench.stands(), NONE, "{text}");
        bench.push(&PRE);
        assert_eq!(bench.stands(), STORED, "{text}");
        bench.reads_none();
        assert_eq!(bench.stands(), NONE, "{text}");
    }
}

#[test]
fn what_another_gateway_has_written_counts_and_what_is_over_does_not_disturb() {
    let bench = Bench::new();
    let over = bench.trip_in("").to_json().to_string();
    bench.push(&OTHER);
    assert!(bench.trips_now(""));
    bench.reads(&over);
    assert_eq!(bench.stands(), UNWRITTEN);
    let others = bench.trip_in("").to_json();
    bench.reads(&others.to_string());
    assert_eq!(bench.stands(), STORED);
}

#[test]
fn a_key_of_another_version_takes_nothing_from_what_is_in_force_and_counts_with_its_own() {
    let bench = Bench::new();
    let own = bench.trip_in("").to_json().to_string();
    bench.push(&OTHER);
    let other = bench.trip_in("").to_json().to_string();
    bench.push(&PRE);
    bench.reads(&own);
    assert_eq!(bench.stands(), STORED);
    // Of whoever was cut off from the store; or pre has others there, and the lists are frozen.
    bench.reads(&other);
    assert_eq!(bench.stands(), UNWRITTEN, "it is to be written again");
    bench.push(&OTHER);
    bench.trips.tick();
    assert_eq!(bench.stands(), STORED, "though the key is as it was");
    // What was reset meanwhile is over.
    bench.push(&PRE);
    bench.reads(&own);
    let reset = text_of("{\"epoch\":\"e\",\"reset\":{\"epoch\":\"e\",\"by\":\"ann\"}}");
    bench.read(text_of(&other), reset, false);
    assert_eq!(bench.stands(), NONE);
}

#[test]
fn a_trip_that_comes_with_its_version_counts_from_the_same_moment() {
    let bench = Bench::new();
    let new = lists_of(&["1.1.1.1"], &OTHER, &["10.0.0.1:80"]);
    let pre = new.pre.digest(ListName::Pre);
    let trip = Trip::by_hand(b"", "default", pre, "");
    for text in [trip.to_json().to_string(), "stop".to_owned()] {
        bench.push(&PRE);
        let read = ReleaseReading {
            tripped: text_of(&text),
            ..ReleaseReading::default()
        };
        bench.trips.expect(&ServiceName::default(), &read, pre);
        assert_eq!(bench.stands(), NONE);
        // As its thread does at any moment.
        bench.trips.tick();
        bench.in_force.store(new.clone());
        assert!(bench.in_force.serving().default_service().is_tripped());
        bench.reads(&text);
        assert_eq!(bench.stands(), STORED);
        bench.reads_none();
    }
}

#[test]
fn the_next_process_goes_on_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("lists");
    let with_copy = config(&format!("[lists]\nlast_good = {}\n", copy.display()));
    let bench = Bench::with(&with_copy, None);
    bench.read(StoredText::Absent, text_of("{\"epoch\":\"e\"}"), false);
    assert!(bench.trips_now("e"));
    let handed = ReleaseWatch::hand_over(&*bench.trips);
    let next = Bench::with(&config(""), Some(handed.as_deref()));
    assert_eq!(next.stands(), UNWRITTEN);
    let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
    let file = folder.path().join("lists.trips");
    while !file.exists() && std::time::Instant::now() < until {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let restarted = Bench::with(&with_copy, None);
    assert_eq!(restarted.stands(), UNWRITTEN);
    let elsewhere = config(&format!(
        "gray_key = x\n[lists]\nlast_good = {}\n",
        copy.display()
    ));
    assert_eq!(Bench::with(&elsewhere, None).stands(), NONE);
}

#[test]
fn a_copy_that_is_older_than_what_the_file_knows_ends_nothing() {
    let first = Bench::new();
    assert!(first.trips_now(""));
    let handed = ReleaseWatch::hand_over(&*first.trips);
    for is_there_still in [true, false] {
        let next = Bench::with(&config(""), Some(handed.as_deref()));
        next.push(&OTHER);
        next.trips.tick();
        assert_eq!(next.stands(), NONE, "what is in pre is another one");
        if is_there_still {
            next.push(&PRE);
        }
        next.reads_none();
        next.push(&PRE);
        let stands = if is_there_still { UNWRITTEN } else { NONE };
        assert_eq!(next.stands(), stands);
    }
}

/// One that keeps what it knows in a file of this folder.
fn with_a_file() -> (tempfile::TempDir, Bench) {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("lists").display().to_string();
    let bench = Bench::with(&config(&format!("[lists]\nlast_good = {copy}\n")), None);
    (folder, bench)
}

impl Bench {
    /// The log says that something was taken back.
    fn has_told(&self) -> bool {
        let known = self.trips.known();
        known.services.values().any(|it| it.told.is_some())
    }
}

#[test]
fn nobody_hears_of_a_trip_before_the_file_has_it_whoever_looks_meanwhile() {
    let (folder, bench) = with_a_file();
    let is_told = || bench.has_told();
    // The disk is slow.
    let saving = bench.trips.saving.lock().unwrap();
    assert!(bench.trips_now(""), "nobody waits for that");
    assert_eq!(bench.stands(), UNWRITTEN, "it counts at once");
    bench.trips.tick();
    bench.reads_none();
    assert!(!is_told());
    drop(saving);
    wait_until(is_told);
    assert!(folder.path().join("lists.trips").exists());
}

#[test]
fn where_the_disk_does_not_answer_it_is_enough_that_the_store_has_it() {
    let (folder, bench) = with_a_file();
    let is_told = || bench.has_told();
    let saving = bench.trips.saving.lock().unwrap();
    assert!(bench.trips_now(""));
    bench.reads(&bench.trip_in("").to_json().to_string());
    assert!(!is_told(), "it may have answered in a moment");
    wait_until(is_told);
    assert!(!folder.path().join("lists.trips").exists());
    drop(saving);
    wait_until(|| folder.path().join("lists.trips").exists());
}

#[test]
fn that_people_are_to_be_told_is_known_to_the_next_process_until_they_were() {
    let is_untold = |bench: &Bench| {
        let known = bench.trips.known();
        known.services.values().any(|it| it.untold.is_some())
    };
    let bench = Bench::new();
    assert!(bench.trips_now(""));
    // What it was told of the store: that it is away. So nobody was told yet.
    let handed = ReleaseWatch::hand_over(&*bench.trips).unwrap();
    let next = Bench::with(&config(""), Some(Some(&handed)));
    next.trips.rest(false);
    assert!(is_untold(&next));
    // The store has it, whoever has written it, and there is nobody to be told.
    let value: Value = serde_json::from_str(&handed).unwrap();
    next.reads(&value["services"]["default"]["trip"].to_string());
    wait_until(|| !is_untold(&next));
    // A file of before does not say, and they were.
    let before = handed.replace(",\"told\":false", "");
    assert_ne!(before, handed);
    assert!(!is_untold(&Bench::with(&config(""), Some(Some(&before)))));
}

#[test]
fn a_file_that_cannot_be_read_is_kept_and_a_new_one_is_the_gateways_own() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lists.trips");
    std::fs::write(&file, "{\"store\":").unwrap();
    let copy = folder.path().join("lists").display().to_string();
    let bench = Bench::with(&config(&format!("[lists]\nlast_good = {copy}\n")), None);
    wait_until(|| !bench.trips.known().is_unsaved);
    drop(bench.trips.saving.lock().unwrap());
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "{\"store\":");
    assert!(bench.trips_now(""));
    let aside = folder.path().join("lists.trips.damaged");
    wait_until(|| aside.exists() && file.exists());
    assert_eq!(std::fs::read_to_string(&aside).unwrap(), "{\"store\":");
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777 & !0o640, 0, "{mode:o}");
}

/// Waits for something that another thread does.
#[track_caller]
fn wait_until(is_so: impl Fn() -> bool) {
    let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !is_so() {
        assert!(std::time::Instant::now() < until, "it never was");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[test]
fn of_two_gateways_that_have_found_the_same_one_tells_its_end() {
    let bench = Bench::new();
    let node = bench.trips.node();
    let of = |by: &str| Trip {
        by: by.to_owned(),
        ..bench.trip_in("")
    };
    let is_own = || {
        let known = bench.trips.known();
        let mut services = known.services.values();
        services.any(|it| it.is_own)
    };
    assert!(bench.trips.trip(&ServiceName::default(), of(&node)));
    assert!(is_own());
    // The other one was faster.
    bench.reads(&of("another").to_json().to_string());
    assert_eq!(bench.stands(), STORED);
    assert!(!is_own());
}

#[test]
fn what_the_store_has_lost_while_the_gateway_was_away_was_not_deleted() {
    let bench = Bench::new();
    let state = || text_of("{\"epoch\":\"e\"}");
    bench.read(
        text_of(&bench.trip_in("e").to_json().to_string()),
        state(),
        false,
    );
    assert_eq!(bench.stands(), STORED);
    let handed = ReleaseWatch::hand_over(&*bench.trips);
    for (state, stands) in [(state(), NONE), (StoredText::Absent, UNWRITTEN)] {
        let next = Bench::with(&config(""), Some(handed.as_deref()));
        next.read(StoredText::Absent, state, false);
        assert_eq!(next.stands(), stands);
    }
}
