use std::time::Duration;

use super::*;
use crate::lists::{PeerList, ServiceName};
use crate::release::history::ChangeRecord;
use crate::release::rollout::{Course, Opinion, ROLLOUT, SeenTurn, rollout_in};

const RELEASE: &str = "0011223344556677";

fn terms() -> ServiceTerms {
    ServiceTerms {
        service: ServiceName::default(),
        gray_of: None,
        shared_by: Vec::new(),
        salt: String::new(),
        peer_port: 80,
        guard_share: 50,
    }
}

fn drawn() -> Drawn {
    Drawn {
        now: std::time::SystemTime::now(),
        epoch: RELEASE.to_owned(),
        salt: "salted".to_owned(),
        by: "ann@vm1".to_owned(),
        at: "2026-11-30T01:02:03.004Z".to_owned(),
        reason: Some("holidays".to_owned()),
    }
}

fn found(gray: &[&str], pre: &[&str], prod: &[&str]) -> FoundLists {
    let list = |texts: &[&str]| FoundList {
        is_set: false,
        entries: texts.iter().collect(),
    };
    FoundLists {
        lists: ByList {
            gray: list(gray),
            pre: list(pre),
            prod: list(prod),
        },
        ..FoundLists::default()
    }
}

/// What is there after a change.
fn after(found: &FoundLists, change: &ListsChange) -> FoundLists {
    let mut found = found.clone();
    for list in ListName::ALL {
        let entries = change.edits[list].apply(&found.lists[list].entries);
        found.lists[list].entries = entries;
    }
    if let Some(salt) = &change.salt {
        found.salt.clone_from(salt);
    }
    if let Some(state) = &change.state {
        found.state.clone_from(state);
    }
    let record = ChangeRecord {
        number: found.history.len() as u64 + 1,
        verb: "a verb".to_owned(),
        by: "ann".to_owned(),
        before: change.before.to_string(),
        after: change.after.to_string(),
        undo: Some(change.undo.clone()),
        ..ChangeRecord::default()
    };
    found.history.insert(0, record);
    found
}

/// As [`after`], by this verb.
#[track_caller]
fn done(found: &FoundLists, verb: &Verb) -> FoundLists {
    let change = make(verb, &terms(), found, &drawn()).unwrap();
    let mut found = after(found, &change);
    found.history[0].verb = verb.name().to_owned();
    found
}

#[track_caller]
fn change(found: &FoundLists, verb: &Verb) -> ListsChange {
    make(verb, &terms(), found, &drawn()).unwrap()
}

#[track_caller]
fn refusal(found: &FoundLists, verb: &Verb) -> String {
    make(verb, &terms(), found, &drawn()).unwrap_err()
}

fn texts(found: &FoundLists, list: ListName) -> Vec<String> {
    let entries = found.lists[list].entries.into_iter();
    entries
        .map(|it| String::from_utf8_lossy(it).into_owned())
        .collect()
}

fn admit(entries: &[&str]) -> Verb {
    Verb::Admit(entries.iter().map(|it| (*it).to_owned()).collect())
}

fn remove(entries: &[&str]) -> Verb {
    Verb::Remove(entries.iter().map(|it| (*it).to_owned()).collect())
}

#[test]
fn a_release_of_the_servers_of_prod_is_to_be_confirmed() {
    let asks =
        |pre: &[&str], verb: &Verb| change(&found(&["1.2.3.4"], pre, &["b", "a:80"]), verb).asks;
    let share = |it: u16| Verb::Stage(it, None);
    let swap = Verb::Promote {
        swap: true,
        force: true,
    };
    // Whatever their weights, and however they are written.
    let same = ["a weight=2", "b:80"];
    for verb in [share(100), PROMOTE, swap.clone()] {
        assert_eq!(asks(&same, &verb), [SAME_SERVERS], "{verb:?}");
        let some = asks(&["a", "c"], &verb);
        assert!(!some.iter().any(|it| it == SAME_SERVERS), "{verb:?}");
    }
    assert!(asks(&same, &admit(&["1.2.3.5"])).is_empty());
    assert!(asks(&same, &share(0)).is_empty());
}

const PROMOTE: Verb = Verb::Promote {
    swap: false,
    force: false,
};

