//! Session descriptions on their way through a call: each side gets the relay's address for the other's (RFC 3264).

use bytes::Bytes;
use media_engine::sdp::Sdp;
use media_engine::{MediaSession, RemoteMedia, Side};
use sip_message::Message;

use crate::io::{Io, SDP};

/// What one side says about its session.
#[derive(Debug, Clone)]
pub(super) struct Description {
    /// The description as the other side gets it.
    pub sdp: Bytes,
    /// What the relay has to know of it: address and direction.
    pub media: RemoteMedia,
}

/// Reads the session that `from` sends and rewrites it for the other side; none when there is none or it can't be
/// used. The relay is not told.
pub(super) fn describe(io: &Io, session: MediaSession, msg: &Message, from: Side) -> Option<Description> {
    if msg.body().is_empty() || !msg.content_type().eq_ignore_ascii_case(SDP.as_bytes()) {
        return None;
    }
    let sdp = Sdp::parse(msg.body()).ok()?;
    let media = RemoteMedia::of(&sdp);
    Some(Description { sdp: sdp.rewrite(io.media.local(session, from.other())).into(), media })
}

/// As [`describe`], and tells the relay.
pub(super) fn relay(io: &mut Io, session: MediaSession, msg: &Message, from: Side) -> Option<Description> {
    let description = describe(io, session, msg, from)?;
    io.media.set_remote(session, from, &description.media);
    Some(description)
}
