//! What is measured, over real sockets and a clock that only the test moves.

use media_engine::format::{Payload, PayloadFormat};
use model::event::fact::Codec;

use super::*;

/// A packet of a payload type with a payload of its own.
fn packet(payload_type: u8, marker: bool, sequence: u16, timestamp: u32, payload: &[u8]) -> Vec<u8> {
    let payload_len = payload.len();
    let header = RtpHeader { marker, payload_type, sequence, timestamp, ssrc: 7, header_len: HEADER_LEN, payload_len };
    [header.to_bytes().to_vec(), payload.to_vec()].concat()
}

/// A sender report of a source at a time, by its middle bits.
fn sender_report(ssrc: u32, ntp_middle: u32) -> Vec<u8> {
    let mut octets = vec![0x80, 200, 0, 6];
    octets.extend(ssrc.to_be_bytes());
    octets.extend([0xe0, 0]);
    octets.extend(ntp_middle.to_be_bytes());
    octets.extend([0; 14]);
    octets
}

/// A receiver report with one block.
fn receiver_report(about: u32, lost: u32, jitter: u32, ntp_middle: u32, delay: u32) -> Vec<u8> {
    let mut octets = vec![0x81, 201, 0, 7, 0, 0, 0, 99];
    for word in [about, lost, 0, jitter, ntp_middle, delay] {
        octets.extend(word.to_be_bytes());
    }
    octets
}

fn next(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip(), addr.port() + 1)
}

#[test]
fn a_call_is_measured_in_both_directions() {
    let mut rig = rig(&config(1));
    let ((a, a_rtcp), (b, b_rtcp)) = (Phone::pair(), Phone::pair());
    let (session, to_a, to_b) = rig.call(&a, &b);
    for n in 0..100_u16 {
        if n != 50 {
            a.send(n, to_a);
            assert_eq!(b.receive().0, n);
        }
        b.send(n, to_b);
        assert_eq!(a.receive().0, n);
        // B's packets come 20 ms apart, and so do A's.
        rig.clock.advance(20);
    }
    a_rtcp.raw(&sender_report(7, 0xabcd_0001), next(to_a));
    assert_eq!(b_rtcp.receive_raw().1, next(to_b));
    rig.clock.advance(150);
    // B waited 100 ms: the way there and back took 50. Of A's packets it missed three, with 15 ms of jitter.
    b_rtcp.raw(&receiver_report(7, 3, 120, 0xabcd_0001, 6_553), next(to_b));
    assert_eq!(a_rtcp.receive_raw().1, next(to_a));
    let snapshot = wait_for(&rig.handle, session, |s| s.b.quality.is_some_and(|q| q.round_trip_us.is_some()));
    let (a_quality, b_quality) = (snapshot.a.quality.unwrap(), snapshot.b.quality.unwrap());
    assert_eq!((snapshot.a.packets_received, snapshot.a.packets_lost), (99, 1));
    assert_eq!((a_quality.codec, a_quality.loss_run_max, a_quality.jitter_max_us), (Codec::Pcmu, 1, 0));
    assert_eq!((a_quality.round_trip_us, a_quality.reported_mos), (None, None), "A sends no receiver reports");
    assert_eq!(a_quality.mos, Some(433), "one percent, 60 ms: R 89.56");
    assert!(b_quality.round_trip_us.is_some_and(|us| (50_000..50_020).contains(&us)), "{b_quality:?}");
    assert_eq!((b_quality.reported_lost, b_quality.reported_jitter_us), (Some(3), Some(15_000)));
    assert_eq!(b_quality.mos, Some(441));
    assert!(b_quality.reported_mos.is_some_and(|mos| (400..433).contains(&mos)), "{b_quality:?}");
}