#[test]
fn an_entry_in_another_spelling_is_the_same() {
    let before = found(
        &["10.0.0.7/24", " garbage", "header:x-user=ann cookie:a"],
        &[],
        &["p"],
    );
    for same in ["10.0.0.0/24", "* 10.0.0.0/24", "cookie:a header:X-User=ann"] {
        let change = change(&before, &admit(&[same]));
        assert!(change.is_none(), "{same}: {change:?}");
        assert!(change.notes[0].contains("already"), "{:?}", change.notes);
    }
    let more = done(
        &before,
        &admit(&["10.0.0.1", "10.0.0.1/32", "* note=\"a # b\""]),
    );
    // In its order, and as it was written.
    let expected = [
        "10.0.0.7/24",
        " garbage",
        "header:x-user=ann cookie:a",
        "10.0.0.1",
        "* note=\"a # b\"",
    ];
    assert_eq!(texts(&more, ListName::Gray), expected);
    let less = done(
        &more,
        &remove(&["10.0.0.255/24", "cookie:a header:x-user=ann"]),
    );
    assert_eq!(
        texts(&less, ListName::Gray),
        [" garbage", "10.0.0.1", "* note=\"a # b\""]
    );
}

#[test]
fn what_is_no_entry_or_not_there_is_refused_with_what_may_be_meant() {
    let before = found(&["10.0.0.0/8", "1.2.3.4 note=ann"], &[], &["p"]);
    for (verb, said) in [
        (admit(&["10.0.0.1", "10.0.0.1O"]), "is 10.0.0.10 meant?"),
        (admit(&["10.0.0.256"]), "from 0 to 255"),
        (admit(&["percent:5%"]), "percent:5"),
        (remove(&["10.0.0.1"]), "it is gray by 10.0.0.0/8"),
        (remove(&["1.2.3.4"]), "is 1.2.3.4 note=\"ann\" meant?"),
        (remove(&["cookie:a"]), "cookie:a is not on gray"),
        (Verb::Stage(500, None), "pre has no server"),
        (PROMOTE, "pre has no server"),
        (Verb::Undo, "nothing to undo"),
        (Verb::Rollback(Some(7)), "no change 7; it is empty"),
    ] {
        let refusal = refusal(&before, &verb);
        assert!(refusal.contains(said), "{verb:?}: {refusal}");
    }
}

#[test]
fn what_the_guard_would_hold_is_asked_for() {
    let before = found(&["10.0.0.1"], &["n1", "n2"], &["p1", "p2"]);
    for (verb, asks, accepted) in [
        (admit(&["0.0.0.0/0"]), Some("everybody"), 1),
        (admit(&["*"]), Some("everybody"), 1),
        (admit(&["percent:95"]), Some("everybody"), 1),
        (admit(&["10.0.0.0/8"]), None, 0),
        (remove(&["10.0.0.1"]), Some("gray is emptied"), 0),
        (Verb::Stage(10_000, None), Some("everybody gets pre"), 1),
        (
            Verb::Stage(10_000, Some(ShareBy::Cookie("u".to_owned()))),
            Some("everybody gets pre"),
            0,
        ),
        (Verb::Stage(500, None), None, 0),
        (PROMOTE, Some("many servers of prod go"), 1),
        (Verb::Rollback(None), None, 0),
    ] {
        let change = change(&before, &verb);
        let asked = change.asks.join("; ");
        match asks {
            Some(asks) => assert!(asked.contains(asks), "{verb:?}: {asked}"),
            None => assert_eq!(asked, "", "{verb:?}"),
        }
        // And what the lists are then, as a whole.
        let (whole, held) = change.accept.split_last().unwrap();
        assert_eq!((*whole, held.len()), (change.after, accepted), "{verb:?}");
    }
}

