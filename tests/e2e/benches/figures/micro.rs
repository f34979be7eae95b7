//! Parts by themselves, in this process: the SIP index, the journal, the rating core.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use billing::rating;
use billing::resource::{Rate, Tariff};
use billing::tariff::CompiledTariff;
use bytes::Bytes;
use db::journal::Journal;
use db::system::SystemClock;
use model::event::fact::Fact;
use model::id::{AccountId, CallId, TariffId};
use model::money::{Currency, Price, Rounding, RoundingMode};
use sip_message::Message;

use crate::{RUNS, line};

/// Messages of a run.
const MESSAGES: u32 = 1_000_000;
/// Records of a run.
const RECORDS: u64 = 200_000;
/// Calls of a run.
const CALLS: u64 = 5_000_000;
/// Prefixes of the tariff.
const PREFIXES: u32 = 100_000;
/// A call's end as it is journaled: what a call costs in the journal at the most.
const ENDED: &str = include_str!("../../../../schemas/model/src/event/samples/fact-ended-2.hex");

/// An INVITE with SDP, as a PBX sends it: 14 header fields, 900 octets; Content-Length comes with the body.
const INVITE: &str = concat!(
    "INVITE sip:+43720100100@proxy.example;user=phone SIP/2.0\r\n",
    "Via: SIP/2.0/UDP 192.0.2.17:5060;branch=z9hG4bK-524287-1---d8b2a1c5;rport\r\n",
    "Max-Forwards: 70\r\n",
    "Route: <sip:edge.example;lr>\r\n",
    "From: \"Reception\" <sip:+4315550001@pbx.example;user=phone>;tag=7f3a91c2\r\n",
    "To: <sip:+43720100100@proxy.example;user=phone>\r\n",
    "Call-ID: 6d1f0f2b-a3f7-4d2c-9a60-0c9ad7a1c0de@192.0.2.17\r\n",
    "CSeq: 1 INVITE\r\n",
    "Contact: <sip:+4315550001@192.0.2.17:5060>\r\n",
    "Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE, INFO\r\n",
    "Supported: replaces, timer\r\n",
    "P-Asserted-Identity: <sip:+4315550001@pbx.example;user=phone>\r\n",
    "User-Agent: PBX/7.2\r\n",
    "Content-Type: application/sdp\r\n",
);
const SDP: &str = concat!(
    "v=0\r\no=- 20518 20518 IN IP4 192.0.2.17\r\ns=-\r\nc=IN IP4 192.0.2.17\r\nt=0 0\r\n",
    "m=audio 16384 RTP/AVP 8 0 18 101\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:18 G729/8000\r\n",
    "a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\na=ptime:20\r\na=sendrecv\r\n",
);

/// Runs `work` over `count` units on this thread; gives units a second.
fn per_second(count: u64, work: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    work();
    count as f64 / begun.elapsed().as_secs_f64()
}

pub fn index() {
    let message = Bytes::from(format!("{INVITE}Content-Length: {}\r\n\r\n{SDP}", SDP.len()));
    let read = |message: &Bytes| {
        let parsed = Message::parse_datagram(message.clone()).expect("the message is right");
        let via = parsed.top_via().expect("a Via").branch().len();
        black_box((via, parsed.from().is_ok(), parsed.to().is_ok(), parsed.cseq().is_ok(), parsed.call_id().len()));
    };
    let allocations = allocation_counter::measure(|| (0..1_000).for_each(|_| read(black_box(&message))));
    let figures: Vec<f64> = (0..RUNS)
        .map(|_| per_second(MESSAGES.into(), || (0..MESSAGES).for_each(|_| read(black_box(&message)))))
        .collect();
    line("indexed; Via, From, To, CSeq and Call-ID read", "messages/s", &figures);
    line("allocations", "a message", &[allocations.count_total as f64 / 1_000.0]);
}

pub fn journal() {
    let octets = hex::decode(ENDED.split_whitespace().collect::<String>()).expect("a sample");
    let Ok(Fact::Ended(sample)) = Fact::from_bytes(&octets) else { unreachable!("the sample is of an end") };
    let mut figures = Vec::new();
    for _ in 0..RUNS {
        let folder = tempfile::tempdir().expect("a folder");
        let (journal, _) = Journal::open(folder.path(), Arc::new(SystemClock), "bench").expect("a journal");
        let (told, durable) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        figures.push(per_second(RECORDS, || {
            for number in 0..RECORDS {
                let mut fact = sample.clone();
                fact.answered.setup.call = CallId::from_uuid(uuid::Uuid::from_u128(number.into()));
                let fact = Fact::Ended(fact);
                loop {
                    let (told, durable) = (Arc::clone(&told), Arc::clone(&durable));
                    let notify = Box::new(move |is_durable| {
                        durable.fetch_add(u64::from(is_durable), Ordering::Relaxed);
                        told.fetch_add(1, Ordering::Release);
                    });
                    if journal.append(&fact, Some(notify)).is_ok() {
                        break;
                    }
                    std::thread::yield_now();
                }
            }
            while told.load(Ordering::Acquire) < RECORDS {
                std::thread::yield_now();
            }
        }));
        assert_eq!(durable.load(Ordering::Relaxed), RECORDS, "all are on the disk");
        journal.close();
    }
    line("written, flushed to the disk, told", "records/s", &figures);
}

pub fn rating() {
    let price = |units| Price::from_units(units);
    let rates = (0..PREFIXES).map(|number| Rate {
        prefix: (1_000_000 + u64::from(number) * 89).to_string(),
        description: String::new(),
        connect_fee: price(10_000),
        price: price(i64::from(number % 900_000) + 1),
        per_ms: 60_000,
        initial_ms: 30_000,
        increment_ms: 6_000,
    });
    let nothing = uuid::Uuid::nil();
    let tariff = Tariff {
        id: TariffId::from_uuid(nothing),
        account: AccountId::from_uuid(nothing),
        name: "bench".into(),
        currency: "EUR".parse::<Currency>().expect("a currency"),
        rounding: Rounding { mode: RoundingMode::HalfUp, decimals: 4 },
        rates: rates.collect(),
        version: 1,
    };
    let (mut built, mut rated) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let tariff = tariff.clone();
        let begun = Instant::now();
        let compiled = CompiledTariff::new(tariff).expect("a tariff");
        built.push(begun.elapsed().as_secs_f64() * 1e3);
        let numbers: Vec<String> =
            (0..4_096u64).map(|n| format!("{}1234", 1_000_000 + n * 7_919 % u64::from(PREFIXES) * 89)).collect();
        let mut sum = 0i64;
        rated.push(per_second(CALLS, || {
            for call in 0..CALLS {
                let number = &numbers[(call % 4_096) as usize];
                let rate = compiled.longest_prefix(black_box(number)).expect("every number has a price");
                let cost = rating::cost(rate, tariff_rounding(), (call % 600_000).cast_signed()).expect("it fits");
                sum = sum.wrapping_add(cost.amount.units());
            }
        }));
        black_box(sum);
    }
    line(&format!("longest prefix of {PREFIXES}, increments, exact amount"), "calls/s", &rated);
    line("the tree of these prefixes built", "ms", &built);
}

const fn tariff_rounding() -> Rounding {
    Rounding { mode: RoundingMode::HalfUp, decimals: 4 }
}
