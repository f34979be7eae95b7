//! The index over one message: where each header lies (RFC 3261, section 7).
//!
//! One pass finds the lines; typed forms are read on demand. Where lines are folded, a second view of the same
//! length holds blanks in place of the line ends, so that every value is one slice and every offset is valid in
//! both; edits and forwarding use the octets as received.

use std::ops::Range;

use bytes::Bytes;
use memchr::memchr;
use smallvec::SmallVec;

use crate::grammar::{CommaList, comma_list, is_all_token, number, octets_are_clean, trim};
use crate::limits::{FOLDS_MAX, HEADER_MAX, HEADERS_MAX, MESSAGE_MAX};
use crate::{Fault, GrammarError, HeaderName, Method, NameAddr, ParseError, Uri, Via};

/// Where a field lies. All offsets fit: no message is longer than [`MESSAGE_MAX`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field {
    pub(crate) name: HeaderName,
    start: u16,
    name_end: u16,
    value_start: u16,
    value_end: u16,
    end: u16,
}

impl Field {
    /// The whole field with its line end.
    pub(crate) fn line(&self) -> Range<usize> {
        usize::from(self.start)..usize::from(self.end)
    }

    pub(crate) fn value(&self) -> Range<usize> {
        usize::from(self.value_start)..usize::from(self.value_end)
    }

    fn raw_name(&self) -> Range<usize> {
        usize::from(self.start)..usize::from(self.name_end)
    }
}

/// A received message. A clone shares the octets.
#[derive(Clone)]
pub struct Message {
    bytes: Bytes,
    view: Bytes,
    is_request: bool,
    status: u16,
    method: Method,
    /// The Request-URI, or the reason phrase of a response.
    subject: (u16, u16),
    /// End of the start line with its line end.
    fields_start: u16,
    /// Where the empty line begins.
    fields_end: u16,
    body_start: u16,
    fields: SmallVec<[Field; 24]>,
}

/// One Contact value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contact<'a> {
    /// `*`: all bindings (RFC 3261, section 10.2.2).
    Star,
    /// An address.
    Addr(NameAddr<'a>),
}

impl Message {
    /// Reads one datagram. Content-Length may be absent (the body goes to the end) but not claim more than there
    /// is; octets behind the body are dropped, as are line ends before the start line.
    pub fn parse_datagram(bytes: Bytes) -> Result<Self, ParseError> {
        if bytes.len() > MESSAGE_MAX {
            return Err(ParseError::bare(Fault::MessageTooLarge));
        }
        let start = bytes.iter().position(|octet| !matches!(octet, b'\r' | b'\n'));
        let Some(start) = start else { return Err(ParseError::bare(Fault::KeepAlive)) };
        let mut scan = Scan::new(bytes.slice(start..));
        scan.start_line().map_err(ParseError::bare)?;
        scan.fields();
        scan.finish()
    }

    /// How long the body is that follows this header section, which ends with its empty line: what Content-Length says.
    /// On a stream it must say so (RFC 3261, section 18.3).
    pub(crate) fn body_length(head: Bytes) -> Result<usize, ParseError> {
        let mut scan = Scan::new(head);
        match scan.start_line() {
            // A start line with a defect may still be followed by a body with a length; what is no SIP may not.
            Err(Fault::NotSip) => return Err(ParseError::bare(Fault::NotSip)),
            Ok(()) | Err(_) => scan.fields(),
        }
        let length = match scan.fault {
            // Fields that were not looked at may hold the length.
            Some(fault @ (Fault::TooManyHeaders | Fault::HeaderTooLarge | Fault::NoEnd)) => Err(fault),
            Some(_) | None => scan.unfold().content_length(),
        };
        let room = MESSAGE_MAX.saturating_sub(scan.message.bytes.len());
        match length {
            Ok(Some(length)) if length <= room => Ok(length),
            Ok(Some(_)) => Err(scan.refuse(Fault::MessageTooLarge)),
            Ok(None) => Err(scan.refuse(Fault::ContentLength)),
            Err(fault) => Err(scan.refuse(fault)),
        }
    }

    /// What can be found of a header section that grew too long, for the answer.
    pub(crate) fn too_large(head: Bytes) -> ParseError {
        let mut scan = Scan::new(head);
        if let Err(fault) = scan.start_line() {
            return ParseError::bare(fault);
        }
        scan.fields();
        scan.unfold().refuse(Fault::MessageTooLarge)
    }

    /// Whether this is a request.
    #[must_use]
    pub fn is_request(&self) -> bool {
        self.is_request
    }

