//! Session descriptions: RFC 4566 (lines), RFC 3264 (offer and answer, hold), RFC 3605 (`a=rtcp`), RFC 8839 (ICE
//! attributes, which are removed: the relay is no ICE agent).
//!
//! [`Sdp`] is a line-preserving scan over the received octets. [`Sdp::rewrite`] changes addresses and ports and keeps
//! every other octet as it came, so that codecs and attributes that we don't know survive.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use smallvec::SmallVec;

/// Longest description that is read. Offers of browsers with many codecs stay below 8 KiB.
pub const SDP_MAX: usize = 32 * 1024;
/// Most lines of a description; a large offer has about 150.
pub const LINES_MAX: usize = 1024;
/// Most `m=` lines; a bundled conference offer has a dozen.
pub const MEDIA_MAX: usize = 32;
/// Most formats of an `m=` line that are looked at; payload types have 7 bits.
pub const FORMATS_MAX: usize = 128;

/// Why a description can't be used. None carries text of the input: refusing costs no more than accepting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SdpError {
    /// Longer than [`SDP_MAX`], or more than [`LINES_MAX`] lines or [`MEDIA_MAX`] media.
    #[error("the session description exceeds a limit")]
    TooLarge,
    /// A line that is not `letter=value`, or the first is not `v=0`.
    #[error("line {0} of the session description is malformed")]
    Malformed(usize),
    /// No `m=audio` line.
    #[error("the session description offers no audio")]
    NoAudio,
    /// The audio has no `c=` line, neither of its own nor of the session.
    #[error("the audio has no connection address")]
    NoConnection,
    /// A `c=` line that names a host instead of an address, another network than IN, or a bad address.
    #[error("the connection address is not an IPv4 or IPv6 address")]
    UnsupportedAddress,
}

/// Which way media flows, seen from the author of the description (RFC 3264, section 5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Direction {
    /// Both ways.
    #[default]
    SendRecv,
    /// The author only sends: the other side is held, usually with music.
    SendOnly,
    /// The author only listens.
    RecvOnly,
    /// Neither.
    Inactive,
}

impl Direction {
    /// The attribute's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SendRecv => "sendrecv",
            Self::SendOnly => "sendonly",
            Self::RecvOnly => "recvonly",
            Self::Inactive => "inactive",
        }
    }

    /// What an answerer that agrees says (RFC 3264, section 6.1).
    #[must_use]
    pub const fn answered(self) -> Self {
        match self {
            Self::SendRecv => Self::SendRecv,
            Self::SendOnly => Self::RecvOnly,
            Self::RecvOnly => Self::SendOnly,
            Self::Inactive => Self::Inactive,
        }
    }

    fn parse(attribute: &[u8]) -> Option<Self> {
        match attribute {
            b"sendrecv" => Some(Self::SendRecv),
            b"sendonly" => Some(Self::SendOnly),
            b"recvonly" => Some(Self::RecvOnly),
            b"inactive" => Some(Self::Inactive),
            _ => None,
        }
    }
}

/// A payload type of the audio, in the author's order of preference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Format<'a> {
    /// The payload type, 0 to 127.
    pub payload_type: u8,
    /// The value of its `a=rtpmap`, such as `PCMU/8000`; absent for static types without one.
    pub rtpmap: Option<&'a [u8]>,
}

/// The audio that is relayed: the first `m=audio` that is not rejected, else the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audio<'a> {
    /// Where the author wants to receive RTP. An unspecified address (0.0.0.0, `::`) is the hold of RFC 2543.
    pub remote: SocketAddr,
    /// Where it wants RTCP, when `a=rtcp` says otherwise than the next port.
    pub rtcp: Option<SocketAddr>,
    /// Which way media flows.
    pub direction: Direction,
    /// The transport of the `m=` line, such as `RTP/AVP`.
    pub protocol: &'a [u8],
    /// Payload types.
    pub formats: SmallVec<[Format<'a>; 16]>,
}