#[test]
fn a_release_has_one_share_and_a_new_release_another_salt() {
    let share = |found: &FoundLists| -> Vec<String> {
        let mut all = texts(found, ListName::Gray);
        all.retain(|it| it.contains("percent:"));
        all
    };
    let cookie = Some(ShareBy::Cookie("uid".to_owned()));
    let before = found(&["10.0.0.1", "10.0.0.0/8 percent:5"], &["n"], &["p"]);
    let one = done(&before, &Verb::Stage(100, cookie.clone()));
    assert_eq!(share(&one)[1], "percent:1:cookie:uid");
    assert_eq!(one.salt.as_deref(), Some(&b"salted"[..]));
    assert_eq!(one.state["epoch"], RELEASE);
    // The same release: the same salt, and the same cookie.
    let salted = FoundLists {
        salt: Some(b"first".to_vec()),
        ..one.clone()
    };
    let five = done(&salted, &Verb::Stage(550, None));
    assert_eq!(
        share(&five),
        ["10.0.0.0/8 percent:5", "percent:5.5:cookie:uid"]
    );
    assert_eq!(five.salt.as_deref(), Some(&b"first"[..]));
    assert!(change(&five, &Verb::Stage(550, None)).is_none());
    let none = done(&five, &Verb::Stage(0, None));
    assert_eq!(share(&none), ["10.0.0.0/8 percent:5"]);
    // Another release.
    let mut other = five.clone();
    other.lists.pre.entries = ["n2"].iter().collect();
    let other = done(&other, &Verb::Stage(550, None));
    assert_eq!(other.salt.as_deref(), Some(&b"salted"[..]));
    assert_eq!(share(&other), share(&five));
    // One that somebody has begun by hand goes on as it is; of several it is not known.
    let by_hand = found(&["percent:5"], &["n"], &["p"]);
    let more = done(&by_hand, &Verb::Stage(1000, None));
    assert_eq!(
        (share(&more), more.salt),
        (vec!["percent:10".to_owned()], None)
    );
    let several = found(&["percent:5", "percent:2:visitor"], &["n"], &["p"]);
    let refusal = refusal(&several, &Verb::Stage(1000, None));
    assert!(
        refusal.contains("percent:2:visitor, percent:5"),
        "{refusal}"
    );
}

#[test]
fn a_release_that_was_taken_back_is_neither_staged_nor_promoted() {
    let mut before = found(&[], &["n"], &["p"]);
    let pre = PeerList::parse(["n"], 80).digest(ListName::Pre);
    for (trip, is_of_this) in [
        (
            json!({ "pre": pre.to_string(), "by": "gw-1", "why": "worse" }).to_string(),
            true,
        ),
        (json!({ "pre": RELEASE }).to_string(), false),
        ("by hand".to_owned(), true),
    ] {
        before.tripped = Some(trip.clone().into_bytes());
        for verb in [Verb::Stage(500, None), PROMOTE] {
            let outcome = make(&verb, &terms(), &before, &drawn());
            assert_eq!(outcome.is_err(), is_of_this, "{trip} {verb:?}");
        }
        let forced = Verb::Promote {
            swap: false,
            force: true,
        };
        assert!(make(&forced, &terms(), &before, &drawn()).is_ok());
        // A reset ends it, whatever it is about.
        let reset = make(&Verb::Reset, &terms(), &before, &drawn()).unwrap();
        assert!(reset.untrips && reset.difference.contains(&"- tripped".to_owned()));
    }
    before.tripped = None;
    let again = make(&Verb::Reset, &terms(), &before, &drawn()).unwrap();
    assert!(!again.untrips && !again.is_none(), "evidence begins anew");
    let state = again.state.unwrap();
    assert_eq!(state["epoch"], drawn().epoch);
    assert_eq!(state["reset"]["epoch"], state["epoch"]);
    assert_eq!(again.before, again.after);
}

