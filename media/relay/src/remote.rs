//! What a side's description says, written by a handle and read by a relay thread without a lock: a sequence lock whose
//! words are atomics.

use std::array;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering, fence};

use media_engine::RemoteMedia;
use media_engine::format::{FORMATS_KEPT, PayloadFormat};
use media_engine::sdp::Direction;

/// RTP address (2), RTCP address (2), ports and families (1), direction and protection (1), payload types.
const WORDS: usize = 6 + FORMATS_KEPT;
/// The bit of the sixth word that says that RTP is protected; the direction lies below.
const SECURE: u64 = 1 << 8;

/// The last description, with a version that is odd while it is being written.
#[derive(Debug)]
pub struct SharedRemote {
    version: AtomicU64,
    words: [AtomicU64; WORDS],
}

impl Default for SharedRemote {
    fn default() -> Self {
        Self { version: AtomicU64::new(0), words: array::from_fn(|_| AtomicU64::new(0)) }
    }
}

impl SharedRemote {
    /// Writes. Only the handle that holds the session calls this: there is one writer at a time.
    pub fn store(&self, media: Option<&RemoteMedia>) {
        let words = media.map_or([0; WORDS], encode);
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        for (place, word) in self.words.iter().zip(words) {
            place.store(word, Ordering::Relaxed);
        }
        self.version.store(version.wrapping_add(2), Ordering::Release);
    }

    /// The version now: cheap to compare per packet.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Reads description and version; none while it is being written: the next packet will see it.
    pub fn load(&self) -> Option<(u64, Option<RemoteMedia>)> {
        let version = self.version();
        let words = array::from_fn(|at| self.words.get(at).map_or(0, |word| word.load(Ordering::Relaxed)));
        fence(Ordering::Acquire);
        if !version.is_multiple_of(2) || self.version.load(Ordering::Relaxed) != version {
            return None;
        }
        Some((version, decode(words)))
    }
}

fn encode(media: &RemoteMedia) -> [u64; WORDS] {
    let [rtp_high, rtp_low, rtp_port] = address_words(media.rtp);
    let [rtcp_high, rtcp_low, rtcp_port] = media.rtcp.map_or([0; 3], address_words);
    let direction = match media.direction {
        Direction::SendRecv => 0,
        Direction::SendOnly => 1,
        Direction::RecvOnly => 2,
        Direction::Inactive => 3,
    };
    let flags = direction | if media.is_secure { SECURE } else { 0 };
    let head = [rtp_high, rtp_low, rtcp_high, rtcp_low, rtcp_port << 32 | rtp_port, flags];
    let formats = media.formats.iter().map(|format| format.map_or(0, PayloadFormat::to_word));
    let mut words = [0; WORDS];
    for (place, word) in words.iter_mut().zip(head.into_iter().chain(formats)) {
        *place = word;
    }
    words
}

/// None where [`SharedRemote::store`] was given none.
fn decode([rtp_high, rtp_low, rtcp_high, rtcp_low, ports, flags, formats @ ..]: [u64; WORDS]) -> Option<RemoteMedia> {
    let direction = match flags & !SECURE {
        1 => Direction::SendOnly,
        2 => Direction::RecvOnly,
        3 => Direction::Inactive,
        _ => Direction::SendRecv,
    };
    Some(RemoteMedia {
        rtp: address([rtp_high, rtp_low, ports & 0xffff_ffff])?,
        rtcp: address([rtcp_high, rtcp_low, ports >> 32]),
        direction,
        formats: formats.map(PayloadFormat::from_word),
        is_secure: flags & SECURE != 0,
    })
}

/// The address in two words; the port in bits 0 to 15 and the family (4, 6) in bits 16 to 23 of the third.
fn address_words(addr: SocketAddr) -> [u64; 3] {
    let (octets, family) = match addr.ip() {
        IpAddr::V4(ip) => (u128::from(u32::from(ip)), 4_u64),
        IpAddr::V6(ip) => (u128::from(ip), 6),
    };
    let [h0, h1, h2, h3, h4, h5, h6, h7, l0, l1, l2, l3, l4, l5, l6, l7] = octets.to_be_bytes();
    [
        u64::from_be_bytes([h0, h1, h2, h3, h4, h5, h6, h7]),
        u64::from_be_bytes([l0, l1, l2, l3, l4, l5, l6, l7]),
        family << 16 | u64::from(addr.port()),
    ]
}

fn address([high, low, port]: [u64; 3]) -> Option<SocketAddr> {
    let octets = u128::from(high) << 64 | u128::from(low);
    let ip = match port >> 16 {
        4 => IpAddr::V4(u32::try_from(octets).ok()?.into()),
        6 => IpAddr::V6(octets.into()),
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::try_from(port & 0xffff).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn round_trips() {
        let shared = SharedRemote::default();
        assert_eq!(shared.load(), Some((0, None)));
        for (rtp, rtcp, direction) in [
            ("192.0.2.1:5000", None, Direction::SendRecv),
            ("[2001:db8::9]:65535", Some("192.0.2.1:9"), Direction::SendOnly),
            ("0.0.0.0:0", Some("[2001:db8::ffff]:65535"), Direction::RecvOnly),
            ("[::]:1", Some("0.0.0.0:0"), Direction::Inactive),
        ] {
            let rtcp = rtcp.map(|addr| addr.parse().unwrap());
            let mut media = RemoteMedia { rtcp, direction, ..RemoteMedia::at(rtp.parse().unwrap()) };
            media.is_secure = direction == Direction::SendOnly;
            media.formats[0] = Some(PayloadFormat::assigned(0));
            media.formats[FORMATS_KEPT - 1] = Some(PayloadFormat::assigned(127));
            shared.store(Some(&media));
            assert_eq!(shared.load().unwrap().1, Some(media));
        }
        shared.store(None);
        assert_eq!(shared.load(), Some((10, None)));
    }

    #[test]
    fn never_shows_a_mixture() {
        let one = RemoteMedia::at("[1111:1111:1111:1111:1111:1111:1111:1111]:4369".parse().unwrap());
        let two = RemoteMedia::at("[2222:2222:2222:2222:2222:2222:2222:2222]:8738".parse().unwrap());
        let shared = SharedRemote::default();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                (0..20_000).for_each(|n| shared.store(Some(if n % 2 == 0 { &one } else { &two })));
                done.store(true, Ordering::Release);
            });
            while !done.load(Ordering::Acquire) {
                if let Some((_, Some(remote))) = shared.load() {
                    assert!(remote == one || remote == two, "{remote:?}");
                }
            }
        });
    }
}
