//! A corpus of session descriptions, RTP and RTCP packets, and seeded mutations of it: nothing panics, and what is
//! accepted keeps its invariants.

use std::net::SocketAddr;

use testkit::{Mutator, soak};

use crate::RemoteMedia;
use crate::format;
use crate::quality::LegMeter;
use crate::rtcp::tests::{block, packet, receiver_report, sender_report};
use crate::rtcp::{Report, reports};
use crate::rtp::{HEADER_LEN, PACKET_MAX, PacketKind, RtpHeader, classify};
use crate::sdp::{FORMATS_MAX, SDP_MAX, Sdp};

const ROUNDS: u64 = 40_000;
const SEED: u64 = 0x5d9e_77a1;

fn descriptions() -> Vec<Vec<u8>> {
    let phone = "v=0\r\no=- 20518 0 IN IP4 203.0.113.1\r\ns=call\r\nc=IN IP4 203.0.113.1\r\nb=AS:84\r\nt=0 0\r\n\
        m=audio 16384 RTP/AVP 9 0 8 18 101\r\na=rtpmap:9 G722/8000\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:18 G729/8000\r\n\
        a=fmtp:18 annexb=no\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\na=ptime:20\r\na=sendrecv\r\n";
    let browser = "v=0\r\no=- 461173 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n\
        m=audio 54609 UDP/TLS/RTP/SAVPF 111 63 9 0 8 13 110 126\r\nc=IN IP4 198.51.100.9\r\n\
        a=rtcp:54610 IN IP4 198.51.100.9\r\na=candidate:1 1 udp 2122260223 10.0.0.5 54609 typ host generation 0\r\n\
        a=ice-ufrag:F7gI\r\na=ice-pwd:x9cml/YzichV2+XlhiMu8g\r\na=fingerprint:sha-256 D1:2C:BE\r\na=setup:actpass\r\n\
        a=mid:0\r\na=rtcp-mux\r\na=rtpmap:111 opus/48000/2\r\na=rtpmap:126 telephone-event/8000\r\n\
        m=video 9 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\na=rtpmap:96 VP8/90000\r\na=mid:1\r\n";
    let held = "v=0\no=x 1 1 IN IP6 ::1\ns=-\nc=IN IP6 2001:db8::5\nt=0 0\na=inactive\nm=audio 4000/2 RTP/AVP 8\n";
    let fax = "v=0\r\no=- 1 1 IN IP4 1.2.3.4\r\ns=-\r\nc=IN IP4 224.2.1.1/127/3\r\nt=0 0\r\nm=image 9 udptl t38\r\n\
        m=audio 0 RTP/AVP 0\r\nm=audio 4002 RTP/SAVP 0 96\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WVNf\r\n";
    [phone, browser, held, fax].map(|text| text.as_bytes().to_vec()).to_vec()
}

fn packets() -> Vec<Vec<u8>> {
    let header = |payload_type, sequence| RtpHeader {
        marker: sequence % 3 == 0,
        payload_type,
        sequence,
        timestamp: u32::from(sequence) * 160,
        ssrc: 7,
        header_len: HEADER_LEN,
        payload_len: 0,
    };
    let audio = [header(0, 1).to_bytes().to_vec(), vec![0xff; 160]].concat();
    let event = [header(101, 3).to_bytes().to_vec(), vec![5, 0x8a, 0, 160]].concat();
    let mut extended =
        [header(111, u16::MAX).to_bytes().to_vec(), vec![0xbe, 0xde, 0, 1, 0x10, 9, 0, 0], vec![1; 40]].concat();
    extended[0] |= 0x10;
    let sender = sender_report(7, 0x1234_5678, &[block(8, 3, 40, 0x9abc_def0, 6_553)]);
    let receiver = receiver_report(8, &[block(7, -1, 9, 0x1234_5678, 1), block(6, 0, 0, 0, 0)]);
    let names = packet(202, 1, b"\0\0\0\x07\x01\x04name\0\0");
    let goodbye = packet(203, 1, &[0, 0, 0, 7]);
    let extended_report = packet(207, 0, &[0, 0, 0, 8, 4, 0, 0, 2, 1, 2, 3, 4, 5, 6, 7, 8]);
    let compound = [sender, names].concat();
    let leaving = [receiver.clone(), extended_report, goodbye].concat();
    vec![audio, event, extended, compound, leaving, receiver, vec![0x80; 12], vec![0x81, 200, 0, 6]]
}

