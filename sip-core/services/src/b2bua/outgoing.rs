//! Requests of ours within calls that may still be answered, and the answers that outlive their call.

use bytes::Bytes;
use sip_engine::digest::DigestClient;
use sip_engine::{ClientKey, Dialog, Peer};
use sip_message::{HeaderName, Message, Method};
use smallvec::SmallVec;

use super::Calls;
use super::call::{CallKey, next_hop};
use super::passing::PassedRequest;
use super::renegotiate::OutgoingExchange;
use crate::io::Io;

/// Answers of different forks of one INVITE that are kept apart. A proxy that rings more phones at once is rare, and
/// one that lets more of them answer is broken.
const FORKS_MAX: usize = 8;

pub(super) enum Outgoing {
    Invite(Box<OutgoingInvite>),
    Bye(Box<OutgoingBye>),
    /// An offer within a call.
    Exchange(Box<OutgoingExchange>),
    /// A request that passes from one side to the other.
    Passed(Box<PassedRequest>),
}

/// Whose answer comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Invite(CallKey),
    Bye,
    Exchange(CallKey),
    Passed,
}

impl Outgoing {
    /// What it was sent for.
    pub fn purpose(&self) -> Purpose {
        match self {
            Self::Invite(invite) => Purpose::Invite(invite.call),
            Self::Bye(_) => Purpose::Bye,
            Self::Exchange(exchange) => Purpose::Exchange(exchange.call),
            Self::Passed(_) => Purpose::Passed,
        }
    }
}

pub(super) struct OutgoingInvite {
    pub call: CallKey,
    pub invite: Message,
    pub peer: Peer,
    pub trunk: bool,
    /// The ACK for each 200, by its To tag: repeated when the 200 is.
    pub acks: SmallVec<[(Bytes, Bytes, Peer); 1]>,
}

pub(super) struct OutgoingBye {
    dialog: Dialog,
    peer: Peer,
    /// For one challenge.
    credentials: Option<DigestClient>,
}

impl Calls {
    /// The INVITE of a client transaction.
    pub(super) fn outgoing_invite(&mut self, client: ClientKey) -> Option<&mut OutgoingInvite> {
        match self.outgoing.get_mut(&client)? {
            Outgoing::Invite(invite) => Some(invite),
            Outgoing::Bye(_) | Outgoing::Exchange(_) | Outgoing::Passed(_) => None,
        }
    }

    /// Sends a BYE; what comes of it no longer concerns the call.
    pub(super) fn send_bye(&mut self, io: &mut Io, mut dialog: Dialog, peer: Peer, credentials: Option<DigestClient>) {
        let builder = io.hop(peer, |hop| dialog.request(&Method::Bye, hop));
        let Some(bytes) = io.finish(builder) else { return };
        if let Ok(client) = io.transactions.request(io.now.mono, bytes, peer) {
            self.outgoing.insert(client, Outgoing::Bye(Box::new(OutgoingBye { dialog, peer, credentials })));
        }
    }

    /// A trunk may challenge a BYE as it does an INVITE; it is answered once.
    pub(super) fn bye_response(&mut self, io: &mut Io, client: ClientKey, msg: &Message) {
        if !matches!(msg.status(), 401 | 407) {
            return;
        }
        let Some(Outgoing::Bye(bye)) = self.outgoing.get_mut(&client) else { return };
        let Some(mut credentials) = bye.credentials.take() else { return };
        let (mut dialog, peer) = (bye.dialog.clone(), bye.peer);
        let uri = dialog.target().to_vec();
        let cnonce = io.tokens.cnonce();
        let Some((name, value)) = credentials.answer(msg, b"BYE", &uri, b"", &cnonce) else { return };
        let builder = io.hop(peer, |hop| dialog.request(&Method::Bye, hop)).header(name, value);
        let Some(bytes) = io.finish(builder) else { return };
        if let Ok(client) = io.transactions.request(io.now.mono, bytes, peer) {
            self.outgoing.insert(client, Outgoing::Bye(Box::new(OutgoingBye { dialog, peer, credentials: None })));
        }
    }

    /// Sends the ACK for a 200 with this dialog, and keeps it for the 200's repetitions.
    pub(super) fn send_ack(&mut self, io: &mut Io, client: ClientKey, dialog: &Dialog, body: Option<&[u8]>) {
        let Some(invite) = self.outgoing_invite(client) else { return };
        let peer = next_hop(dialog, invite.peer, invite.trunk);
        let cseq = invite.invite.cseq().map_or(1, |(number, _)| number);
        let mut builder = io.hop(peer, |hop| dialog.ack(cseq, hop));
        // RFC 3261, section 13.2.2.4: an ACK can't be challenged, so it has the credentials of its INVITE.
        for name in [HeaderName::Authorization, HeaderName::ProxyAuthorization] {
            for value in invite.invite.headers(name) {
                builder = builder.header(name, value);
            }
        }
        if let Some(body) = body {
            builder = builder.body(crate::io::SDP, body);
        }
        let Some(bytes) = io.finish(builder) else { return };
        io.transactions.send(bytes.clone(), peer);
        if invite.acks.len() < FORKS_MAX {
            invite.acks.push((dialog.id().remote_tag.clone(), bytes, peer));
        }
    }

    /// Repeats the ACK of a 200 that came again; false when that 200 has none yet.
    pub(super) fn repeat_ack(&mut self, io: &mut Io, client: ClientKey, msg: &Message) -> bool {
        let tag = msg.to().ok().and_then(|to| to.tag()).unwrap_or_default();
        let Some(invite) = self.outgoing_invite(client) else { return false };
        let Some((_, ack, peer)) = invite.acks.iter().find(|(known, ..)| known == tag) else { return false };
        io.transactions.send(ack.clone(), *peer);
        true
    }

    /// An answer that nobody wants (any more): ACK, then BYE.
    pub(super) fn release_answer(
        &mut self,
        io: &mut Io,
        client: ClientKey,
        msg: &Message,
        credentials: Option<DigestClient>,
    ) {
        let Some(invite) = self.outgoing_invite(client) else { return };
        if invite.acks.len() >= FORKS_MAX {
            return;
        }
        let (peer, trunk) = (invite.peer, invite.trunk);
        let Ok(dialog) = Dialog::uac(&invite.invite, msg) else { return };
        self.send_ack(io, client, &dialog, None);
        let peer = next_hop(&dialog, peer, trunk);
        self.send_bye(io, dialog, peer, credentials);
    }
}
