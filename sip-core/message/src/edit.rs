//! Edits of a received message as splices: what is not edited is forwarded octet for octet.
//!
//! Each part may be edited once; a second edit of the same octets is refused at [`Editor::finish`]. Inserted values
//! are checked against injected line ends.

use bytes::Bytes;
use smallvec::SmallVec;

use crate::build::{BuildError, check_name, check_value};
use crate::grammar::comma_list;
use crate::limits::MESSAGE_MAX;
use crate::message::Field;
use crate::{HeaderName, Message, Uri};

/// Why an edit was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// A value would break the message.
    #[error("an edited value is not fit for the wire")]
    Value(#[source] BuildError),
    /// Two edits of the same octets.
    #[error("two edits of the same octets")]
    Overlap,
    /// The result is longer than a message may be.
    #[error("the edited message is too large")]
    TooLarge,
}

struct Splice {
    start: usize,
    end: usize,
    text: (usize, usize),
}

/// Collects edits of one message.
pub struct Editor<'a> {
    message: &'a Message,
    splices: SmallVec<[Splice; 8]>,
    /// The inserted octets of all splices, one after the other.
    text: Vec<u8>,
    error: Option<EditError>,
}

impl<'a> Editor<'a> {
    /// Begins with no edits.
    #[must_use]
    pub fn new(message: &'a Message) -> Self {
        Self { message, splices: SmallVec::new(), text: Vec::with_capacity(256), error: None }
    }

    /// Replaces the Request-URI.
    pub fn request_uri(&mut self, uri: &[u8]) -> &mut Self {
        if !self.message.is_request() || Uri::parse(uri).is_err() {
            self.fail(EditError::Value(BuildError::Uri));
            return self;
        }
        let range = self.message.subject_range();
        self.splice(range.start, range.end, &[uri], false);
        self
    }

    /// Puts a field before all fields of its name (or before all fields): Via, Route, Record-Route. The field
    /// pushed last stands first.
    pub fn push(&mut self, name: HeaderName, value: &[u8]) -> &mut Self {
        self.check(name, value);
        let at = self.first(name).map_or(self.message.fields_start(), |field| field.line().start);
        self.splice(at, at, &[name.as_str().as_bytes(), b": ", value, b"\r\n"], true);
        self
    }

    /// Adds a field behind all others.
    pub fn append(&mut self, name: HeaderName, value: &[u8]) -> &mut Self {
        self.check(name, value);
        self.append_named(name.as_str().as_bytes(), value)
    }

    /// Adds a field that has no [`HeaderName`] behind all others.
    pub fn append_named(&mut self, name: &[u8], value: &[u8]) -> &mut Self {
        if let Err(error) = check_name(name).and_then(|()| check_value(value)) {
            self.fail(EditError::Value(error));
        }
        let at = self.message.fields_end();
        self.splice(at, at, &[name, b": ", value, b"\r\n"], false);
        self
    }

    /// Removes the first value of that name: the first of a comma list, or the whole first field.
    pub fn pop(&mut self, name: HeaderName) -> &mut Self {
        let Some(field) = self.first(name) else { return self };
        let view = self.message.view();
        let value = view.get(field.value()).unwrap_or_default();
        let second = comma_list(value).nth(1).map(|second| {
            let inner = (second.as_ptr() as usize).saturating_sub(value.as_ptr() as usize);
            field.value().start.saturating_add(inner)
        });
        let (start, end) = match second {
            Some(second) => (field.value().start, second),
            None => (field.line().start, field.line().end),
        };
        self.splice(start, end, &[], false);
        self
    }

    /// Gives the header this one value: the first field of the name keeps its place, others go; appended when
    /// there was none.
    pub fn replace(&mut self, name: HeaderName, value: &[u8]) -> &mut Self {
        self.check(name, value);
        let fields: SmallVec<[Field; 4]> = self.fields(name).collect();
        let Some((first, others)) = fields.split_first() else { return self.append(name, value) };
        let range = first.value();
        self.splice(range.start, range.end, &[value], false);
        for field in others {
            self.splice(field.line().start, field.line().end, &[], false);
        }
        self
    }

    /// Removes all fields of that name.
    pub fn remove(&mut self, name: HeaderName) -> &mut Self {
        let fields: SmallVec<[Field; 4]> = self.fields(name).collect();
        for field in fields {
            self.splice(field.line().start, field.line().end, &[], false);
        }
        self
    }

    /// Replaces the body and sets Content-Length (Content-Type stays: edit it with [`Editor::replace`]).
    pub fn body(&mut self, body: &[u8]) -> &mut Self {
        let range = self.message.body_range();
        self.splice(range.start, range.end, &[body], false);
        let length = body.len().to_string();
        self.replace(HeaderName::ContentLength, length.as_bytes())
    }

