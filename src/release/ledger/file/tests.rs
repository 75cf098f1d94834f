use std::cell::Cell;

use super::*;
use crate::release::change::Verb;
use crate::release::state::LONGEST_STATE;
use crate::store::StoredText;
use crate::store::file::text_beside;

const LISTS: &str = "[gray]\n[pre]\n127.0.0.1:2\n[prod]\n127.0.0.1:1\n";

/// A ledger of such lists, and what becomes of a `verb` when this happens while its giver thinks, once.
fn performed(verb: Verb, meanwhile: impl Fn(&FileLedger<'_>)) -> (Result<Done, String>, u32) {
    performed_while(verb, |it, asked| {
        if asked == 0 {
            meanwhile(it);
        }
    })
}

/// The same when this happens each time, after so many.
fn performed_while(
    verb: Verb,
    meanwhile: impl Fn(&FileLedger<'_>, u32),
) -> (Result<Done, String>, u32) {
    let folder = tempfile::tempdir().unwrap();
    let lists = folder.path().join("lists");
    fs::write(&lists, LISTS).unwrap();
    let text = format!("[lists]\nfile = {}\n", lists.display());
    let config = Config::parse(Path::new("graygate.ini"), &text, None).unwrap();
    let terms = ServiceTerms {
        service: ServiceName::default(),
        gray_of: None,
        shared_by: Vec::new(),
        salt: String::new(),
        peer_port: 80,
        guard_share: 50,
    };
    let ledger = FileLedger::of(&lists, &config, terms);
    let asked = Cell::new(0);
    let order = Order::new(verb, "ann".to_owned(), None);
    let patience = Duration::from_millis(300);
    let outcome = ledger.perform_within(patience, &order, &mut |_| {
        meanwhile(&ledger, asked.replace(asked.get() + 1));
        Ok(Consent::Yes)
    });
    (outcome, asked.get())
}

#[test]
fn what_was_taken_back_while_somebody_thinks_is_not_promoted() {
    let promote = Verb::Promote {
        swap: false,
        force: false,
    };
    let trip = |it: &FileLedger<'_>| fs::write(it.of_service(TRIPPED), "stop").unwrap();
    let (outcome, asked) = performed(promote, trip);
    assert!(outcome.unwrap_err().contains("was taken back"));
    assert_eq!(asked, 1);
}

#[test]
fn no_number_is_given_twice_where_a_gateway_notes_something_while_somebody_thinks() {
    let verb = Verb::Stage(500, None);
    let note = |it: &FileLedger<'_>| {
        let change = it.found(LISTS.as_bytes()).unwrap();
        let terms = it.terms.clone();
        let order = Order::new(Verb::Freeze, "bob".to_owned(), None);
        let (change, _) = heard(&order, &terms, &change, &mut |_| Ok(Consent::Yes)).unwrap();
        it.append(&order.record(&change, &terms, 1).to_line())
            .unwrap();
    };
    let (outcome, asked) = performed(verb, note);
    assert_eq!((outcome.unwrap().number, asked), (Some(2), 2));
}

#[test]
fn lists_that_others_change_all_the_time_are_tried_for_a_while_and_not_for_ever() {
    let (began, most) = (Instant::now(), 100);
    let (outcome, asked) = performed_while(Verb::Stage(500, None), |it, asked| {
        if asked < most {
            fs::write(&it.path, format!("{LISTS}# {asked}\n")).unwrap();
        }
    });
    let why = outcome.unwrap_err();
    let said = "nothing was changed: others change the lists all the time";
    assert!(why.ends_with(said), "{why}");
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert!((2..most).contains(&asked), "{asked}");
}

#[test]
fn a_state_that_gateways_would_not_read_is_not_written() {
    let long = |it: &FileLedger<'_>, size: usize| {
        let state = json!({ "others": "x".repeat(size) });
        fs::write(it.of_service(RELEASE), state.to_string()).unwrap();
    };
    let (outcome, _) = performed(Verb::Freeze, |it| long(it, LONGEST_STATE - 40));
    let why = outcome.unwrap_err();
    assert!(why.contains("gateways read none above 65536"), "{why}");
}

#[test]
fn gateways_read_a_state_up_to_this_length() {
    let folder = tempfile::tempdir().unwrap();
    let lists = folder.path().join("lists");
    for (size, is_read) in [(LONGEST_STATE, true), (LONGEST_STATE + 1, false)] {
        let path = beside(&lists, &ServiceName::default(), RELEASE);
        fs::write(path, "x".repeat(size)).unwrap();
        let text = text_beside(&lists, &ServiceName::default(), RELEASE);
        assert_eq!(matches!(text, StoredText::Text(_)), is_read);
    }
}
