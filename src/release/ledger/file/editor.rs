//! The text of a lists file after a change of a service. Pure: what the change does not concern stays as it
//! was written, comments included, and new entries come at the end of their section.

use std::collections::HashSet;

use crate::lists::{ListName, ServiceName};
use crate::release::change::{Edit, ListsChange};
use crate::store::format::{self, FileLine};

/// The text of a lists file after a change of a service.
pub(super) fn edited(text: &[u8], service: &ServiceName, change: &ListsChange) -> Vec<u8> {
    let mut editor = FileEditor {
        out: Vec::with_capacity(text.len() + 64),
        section: None,
        change,
        gone: HashSet::new(),
        wanted: None,
        at: None,
        has_salt: false,
    };
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        match format::file_line(line) {
            FileLine::Title(of, list) => {
                editor.end_section();
                editor.out.extend_from_slice(line);
                editor.begin_section((of == *service).then_some(list));
            }
            FileLine::Entry(entry) => editor.entry(entry, line),
            FileLine::Other => editor.out.extend_from_slice(line),
        }
    }
    editor.end_section();
    let FileEditor {
        mut out, has_salt, ..
    } = editor;
    if let Some(Some(salt)) = &change.salt
        && !has_salt
    {
        let title = format::title(service, "salt");
        out.extend_from_slice(format!("\n[{title}]\n").as_bytes());
        out.extend_from_slice(salt);
        out.push(b'\n');
    }
    out
}

/// Writes a file anew, section by section.
struct FileEditor<'a> {
    out: Vec<u8>,
    /// The section of the service that is being written: of a list, or of the salt.
    section: Option<Option<ListName>>,
    change: &'a ListsChange,
    /// The entries that go from it; or else those that it is to have, without those that it has already.
    gone: HashSet<&'a [u8]>,
    wanted: Option<HashSet<&'a [u8]>>,
    /// Where in `out` the new entries of the section belong.
    at: Option<usize>,
    has_salt: bool,
}

impl<'a> FileEditor<'a> {
    fn begin_section(&mut self, section: Option<Option<ListName>>) {
        self.section = section;
        self.at = section.map(|_| self.out.len());
        self.has_salt |= section == Some(None);
        (self.gone, self.wanted) = (HashSet::new(), None);
        let set = |entries: &'a [Vec<u8>]| entries.iter().map(Vec::as_slice).collect();
        let change: &'a ListsChange = self.change;
        match section.flatten().map(|list| &change.edits[list]) {
            Some(Edit::Some { gone, .. }) => self.gone = set(gone),
            Some(Edit::All(entries)) => self.wanted = Some(set(entries)),
            Some(Edit::None) | None => {}
        }
    }

    fn entry(&mut self, entry: &[u8], line: &[u8]) {
        let stays = match (self.section, &mut self.wanted) {
            (Some(None), _) => self.change.salt.is_none(),
            // With what is said about it on its line.
            (_, Some(wanted)) => wanted.remove(entry),
            _ => !self.gone.contains(entry),
        };
        if stays {
            self.out.extend_from_slice(line);
            if self.section.is_some() {
                self.at = Some(self.out.len());
            }
        }
    }

    fn end_section(&mut self) {
        let Some(at) = self.at.take() else { return };
        let mut new = Vec::new();
        let mut add = |entry: &[u8]| {
            new.extend_from_slice(entry);
            new.push(b'\n');
        };
        let edit = self.section.flatten().map(|list| &self.change.edits[list]);
        match (self.section, edit) {
            (Some(None), _) => {
                if let Some(Some(salt)) = &self.change.salt {
                    add(salt);
                }
            }
            (_, Some(Edit::Some { new, .. })) => new.iter().for_each(|it| add(it)),
            (_, Some(Edit::All(entries))) => {
                let wanted = self.wanted.take().unwrap_or_default();
                let missing = entries.iter().filter(|it| wanted.contains(&it[..]));
                missing.for_each(|it| add(it));
            }
            _ => {}
        }
        self.out.splice(at..at, new);
    }
}