#[test]
fn mutated_descriptions_keep_the_invariants() {
    const SPICE: &[&[u8]] = &[
        b"\r\n",
        b"\n",
        b"\0",
        b" ",
        b"/",
        b"=",
        b"m=audio 1 RTP/AVP 0\r\n",
        b"c=IN IP4 0.0.0.0\r\n",
        b"c=IN IP6 ::\r\n",
        b"65535",
        b"65536",
        b"-1",
        b"+1",
        b"99999999999999999999",
        b"a=rtcp:",
        b"a=rtpmap:0 /",
        b"a=sendonly\r\n",
        b"\xff\xfe",
    ];
    let corpus = descriptions();
    assert!(corpus.iter().all(|body| Sdp::parse(body).is_ok()));
    let relay: SocketAddr = "198.51.100.4:20000".parse().unwrap();
    let mutator = Mutator::new(corpus, SPICE);
    let mut accepted = 0;
    let rounds = soak::campaign("session descriptions", SEED, ROUNDS, |round, random| {
        let body = mutator.mutated(random);
        let Ok(sdp) = Sdp::parse(&body) else { return };
        accepted += 1;
        assert!(body.len() <= SDP_MAX && sdp.audio().formats.len() <= FORMATS_MAX);
        let media = RemoteMedia::of(&sdp);
        let _ = (media.rtcp_address(), media.is_reachable());
        let rewritten = sdp.rewrite(relay);
        let again = Sdp::parse(&rewritten).unwrap_or_else(|error| panic!("round {round}: {error}"));
        assert!(again.remote().ip() == relay.ip() || again.remote().ip().is_unspecified(), "round {round}");
        assert!(again.audio().is_rejected() || again.remote().port() == relay.port(), "round {round}");
        assert_eq!(RemoteMedia::of(&again).formats, media.formats, "payload types pass unchanged: round {round}");
        assert_eq!(again.rewrite(relay), rewritten, "round {round}");
    });
    assert!(accepted > rounds / 20, "the mutations must not only break: {accepted}");
}

#[test]
fn mutated_packets_keep_the_invariants() {
    const SPICE: &[&[u8]] =
        &[&[0], &[0xff; 4], &[0x80, 200], &[0xbf, 201, 0xff, 0xff], &[0; 24], &[0x90], &[0x7f, 0xff]];
    let mutator = Mutator::new(packets(), SPICE);
    let (mut a, mut b) = (LegMeter::default(), LegMeter::default());
    let (mut rtp, mut rtcp, mut other) = (0_u64, 0_u64, 0_u64);
    let mut now_us = 0;
    soak::campaign("RTP and RTCP packets", SEED ^ 1, ROUNDS, |_, random| {
        let packet = mutator.mutated(random);
        now_us += random.draw() % 40_000;
        std::mem::swap(&mut a, &mut b);
        match classify(&packet) {
            PacketKind::Rtp(header) => {
                rtp += 1;
                assert!(header.header_len + header.payload_len <= packet.len());
                let format = format::find(header.payload_type, &Default::default(), &Default::default());
                a.rtp(&header, format, now_us);
            }
            PacketKind::Rtcp => {
                rtcp += 1;
                let blocks = reports(&packet).filter(|report| matches!(report, Report::Block(_))).count();
                assert!(blocks <= packet.len() / 24 && packet.len() <= PACKET_MAX * 2);
                a.rtcp(&b, &packet, now_us);
            }
            PacketKind::Other => other += 1,
        }
    });
    assert!(rtp > 1_000 && rtcp > 1_000 && other > 1_000, "{rtp} {rtcp} {other}");
    for (leg, far) in [(&a, &b), (&b, &a)] {
        let stats = leg.counts().stats(far.counts());
        let quality = stats.quality.expect("audio was among it");
        assert!(quality.round_trip_us.is_none_or(|us| us <= 10_000_000), "{quality:?}");
        assert!(quality.mos.is_none_or(|mos| (100..=450).contains(&mos)), "{quality:?}");
        assert!(quality.jitter_max_us <= 2_000_000, "{quality:?}");
    }
}
