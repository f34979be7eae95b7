//! Methods. An unknown one is legal: it is carried, and answered by rule.

use bytes::Bytes;

macro_rules! methods {
    ($($(#[$doc:meta])+ $name:ident = $text:literal;)+) => {
        /// A SIP method. Methods are compared with case (RFC 3261, section 7.1).
        #[derive(Debug, Clone, PartialEq, Eq, Hash)]
        pub enum Method {
            $($(#[$doc])+ $name,)+
            /// Any other token.
            Other(Bytes),
        }

        impl Method {
            /// The methods that have a name here.
            pub const KNOWN: &'static [Self] = &[$(Self::$name,)+];

            /// The method as on the wire.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8] {
                match self { $(Self::$name => $text.as_bytes(),)+ Self::Other(token) => token }
            }

            /// A method that has a name here.
            #[must_use]
            pub fn known(token: &[u8]) -> Option<Self> {
                $(if token == $text.as_bytes() { return Some(Self::$name); })+
                None
            }
        }
    };
}

methods! {
    /// RFC 3261.
    Invite = "INVITE";
    /// RFC 3261.
    Ack = "ACK";
    /// RFC 3261.
    Bye = "BYE";
    /// RFC 3261.
    Cancel = "CANCEL";
    /// RFC 3261.
    Register = "REGISTER";
    /// RFC 3261.
    Options = "OPTIONS";
    /// RFC 3262.
    Prack = "PRACK";
    /// RFC 3311.
    Update = "UPDATE";
    /// RFC 6086.
    Info = "INFO";
    /// RFC 6665.
    Subscribe = "SUBSCRIBE";
    /// RFC 6665.
    Notify = "NOTIFY";
    /// RFC 3903.
    Publish = "PUBLISH";
    /// RFC 3428.
    Message = "MESSAGE";
    /// RFC 3515.
    Refer = "REFER";
}

impl Method {
    /// The method of a token; unknown ones are copied.
    #[must_use]
    pub fn from_token(token: &[u8]) -> Self {
        Self::known(token).unwrap_or_else(|| Self::Other(Bytes::copy_from_slice(token)))
    }
}

impl std::fmt::Display for Method {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.as_bytes()))
    }
}