#[test]
fn encrypted_reports_pass_unread_and_a_named_place_gets_them() {
    let mut rig = rig(&config(1));
    let (a, b, a_rtcp, b_rtcp) = (Phone::new(), Phone::new(), Phone::new(), Phone::new());
    let session = rig.handle.open().unwrap();
    for (side, phone, rtcp) in [(Side::Caller, &a, &a_rtcp), (Side::Callee, &b, &b_rtcp)] {
        let media = RemoteMedia { rtcp: Some(rtcp.addr()), is_secure: true, ..RemoteMedia::at(phone.addr()) };
        rig.handle.set_remote(session, side, &media);
    }
    let (to_a, to_b) = (rig.handle.local(session, Side::Caller), rig.handle.local(session, Side::Callee));
    a.send(1, to_a);
    assert_eq!(b.receive().0, 1);
    b.send(1, to_b);
    assert_eq!(a.receive().0, 1);
    let report = receiver_report(7, 3, 120, 0, 0);
    b_rtcp.raw(&report, next(to_b));
    assert_eq!(a_rtcp.receive_raw().0, report, "where a=rtcp says");
    let quality = wait_for(&rig.handle, session, |s| s.a.packets_sent == 1).b.quality.unwrap();
    assert_eq!((quality.reported_lost, quality.reported_jitter_us), (None, None));
}

#[test]
fn the_source_of_reports_is_not_taken_over_between_two_of_them() {
    let mut rig = rig(&config(1));
    let ((a, a_rtcp), (b, b_rtcp), stranger) = (Phone::pair(), Phone::pair(), Phone::new());
    let (_, to_a, to_b) = rig.call(&a, &b);
    let report = sender_report(7, 1);
    // Another host is nobody once the leg's voice was heard, though no report came yet.
    a.send(1, to_a);
    assert_eq!(b.receive().0, 1);
    let elsewhere = Phone(UdpSocket::bind("127.0.0.2:0").unwrap());
    elsewhere.raw(&sender_report(666, 1), next(to_a));
    a_rtcp.raw(&report, next(to_a));
    assert_eq!(b_rtcp.receive_raw().0, report);
    // Five seconds to the next report: longer than the silence that frees an RTP source.
    rig.clock.advance(RelayConfig::default().silence_ms + 2_000);
    stranger.raw(&sender_report(666, 2), next(to_a));
    let second = sender_report(7, 3);
    a_rtcp.raw(&second, next(to_a));
    assert_eq!(b_rtcp.receive_raw().0, second, "the stranger's never came through");
    b_rtcp.raw(&report, next(to_b));
    assert_eq!(a_rtcp.receive_raw().0, report);
}

#[test]
fn digits_pass_unchanged_between_legs_that_number_them_differently() {
    let mut rig = rig(&config(1));
    let (a, b) = (Phone::new(), Phone::new());
    let session = rig.handle.open().unwrap();
    // Each side receives events under its own number (RFC 3264, section 5.1): A sends 96 to B, B sends 101 to A.
    for (side, phone, number) in [(Side::Caller, &a, 101), (Side::Callee, &b, 96)] {
        let mut media = RemoteMedia::at(phone.addr());
        media.formats[0] = Some(PayloadFormat::assigned(8));
        media.formats[1] = Some(PayloadFormat { payload_type: number, payload: Payload::Event, clock_rate: 8_000 });
        rig.handle.set_remote(session, side, &media);
    }
    let to_a = rig.handle.local(session, Side::Caller);
    let through = |packet: Vec<u8>| {
        a.raw(&packet, to_a);
        assert_eq!(b.receive_raw().0, packet, "octet by octet");
        rig.clock.advance(20);
    };
    for n in 0..10_u16 {
        through(packet(8, n == 0, n, u32::from(n) * 160, &[0x55; 160]));
    }
    // Digit 5 for 100 ms: marker on the first, one timestamp, growing duration, the end three times.
    for n in 0..5_u16 {
        let [d0, d1] = (n * 160 + 160).to_be_bytes();
        through(packet(96, n == 0, 10 + n, 1_600, &[5, 10, d0, d1]));
    }
    for n in 0..3_u16 {
        through(packet(96, false, 15 + n, 1_600, &[5, 0x80 | 10, 3, 32]));
    }
    for n in 18..30_u16 {
        through(packet(8, n == 18, n, u32::from(n) * 160, &[0x55; 160]));
    }
    let snapshot = wait_for(&rig.handle, session, |s| s.b.packets_sent == 30);
    let quality = snapshot.a.quality.unwrap();
    assert_eq!((snapshot.a.packets_received, snapshot.a.packets_lost), (30, 0));
    assert_eq!((quality.codec, quality.jitter_us, quality.jitter_max_us), (Codec::Pcma, 0, 0), "events are no jitter");
}
