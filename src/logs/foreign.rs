//! What libraries log through the `log` crate, in our own form.
//!
//! Their warnings and errors become an event of ours, `dependency-log`, with their source and their
//! message, a few times a second at most. What is known to mean nothing is left out.

use std::cell::RefCell;
use std::fmt::Arguments;
use std::time::Instant;

use crate::logs::throttle::Throttle;

/// Longest message that is shown, in bytes.
const MESSAGE_LIMIT: usize = 500;

/// The runtime's event loop.
const POLL_LOOP: &str = "may::io::event_loop";

thread_local! {
    /// One for each thread, so that no worker waits for another.
    static SAID: RefCell<Throttle> = RefCell::default();
}

/// True for a target that is not one of the gateway's own modules.
pub(super) fn is_foreign(target: &str) -> bool {
    target.split("::").next() != Some(env!("CARGO_CRATE_NAME"))
}

/// The event for what a library has logged; `None` when that means nothing, or there is too much of it.
pub(super) fn event(target: &str, message: &Arguments<'_>, now: Instant) -> Option<String> {
    let message = message.to_string();
    if means_nothing(target, &message) {
        return None;
    }
    // What is logged while the thread ends, or while this line is made, is not limited.
    let turn = SAID.try_with(|said| said.try_borrow_mut().ok().map(|mut it| it.turn(now)));
    let unsaid = match turn {
        Ok(Some(turn)) => turn?,
        _ => 0,
    };
    Some(render(target, &message, unsaid))
}

/// When a wait for events is interrupted (SIGSTOP and SIGCONT, a debugger, a machine that was paused:
/// signal(7)), the runtime starts it again, but logs an error all the same.
fn means_nothing(target: &str, message: &str) -> bool {
    let is_interruption = target == POLL_LOOP && message.contains("kind: Interrupted");
    // What comes of a handshake is said by whoever wanted the connection.
    is_interruption || target.starts_with("rustls::")
}

fn render(target: &str, message: &str, unsaid: u64) -> String {
    let shown = &message[..message.floor_char_boundary(MESSAGE_LIMIT)];
    // A target is a Rust path, unless its library has chosen something else.
    let plain = |it: &char| it.is_ascii_graphic() && !matches!(it, '"' | '=' | '\\');
    let target: String = target.chars().filter(plain).take(100).collect();
    format!("dependency-log target={target} message={shown:?} unsaid={unsaid}")
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    /// As the runtime writes it.
    fn select_error(code: i32) -> String {
        format!("select error = {:?}", io::Error::from_raw_os_error(code))
    }

    #[test]
    fn only_what_is_not_ours_is_foreign() {
        for (target, foreign) in [
            ("graygate", false),
            ("graygate::store::redis", false),
            ("graygate_else", true),
            ("may::io::event_loop", true),
            ("ureq", true),
            ("", true),
        ] {
            assert_eq!(is_foreign(target), foreign, "{target}");
        }
    }

    #[test]
    fn an_interruption_is_no_error_and_another_is() {
        let now = Instant::now();
        let of = |target, message: &str| event(target, &format_args!("{message}"), now);
        assert_eq!(of(POLL_LOOP, &select_error(nix::libc::EINTR)), None);
        let bad = of(POLL_LOOP, &select_error(nix::libc::EBADF)).unwrap();
        assert!(
            bad.starts_with(
                "dependency-log target=may::io::event_loop message=\"select error = Os"
            ),
            "{bad}"
        );
        assert_eq!(of("rustls::common_state", "TLS alert received"), None);
        // What it means in another library is not known.
        assert!(of("ureq", &select_error(nix::libc::EINTR)).is_some());
    }

    #[test]
    fn a_message_cannot_break_the_line_nor_fill_the_log() {
        assert_eq!(
            render("a b=\"c", "one\ntwo \"three\" \u{1b}[31m", 7),
            "dependency-log target=abc message=\"one\\ntwo \\\"three\\\" \\u{1b}[31m\" unsaid=7"
        );
        let long = render("ureq", &"é".repeat(1000), 0);
        assert!(long.contains(&format!("\"{}\"", "é".repeat(250))), "{long}");
        let now = Instant::now();
        let said = (0..100).filter(|_| event("ureq", &format_args!("x"), now).is_some());
        assert_eq!(said.count(), 10);
    }
}