#[test]
fn a_promotion_and_what_takes_it_back() {
    let before = found(&["10.0.0.1", "percent:5"], &["n1", "n2"], &["p1 weight=2"]);
    let promoted = done(&before, &PROMOTE);
    let all = |found: &FoundLists| ListName::ALL.map(|it| texts(found, it));
    assert_eq!(
        all(&promoted),
        [vec![], vec![], vec!["n1".to_owned(), "n2".to_owned()]]
    );
    for verb in [Verb::Rollback(None), Verb::Undo, Verb::Rollback(Some(1))] {
        let back = done(&promoted, &verb);
        assert_eq!(all(&back), all(&before), "{verb:?}");
        // And that is taken back as well.
        assert_eq!(all(&done(&back, &Verb::Undo)), all(&promoted), "{verb:?}");
    }
    let swapped = done(
        &before,
        &Verb::Promote {
            swap: true,
            force: false,
        },
    );
    assert_eq!(texts(&swapped, ListName::Pre), ["p1 weight=2"]);
    // The share of the release does not come back with the servers, whoever was in it.
    let staged = done(
        &found(&["10.0.0.1"], &["n"], &["p"]),
        &Verb::Stage(10_000, None),
    );
    let promoted = done(&staged, &PROMOTE);
    let back = done(&promoted, &Verb::Rollback(None));
    let servers = ["n", "p"].map(|it| vec![it.to_owned()]);
    assert_eq!(all(&back)[0], ["10.0.0.1"]);
    assert_eq!(all(&back)[1..], servers);
    assert_eq!(all(&done(&promoted, &Verb::Undo)), all(&staged));
    assert_eq!(all(&done(&back, &Verb::Undo)), all(&promoted));
    let staged = done(&found(&[], &["n"], &["p"]), &Verb::Stage(500, None));
    let back = done(&done(&staged, &PROMOTE), &Verb::Rollback(None));
    assert_eq!(all(&back)[0], Vec::<String>::new());
    // And is dealt as it was when it comes again.
    let by = Some(ShareBy::Cookie("uid".to_owned()));
    let staged = done(&found(&[], &["n"], &["p"]), &Verb::Stage(500, by));
    for back in [Verb::Rollback(None), Verb::Stage(0, None)] {
        let again = done(&done(&staged, &back), &Verb::Stage(2_500, None));
        assert_eq!(texts(&again, ListName::Gray), ["percent:25:cookie:uid"]);
        assert_eq!(again.salt, staged.salt);
    }
    let mut next = done(&staged, &PROMOTE);
    next.lists.pre.entries = ["n2"].iter().collect();
    let next = done(&next, &Verb::Stage(100, None));
    assert_eq!(texts(&next, ListName::Gray), ["percent:1:cookie:uid"]);
    // Later, a rollback is about the release of then.
    let staged = done(&swapped, &Verb::Stage(500, None));
    let back = done(&staged, &Verb::Rollback(None));
    assert_eq!(all(&back)[0], Vec::<String>::new());
    assert_eq!(texts(&back, ListName::Pre), ["p1 weight=2"]);
    let first = done(&back, &Verb::Rollback(Some(1)));
    assert_eq!(all(&first), all(&before));
}

#[test]
fn nothing_is_undone_when_something_came_after() {
    let before = found(&["10.0.0.1"], &["n"], &["p"]);
    let mut changed = done(&before, &admit(&["10.0.0.2"]));
    changed.lists.gray.entries = ["10.0.0.1", "10.0.0.2", "10.0.0.3"].iter().collect();
    let said = refusal(&changed, &Verb::Undo);
    assert!(said.contains("by hand after change 1"), "{said}");
    let back = done(&changed, &Verb::Rollback(Some(1)));
    assert_eq!(texts(&back, ListName::Gray), ["10.0.0.1"]);
}

#[test]
fn of_a_long_list_the_history_keeps_what_has_changed() {
    let many: Vec<String> = (0..2000u32)
        .map(|it| std::net::Ipv4Addr::from(it + 0x0a00_0000).to_string())
        .collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let before = found(&many, &["n"], &["p"]);
    let sorted = |found: &FoundLists| {
        let mut all = texts(found, ListName::Gray);
        all.sort();
        all
    };
    let one = done(&before, &admit(&["10.9.0.1"]));
    assert!(!one.history[0].undo.as_ref().unwrap().is_whole());
    let two = done(&one, &remove(&["10.0.0.7"]));
    let undone = done(&two, &Verb::Undo);
    assert_eq!(sorted(&undone), sorted(&one));
    let first = done(&two, &Verb::Rollback(Some(1)));
    assert_eq!(sorted(&first), sorted(&before));
    let mut by_hand = two.clone();
    by_hand.lists.gray.entries = ["10.9.9.9"].iter().collect();
    let said = refusal(&by_hand, &Verb::Rollback(Some(1)));
    assert!(said.contains("changed by hand"), "{said}");
}

#[test]
fn what_is_frozen_stays_until_it_is_thawed() {
    let before = found(&["10.0.0.1"], &["n"], &["p"]);
    let frozen = done(&before, &Verb::Freeze);
    for verb in [admit(&["1.1.1.1"]), PROMOTE, Verb::Undo, Verb::Freeze] {
        let said = refusal(&frozen, &verb);
        for word in ["ann@vm1", "2026-11-30", "holidays", "graygate thaw"] {
            assert!(said.contains(word), "{said}");
        }
    }
    let thawed = done(&frozen, &Verb::Thaw);
    assert!(thawed.state.is_empty());
    done(&thawed, &admit(&["1.1.1.1"]));
}