impl Audio<'_> {
    /// Whether the author refuses or ended this stream (port 0).
    #[must_use]
    pub const fn is_rejected(&self) -> bool {
        self.remote.port() == 0
    }

    /// Whether the author put the other side on hold: nothing is to be sent to it, by either way of saying so.
    #[must_use]
    pub const fn is_hold(&self) -> bool {
        self.remote.ip().is_unspecified() || matches!(self.direction, Direction::SendOnly | Direction::Inactive)
    }
}

/// One line: its place, with and without its ending.
#[derive(Debug, Clone, Copy)]
struct Line<'a> {
    kind: u8,
    value: &'a [u8],
    /// The whole line with its ending, for copying it byte-exact.
    raw: &'a [u8],
    /// The ending alone: CRLF, LF, or nothing at the end of the body.
    ending: &'a [u8],
    /// Number of the `m=` section it is in; absent in the session part.
    media: Option<usize>,
}

/// A scanned session description.
#[derive(Debug, Clone)]
pub struct Sdp<'a> {
    raw_len: usize,
    lines: SmallVec<[Line<'a>; 32]>,
    audio: Audio<'a>,
    audio_media: usize,
}

impl<'a> Sdp<'a> {
    /// Scans a description.
    ///
    /// # Errors
    /// When it exceeds a limit, is malformed, or names no audio with an address.
    pub fn parse(body: &'a [u8]) -> Result<Self, SdpError> {
        let lines = scan(body)?;
        let (audio_media, audio) = find_audio(&lines)?;
        Ok(Self { raw_len: body.len(), lines, audio, audio_media })
    }

    /// The audio that is relayed.
    #[must_use]
    pub const fn audio(&self) -> &Audio<'a> {
        &self.audio
    }

    /// The address and port to send RTP to, as the author says.
    #[must_use]
    pub const fn remote(&self) -> SocketAddr {
        self.audio.remote
    }

    /// The same description with `addr` as the place of the audio: `c=`, `o=` and the port of the audio are replaced,
    /// `a=rtcp` names the next port, ICE attributes go, other media get port 0, every other octet stays as it came.
    /// An unspecified address (hold) and port 0 (rejected) keep their meaning and stay.
    #[must_use]
    pub fn rewrite(&self, addr: SocketAddr) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.raw_len.saturating_add(64));
        for line in &self.lines {
            self.rewrite_line(line, addr, &mut out);
        }
        out
    }

    fn rewrite_line(&self, line: &Line<'a>, addr: SocketAddr, out: &mut Vec<u8>) {
        let in_audio = line.media == Some(self.audio_media);
        match line.kind {
            b'c' if !is_unspecified(line.value) => {
                out.extend_from_slice(b"c=");
                write_address(out, addr.ip());
                out.extend_from_slice(line.ending);
            }
            b'o' => rewrite_origin(line, addr.ip(), out),
            b'm' => {
                let port = if in_audio && !self.audio.is_rejected() { addr.port() } else { 0 };
                rewrite_media(line, port, out);
            }
            b'a' if is_ice(line.value) => {}
            // An own RTCP address of a stream that is not relayed would tell the inner network to the other side.
            b'a' if line.value.starts_with(b"rtcp:") && !in_audio => {}
            b'a' if line.value.starts_with(b"rtcp:") => {
                // Writing into a Vec has no failure.
                let _infallible = write!(out, "a=rtcp:{}", addr.port().saturating_add(1));
                if line.value.contains(&b' ') {
                    out.push(b' ');
                    write_address(out, addr.ip());
                }
                out.extend_from_slice(line.ending);
            }
            _ => out.extend_from_slice(line.raw),
        }
    }

    /// Authors the answer to this offer: the audio at `author.addr` in the first offered payload type that
    /// `author.formats` has (all of its formats when none is shared: the caller checks [`Sdp::shares`] first), every
    /// other `m=` line rejected in its place, as RFC 3264, section 6 asks.
    #[must_use]
    pub fn answer(&self, author: &Author<'_>) -> Vec<u8> {
        let shared: SmallVec<[AudioFormat; 8]> =
            author.formats.iter().copied().filter(|format| self.shares(*format)).collect();
        let formats = if shared.is_empty() { author.formats } else { &shared };
        let direction = self.audio.direction.answered();
        let mut out = author_session(author);
        for line in self.lines.iter().filter(|line| line.kind == b'm') {
            if line.media == Some(self.audio_media) {
                author_audio(&mut out, author.addr.port(), self.audio.protocol, formats, direction);
            } else {
                rewrite_media(&Line { ending: b"\r\n", ..*line }, 0, &mut out);
            }
        }
        out
    }

    /// Whether the offer has this format.
    #[must_use]
    pub fn shares(&self, format: AudioFormat) -> bool {
        self.audio.formats.iter().any(|offered| offered.payload_type == format.payload_type())
    }
}

