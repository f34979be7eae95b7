//! What RTCP reports say (RFC 3550, sections 6.4.1 and 6.4.2): a reader over the octets of a compound packet.
//!
//! Our own, because the relay asks for six fields of two packet types and nothing else: the other types are passed over
//! by their length, and nothing is copied or allocated. It reads as far as the lengths agree and ignores the rest:
//! packets are forwarded as they came, whatever they say.

/// Octets of a packet's header with the source that follows it.
const HEADER_LEN: usize = 8;
/// Octets of a sender report's own part, after its source: NTP time, RTP time, packets, octets.
const SENDER_LEN: usize = 20;
/// Octets of a report block.
const BLOCK_LEN: usize = 24;
/// Packet type of a sender report.
const SENDER_REPORT: u8 = 200;
/// Packet type of a receiver report.
const RECEIVER_REPORT: u8 = 201;

/// What a source says of one that it hears (RFC 3550, section 6.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReportBlock {
    /// The source that is heard.
    pub ssrc: u32,
    /// Packets lost since the beginning; negative with duplicates. A signed 24-bit number.
    pub lost: i32,
    /// Interarrival jitter in units of the clock rate.
    pub jitter: u32,
    /// Middle 32 bits of the NTP time of the last sender report that came from the source; 0 when none did.
    pub last_sender_report: u32,
    /// Time since then in units of 1/65,536 seconds.
    pub delay: u32,
}

/// One thing that a compound packet says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// A source that sends says when it says so.
    Sender {
        /// The source.
        ssrc: u32,
        /// Middle 32 bits of its NTP time: what a block about it repeats.
        ntp_middle: u32,
    },
    /// A source says what it hears.
    Block(ReportBlock),
}

/// The reports of a compound packet, in order.
#[derive(Debug, Clone)]
pub struct Reports<'a> {
    /// Packets that follow.
    rest: &'a [u8],
    /// Blocks of the packet that was begun.
    blocks: &'a [u8],
}

/// Reads a compound packet. Bounded by its length: a packet of [`crate::rtp::PACKET_MAX`] octets holds 85 blocks.
#[must_use]
pub const fn reports(packet: &[u8]) -> Reports<'_> {
    Reports { rest: packet, blocks: &[] }
}

impl Iterator for Reports<'_> {
    type Item = Report;

    fn next(&mut self) -> Option<Report> {
        loop {
            if let Some((block, rest)) = self.blocks.split_first_chunk::<BLOCK_LEN>() {
                self.blocks = rest;
                return Some(Report::Block(read_block(block)));
            }
            if let Some(report) = self.packet()? {
                return Some(report);
            }
        }
    }
}

impl Reports<'_> {
    /// Begins the next packet; none at the end or where the lengths disagree.
    fn packet(&mut self) -> Option<Option<Report>> {
        let [first, kind, l0, l1, ..] = *self.rest else { return None };
        // The length is in words of four octets, without the first.
        let length = usize::from(u16::from_be_bytes([l0, l1])).saturating_add(1).saturating_mul(4);
        if first >> 6 != 2 || length > self.rest.len() {
            return None;
        }
        let (packet, rest) = self.rest.split_at(length);
        self.rest = rest;
        let body = match kind {
            SENDER_REPORT => packet.get(HEADER_LEN + SENDER_LEN..),
            RECEIVER_REPORT => packet.get(HEADER_LEN..),
            _ => return Some(None),
        };
        let Some(body) = body else { return Some(None) };
        let blocks = usize::from(first & 0x1f).saturating_mul(BLOCK_LEN);
        self.blocks = body.get(..blocks).unwrap_or_default();
        match *packet {
            [_, SENDER_REPORT, _, _, s0, s1, s2, s3, _, _, n0, n1, n2, n3, ..] => Some(Some(Report::Sender {
                ssrc: u32::from_be_bytes([s0, s1, s2, s3]),
                ntp_middle: u32::from_be_bytes([n0, n1, n2, n3]),
            })),
            _ => Some(None),
        }
    }
}