#[test]
fn a_set_is_one_again_after_it_was_emptied() {
    let mut before = found(&["10.0.0.1"], &["n"], &["p"]);
    before.lists.gray.is_set = true;
    let emptied = done(&before, &Verb::Rollback(None));
    assert!(was_set(&emptied.state, ListName::Gray));
    assert!(!was_set(&emptied.state, ListName::Pre));
    let filled = done(&emptied, &admit(&["10.0.0.2"]));
    assert!(!was_set(&filled.state, ListName::Gray));
}

#[test]
fn a_shared_gray_list_is_its_owners() {
    let shop = ServiceTerms {
        service: ServiceName::parse("shop").unwrap(),
        gray_of: Some(ServiceName::default()),
        ..terms()
    };
    let before = found(&["10.0.0.1"], &["n"], &["p"]);
    for verb in [
        admit(&["1.1.1.1"]),
        Verb::Stage(1, None),
        Verb::Rollback(None),
    ] {
        let said = make(&verb, &shop, &before, &drawn()).unwrap_err();
        assert!(said.contains("--service default"), "{said}");
    }
    let change = make(&PROMOTE, &shop, &before, &drawn()).unwrap();
    assert_eq!(change.edits.gray, Edit::None);
    let owner = ServiceTerms {
        shared_by: vec![shop.service],
        ..terms()
    };
    let change = make(&PROMOTE, &owner, &before, &drawn()).unwrap();
    assert!(change.asks.join(" ").contains("for shop as well"));
}

#[test]
fn shares_are_numbers_with_two_decimals() {
    for (text, expected) in [
        ("5%", 500),
        ("5", 500),
        ("0.5%", 50),
        ("12.34", 1234),
        ("100%", 10_000),
        ("0", 0),
    ] {
        assert_eq!(share(text), Ok(expected), "{text}");
    }
    for text in ["", "%", "101", "5.123", "-1", "5%%", ".5", "1e1", "100.01"] {
        assert!(share(text).is_err(), "{text}");
    }
}

fn started(steps: &[u16]) -> Verb {
    Verb::Rollout(RolloutVerb::Start(RolloutPlan {
        steps: steps.to_vec(),
        by: None,
        every: Duration::from_secs(60),
        promotes: false,
        without_verdict: false,
    }))
}

/// What the leader of this number says, who has found the release of `epoch` good enough for so long.
fn word(found: &FoundLists, fence: u64, epoch: &str, unwritten: u64) -> Verb {
    let pre = rollout_in(&found.state).unwrap().pre;
    Verb::Rollout(RolloutVerb::CarryOn(LeaderWord {
        holder: "gw-1".to_owned(),
        fence,
        node: "gw-1".to_owned(),
        seen: SeenTurn { turns: 1, at: 0 },
        release: format!("{pre}/{epoch}"),
        opinion: Opinion::Good,
        unwritten: Duration::from_secs(unwritten),
        trip: None,
        against_promotion: None,
    }))
}

/// After the lease was taken, for the first time.
fn led(found: &FoundLists) -> FoundLists {
    let mut found = found.clone();
    let mut rollout = rollout_in(&found.state).unwrap();
    rollout.take("gw-1");
    found.state.insert(ROLLOUT.to_owned(), rollout.to_json());
    found
}