    /// The method; for a response that of its CSeq.
    #[must_use]
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The Request-URI as received; empty for a response.
    #[must_use]
    pub fn request_uri(&self) -> &[u8] {
        if self.is_request { self.subject() } else { b"" }
    }

    /// The Request-URI, read.
    pub fn uri(&self) -> Result<Uri<'_>, GrammarError> {
        Uri::parse(self.request_uri())
    }

    /// The status of a response; 0 for a request.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The reason phrase as received; empty for a request.
    #[must_use]
    pub fn reason(&self) -> &[u8] {
        if self.is_request { b"" } else { self.subject() }
    }

    fn subject(&self) -> &[u8] {
        self.slice(self.subject_range())
    }

    pub(crate) fn subject_range(&self) -> Range<usize> {
        usize::from(self.subject.0)..usize::from(self.subject.1)
    }

    fn slice(&self, range: Range<usize>) -> &[u8] {
        self.view.get(range).unwrap_or_default()
    }

    /// The value of the first field of that name, unfolded and without blanks at its ends.
    #[must_use]
    pub fn header(&self, name: HeaderName) -> Option<&[u8]> {
        self.headers(name).next()
    }

    /// The values of all fields of that name, in order, not split at commas.
    pub fn headers(&self, name: HeaderName) -> impl Iterator<Item = &[u8]> {
        self.fields.iter().filter(move |field| field.name == name).map(|field| self.slice(field.value()))
    }

    /// The value of the first field of that name in any case, for names without a [`HeaderName`].
    #[must_use]
    pub fn header_named(&self, name: &[u8]) -> Option<&[u8]> {
        self.all_headers().find(|(_, raw, _)| raw.eq_ignore_ascii_case(name)).map(|(_, _, value)| value)
    }

    /// All fields in order: name, name as on the wire, value.
    pub fn all_headers(&self) -> impl Iterator<Item = (HeaderName, &[u8], &[u8])> {
        self.fields.iter().map(|field| (field.name, self.slice(field.raw_name()), self.slice(field.value())))
    }

    /// The values of all fields of that name, split at commas: Via, Route, Record-Route, Contact, Allow, …
    pub fn values(&self, name: HeaderName) -> impl Iterator<Item = &[u8]> {
        self.headers(name).flat_map(comma_list as fn(&[u8]) -> CommaList<'_>)
    }

    /// Whether a comma list of tokens (Require, Supported, Allow) holds the token, in any case.
    #[must_use]
    pub fn lists(&self, name: HeaderName, token: &[u8]) -> bool {
        self.values(name).any(|value| value.eq_ignore_ascii_case(token))
    }

    /// The topmost Via.
    pub fn top_via(&self) -> Result<Via<'_>, GrammarError> {
        Via::parse(self.values(HeaderName::Via).next().ok_or(GrammarError::Missing)?)
    }

    /// From.
    pub fn from(&self) -> Result<NameAddr<'_>, GrammarError> {
        NameAddr::parse(self.header(HeaderName::From).ok_or(GrammarError::Missing)?)
    }

    /// To.
    pub fn to(&self) -> Result<NameAddr<'_>, GrammarError> {
        NameAddr::parse(self.header(HeaderName::To).ok_or(GrammarError::Missing)?)
    }

    /// Call-ID; empty only in the remains of a refused request.
    #[must_use]
    pub fn call_id(&self) -> &[u8] {
        self.header(HeaderName::CallId).unwrap_or_default()
    }

    /// CSeq: number and method.
    pub fn cseq(&self) -> Result<(u32, &[u8]), GrammarError> {
        read_cseq(self.header(HeaderName::CSeq).ok_or(GrammarError::Missing)?)
    }

    /// The Contact values.
    pub fn contacts(&self) -> impl Iterator<Item = Result<Contact<'_>, GrammarError>> {
        self.values(HeaderName::Contact).map(|value| match value {
            b"*" => Ok(Contact::Star),
            _ => NameAddr::parse(value).map(Contact::Addr),
        })
    }

    /// Max-Forwards; `None` when absent.
    #[must_use]
    pub fn max_forwards(&self) -> Option<u8> {
        self.header(HeaderName::MaxForwards).and_then(read_max_forwards)
    }

    /// Expires in seconds; `None` when absent or unreadable, which counts as absent (RFC 3261, section 20.19).
    #[must_use]
    pub fn expires(&self) -> Option<u32> {
        self.header(HeaderName::Expires).and_then(|value| number(value).ok())
    }

    /// Content-Type without its parameters, as on the wire; empty when absent.
    #[must_use]
    pub fn content_type(&self) -> &[u8] {
        let value = self.header(HeaderName::ContentType).unwrap_or_default();
        trim(value.split(|octet| *octet == b';').next().unwrap_or_default())
    }

    /// The body.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        self.bytes.get(usize::from(self.body_start)..).unwrap_or_default()
    }

    /// The message as received, without what stood before or after it.
    #[must_use]
    pub fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }

    pub(crate) fn fields(&self) -> &[Field] {
        &self.fields
    }

    pub(crate) fn view(&self) -> &[u8] {
        &self.view
    }

    pub(crate) fn fields_start(&self) -> usize {
        usize::from(self.fields_start)
    }

    pub(crate) fn fields_end(&self) -> usize {
        usize::from(self.fields_end)
    }

    pub(crate) fn body_range(&self) -> Range<usize> {
        usize::from(self.body_start)..self.bytes.len()
    }
}

