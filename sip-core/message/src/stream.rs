//! Messages in a stream of octets (RFC 3261, sections 7.5 and 18.3; keep-alives of RFC 5626, section 4.4.1).
//!
//! A [`Framer`] belongs to one connection. It finds the end of a header section by the same rule as the index does, so
//! that nobody can hide a message between the two, and takes the body's length from Content-Length, which a stream
//! needs. Nothing it holds grows beyond [`MESSAGE_MAX`] and what was pushed last.
//!
//! A message that can't be read is a [`Frame::Refused`]: the next one begins where its length says. When even that can't
//! be told, [`Framer::poll`] fails, and the connection is of no more use.

use bytes::Bytes;
use memchr::memchr;

use crate::limits::{HEADER_MAX, MESSAGE_MAX};
use crate::{Fault, Message, ParseError};

/// What was found in the stream.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "moved once per message; a box would be an allocation for each")]
pub enum Frame {
    /// A message.
    Message(Message),
    /// A message that could not be read; those behind it can.
    Refused(ParseError),
    /// Two line ends between messages: the peer wants one back (RFC 5626, section 4.4.1).
    Ping,
}

/// Where in a message the octets end that have been looked at.
#[derive(Debug, Clone, Copy)]
enum Stage {
    /// Between messages; how many line ends have been passed over since the last message or ping.
    Between { line_ends: u8 },
    /// In a header section: where the line begins that has no end yet.
    Head { line: usize },
    /// The header section is whole: the length of the message.
    Body { length: usize },
}

/// Cuts the octets of one connection into messages.
#[derive(Debug)]
pub struct Framer {
    octets: Vec<u8>,
    /// Where the octets begin that have not been handed out.
    start: usize,
    stage: Stage,
}

impl Default for Framer {
    fn default() -> Self {
        Self { octets: Vec::new(), start: 0, stage: Stage::Between { line_ends: 0 } }
    }
}

impl Framer {
    /// Takes octets as they came. Call [`Framer::poll`] until it has no more.
    pub fn push(&mut self, octets: &[u8]) {
        self.octets.drain(..self.start);
        self.start = 0;
        self.octets.extend_from_slice(octets);
    }

    /// Octets that are kept, in memory.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.octets.capacity()
    }

    /// Whether a message has begun and is not whole.
    #[must_use]
    pub fn is_within_message(&self) -> bool {
        !matches!(self.stage, Stage::Between { .. })
    }

    /// The next message, as soon as it is whole.
    ///
    /// # Errors
    /// When it can't be told where the next message begins: answer what can be answered, and close.
    pub fn poll(&mut self) -> Result<Option<Frame>, ParseError> {
        loop {
            let rest = self.octets.get(self.start..).unwrap_or_default();
            match self.stage {
                Stage::Between { line_ends } => match rest.first() {
                    None => {
                        // An idle connection costs no memory.
                        self.octets = Vec::new();
                        self.start = 0;
                        return Ok(None);
                    }
                    Some(b'\r') => self.start = self.start.saturating_add(1),
                    Some(b'\n') => {
                        self.start = self.start.saturating_add(1);
                        if line_ends > 0 {
                            self.stage = Stage::Between { line_ends: 0 };
                            return Ok(Some(Frame::Ping));
                        }
                        self.stage = Stage::Between { line_ends: 1 };
                    }
                    Some(_) => self.stage = Stage::Head { line: 0 },
                },
                Stage::Head { line } => match head_end(rest, line)? {
                    Head::Open { line } => {
                        self.stage = Stage::Head { line };
                        return Ok(None);
                    }
                    Head::Ends { at } => {
                        let head = Bytes::copy_from_slice(rest.get(..at).unwrap_or_default());
                        // No overflow: the length was checked against what a message may have.
                        let length = at.saturating_add(Message::body_length(head)?);
                        self.stage = Stage::Body { length };
                    }
                },
                Stage::Body { length } => {
                    let Some(octets) = rest.get(..length) else { return Ok(None) };
                    let message = Message::parse_datagram(Bytes::copy_from_slice(octets));
                    self.start = self.start.saturating_add(length);
                    self.stage = Stage::Between { line_ends: 0 };
                    return Ok(Some(match message {
                        Ok(message) => Frame::Message(message),
                        Err(error) => Frame::Refused(error),
                    }));
                }
            }
        }
    }
}

enum Head {
    /// Not whole; the line that begins here has no end yet.
    Open { line: usize },
    /// Its empty line ends here.
    Ends { at: usize },
}

/// Looks for the empty line, from the line that begins at `line`: each octet is looked at a bounded number of times,
/// however small the pieces are in which they come.
fn head_end(octets: &[u8], mut line: usize) -> Result<Head, ParseError> {
    loop {
        let rest = octets.get(line..).unwrap_or_default();
        let Some(length) = memchr(b'\n', rest.get(..rest.len().min(MESSAGE_MAX)).unwrap_or_default()) else {
            // What has no line of a start line's length is no SIP; nobody waits for more of it.
            if line == 0 && octets.len() > HEADER_MAX {
                return Err(ParseError::bare(Fault::NotSip));
            }
            if octets.len() > MESSAGE_MAX {
                let head = Bytes::copy_from_slice(octets.get(..MESSAGE_MAX).unwrap_or_default());
                return Err(Message::too_large(head));
            }
            return Ok(Head::Open { line });
        };
        let next = line.saturating_add(length).saturating_add(1);
        if next > MESSAGE_MAX {
            let head = Bytes::copy_from_slice(octets.get(..MESSAGE_MAX).unwrap_or_default());
            return Err(Message::too_large(head));
        }
        if line == 0 && !is_start_line(rest.get(..length).unwrap_or_default()) {
            return Err(ParseError::bare(Fault::NotSip));
        }
        let content = rest.get(..length).unwrap_or_default();
        if content.strip_suffix(b"\r").unwrap_or(content).is_empty() {
            return Ok(Head::Ends { at: next });
        }
        line = next;
    }
}

/// Whether a first line names SIP where it must: what does not is not waited for.
fn is_start_line(line: &[u8]) -> bool {
    let names_sip = |text: &[u8]| text.get(..4).is_some_and(|start| start.eq_ignore_ascii_case(b"SIP/"));
    names_sip(line) || line.trim_ascii_end().rsplit(|octet| *octet == b' ').next().is_some_and(names_sip)
}

#[cfg(test)]
mod tests;