/// A format that Tandem itself speaks, as caller or answerer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AudioFormat {
    /// G.711 µ-law, payload type 0.
    Pcmu,
    /// G.711 A-law, payload type 8.
    Pcma,
}

impl AudioFormat {
    /// The static payload type (RFC 3551, table 4).
    #[must_use]
    pub const fn payload_type(self) -> u8 {
        match self {
            Self::Pcmu => 0,
            Self::Pcma => 8,
        }
    }

    const fn rtpmap(self) -> &'static str {
        match self {
            Self::Pcmu => "PCMU/8000",
            Self::Pcma => "PCMA/8000",
        }
    }
}

/// What a description of our own says.
#[derive(Debug, Clone, Copy)]
pub struct Author<'a> {
    /// Where RTP is received.
    pub addr: SocketAddr,
    /// The session's number, and its version, which grows by one with each change (RFC 3264, section 8).
    pub session_id: u64,
    /// The version.
    pub session_version: u64,
    /// Formats in order of preference.
    pub formats: &'a [AudioFormat],
    /// Which way media flows.
    pub direction: Direction,
}

/// Authors an offer.
#[must_use]
pub fn author(offer: &Author<'_>) -> Vec<u8> {
    let mut out = author_session(offer);
    author_audio(&mut out, offer.addr.port(), b"RTP/AVP", offer.formats, offer.direction);
    out
}

fn author_session(author: &Author<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    let _infallible = write!(out, "v=0\r\no=- {} {} ", author.session_id, author.session_version);
    write_address(&mut out, author.addr.ip());
    out.extend_from_slice(b"\r\ns=-\r\nc=");
    write_address(&mut out, author.addr.ip());
    out.extend_from_slice(b"\r\nt=0 0\r\n");
    out
}

fn author_audio(out: &mut Vec<u8>, port: u16, protocol: &[u8], formats: &[AudioFormat], direction: Direction) {
    let _infallible = write!(out, "m=audio {port} ");
    out.extend_from_slice(protocol);
    for format in formats {
        let _infallible = write!(out, " {}", format.payload_type());
    }
    out.extend_from_slice(b"\r\n");
    for format in formats {
        let _infallible = write!(out, "a=rtpmap:{} {}\r\n", format.payload_type(), format.rtpmap());
    }
    let _infallible = write!(out, "a=ptime:20\r\na={}\r\n", direction.as_str());
}

fn scan(body: &[u8]) -> Result<SmallVec<[Line<'_>; 32]>, SdpError> {
    if body.len() > SDP_MAX {
        return Err(SdpError::TooLarge);
    }
    let mut lines = SmallVec::<[Line<'_>; 32]>::new();
    let mut media = None;
    let mut rest = body;
    while !rest.is_empty() {
        let end = memchr::memchr(b'\n', rest).map_or(rest.len(), |at| at.saturating_add(1));
        let (raw, after) = rest.split_at(end);
        rest = after;
        let text = raw.strip_suffix(b"\n").map_or(raw, |line| line.strip_suffix(b"\r").unwrap_or(line));
        let (_, ending) = raw.split_at(text.len());
        let number = lines.len().saturating_add(1);
        let (kind, value) = match text {
            [kind, b'=', value @ ..] if kind.is_ascii_lowercase() => (*kind, value),
            // Blank lines at the end are seen in the field; they say nothing and are kept.
            [] => (0, text),
            _ => return Err(SdpError::Malformed(number)),
        };
        if lines.is_empty() && (kind != b'v' || value.trim_ascii_end() != b"0") {
            return Err(SdpError::Malformed(number));
        }
        if kind == b'm' {
            let next = media.map_or(0, |m: usize| m.saturating_add(1));
            if next >= MEDIA_MAX {
                return Err(SdpError::TooLarge);
            }
            media = Some(next);
        }
        if lines.len() >= LINES_MAX {
            return Err(SdpError::TooLarge);
        }
        lines.push(Line { kind, value, raw, ending, media });
    }
    Ok(lines)
}

/// The fields of an `m=` line: media, port, protocol, formats.
struct MediaLine<'a> {
    media: &'a [u8],
    port: u16,
    protocol: &'a [u8],
    formats: &'a [u8],
}

