//! Names of header fields, long and compact (RFC 3261, section 7.3.3, and the registry of SIP headers).

macro_rules! headers {
    ($($name:ident = $text:literal $(, $compact:literal)?;)+) => {
        /// A header field that the project knows by name. All others are [`HeaderName::Other`] and keep their
        /// place and their octets.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum HeaderName {
            $(#[doc = $text] $name,)+
            /// A header that has no name here: look it up with [`crate::Message::header_named`].
            Other,
        }

        impl HeaderName {
            const TABLE: &'static [(&'static str, Self)] = &[$(($text, Self::$name),)+];

            /// The long form of the name; empty for [`HeaderName::Other`].
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)+ Self::Other => "" }
            }

            fn of_compact(letter: u8) -> Self {
                match letter.to_ascii_lowercase() {
                    $($($compact => Self::$name,)?)+
                    _ => Self::Other,
                }
            }
        }
    };
}

// Sorted by length: a lookup compares only names of the same length.
headers! {
    To = "To", b't';
    Via = "Via", b'v';
    Date = "Date";
    From = "From", b'f';
    CSeq = "CSeq";
    Path = "Path";
    RAck = "RAck";
    RSeq = "RSeq";
    Join = "Join";
    Allow = "Allow";
    Event = "Event", b'o';
    Route = "Route";
    Accept = "Accept";
    CallId = "Call-ID", b'i';
    Contact = "Contact", b'm';
    Expires = "Expires";
    Require = "Require";
    Subject = "Subject", b's';
    Warning = "Warning";
    Reason = "Reason";
    Server = "Server";
    MinSe = "Min-SE";
    Privacy = "Privacy";
    Identity = "Identity", b'y';
    Priority = "Priority";
    ReferTo = "Refer-To", b'r';
    Replaces = "Replaces";
    ReplyTo = "Reply-To";
    SipEtag = "SIP-ETag";
    CallInfo = "Call-Info";
    Diversion = "Diversion";
    Supported = "Supported", b'k';
    Timestamp = "Timestamp";
    UserAgent = "User-Agent";
    AlertInfo = "Alert-Info";
    ErrorInfo = "Error-Info";
    ReferredBy = "Referred-By", b'b';
    SipIfMatch = "SIP-If-Match";
    MinExpires = "Min-Expires";
    RetryAfter = "Retry-After";
    Unsupported = "Unsupported";
    InReplyTo = "In-Reply-To";
    ContentType = "Content-Type", b'c';
    MaxForwards = "Max-Forwards";
    RecordRoute = "Record-Route";
    AllowEvents = "Allow-Events", b'u';
    HistoryInfo = "History-Info";
    MimeVersion = "MIME-Version";
    Organization = "Organization";
    ProxyRequire = "Proxy-Require";
    ServiceRoute = "Service-Route";
    Authorization = "Authorization";
    AcceptContact = "Accept-Contact", b'a';
    RejectContact = "Reject-Contact", b'j';
    ContentLength = "Content-Length", b'l';
    SessionExpires = "Session-Expires", b'x';
    AcceptEncoding = "Accept-Encoding";
    AcceptLanguage = "Accept-Language";
    WwwAuthenticate = "WWW-Authenticate";
    ContentEncoding = "Content-Encoding", b'e';
    ContentLanguage = "Content-Language";
    ProxyAuthenticate = "Proxy-Authenticate";
    AuthenticationInfo = "Authentication-Info";
    ContentDisposition = "Content-Disposition";
    PAssertedIdentity = "P-Asserted-Identity";
    PChargingVector = "P-Charging-Vector";
    PPreferredIdentity = "P-Preferred-Identity";
    ProxyAuthorization = "Proxy-Authorization";
    RequestDisposition = "Request-Disposition", b'd';
    SubscriptionState = "Subscription-State";
}

/// Longest known name plus one: the number of buckets.
const BUCKETS: usize = 24;

/// The names in buckets by length, made at compile time.
static BY_LENGTH: [[HeaderName; 14]; BUCKETS] = by_length();

const fn by_length() -> [[HeaderName; 14]; BUCKETS] {
    let mut buckets = [[HeaderName::Other; 14]; BUCKETS];
    let mut filled = [0usize; BUCKETS];
    let mut at = 0;
    while at < HeaderName::TABLE.len() {
        let (text, name) = HeaderName::TABLE[at];
        let length = text.len();
        // An overfull bucket fails the build here, not a lookup later.
        buckets[length][filled[length]] = name;
        filled[length] += 1;
        at += 1;
    }
    buckets
}

impl HeaderName {
    /// The header of a name on the wire, in any case, long or compact.
    #[must_use]
    pub fn of(name: &[u8]) -> Self {
        if let [letter] = name {
            return Self::of_compact(*letter);
        }
        let Some(bucket) = BY_LENGTH.get(name.len()) else { return Self::Other };
        for &candidate in bucket {
            if candidate == Self::Other {
                break;
            }
            if candidate.as_str().as_bytes().eq_ignore_ascii_case(name) {
                return candidate;
            }
        }
        Self::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_in_any_case() {
        for (text, name) in HeaderName::TABLE {
            assert_eq!(HeaderName::of(text.as_bytes()), *name);
            assert_eq!(HeaderName::of(text.to_ascii_uppercase().as_bytes()), *name);
        }
        assert_eq!(HeaderName::of(b"V"), HeaderName::Via);
        assert_eq!(HeaderName::of(b"l"), HeaderName::ContentLength);
        assert_eq!(HeaderName::of(b"X-Unknown"), HeaderName::Other);
        assert_eq!(HeaderName::of(b""), HeaderName::Other);
    }
}