impl std::fmt::Debug for Message {
    /// Start line data and sizes only: numbers and secrets stay out of logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Message")
            .field("method", &self.method)
            .field("status", &self.status)
            .field("fields", &self.fields.len())
            .field("octets", &self.bytes.len())
            .finish_non_exhaustive()
    }
}

fn read_cseq(value: &[u8]) -> Result<(u32, &[u8]), GrammarError> {
    let end = value.iter().position(|o| matches!(o, b' ' | b'\t')).ok_or(GrammarError::CSeq)?;
    let (digits, method) = value.split_at(end);
    let method = trim(method);
    let sequence = number(digits).map_err(|_| GrammarError::CSeq)?;
    // RFC 3261, section 8.1.1.5: less than 2**31.
    if sequence > i32::MAX.unsigned_abs() || !is_all_token(method) {
        return Err(GrammarError::CSeq);
    }
    Ok((sequence, method))
}

/// A URI without headers: they are not allowed in a Request-URI (RFC 3261, section 19.1.1, table 1; RFC 4475, section
/// 3.1.2.11).
fn is_request_uri(text: &[u8]) -> bool {
    Uri::parse(text).is_ok_and(|uri| uri.headers.is_none())
}

fn read_max_forwards(value: &[u8]) -> Option<u8> {
    number(value).ok().and_then(|hops| u8::try_from(hops).ok())
}

/// An offset within a message; the length was checked against [`MESSAGE_MAX`] before.
fn offset(at: usize) -> u16 {
    u16::try_from(at).unwrap_or(u16::MAX)
}

struct Scan {
    message: Message,
    unfolded: Option<Vec<u8>>,
    position: usize,
    fault: Option<Fault>,
}

impl Scan {
    fn new(bytes: Bytes) -> Self {
        let message = Message {
            view: bytes.clone(),
            bytes,
            is_request: false,
            status: 0,
            method: Method::Other(Bytes::new()),
            subject: (0, 0),
            fields_start: 0,
            fields_end: 0,
            body_start: 0,
            fields: SmallVec::new(),
        };
        Self { message, unfolded: None, position: 0, fault: None }
    }

    /// The next line: its content without line end; moves behind it.
    fn line(&mut self) -> Option<Range<usize>> {
        let start = self.position;
        let rest = self.message.bytes.get(start..)?;
        let length = memchr(b'\n', rest)?;
        let content = rest.get(..length)?;
        let content = content.strip_suffix(b"\r").unwrap_or(content);
        let end = start.checked_add(content.len())?;
        self.position = start.checked_add(length)?.checked_add(1)?;
        Some(start..end)
    }

    fn fault(&mut self, fault: Fault) {
        self.fault.get_or_insert(fault);
    }

    /// `Err` when this is no SIP, or so broken that no answer is possible.
    fn start_line(&mut self) -> Result<(), Fault> {
        let range = self.line().ok_or(Fault::NotSip)?;
        self.message.fields_start = offset(self.position);
        let bytes = self.message.bytes.clone();
        let line = bytes.get(range).unwrap_or_default();
        if line.get(..4).is_some_and(|start| start.eq_ignore_ascii_case(b"SIP/")) {
            self.status_line(line)
        } else {
            self.request_line(line)
        }
    }

