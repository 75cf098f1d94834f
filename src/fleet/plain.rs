//! Texts of others, who may have written anything, as they can be shown: none of them commands a terminal.

/// The longest word of others, in characters.
const LONGEST: usize = 128;

/// One word, of bounded length: what is none of it is a question mark.
pub(crate) fn plain(text: &str) -> String {
    let is_plain = |it: char| !it.is_control() && !it.is_whitespace();
    let shown = text.chars().map(|it| if is_plain(it) { it } else { '?' });
    shown.take(LONGEST).collect()
}

/// The first `most` characters of a text, with a question mark in the place of each that commands something.
pub(crate) fn printable(text: &str, most: usize) -> String {
    let shown = text
        .chars()
        .map(|it| if it.is_control() { '?' } else { it });
    shown.take(most).collect()
}

/// A sentence, without what commands something.
pub(crate) fn sentence(text: &str) -> String {
    text.chars().filter(|it| !it.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_shown_commands_a_terminal() {
        let text = "a\u{1b}[2J b";
        assert_eq!(plain(text), "a?[2J?b");
        assert_eq!(printable(text, 4), "a?[2");
        assert_eq!(sentence(text), "a[2J b");
        assert_eq!(plain(&"x".repeat(1000)).len(), LONGEST);
    }
}
