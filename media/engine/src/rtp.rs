//! RTP headers (RFC 3550, section 5.1) and the first look at a datagram (RFC 5761, section 4; RFC 7983).

/// Length of the fixed header.
pub const HEADER_LEN: usize = 12;
/// Largest datagram that is relayed. Audio stays below an Ethernet frame (1,500); the rest is room for tunnels.
pub const PACKET_MAX: usize = 2048;

/// Why a datagram is not RTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RtpError {
    /// Shorter than its header says.
    #[error("the packet is shorter than its header")]
    Truncated,
    /// Another version than 2.
    #[error("the packet is not of RTP version 2")]
    Version,
    /// Padding that is longer than the payload, or zero.
    #[error("the padding exceeds the payload")]
    Padding,
}

/// The header of an RTP packet, with the place of its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RtpHeader {
    /// Marker bit: start of a talk spurt.
    pub marker: bool,
    /// Payload type, 0 to 127.
    pub payload_type: u8,
    /// Sequence number.
    pub sequence: u16,
    /// Timestamp in units of the clock rate.
    pub timestamp: u32,
    /// Synchronisation source.
    pub ssrc: u32,
    /// Octets before the payload: fixed header, CSRC list and extension.
    pub header_len: usize,
    /// Octets of payload, without padding.
    pub payload_len: usize,
}

impl RtpHeader {
    /// Reads the header of a packet.
    ///
    /// # Errors
    /// When the packet is no RTP of version 2, or shorter than it says.
    pub fn parse(packet: &[u8]) -> Result<Self, RtpError> {
        let fixed: &[u8; HEADER_LEN] = packet.first_chunk().ok_or(RtpError::Truncated)?;
        let [first, second, s0, s1, t0, t1, t2, t3, c0, c1, c2, c3] = *fixed;
        if first >> 6 != 2 {
            return Err(RtpError::Version);
        }
        let mut header_len = HEADER_LEN + 4 * usize::from(first & 0x0f);
        if first & 0x10 != 0 {
            let extension =
                packet.get(header_len..).and_then(|rest| rest.first_chunk::<4>()).ok_or(RtpError::Truncated)?;
            let [_, _, l0, l1] = *extension;
            header_len += 4 + 4 * usize::from(u16::from_be_bytes([l0, l1]));
        }
        let body = packet.len().checked_sub(header_len).ok_or(RtpError::Truncated)?;
        let padding = match (first & 0x20 != 0, packet.last()) {
            (true, Some(&0)) => return Err(RtpError::Padding),
            (true, Some(&octets)) => usize::from(octets),
            _ => 0,
        };
        let payload_len = body.checked_sub(padding).ok_or(RtpError::Padding)?;
        Ok(Self {
            marker: second & 0x80 != 0,
            payload_type: second & 0x7f,
            sequence: u16::from_be_bytes([s0, s1]),
            timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
            ssrc: u32::from_be_bytes([c0, c1, c2, c3]),
            header_len,
            payload_len,
        })
    }

    /// The fixed header alone: no padding, no CSRC list, no extension.
    #[must_use]
    pub const fn to_bytes(&self) -> [u8; HEADER_LEN] {
        let marker = if self.marker { 0x80 } else { 0 };
        let [s0, s1] = self.sequence.to_be_bytes();
        let [t0, t1, t2, t3] = self.timestamp.to_be_bytes();
        let [c0, c1, c2, c3] = self.ssrc.to_be_bytes();
        [0x80, marker | (self.payload_type & 0x7f), s0, s1, t0, t1, t2, t3, c0, c1, c2, c3]
    }
}

/// What a datagram on a media port is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PacketKind {
    /// RTP.
    Rtp(RtpHeader),
    /// RTCP, on its own port or multiplexed (RFC 5761).
    Rtcp,
    /// Neither: STUN, DTLS, or noise. It is not relayed.
    Other,
}

/// Looks at a datagram. Payload types 64 to 95 with the marker bit are RTCP packet types (RFC 5761, section 4).
#[must_use]
pub fn classify(packet: &[u8]) -> PacketKind {
    match packet {
        [first, 192..=223, _, _, _, _, _, _, ..] if first >> 6 == 2 => PacketKind::Rtcp,
        _ => RtpHeader::parse(packet).map_or(PacketKind::Other, PacketKind::Rtp),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> RtpHeader {
        RtpHeader {
            marker: true,
            payload_type: 8,
            sequence: 65_535,
            timestamp: 0xdead_beef,
            ssrc: 0x0102_0304,
            header_len: HEADER_LEN,
            payload_len: 160,
        }
    }

    #[test]
    fn round_trips() {
        let mut packet = header().to_bytes().to_vec();
        packet.extend([0xff; 160]);
        assert_eq!(RtpHeader::parse(&packet), Ok(header()));
        assert_eq!(classify(&packet), PacketKind::Rtp(header()));
    }

    #[test]
    fn skips_csrc_extension_and_padding() {
        let mut packet = header().to_bytes().to_vec();
        packet[0] |= 0x20 | 0x10 | 2;
        packet.extend([0; 8]);
        packet.extend([0xbe, 0xde, 0, 1, 1, 2, 3, 4]);
        packet.extend([7; 20]);
        packet.extend([0, 0, 0, 4]);
        let parsed = RtpHeader::parse(&packet).unwrap();
        assert_eq!((parsed.header_len, parsed.payload_len), (28, 20));
    }

    #[test]
    fn refuses_what_is_no_rtp() {
        let check = |edit: fn(&mut Vec<u8>), error| {
            let mut packet = header().to_bytes().to_vec();
            packet.extend([9; 4]);
            edit(&mut packet);
            assert_eq!(RtpHeader::parse(&packet), Err(error));
        };
        check(|p| p.truncate(11), RtpError::Truncated);
        check(|p| p[0] = 0x40, RtpError::Version);
        check(|p| p[0] |= 0x0f, RtpError::Truncated);
        check(|p| p[0] |= 0x10, RtpError::Truncated);
        check(|p| p[0] |= 0x20, RtpError::Padding);
        check(
            |p| {
                p[0] |= 0x20;
                p[15] = 0;
            },
            RtpError::Padding,
        );
    }

    #[test]
    fn tells_rtcp_and_stun_apart() {
        assert_eq!(classify(&[0x81, 200, 0, 1, 0, 0, 0, 1]), PacketKind::Rtcp);
        assert_eq!(classify(&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 0, 0, 0, 0]), PacketKind::Other);
        assert_eq!(classify(b""), PacketKind::Other);
    }

    proptest! {
        #[test]
        fn never_panics(packet in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let PacketKind::Rtp(h) = classify(&packet) {
                prop_assert!(h.header_len + h.payload_len <= packet.len());
            }
        }
    }
}