    fn status_line(&mut self, line: &[u8]) -> Result<(), Fault> {
        let mut parts = line.splitn(3, |octet| *octet == b' ');
        let version = parts.next().unwrap_or_default();
        let status = parts.next().unwrap_or_default();
        if !version.eq_ignore_ascii_case(b"SIP/2.0") {
            return Err(Fault::Version);
        }
        // The blank before an empty reason phrase is often left out.
        let reason = parts.next().unwrap_or_default();
        if status.len() != 3 {
            return Err(Fault::StartLine);
        }
        let status = number(status).ok().and_then(|s| u16::try_from(s).ok());
        self.message.status = status.filter(|s| (100..700).contains(s)).ok_or(Fault::StartLine)?;
        let start = line.len().saturating_sub(reason.len());
        self.message.subject = (offset(start), offset(line.len()));
        Ok(())
    }

    fn request_line(&mut self, line: &[u8]) -> Result<(), Fault> {
        self.message.is_request = true;
        let first = memchr(b' ', line).ok_or(Fault::NotSip)?;
        let (method, rest) = line.split_at(first);
        if !is_all_token(method) {
            return Err(Fault::NotSip);
        }
        let trimmed = rest.trim_ascii_end();
        let last = trimmed.iter().rposition(|octet| *octet == b' ').ok_or(Fault::NotSip)?;
        let version = trimmed.get(last..).map(trim).unwrap_or_default();
        if !version.get(..4).is_some_and(|start| start.eq_ignore_ascii_case(b"SIP/")) {
            return Err(Fault::NotSip);
        }
        self.message.method = match Method::known(method) {
            Some(known) => known,
            None => Method::Other(self.message.bytes.slice(..first)),
        };
        let uri_start = first.checked_add(1).ok_or(Fault::StartLine)?;
        let uri_end = first.checked_add(last).ok_or(Fault::StartLine)?;
        // A line such as `OPTIONS SIP/2.0` has no room for a URI between its blanks.
        if uri_end < uri_start {
            self.fault(Fault::StartLine);
            return Ok(());
        }
        self.message.subject = (offset(uri_start), offset(uri_end));
        if !version.eq_ignore_ascii_case(b"SIP/2.0") {
            self.fault(Fault::Version);
        } else if line.len() > HEADER_MAX {
            self.fault(Fault::HeaderTooLarge);
        } else if trimmed.len() != rest.len() || !is_request_uri(self.message.request_uri()) {
            self.fault(Fault::StartLine);
        }
        Ok(())
    }

    fn fields(&mut self) {
        let mut folds = 0usize;
        // Whether the last line was a field that a fold can continue.
        let mut open = false;
        loop {
            let Some(line) = self.line() else {
                self.fault(Fault::NoEnd);
                self.message.fields_end = offset(self.message.bytes.len());
                self.message.body_start = self.message.fields_end;
                return;
            };
            let bytes = self.message.bytes.clone();
            let content = bytes.get(line.clone()).unwrap_or_default();
            let Some(&first) = content.first() else {
                self.message.fields_end = offset(line.start);
                self.message.body_start = offset(self.position);
                return;
            };
            let clean = octets_are_clean(content);
            if matches!(first, b' ' | b'\t') {
                folds = folds.saturating_add(1);
                open = open && clean && self.fold(&line, folds);
                if !open {
                    self.fault(Fault::Header);
                }
                continue;
            }
            folds = 0;
            open = false;
            if self.message.fields.len() >= HEADERS_MAX {
                // What follows is not looked at: a refusal must not cost more than a good message.
                self.fault(Fault::TooManyHeaders);
                self.message.fields_end = offset(line.start);
                self.message.body_start = offset(bytes.len());
                return;
            }
            if content.len() > HEADER_MAX {
                self.fault(Fault::HeaderTooLarge);
                continue;
            }
            let colon = memchr(b':', content).filter(|_| clean);
            let name = colon.and_then(|at| content.get(..at)).map(<[u8]>::trim_ascii_end).unwrap_or_default();
            let (Some(colon), true) = (colon, is_all_token(name)) else {
                self.fault(Fault::Header);
                continue;
            };
            self.message.fields.push(Field {
                name: HeaderName::of(name),
                start: offset(line.start),
                name_end: offset(line.start.saturating_add(name.len())),
                value_start: offset(line.start.saturating_add(colon).saturating_add(1)),
                value_end: offset(line.end),
                end: offset(self.position),
            });
            open = true;
        }
    }

    /// Adds a continuation line to the last field; `false` when it must not grow further.
    fn fold(&mut self, line: &Range<usize>, folds: usize) -> bool {
        let position = self.position;
        let Some(field) = self.message.fields.last_mut() else { return false };
        let length = position.saturating_sub(usize::from(field.start));
        if folds > FOLDS_MAX || length > HEADER_MAX {
            self.fault(Fault::HeaderTooLarge);
            return false;
        }
        let unfolded = self.unfolded.get_or_insert_with(|| self.message.bytes.to_vec());
        if let Some(line_end) = unfolded.get_mut(usize::from(field.value_end)..line.start) {
            line_end.fill(b' ');
        }
        field.value_end = offset(line.end);
        field.end = offset(position);
        true
    }

