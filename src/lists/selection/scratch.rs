//! What has been found of a request: the values of sources, and to which bucket it belongs.

use super::sources::{SourceKind, SourceNumber, Sources};
use crate::http::fields::FieldKind;
use crate::http::query;
use crate::http::span::Span;
use crate::http::subject::Subject;

/// Memory for what is found in requests, one after the other; with it, finding allocates nothing.
///
/// Each worker has one, with 16 bytes for each source that its lists are about: for a million entries, each
/// about a cookie of another name, that is 16 MB a worker. What entries are about is for the operator to say,
/// and no request makes it more.
#[derive(Debug, Default)]
pub struct Scratch {
    /// The request: what another one has left counts for nothing.
    epoch: u32,
    /// The kinds of sources that have been looked for.
    looked_for: u8,
    values: Vec<FoundValue>,
    /// The sources of a kind that were found.
    found: [Vec<SourceNumber>; SourceKind::NAMED.len()],
    /// Values that are not in the head as they are.
    texts: Vec<u8>,
    /// Used within one test.
    pub(super) memory: Vec<u8>,
    buckets: Vec<NotedBucket>,
}

/// Where a value is.
#[derive(Clone, Copy, Debug, Default)]
struct FoundValue {
    epoch: u32,
    /// In [`Scratch::texts`] instead of in the head.
    is_text: bool,
    place: Span,
}

/// The bucket by one key, if there is that key.
#[derive(Clone, Copy, Debug, Default)]
struct NotedBucket {
    epoch: u32,
    bucket: Option<u16>,
}

impl Scratch {
    /// The memory that it has, in bytes.
    pub(crate) fn capacity(&self) -> usize {
        let found: usize = self.found.iter().map(Vec::capacity).sum();
        self.values.capacity() * size_of::<FoundValue>()
            + found * size_of::<SourceNumber>()
            + self.buckets.capacity() * size_of::<NotedBucket>()
            + self.texts.capacity()
            + self.memory.capacity()
    }

    /// Begins with a request.
    pub(super) fn begin(&mut self, sources: usize, keys: usize) {
        self.epoch = self.epoch.wrapping_add(1);
        if self.epoch == 0 {
            self.values.clear();
            self.buckets.clear();
            self.epoch = 1;
        }
        if self.values.len() < sources {
            self.values.resize(sources, FoundValue::default());
        }
        if self.buckets.len() < keys {
            self.buckets.resize(keys, NotedBucket::default());
        }
        self.looked_for = 0;
        self.texts.clear();
    }

    /// As if that many requests had come before.
    #[cfg(test)]
    pub(super) fn set_epoch(&mut self, epoch: u32) {
        self.epoch = epoch;
    }

    /// The sources of a named `kind` that the request has.
    pub(super) fn found(
        &mut self,
        kind: SourceKind,
        sources: &Sources,
        subject: &Subject<'_>,
    ) -> &[SourceNumber] {
        self.look_for(kind, sources, subject);
        &self.found[place_of(kind)]
    }

