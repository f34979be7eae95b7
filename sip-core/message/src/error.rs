//! What can be wrong with a message, and which of it deserves an answer.

use crate::{Message, Method};

/// A value that does not follow its grammar. No text of the input is kept: junk must stay cheap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GrammarError {
    /// The header is not there.
    #[error("the header is missing")]
    Missing,
    /// A URI without scheme, host or with an impossible port.
    #[error("malformed URI")]
    Uri,
    /// Quotes or angle brackets that don't close, or a display name that is neither token nor quoted.
    #[error("malformed name-addr")]
    NameAddr,
    /// A Via without protocol, transport or host.
    #[error("malformed Via")]
    Via,
    /// A parameter list that can't be read.
    #[error("malformed parameters")]
    Params,
    /// A number that is none, or out of its range.
    #[error("malformed or too large number")]
    Number,
    /// CSeq without number or method.
    #[error("malformed CSeq")]
    CSeq,
    /// Digest challenge or credentials that can't be read.
    #[error("malformed digest header")]
    Digest,
}

/// The first thing found wrong with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Fault {
    /// Only line ends: a keep-alive, no message.
    #[error("nothing but line ends")]
    KeepAlive,
    /// More octets than [`crate::limits::MESSAGE_MAX`].
    #[error("message too large")]
    MessageTooLarge,
    /// No start line of SIP.
    #[error("not SIP")]
    NotSip,
    /// A start line of SIP with a defect.
    #[error("malformed start line")]
    StartLine,
    /// Another version than SIP/2.0.
    #[error("SIP version not supported")]
    Version,
    /// The header section has no end.
    #[error("the header section does not end")]
    NoEnd,
    /// A line that is no header field.
    #[error("malformed header field")]
    Header,
    /// More fields than [`crate::limits::HEADERS_MAX`].
    #[error("too many header fields")]
    TooManyHeaders,
    /// A field longer than [`crate::limits::HEADER_MAX`] or with more folds than [`crate::limits::FOLDS_MAX`].
    #[error("header field too large")]
    HeaderTooLarge,
    /// Via, From, To, Call-ID or CSeq is missing.
    #[error("a mandatory header is missing")]
    Missing,
    /// A header that may occur once occurs twice.
    #[error("a header that may occur once is repeated")]
    Repeated,
    /// Content-Length is no number, is repeated with another value, claims more than there is, or is missing on a
    /// stream.
    #[error("bad Content-Length")]
    ContentLength,
    /// CSeq can't be read or names another method than the request line.
    #[error("bad CSeq")]
    CSeq,
    /// The topmost Via can't be read.
    #[error("bad Via")]
    Via,
    /// From or To can't be read.
    #[error("bad From or To")]
    Address,
    /// Max-Forwards is no number up to 255.
    #[error("bad Max-Forwards")]
    MaxForwards,
}

impl Fault {
    /// Every fault.
    pub const ALL: [Self; 16] = [
        Self::KeepAlive,
        Self::MessageTooLarge,
        Self::NotSip,
        Self::StartLine,
        Self::Version,
        Self::NoEnd,
        Self::Header,
        Self::TooManyHeaders,
        Self::HeaderTooLarge,
        Self::Missing,
        Self::Repeated,
        Self::ContentLength,
        Self::CSeq,
        Self::Via,
        Self::Address,
        Self::MaxForwards,
    ];

    /// The name in metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::KeepAlive => "keep-alive",
            Self::MessageTooLarge => "message-too-large",
            Self::NotSip => "not-sip",
            Self::StartLine => "start-line",
            Self::Version => "version",
            Self::NoEnd => "no-end",
            Self::Header => "header",
            Self::TooManyHeaders => "too-many-headers",
            Self::HeaderTooLarge => "header-too-large",
            Self::Missing => "missing",
            Self::Repeated => "repeated",
            Self::ContentLength => "content-length",
            Self::CSeq => "cseq",
            Self::Via => "via",
            Self::Address => "address",
            Self::MaxForwards => "max-forwards",
        }
    }
}

/// A message that was refused.
#[derive(Debug, thiserror::Error)]
#[error("{fault}")]
pub struct ParseError {
    fault: Fault,
    request: Option<Box<Message>>,
}

impl ParseError {
    pub(crate) fn bare(fault: Fault) -> Self {
        Self { fault, request: None }
    }

    pub(crate) fn with_request(fault: Fault, message: Message) -> Self {
        Self { fault, request: Some(Box::new(message)) }
    }

    /// What is wrong.
    #[must_use]
    pub fn fault(&self) -> Fault {
        self.fault
    }

    /// The status that refuses the request, or `None` when it can't or must not be answered (a response, an ACK,
    /// no Via to send the answer to, no SIP at all).
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        let request = self.request.as_deref()?;
        if *request.method() == Method::Ack {
            return None;
        }
        Some(match self.fault {
            Fault::Version => 505,
            // RFC 4475, section 3.1.2.18: whoever may learn the method later should hear 501 from whom does not know it.
            Fault::CSeq if matches!(request.method(), Method::Other(_)) => 501,
            Fault::MessageTooLarge | Fault::TooManyHeaders | Fault::HeaderTooLarge => 513,
            _ => 400,
        })
    }

    /// What was found of a request that can be answered: good for
    /// [`crate::build::ResponseBuilder::response_to`] and for nothing else.
    #[must_use]
    pub fn request(&self) -> Option<&Message> {
        self.request.as_deref()
    }
}