    /// Brings the values of folded fields into one line and trims all.
    fn unfold(&mut self) -> &mut Self {
        if let Some(unfolded) = self.unfolded.take() {
            self.message.view = Bytes::from(unfolded);
        }
        let view = self.message.view.clone();
        for field in &mut self.message.fields {
            let value = view.get(field.value()).unwrap_or_default();
            let lead = value.len().saturating_sub(value.trim_ascii_start().len());
            let start = usize::from(field.value_start).saturating_add(lead);
            field.value_start = offset(start);
            field.value_end = offset(start.saturating_add(trim(value).len()));
        }
        self
    }

    fn finish(mut self) -> Result<Message, ParseError> {
        self.unfold();
        if self.fault.is_none() {
            self.fault = self.judge().err();
        }
        match self.fault {
            None => Ok(self.message),
            Some(fault) => Err(self.refuse(fault)),
        }
    }

    /// The refusal, with what was found of a request that can be answered.
    fn refuse(&self, fault: Fault) -> ParseError {
        if self.message.is_request && self.message.header(HeaderName::Via).is_some() {
            ParseError::with_request(fault, self.message.clone())
        } else {
            ParseError::bare(fault)
        }
    }

    /// What every message must have, whoever reads it (RFC 3261, section 8.1.1; RFC 4475, sections 3.1.2 and 3.3).
    fn judge(&mut self) -> Result<(), Fault> {
        let message = &self.message;
        let mut seen = [0u16; 6];
        for field in &message.fields {
            let slot = match field.name {
                HeaderName::From => 0,
                HeaderName::To => 1,
                HeaderName::CallId => 2,
                HeaderName::CSeq => 3,
                HeaderName::MaxForwards => 4,
                HeaderName::Via => 5,
                _ => continue,
            };
            if let Some(count) = seen.get_mut(slot) {
                *count = count.saturating_add(1);
            }
        }
        let [from, to, call_id, cseq, max_forwards, via] = seen;
        if [from, to, call_id, cseq, via].contains(&0) || message.call_id().is_empty() {
            return Err(Fault::Missing);
        }
        if [from, to, call_id, cseq, max_forwards].iter().any(|count| *count > 1) {
            return Err(Fault::Repeated);
        }
        let (_, method) = message.cseq().map_err(|_| Fault::CSeq)?;
        if message.is_request && method != message.method.as_bytes() {
            return Err(Fault::CSeq);
        }
        let method = Method::known(method).unwrap_or_else(|| Method::Other(message.view.slice_ref(method)));
        message.top_via().map_err(|_| Fault::Via)?;
        // Separators with nothing between (RFC 4475, section 3.1.2.1): which hop is whose can't be told. Values further
        // down are otherwise their owners' business.
        if message.values(HeaderName::Via).any(|value| value.is_empty() || value.starts_with(b";")) {
            return Err(Fault::Via);
        }
        message.from().map_err(|_| Fault::Address)?;
        message.to().map_err(|_| Fault::Address)?;
        if message.header(HeaderName::MaxForwards).is_some_and(|value| read_max_forwards(value).is_none()) {
            return Err(Fault::MaxForwards);
        }
        let end = self.body_end()?;
        self.message.method = method;
        self.message.bytes.truncate(end);
        self.message.view.truncate(end);
        Ok(())
    }

    fn body_end(&self) -> Result<usize, Fault> {
        let message = &self.message;
        let Some(length) = self.content_length()? else { return Ok(message.bytes.len()) };
        let end = usize::from(message.body_start).checked_add(length).ok_or(Fault::ContentLength)?;
        if end > message.bytes.len() { Err(Fault::ContentLength) } else { Ok(end) }
    }

    /// What all Content-Length fields say, or that there is none.
    fn content_length(&self) -> Result<Option<usize>, Fault> {
        let mut length = None;
        for value in self.message.headers(HeaderName::ContentLength) {
            let value = number(value).map_err(|_| Fault::ContentLength)?;
            if length.is_some_and(|known| known != value) {
                return Err(Fault::ContentLength);
            }
            length = Some(value);
        }
        length.map(|length| usize::try_from(length).map_err(|_| Fault::ContentLength)).transpose()
    }
}
