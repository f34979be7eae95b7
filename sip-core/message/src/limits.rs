//! The limits of the wire layer. They are checked before the work that they bound.

/// Largest message in octets. A UDP datagram can't carry more than 65,507; the index keeps offsets in 16 bits.
pub const MESSAGE_MAX: usize = 65_535;
/// Most header fields in one message. Busy IMS messages have about 60; a scan over 128 costs microseconds.
pub const HEADERS_MAX: usize = 128;
/// Fields that a response of ours may have beyond [`HEADERS_MAX`]: a request that was let in with that many Vias is
/// answered with all of them and with what we add, some ten fields.
pub const RESPONSE_HEADERS_EXTRA: usize = 16;
/// Largest header field, folds included. Identity and long Record-Route sets stay well below.
pub const HEADER_MAX: usize = 8 * 1024;
/// Most continuation lines of one header field. Folding is deprecated; real senders use two or three.
pub const FOLDS_MAX: usize = 16;
/// Most parameters that are read from one value, and most commas at which one list is split.
pub const PARAMS_MAX: usize = 64;