    /// The edited message.
    pub fn finish(mut self) -> Result<Bytes, EditError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        // Stable: insertions at one place keep their order, and stand before a removal that begins there.
        self.splices.sort_by_key(|splice| (splice.start, splice.end));
        let source = self.message.as_bytes();
        let mut edited = Vec::with_capacity(source.len().saturating_add(self.text.len()));
        let mut cursor = 0usize;
        for splice in &self.splices {
            let kept = source.get(cursor..splice.start).ok_or(EditError::Overlap)?;
            edited.extend_from_slice(kept);
            edited.extend_from_slice(self.text.get(splice.text.0..splice.text.1).unwrap_or_default());
            cursor = splice.end;
        }
        edited.extend_from_slice(source.get(cursor..).ok_or(EditError::Overlap)?);
        if edited.len() > MESSAGE_MAX {
            return Err(EditError::TooLarge);
        }
        Ok(Bytes::from(edited))
    }

    fn fields(&self, name: HeaderName) -> impl Iterator<Item = Field> + use<'a> {
        self.message.fields().iter().copied().filter(move |field| field.name == name)
    }

    fn first(&self, name: HeaderName) -> Option<Field> {
        self.fields(name).next()
    }

    fn check(&mut self, name: HeaderName, value: &[u8]) {
        if let Err(error) = check_name(name.as_str().as_bytes()).and_then(|()| check_value(value)) {
            self.fail(EditError::Value(error));
        }
    }

    fn fail(&mut self, error: EditError) {
        self.error.get_or_insert(error);
    }

    fn splice(&mut self, start: usize, end: usize, parts: &[&[u8]], in_front: bool) {
        let from = self.text.len();
        for part in parts {
            self.text.extend_from_slice(part);
        }
        let splice = Splice { start, end, text: (from, self.text.len()) };
        if in_front {
            self.splices.insert(0, splice);
        } else {
            self.splices.push(splice);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: &str = "INVITE sip:b@example.com SIP/2.0\r\nv: SIP/2.0/UDP a;branch=z9hG4bKa,\r\n SIP/2.0/UDP \
        b;branch=z9hG4bKb\r\nX-Odd :  kept \r\nFrom: <sip:a@x>;tag=1\r\nTo: <sip:b@x>\r\nCall-ID: 1\r\nCSeq: 1 INVITE\r\n\
        Route: <sip:r1;lr>, <sip:r2;lr>\r\nRoute: <sip:r3;lr>\r\nl: 2\r\n\r\nhi";

    fn check(edit: impl Fn(&mut Editor<'_>), expected: &str) {
        let message = Message::parse_datagram(Bytes::from_static(REQUEST.as_bytes())).unwrap();
        let mut editor = Editor::new(&message);
        edit(&mut editor);
        assert_eq!(String::from_utf8(editor.finish().unwrap().to_vec()).unwrap(), expected);
    }

    #[test]
    fn nothing_edited_is_identical() {
        check(|_| {}, REQUEST);
    }

    #[test]
    fn proxy_edits() {
        check(
            |e| {
                e.push(HeaderName::Via, b"SIP/2.0/UDP p1").push(HeaderName::Via, b"SIP/2.0/UDP p2");
                e.pop(HeaderName::Route).request_uri(b"sip:c@d").append_named(b"X-New", b"1");
            },
            &REQUEST
                .replace("sip:b@example.com", "sip:c@d")
                .replace("v: ", "Via: SIP/2.0/UDP p2\r\nVia: SIP/2.0/UDP p1\r\nv: ")
                .replace("<sip:r1;lr>, ", "")
                .replace("l: 2\r\n", "l: 2\r\nX-New: 1\r\n"),
        );
        check(
            |e| {
                e.pop(HeaderName::Via);
            },
            &REQUEST.replace("SIP/2.0/UDP a;branch=z9hG4bKa,\r\n ", ""),
        );
        check(
            |e| {
                e.push(HeaderName::Route, b"<sip:r0>").remove(HeaderName::Route).body(b"hello");
            },
            &REQUEST
                .replace("<sip:r1;lr>, <sip:r2;lr>\r\nRoute: <sip:r3;lr>", "<sip:r0>")
                .replace("l: 2\r\n\r\nhi", "l: 5\r\n\r\nhello"),
        );
    }

    #[test]
    fn bad_edits_are_refused() {
        let message = Message::parse_datagram(Bytes::from_static(REQUEST.as_bytes())).unwrap();
        let mut editor = Editor::new(&message);
        editor.append(HeaderName::Subject, b"a\r\nTo: b");
        assert_eq!(editor.finish(), Err(EditError::Value(BuildError::Injection)));
        let mut editor = Editor::new(&message);
        editor.pop(HeaderName::Via).pop(HeaderName::Via);
        assert_eq!(editor.finish(), Err(EditError::Overlap));
        let mut editor = Editor::new(&message);
        editor.request_uri(b"sip:a b");
        assert!(editor.finish().is_err());
    }
}