fn read_block(block: &[u8; BLOCK_LEN]) -> ReportBlock {
    let [s0, s1, s2, s3, _, l0, l1, l2, _, _, _, _, j0, j1, j2, j3, r0, r1, r2, r3, d0, d1, d2, d3] = *block;
    // Sign-extended: the 24 bits above, then shifted down.
    let lost = i32::from_be_bytes([l0, l1, l2, 0]) >> 8;
    ReportBlock {
        ssrc: u32::from_be_bytes([s0, s1, s2, s3]),
        lost,
        jitter: u32::from_be_bytes([j0, j1, j2, j3]),
        last_sender_report: u32::from_be_bytes([r0, r1, r2, r3]),
        delay: u32::from_be_bytes([d0, d1, d2, d3]),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub fn block(ssrc: u32, lost: i32, jitter: u32, last_sender_report: u32, delay: u32) -> Vec<u8> {
        let mut octets = ssrc.to_be_bytes().to_vec();
        octets.push(0);
        octets.extend(&lost.to_be_bytes()[1..]);
        for word in [99, jitter, last_sender_report, delay] {
            octets.extend(u32::to_be_bytes(word));
        }
        octets
    }

    pub fn packet(kind: u8, count: u8, body: &[u8]) -> Vec<u8> {
        let words = u16::try_from(body.len() / 4).unwrap();
        let mut octets = vec![0x80 | count, kind];
        octets.extend(words.to_be_bytes());
        octets.extend(body);
        octets
    }

    pub fn sender_report(ssrc: u32, ntp_middle: u32, blocks: &[Vec<u8>]) -> Vec<u8> {
        let mut body = ssrc.to_be_bytes().to_vec();
        body.extend([0xe0, 0]);
        body.extend(ntp_middle.to_be_bytes());
        body.extend([0; 14]);
        body.extend(blocks.concat());
        packet(SENDER_REPORT, u8::try_from(blocks.len()).unwrap(), &body)
    }

    pub fn receiver_report(ssrc: u32, blocks: &[Vec<u8>]) -> Vec<u8> {
        let body = [ssrc.to_be_bytes().to_vec(), blocks.concat()].concat();
        packet(RECEIVER_REPORT, u8::try_from(blocks.len()).unwrap(), &body)
    }

    #[test]
    fn reads_a_compound_packet() {
        let blocks = [block(7, -2, 80, 0x1234_5678, 65_536), block(8, 8_388_607, 0, 0, 0)];
        let source_description = packet(202, 1, &[0, 0, 0, 7, 1, 0, 0, 0]);
        let compound = [
            sender_report(5, 0xabcd_ef01, &blocks),
            source_description,
            receiver_report(6, &[block(9, -8_388_608, 1, 2, 3)]),
        ];
        let found: Vec<_> = reports(&compound.concat()).collect();
        let expected = [
            Report::Sender { ssrc: 5, ntp_middle: 0xabcd_ef01 },
            Report::Block(ReportBlock {
                ssrc: 7,
                lost: -2,
                jitter: 80,
                last_sender_report: 0x1234_5678,
                delay: 65_536,
            }),
            Report::Block(ReportBlock { ssrc: 8, lost: 8_388_607, jitter: 0, last_sender_report: 0, delay: 0 }),
            Report::Block(ReportBlock { ssrc: 9, lost: -8_388_608, jitter: 1, last_sender_report: 2, delay: 3 }),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn stops_where_lengths_disagree() {
        let whole = receiver_report(6, &[block(9, 0, 1, 2, 3)]);
        assert_eq!(reports(&whole).count(), 1);
        for length in 0..whole.len() {
            assert_eq!(reports(&whole[..length]).count(), 0, "{length}");
        }
        let mut claims_more = whole.clone();
        claims_more[0] |= 2;
        assert_eq!(reports(&claims_more).count(), 0, "more blocks than octets");
        let mut version = whole;
        version[0] = 0x41;
        assert_eq!(reports(&version).count(), 0);
        assert_eq!(reports(&packet(SENDER_REPORT, 0, &[0; 8])).count(), 0, "a sender report without its time");
    }

    proptest! {
        #[test]
        fn any_octets_end(octets in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(reports(&octets).count() <= octets.len() / 4);
        }
    }
}
