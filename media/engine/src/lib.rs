//! The rules of media, without sockets and clocks.
//!
//! What it does: reads, rewrites and authors session descriptions ([`sdp`]), reads and writes RTP headers ([`rtp`]),
//! reads RTCP reports ([`rtcp`]), measures the streams of a leg ([`quality`], with [`sequence`], [`jitter`] and
//! [`emodel`]) and decides which source address a leg is sent from ([`latch`]). What it never does: open a socket, read a clock, start a thread, or decode audio. Time is an
//! argument in milliseconds since a start that the caller chooses.
//!
//! How to drive it: services parse the SDP of an INVITE or 200 with [`sdp::Sdp::parse`], tell the relay what it says
//! ([`RemoteMedia`]), and forward [`sdp::Sdp::rewrite`] with the relay's address. The relay feeds each datagram to
//! [`rtp::classify`], asks the [`latch::Latch`] of its leg whether the source is right, and tells the
//! [`quality::LegMeter`]s of the call, whose counts become `model::event::fact::MediaStats`.

pub mod emodel;
pub mod format;
pub mod jitter;
pub mod latch;
pub mod quality;
pub mod remote;
pub mod rtcp;
pub mod rtp;
pub mod sdp;
pub mod sequence;
pub mod session;
#[cfg(test)]
mod torture;

pub use remote::RemoteMedia;
pub use session::{MediaSession, MediaSnapshot, Side};
