//! Payload types: which codec at which clock rate (RFC 3551, table 4; `a=rtpmap` of RFC 4566, section 6).

use model::event::fact::Codec;

use crate::sdp::Format;

/// Payload types of one description that are kept; offers of phones name about ten.
pub const FORMATS_KEPT: usize = 16;
/// Clock rate where nothing is known: that of most audio.
const CLOCK_RATE_DEFAULT: u32 = 8_000;
/// Highest clock rate that is believed: above every registered one.
const CLOCK_RATE_MAX: u32 = 192_000;

/// What a payload carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload {
    /// Audio.
    Audio(Codec),
    /// Telephone events such as DTMF (RFC 4733): their timestamps stand still.
    Event,
    /// Comfort noise (RFC 3389).
    ComfortNoise,
}

/// A payload type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PayloadFormat {
    /// Its number, 0 to 127.
    pub payload_type: u8,
    /// What it carries.
    pub payload: Payload,
    /// Units of its timestamps per second, 1 to 192,000.
    pub clock_rate: u32,
}

/// The payload types of a description.
pub type FormatTable = [Option<PayloadFormat>; FORMATS_KEPT];

impl PayloadFormat {
    /// What a description says of a payload type.
    #[must_use]
    pub fn of(format: &Format<'_>) -> Self {
        let known = Self::assigned(format.payload_type);
        let Some(rtpmap) = format.rtpmap else { return known };
        let mut fields = rtpmap.split(|octet| *octet == b'/');
        let name = fields.next().unwrap_or_default();
        let rate =
            fields.next().and_then(|digits| std::str::from_utf8(digits).ok()).and_then(|digits| digits.parse().ok());
        Self {
            payload: payload(name),
            clock_rate: rate.filter(|rate| (1..=CLOCK_RATE_MAX).contains(rate)).unwrap_or(known.clock_rate),
            ..known
        }
    }

    /// The static assignment of a payload type (RFC 3551, table 4).
    #[must_use]
    pub const fn assigned(payload_type: u8) -> Self {
        let (payload, clock_rate) = match payload_type {
            0 => (Payload::Audio(Codec::Pcmu), 8_000),
            3 => (Payload::Audio(Codec::Gsm), 8_000),
            4 => (Payload::Audio(Codec::G723), 8_000),
            8 => (Payload::Audio(Codec::Pcma), 8_000),
            // Its clock is wrong by a mistake of old that was kept (RFC 3551, section 4.5.2).
            9 => (Payload::Audio(Codec::G722), 8_000),
            13 => (Payload::ComfortNoise, 8_000),
            18 => (Payload::Audio(Codec::G729), 8_000),
            _ => (Payload::Audio(Codec::Other), CLOCK_RATE_DEFAULT),
        };
        Self { payload_type, payload, clock_rate }
    }

    /// In one word that is never 0, for a table of atomics.
    #[must_use]
    pub fn to_word(self) -> u64 {
        let payload = match self.payload {
            Payload::Audio(codec) => codec.number(),
            Payload::Event => EVENT,
            Payload::ComfortNoise => COMFORT_NOISE,
        };
        u64::from(self.clock_rate) << 16 | u64::from(payload) << 8 | u64::from(self.payload_type)
    }

    /// Back from the word; none for 0.
    #[must_use]
    pub fn from_word(word: u64) -> Option<Self> {
        let [_, _, r0, r1, r2, r3, payload, payload_type] = word.to_be_bytes();
        let clock_rate = u32::from_be_bytes([r0, r1, r2, r3]);
        let payload = match payload {
            EVENT => Payload::Event,
            COMFORT_NOISE => Payload::ComfortNoise,
            number => Payload::Audio(Codec::from_number(number)?),
        };
        (clock_rate != 0).then_some(Self { payload_type, payload, clock_rate })
    }
}

const EVENT: u8 = 254;
const COMFORT_NOISE: u8 = 255;

fn payload(name: &[u8]) -> Payload {
    let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
    if is("telephone-event") {
        return Payload::Event;
    }
    if is("CN") {
        return Payload::ComfortNoise;
    }
    Payload::Audio(Codec::ALL.into_iter().find(|codec| is(codec.rtp_name())).unwrap_or(Codec::Other))
}

/// The format of a packet that goes from one side to another: payload types are numbered by who receives them
/// (RFC 3264, section 5.1), so the receiver's description comes first, then the sender's own, then the static ones.
#[must_use]
pub fn find(payload_type: u8, receiver: &FormatTable, sender: &FormatTable) -> PayloadFormat {
    let both = receiver.iter().chain(sender).flatten();
    both.copied().find(|known| known.payload_type == payload_type).unwrap_or(PayloadFormat::assigned(payload_type))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_rtpmaps() {
        let check = |payload_type: u8, rtpmap: Option<&str>, payload: Payload, clock_rate: u32| {
            let format = PayloadFormat::of(&Format { payload_type, rtpmap: rtpmap.map(str::as_bytes) });
            assert_eq!(format, PayloadFormat { payload_type, payload, clock_rate }, "{rtpmap:?}");
            assert_eq!(PayloadFormat::from_word(format.to_word()), Some(format));
        };
        check(0, None, Payload::Audio(Codec::Pcmu), 8_000);
        check(8, Some("pcma/8000"), Payload::Audio(Codec::Pcma), 8_000);
        check(9, None, Payload::Audio(Codec::G722), 8_000);
        check(111, Some("opus/48000/2"), Payload::Audio(Codec::Opus), 48_000);
        check(101, Some("telephone-event/8000"), Payload::Event, 8_000);
        check(126, Some("telephone-event/48000"), Payload::Event, 48_000);
        check(13, None, Payload::ComfortNoise, 8_000);
        check(97, Some("G7221/32000"), Payload::Audio(Codec::Other), 32_000);
        check(97, Some("speex/0"), Payload::Audio(Codec::Other), 8_000);
        check(97, Some("speex/999999999"), Payload::Audio(Codec::Other), 8_000);
        check(97, Some("/"), Payload::Audio(Codec::Other), 8_000);
        check(77, None, Payload::Audio(Codec::Other), 8_000);
        assert_eq!(PayloadFormat::from_word(0), None);
    }

    #[test]
    fn the_receiver_numbers_payload_types() {
        let entry = |payload_type, payload, clock_rate| Some(PayloadFormat { payload_type, payload, clock_rate });
        let (mut receiver, mut sender) = (FormatTable::default(), FormatTable::default());
        receiver[3] = entry(97, Payload::Audio(Codec::Opus), 48_000);
        sender[0] = entry(97, Payload::Audio(Codec::Ilbc), 8_000);
        sender[1] = entry(101, Payload::Event, 8_000);
        assert_eq!(find(97, &receiver, &sender).payload, Payload::Audio(Codec::Opus));
        assert_eq!(find(101, &receiver, &sender).payload, Payload::Event);
        assert_eq!(find(8, &receiver, &sender).payload, Payload::Audio(Codec::Pcma));
    }
}
