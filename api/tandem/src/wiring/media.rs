//! The media relay as the call core's port.

use std::net::SocketAddr;

use media_relay::{MediaSession, MediaSnapshot, RelayHandle, RemoteMedia, Side};
use model::id::CallId;
use sip_services::MediaPort;

/// One shard's access to the relay.
#[derive(Debug)]
pub struct RelayPort(pub RelayHandle);

impl MediaPort for RelayPort {
    fn open(&mut self, _call: CallId) -> Option<MediaSession> {
        self.0.open()
    }

    fn local(&self, session: MediaSession, side: Side) -> SocketAddr {
        self.0.local(session, side)
    }

    fn set_remote(&mut self, session: MediaSession, side: Side, media: &RemoteMedia) {
        self.0.set_remote(session, side, media);
    }

    fn snapshot(&self, session: MediaSession) -> MediaSnapshot {
        self.0.snapshot(session)
    }

    fn close(&mut self, session: MediaSession) -> MediaSnapshot {
        self.0.close(session)
    }
}