    /// The value of a source, if the request has it; and memory.
    pub(super) fn value<'a>(
        &'a mut self,
        source: SourceNumber,
        sources: &Sources,
        subject: &Subject<'a>,
    ) -> Option<(&'a [u8], &'a mut Vec<u8>)> {
        self.look_for(sources.kind(source), sources, subject);
        let noted = self.values[source.0 as usize];
        let bytes = match noted.is_text {
            true => &self.texts,
            false => subject.bytes(),
        };
        (noted.epoch == self.epoch).then(|| (noted.place.of(bytes), &mut self.memory))
    }

    /// The bucket by the key of that number, which is found out once.
    pub(super) fn bucket(
        &mut self,
        key: usize,
        find_out: impl FnOnce(&mut Self) -> Option<u16>,
    ) -> Option<u16> {
        if self.buckets[key].epoch != self.epoch {
            self.buckets[key] = NotedBucket {
                bucket: find_out(self),
                epoch: self.epoch,
            };
        }
        self.buckets[key].bucket
    }

    #[inline]
    fn look_for(&mut self, kind: SourceKind, sources: &Sources, subject: &Subject<'_>) {
        if self.looked_for & kind.bit() == 0 {
            self.looked_for |= kind.bit();
            self.look(kind, sources, subject);
        }
    }

    fn look(&mut self, kind: SourceKind, sources: &Sources, subject: &Subject<'_>) {
        let single = SourceNumber(kind as u32);
        match kind {
            SourceKind::Path => self.note(single, subject.path(), subject),
            SourceKind::Method => self.note(single, subject.method(), subject),
            SourceKind::Host => self.look_at_host(subject),
            SourceKind::Header => self.look_at_fields(sources, subject),
            SourceKind::Cookie => self.look_at_cookies(sources, subject),
            SourceKind::Query => self.look_at_query(sources, subject),
        }
    }

    /// In lower case.
    fn look_at_host(&mut self, subject: &Subject<'_>) {
        let host = subject.host();
        let source = SourceNumber(SourceKind::Host as u32);
        match host.iter().any(u8::is_ascii_uppercase) {
            true => {
                let start = self.texts.len();
                self.texts.extend(host.iter().map(u8::to_ascii_lowercase));
                self.note_text(source, start);
            }
            false => self.note(source, host, subject),
        }
    }

    fn look_at_fields(&mut self, sources: &Sources, subject: &Subject<'_>) {
        self.found[place_of(SourceKind::Header)].clear();
        let (names, bytes) = (sources.names(SourceKind::Header), subject.bytes());
        for field in subject.fields() {
            if let Some(source) = names.find(field.name.of(bytes)) {
                let source = SourceNumber(source);
                if self.is_first(source, SourceKind::Header) {
                    self.values[source.0 as usize] = FoundValue {
                        epoch: self.epoch,
                        is_text: false,
                        place: field.value,
                    };
                }
            }
        }
    }

    fn look_at_cookies(&mut self, sources: &Sources, subject: &Subject<'_>) {
        self.found[place_of(SourceKind::Cookie)].clear();
        let names = sources.names(SourceKind::Cookie);
        if names.is_empty() || !subject.fields().has(FieldKind::Cookie) {
            return;
        }
        for (name, value) in subject.cookies() {
            if let Some(source) = names.find(name) {
                let source = SourceNumber(source);
                if self.is_first(source, SourceKind::Cookie) {
                    self.note(source, value, subject);
                }
            }
        }
    }

    fn look_at_query(&mut self, sources: &Sources, subject: &Subject<'_>) {
        self.found[place_of(SourceKind::Query)].clear();
        let names = sources.names(SourceKind::Query);
        if names.is_empty() {
            return;
        }
        for (name, value) in subject.parameters() {
            let source = names.find(query::decode(name, &mut self.memory));
            let source = source.map(SourceNumber);
            let Some(source) = source.filter(|it| self.is_first(*it, SourceKind::Query)) else {
                continue;
            };
            match memchr::memchr2(b'%', b'+', value) {
                Some(_) => {
                    let start = self.texts.len();
                    self.texts.extend(query::decoded(value));
                    self.note_text(source, start);
                }
                None => self.note(source, value, subject),
            }
        }
    }

    /// True when that source was not found before in this request: only the first one counts.
    fn is_first(&mut self, source: SourceNumber, kind: SourceKind) -> bool {
        let is_first = self.values[source.0 as usize].epoch != self.epoch;
        if is_first {
            self.found[place_of(kind)].push(source);
        }
        is_first
    }

    /// Notes a value, which is a part of the head as a rule.
    fn note(&mut self, source: SourceNumber, value: &[u8], subject: &Subject<'_>) {
        let bytes = subject.bytes();
        let start = value.as_ptr().addr().wrapping_sub(bytes.as_ptr().addr());
        let end = start.saturating_add(value.len());
        if bytes.get(start..end) == Some(value) {
            self.values[source.0 as usize] = FoundValue {
                epoch: self.epoch,
                is_text: false,
                place: Span::new(start, end),
            };
        } else {
            let start = self.texts.len();
            self.texts.extend_from_slice(value);
            self.note_text(source, start);
        }
    }

    /// Notes the text from `start` on.
    fn note_text(&mut self, source: SourceNumber, start: usize) {
        self.values[source.0 as usize] = FoundValue {
            epoch: self.epoch,
            is_text: true,
            place: Span::new(start, self.texts.len()),
        };
    }
}

/// The place of a named kind.
fn place_of(kind: SourceKind) -> usize {
    kind as usize - SourceKind::NAMED[0] as usize
}