#[test]
fn a_leader_takes_a_step_by_its_own_number_when_it_is_due_and_for_its_own_release() {
    let begun = done(&found(&["10.0.0.1"], &["p"], &["q"]), &started(&[100, 500]));
    assert_eq!(texts(&begun, ListName::Gray), ["10.0.0.1", "percent:1"]);
    let led = led(&begun);
    for (what, fence, epoch, unwritten) in [
        ("another one has the lease", 2, RELEASE, 60),
        (
            "another step was found good enough",
            1,
            "8899aabbccddeeff",
            60,
        ),
        ("the time is not over", 1, RELEASE, 59),
    ] {
        let change = change(&led, &word(&led, fence, epoch, unwritten));
        assert!(change.is_none(), "{what}: {change:?}");
    }
    assert!(change(&begun, &word(&begun, 0, RELEASE, 60)).is_none());
    // Whoever has seen more than there is pauses it, and whoever leads does not any more.
    let mut knows = word(&led, 2, RELEASE, 60);
    if let Verb::Rollout(RolloutVerb::CarryOn(word)) = &mut knows {
        word.seen = SeenTurn { turns: 4, at: 1 };
    }
    let paused = done(&led, &knows);
    let rollout = rollout_in(&paused.state).unwrap();
    assert_eq!((rollout.course, rollout.turns), (Course::Paused, 5));
    assert_eq!((rollout.lease.holder, rollout.lease.fence), (None, 2));
    assert_eq!(texts(&paused, ListName::Gray), ["10.0.0.1", "percent:1"]);
    assert!(change(&paused, &knows).is_none());
    let step = change(&led, &word(&led, 1, RELEASE, 60));
    assert_eq!(step.verb, Some("rollout"));
    let next = after(&led, &step);
    assert_eq!(texts(&next, ListName::Gray), ["10.0.0.1", "percent:5"]);
    let rollout = rollout_in(&next.state).unwrap();
    assert_eq!((rollout.at, rollout.turns), (1, 2));
    assert!(rollout.waited.is_zero() && rollout.is_led_by("gw-1", 1));
    // Frozen, it is paused, and the lists stay; other verbs are refused.
    let frozen = done(&led, &Verb::Freeze);
    let paused = change(&frozen, &word(&frozen, 1, RELEASE, 60));
    assert!(paused.edits.iter().all(|(_, it)| *it == Edit::None));
    let rollout = rollout_in(paused.state.as_ref().unwrap()).unwrap();
    assert_eq!(rollout.course, Course::Paused);
    let resume = Verb::Rollout(RolloutVerb::Resume);
    assert!(refusal(&after(&frozen, &paused), &resume).contains("frozen"));
}

#[test]
fn a_rollout_begins_where_the_share_is_and_takes_no_step_back() {
    let nothing = found(&[], &[], &["q"]);
    assert!(refusal(&nothing, &started(&[100])).contains("pre has no server"));
    let staged = done(&found(&[], &["p"], &["q"]), &Verb::Stage(500, None));
    assert!(refusal(&staged, &started(&[100, 1000])).contains("5% already"));
    let begun = done(&staged, &started(&[500, 1000]));
    assert_eq!(texts(&begun, ListName::Gray), ["percent:5"]);
    assert_eq!(rollout_in(&begun.state).unwrap().share, "percent:5");
    assert!(refusal(&begun, &started(&[500])).contains("is under way"));
    let back = done(&led(&begun), &Verb::Rollback(None));
    let rollout = rollout_in(&back.state).unwrap();
    assert_eq!(rollout.course, Course::Aborted);
    assert!(!rollout.is_led_by("gw-1", 1));
    // It ends for good, but another one may begin.
    assert!(refusal(&back, &Verb::Rollout(RolloutVerb::Resume)).contains("is aborted"));
    done(&back, &started(&[100]));
    let others = ServiceTerms {
        gray_of: Some(ServiceName::default()),
        ..terms()
    };
    let why = make(&started(&[100]), &others, &staged, &drawn()).unwrap_err();
    assert!(why.contains("has the gray list of"), "{why}");
}

#[test]
fn steps_are_shares_that_grow() {
    assert_eq!(
        steps("1, 5%,25,50.5,100"),
        Ok(vec![100, 500, 2500, 5050, 10_000])
    );
    for text in ["", "0,5", "5,5", "5,1", "5,101", "1;5"] {
        assert!(steps(text).is_err(), "{text}");
    }
}

#[test]
fn a_share_that_is_set_by_hand_says_what_becomes_of_the_rollout() {
    let begun = done(&found(&[], &["p"], &["q"]), &started(&[100, 500]));
    let notes = |found: &FoundLists, share| change(found, &Verb::Stage(share, None)).notes.concat();
    assert_eq!(notes(&begun, 100), "gray has percent:1 already");
    assert!(notes(&begun, 300).contains("a rollout is under way, and pauses by this"));
    let paused = done(&begun, &Verb::Rollout(RolloutVerb::Pause));
    assert!(notes(&paused, 300).contains("it can go on only with its own share, percent:1"));
    let other = done(&paused, &Verb::Stage(300, None));
    assert!(refusal(&other, &Verb::Rollout(RolloutVerb::Resume)).contains("stage 1%"));
    assert!(notes(&other, 100).contains("`graygate rollout resume` has it go on"));
    let back = done(&other, &Verb::Stage(100, None));
    let resumed = change(&back, &Verb::Rollout(RolloutVerb::Resume));
    assert_eq!(
        resumed.difference,
        ["+ rollout resumed at step 1 of 2 (1%)"]
    );
    let aborted = done(&paused, &Verb::Rollout(RolloutVerb::Abort));
    assert_eq!(notes(&aborted, 300), "");
}