fn parse_media(value: &[u8]) -> Option<MediaLine<'_>> {
    let (media, rest) = split_field(value)?;
    let (port, rest) = split_field(rest)?;
    let (protocol, formats) = split_field(rest).unwrap_or((rest, b""));
    // `49170/2` asks for two ports in a row (hierarchical coding); only the first is relayed.
    let port = port.split(|b| *b == b'/').next().and_then(parse_u16)?;
    Some(MediaLine { media, port, protocol, formats })
}

fn find_audio<'a>(lines: &[Line<'a>]) -> Result<(usize, Audio<'a>), SdpError> {
    let mut chosen: Option<(usize, MediaLine<'a>)> = None;
    for (at, line) in lines.iter().enumerate().filter(|(_, line)| line.kind == b'm') {
        let media = parse_media(line.value).ok_or(SdpError::Malformed(at.saturating_add(1)))?;
        let Some(section) = line.media else { continue };
        let better = match &chosen {
            None => true,
            Some((_, earlier)) => earlier.port == 0 && media.port != 0,
        };
        if media.media == b"audio" && better {
            chosen = Some((section, media));
        }
    }
    let (section, media) = chosen.ok_or(SdpError::NoAudio)?;
    // The media's own lines overrule those of the session; lines of other media say nothing here.
    let ours = |line: &&Line<'a>| line.media.is_none() || line.media == Some(section);
    let connection = lines.iter().filter(ours).rfind(|line| line.kind == b'c');
    let ip = match connection {
        Some(line) => parse_address(line.value).ok_or(SdpError::UnsupportedAddress)?,
        // A rejected stream needs no address.
        None if media.port == 0 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        None => return Err(SdpError::NoConnection),
    };
    let attributes = || lines.iter().filter(ours).filter(|line| line.kind == b'a').map(|line| line.value);
    let direction = attributes().filter_map(|a| Direction::parse(a.trim_ascii_end())).next_back().unwrap_or_default();
    let rtcp = attributes().find_map(|a| parse_rtcp(a.strip_prefix(b"rtcp:")?, ip));
    let mut formats = SmallVec::new();
    let types = media.formats.split(|b| *b == b' ').filter(|f| !f.is_empty()).take(FORMATS_MAX);
    for payload_type in types.filter_map(parse_u16).filter_map(|n| u8::try_from(n).ok()).filter(|n| *n < 128) {
        let rtpmap = attributes().find_map(|a| {
            let (number, map) = split_field(a.strip_prefix(b"rtpmap:")?)?;
            (parse_u16(number) == Some(u16::from(payload_type))).then(|| map.trim_ascii())
        });
        formats.push(Format { payload_type, rtpmap });
    }
    let remote = SocketAddr::new(ip, media.port);
    Ok((section, Audio { remote, rtcp, direction, protocol: media.protocol, formats }))
}

/// `IN IP4 192.0.2.1`, with the TTL and count of a multicast address ignored.
fn parse_address(value: &[u8]) -> Option<IpAddr> {
    let (network, rest) = split_field(value)?;
    let (kind, rest) = split_field(rest)?;
    let address = rest.trim_ascii().split(|b| *b == b'/').next()?;
    let text = std::str::from_utf8(address).ok()?;
    match (network, kind) {
        (b"IN", b"IP4") => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        (b"IN", b"IP6") => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => None,
    }
}

fn parse_rtcp(value: &[u8], default: IpAddr) -> Option<SocketAddr> {
    let (port, rest) = split_field(value).unwrap_or((value, b""));
    let ip = if rest.is_empty() { default } else { parse_address(rest)? };
    Some(SocketAddr::new(ip, parse_u16(port.trim_ascii())?))
}

fn parse_u16(digits: &[u8]) -> Option<u16> {
    let text = std::str::from_utf8(digits).ok()?;
    // `parse` takes a sign, the grammar has none.
    if text.starts_with('+') { None } else { text.parse().ok() }
}

/// The first field and what follows the blanks after it.
fn split_field(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memchr::memchr(b' ', text)?;
    let (field, rest) = text.split_at(at);
    (!field.is_empty()).then(|| (field, rest.trim_ascii_start()))
}

fn is_unspecified(value: &[u8]) -> bool {
    parse_address(value).is_some_and(|ip| ip.is_unspecified())
}

fn is_ice(attribute: &[u8]) -> bool {
    attribute == b"end-of-candidates"
        || attribute.starts_with(b"candidate:")
        || attribute.starts_with(b"remote-candidates:")
        || attribute.starts_with(b"ice-")
}

fn write_address(out: &mut Vec<u8>, ip: IpAddr) {
    let kind = if ip.is_ipv4() { "IP4" } else { "IP6" };
    // Writing into a Vec has no failure.
    let _infallible = write!(out, "IN {kind} {ip}");
}

/// `o=user id version IN IP4 address`: the last three fields are replaced; an `o=` of another shape stays.
fn rewrite_origin(line: &Line<'_>, ip: IpAddr, out: &mut Vec<u8>) {
    let mut fields = 0_usize;
    let kept = line.value.iter().position(|b| {
        fields = fields.saturating_add(usize::from(*b == b' '));
        fields == 3
    });
    let Some(kept) = kept.and_then(|at| line.value.get(..=at)) else {
        out.extend_from_slice(line.raw);
        return;
    };
    out.extend_from_slice(b"o=");
    out.extend_from_slice(kept);
    write_address(out, ip);
    out.extend_from_slice(line.ending);
}

fn rewrite_media(line: &Line<'_>, port: u16, out: &mut Vec<u8>) {
    let Some(MediaLine { media, protocol, formats, .. }) = parse_media(line.value) else {
        // `Sdp::parse` refused such lines.
        out.extend_from_slice(line.raw);
        return;
    };
    out.extend_from_slice(b"m=");
    out.extend_from_slice(media);
    let _infallible = write!(out, " {port} ");
    out.extend_from_slice(protocol);
    if !formats.is_empty() {
        out.push(b' ');
        out.extend_from_slice(formats);
    }
    out.extend_from_slice(line.ending);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OFFER: &str = "v=0\r\no=alice 2890844526 2890844526 IN IP4 10.0.0.7\r\ns=-\r\nc=IN IP4 10.0.0.7\r\nt=0 0\r\n\
        m=audio 49170/2 RTP/AVP 0 8 97 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:97 opus/48000/2\r\n\
        a=fmtp:97 useinbandfec=1\r\na=rtpmap:101 telephone-event/8000\r\na=rtcp:50000 IN IP4 10.0.0.8\r\n\
        a=candidate:1 1 UDP 2130706431 10.0.0.7 49170 typ host\r\na=ice-ufrag:abcd\r\na=x-own:\u{e9}\r\n\
        m=video 51372 RTP/AVP 99\r\nc=IN IP4 10.0.0.9\r\na=rtcp:51400\r\na=rtpmap:99 H264/90000\r\na=sendonly\r\n";

    fn relay() -> SocketAddr {
        "198.51.100.4:20000".parse().unwrap()
    }

    #[test]
    fn reads_the_audio() {
        let sdp = Sdp::parse(OFFER.as_bytes()).unwrap();
        let audio = sdp.audio();
        assert_eq!(audio.remote, "10.0.0.7:49170".parse().unwrap());
        assert_eq!(audio.rtcp, Some("10.0.0.8:50000".parse().unwrap()));
        assert_eq!(audio.direction, Direction::SendRecv);
        assert!(!audio.is_hold());
        let types: Vec<u8> = audio.formats.iter().map(|f| f.payload_type).collect();
        assert_eq!(types, [0, 8, 97, 101]);
        assert_eq!(audio.formats[1].rtpmap, None);
        assert_eq!(audio.formats[2].rtpmap, Some(&b"opus/48000/2"[..]));
    }

    #[test]
    fn rewrites_addresses_and_nothing_else() {
        let rewritten = Sdp::parse(OFFER.as_bytes()).unwrap().rewrite(relay());
        let expected = "v=0\r\no=alice 2890844526 2890844526 IN IP4 198.51.100.4\r\ns=-\r\nc=IN IP4 198.51.100.4\r\n\
            t=0 0\r\nm=audio 20000 RTP/AVP 0 8 97 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:97 opus/48000/2\r\n\
            a=fmtp:97 useinbandfec=1\r\na=rtpmap:101 telephone-event/8000\r\na=rtcp:20001 IN IP4 198.51.100.4\r\n\
            a=x-own:\u{e9}\r\nm=video 0 RTP/AVP 99\r\nc=IN IP4 198.51.100.4\r\na=rtpmap:99 H264/90000\r\na=sendonly\r\n";
        assert_eq!(String::from_utf8(rewritten).unwrap(), expected);
    }

    #[test]
    fn keeps_line_endings_and_changes_family() {
        let sdp = b"v=0\no=- 1 1 IN IP4 10.0.0.7\ns=-\nt=0 0\nm=audio 4000 RTP/AVP 0\nc=IN IP4 10.0.0.7";
        let rewritten = Sdp::parse(sdp).unwrap().rewrite("[2001:db8::1]:20002".parse().unwrap());
        let expected = "v=0\no=- 1 1 IN IP6 2001:db8::1\ns=-\nt=0 0\nm=audio 20002 RTP/AVP 0\nc=IN IP6 2001:db8::1";
        assert_eq!(String::from_utf8(rewritten).unwrap(), expected);
    }

    #[test]
    fn reads_ipv6_with_the_address_of_the_media() {
        let sdp = b"v=0\r\no=- 1 1 IN IP6 ::1\r\ns=-\r\nc=IN IP4 10.0.0.7\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n\
            c=IN IP6 2001:db8::7\r\na=recvonly\r\n";
        let sdp = Sdp::parse(sdp).unwrap();
        assert_eq!(sdp.remote(), "[2001:db8::7]:4000".parse().unwrap());
        assert_eq!(sdp.audio().direction, Direction::RecvOnly);
    }

    #[test]
    fn sees_hold_in_both_ways() {
        let check = |connection: &str, attribute: &str, hold: bool| {
            let sdp = format!(
                "v=0\r\no=- 1 1 IN IP4 10.0.0.7\r\ns=-\r\nc=IN IP4 {connection}\r\nt=0 0\r\n{attribute}\
                 m=audio 4000 RTP/AVP 0\r\n"
            );
            assert_eq!(Sdp::parse(sdp.as_bytes()).unwrap().audio().is_hold(), hold, "{sdp}");
        };
        check("10.0.0.7", "", false);
        check("0.0.0.0", "", true);
        check("10.0.0.7", "a=sendonly\r\n", true);
        check("10.0.0.7", "a=inactive\r\n", true);
        check("10.0.0.7", "a=recvonly\r\n", false);
    }

    #[test]
    fn hold_and_rejection_keep_their_meaning() {
        let held = b"v=0\r\no=- 1 1 IN IP4 10.0.0.7\r\ns=-\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n";
        let rewritten = Sdp::parse(held).unwrap().rewrite(relay());
        assert!(Sdp::parse(&rewritten).unwrap().audio().is_hold());
        let rejected = b"v=0\r\no=- 1 1 IN IP4 10.0.0.7\r\ns=-\r\nt=0 0\r\nm=audio 0 RTP/AVP 0\r\n";
        let rewritten = Sdp::parse(rejected).unwrap().rewrite(relay());
        assert!(Sdp::parse(&rewritten).unwrap().audio().is_rejected());
    }

    #[test]
    fn takes_the_first_audio_that_lives() {
        let sdp = b"v=0\r\no=- 1 1 IN IP4 10.0.0.7\r\ns=-\r\nc=IN IP4 10.0.0.7\r\nt=0 0\r\nm=audio 0 RTP/AVP 0\r\n\
            m=audio 4000 RTP/AVP 8\r\nm=audio 4002 RTP/AVP 3\r\n";
        let sdp = Sdp::parse(sdp).unwrap();
        assert_eq!(sdp.remote().port(), 4000);
        let text = String::from_utf8(sdp.rewrite(relay())).unwrap();
        assert!(text.ends_with("m=audio 0 RTP/AVP 0\r\nm=audio 20000 RTP/AVP 8\r\nm=audio 0 RTP/AVP 3\r\n"));
    }

    #[test]
    fn refuses_with_a_reason() {
        let check = |sdp: &[u8], error: SdpError| assert_eq!(Sdp::parse(sdp).unwrap_err(), error);
        check(b"", SdpError::NoAudio);
        check(b"hello", SdpError::Malformed(1));
        check(b"o=- 1 1 IN IP4 1.2.3.4\r\n", SdpError::Malformed(1));
        check(b"v=0\r\ns=-\r\n", SdpError::NoAudio);
        check(b"v=0\r\nm=audio\r\n", SdpError::Malformed(2));
        check(b"v=0\r\nm=audio 99999 RTP/AVP 0\r\n", SdpError::Malformed(2));
        check(b"v=0\r\nm=audio 4000 RTP/AVP 0\r\n", SdpError::NoConnection);
        check(b"v=0\r\nc=IN IP4 host.example\r\nm=audio 4000 RTP/AVP 0\r\n", SdpError::UnsupportedAddress);
        check(&vec![b'v'; SDP_MAX + 1], SdpError::TooLarge);
        check(&[b"v=0\n".to_vec(), b"a=x\n".repeat(LINES_MAX)].concat(), SdpError::TooLarge);
        check(&[b"v=0\n".to_vec(), b"m=video 1 X 1\n".repeat(MEDIA_MAX + 1)].concat(), SdpError::TooLarge);
    }

    #[test]
    fn authors_offer_and_answer() {
        let formats = [AudioFormat::Pcmu, AudioFormat::Pcma];
        let params = Author {
            addr: relay(),
            session_id: 7,
            session_version: 1,
            formats: &formats,
            direction: Direction::SendRecv,
        };
        let offer = author(&params);
        let offer = Sdp::parse(&offer).unwrap();
        assert_eq!(offer.remote(), relay());
        assert_eq!(offer.audio().formats.len(), 2);
        let foreign = Sdp::parse(OFFER.as_bytes()).unwrap();
        assert!(foreign.shares(AudioFormat::Pcmu));
        let answer = foreign.answer(&params);
        let text = String::from_utf8(answer.clone()).unwrap();
        assert!(text.contains("m=audio 20000 RTP/AVP 0 8\r\n"), "{text}");
        assert!(text.ends_with("m=video 0 RTP/AVP 99\r\n"), "{text}");
        assert_eq!(Sdp::parse(&answer).unwrap().remote(), relay());
    }

    proptest! {
        /// Whatever comes: no panic, and what is accepted stays readable and points at the relay after a rewrite.
        #[test]
        fn survives_mutation(at in 0..OFFER.len(), octets in proptest::collection::vec(any::<u8>(), 0..8), cut in 0usize..40) {
            let mut body = OFFER.as_bytes().to_vec();
            let end = (at + cut).min(body.len());
            body.splice(at..end, octets);
            if let Ok(sdp) = Sdp::parse(&body) {
                let rewritten = sdp.rewrite(relay());
                let again = Sdp::parse(&rewritten).unwrap();
                prop_assert!(again.audio().is_rejected() || again.remote().port() == relay().port());
                prop_assert!(again.remote().ip() == relay().ip() || again.remote().ip().is_unspecified());
                prop_assert_eq!(again.rewrite(relay()), rewritten.clone());
            }
        }
    }
}
