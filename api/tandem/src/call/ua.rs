//! A SIP user agent as a machine: RFC 3261, sections 9 to 15, on top of the engine's transactions and dialogs. It has
//! no socket and no clock; media is a port that answers at once.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use media_engine::sdp::{self, AudioFormat, Author, Direction, Sdp};
use model::event::fact::ReleasedBy;
use model::time::Now;
use sip_engine::dialog::Hop;
use sip_engine::digest::{DigestClient, is_stale};
use sip_engine::{
    ClientKey, Dialog, DialogId, Due, Peer, Retransmit, ServerKey, Timers, Tokens, TransactionConfig, TransactionEvent,
    Transactions, Transport,
};
use sip_message::build::{BuildError, RequestBuilder, ResponseBuilder};
use sip_message::{HeaderName, Message, Method, Uri, reason_of};

use super::types::{
    Account, AccountId, Behaviour, CallOutcome, CallRequest, Caller, PlaceError, Progress, RegisterError, Role, Talk,
    Trunk,
};

/// Calls at once: above this, INVITEs get 503 and calls are not placed. Each has an RTP socket.
const CALLS_MAX: usize = 10_000;
/// Times that a request is repeated with credentials: the challenge, and a nonce or two that were too old.
const CREDENTIALS_MAX: u8 = 3;
/// What our responses say that we can do.
const ALLOW: &str = "INVITE, ACK, BYE, CANCEL, OPTIONS";
/// Call-ID prefix: shows in traces who made it.
const CALL_ID_PREFIX: &str = "ua-";
const FORMATS: [AudioFormat; 2] = [AudioFormat::Pcmu, AudioFormat::Pcma];

/// A call of this machine.
pub type CallKey = u64;

/// Where RTP is sent and received; every answer comes at once.
pub trait Media {
    /// Binds a port for a call.
    fn open(&mut self, call: CallKey) -> Option<SocketAddr>;
    /// Begins to send.
    fn start(&mut self, call: CallKey, remote: SocketAddr, format: AudioFormat);
    /// Ends, and says how many packets were sent and received.
    fn close(&mut self, call: CallKey) -> (u64, u64);
}

/// What the driver is told.
#[derive(Debug)]
pub enum Event {
    /// A placed call got on.
    Progress(CallKey, Progress),
    /// A call is over.
    Ended(CallKey, Box<CallOutcome>),
    /// The answer to a (de-)registration that was asked for.
    Registered(AccountId, Result<u32, RegisterError>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Alarm {
    Answer(CallKey),
    HangUp(CallKey),
    Cancel(CallKey),
    Retransmit(CallKey),
    Refresh(u32),
}

/// What a client transaction is for.
#[derive(Debug)]
enum Purpose {
    Register(RegisterTry),
    Invite(CallKey),
    Bye(CallKey),
    /// Nobody waits for its end.
    Forgotten,
}

#[derive(Debug, Clone, Copy)]
struct RegisterTry {
    account: AccountId,
    expires_s: u32,
    /// Times that it was sent with credentials.
    authorised: u8,
    /// Whether somebody waits for the result, or it is a refresh.
    asked: bool,
    /// Whether Min-Expires was obeyed already.
    lengthened: bool,
}

#[derive(Debug)]
struct AccountState {
    account: Account,
    digest: DigestClient,
    call_id: String,
    cseq: u32,
    registered: bool,
}

#[derive(Debug)]
enum State {
    /// Our INVITE is out.
    Calling { key: ClientKey, invite: Message, authorised: u8 },
    /// Their INVITE is being answered.
    Ringing { key: ServerKey, invite: Message, tag: String, talk: Talk },
    /// Answered.
    Up { dialog: Box<Dialog>, peer: Peer, invite_cseq: u32, ack: Option<Bytes>, retransmit: Option<Retransmit> },
    /// Our BYE is out.
    Leaving { dialog: DialogId },
}

#[derive(Debug)]
struct Call {
    state: State,
    outcome: CallOutcome,
    account: Option<AccountId>,
    hang_up_after_ms: Option<u64>,
    cancelled: bool,
    answered: Option<Instant>,
    local: SocketAddr,
    session_id: u64,
}

/// The machine.
pub struct UserAgent {
    local: SocketAddr,
    sent_by: String,
    server: SocketAddr,
    timers: Timers,
    transactions: Transactions,
    tokens: Tokens,
    accounts: Vec<AccountState>,
    trunk: Vec<Trunk>,
    purposes: HashMap<ClientKey, Purpose>,
    calls: HashMap<CallKey, Call>,
    by_dialog: HashMap<DialogId, CallKey>,
    by_invite: HashMap<ServerKey, CallKey>,
    alarms: BinaryHeap<Reverse<(Instant, Alarm)>>,
    events: VecDeque<Event>,
    last_call: CallKey,
}

impl UserAgent {
    pub fn new(local: SocketAddr, server: SocketAddr, trunk: Vec<Trunk>, timers: Timers, seed: [u8; 32]) -> Self {
        let mut tokens = Tokens::new(seed);
        let [a, b, c, d, e, f, g, h, ..] = tokens.octets();
        let config = TransactionConfig { timers, ..TransactionConfig::default() };
        Self {
            local,
            sent_by: local.to_string(),
            server,
            timers,
            transactions: Transactions::new(config, u64::from_be_bytes([a, b, c, d, e, f, g, h])),
            tokens,
            accounts: Vec::new(),
            trunk,
            purposes: HashMap::new(),
            calls: HashMap::new(),
            by_dialog: HashMap::new(),
            by_invite: HashMap::new(),
            alarms: BinaryHeap::new(),
            events: VecDeque::new(),
            last_call: 0,
        }
    }

    pub fn poll_transmit(&mut self) -> Option<(Bytes, Peer)> {
        self.transactions.poll_transmit()
    }

    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    pub fn next_timeout(&self) -> Option<Instant> {
        let alarm = self.alarms.peek().map(|Reverse((at, _))| *at);
        [alarm, self.transactions.next_timeout()].into_iter().flatten().min()
    }

    pub fn set_behaviour(&mut self, account: AccountId, behaviour: Behaviour) {
        if let Some(state) = self.account(account) {
            state.account.behaviour = behaviour;
        }
    }

    pub fn set_trunk(&mut self, trunk: Vec<Trunk>) {
        self.trunk = trunk;
    }

    // Registration.

    pub fn add_account(&mut self, account: Account) -> Option<AccountId> {
        let id = AccountId(u32::try_from(self.accounts.len()).ok()?);
        let digest = DigestClient::new(account.user.clone(), account.password.clone());
        let call_id = self.tokens.call_id(CALL_ID_PREFIX);
        self.accounts.push(AccountState { account, digest, call_id, cseq: 0, registered: false });
        Some(id)
    }

    /// Registers for as long as the account wants, or with 0 takes the registration back. [`Event::Registered`]
    /// follows.
    pub fn register(&mut self, now: Now, account: AccountId, expires_s: Option<u32>) {
        let wanted = self.account(account).map_or(0, |state| state.account.expires_s);
        let attempt = RegisterTry {
            account,
            expires_s: expires_s.unwrap_or(wanted),
            authorised: 0,
            asked: true,
            lengthened: false,
        };
        self.register_try(now, attempt, None);
    }

    fn register_try(&mut self, now: Now, attempt: RegisterTry, credentials: Option<(HeaderName, Vec<u8>)>) {
        let RegisterTry { account: id, expires_s, asked, .. } = attempt;
        let (tag, branch) = (self.tokens.tag(), self.tokens.branch());
        let contact = self.contact(Some(id));
        let sent_by = self.sent_by.clone();
        let Some(state) = self.account(id) else {
            self.registered(id, asked, Err(RegisterError::Address));
            return;
        };
        state.cseq = state.cseq.saturating_add(1);
        let Account { user, domain, .. } = &state.account;
        let aor = format!("<sip:{user}@{domain}>");
        let mut builder = RequestBuilder::new(&Method::Register, format!("sip:{domain}").as_bytes())
            .via(Transport::Udp.as_str(), sent_by.as_bytes(), branch.as_bytes())
            .base(
                format!("{aor};tag={tag}").as_bytes(),
                aor.as_bytes(),
                state.call_id.as_bytes(),
                state.cseq,
                &Method::Register,
                70,
            )
            .header(HeaderName::Contact, contact)
            .header(HeaderName::Expires, expires_s.to_string());
        if let Some((name, value)) = credentials {
            builder = builder.header(name, value);
        }
        let Ok(bytes) = builder.finish() else {
            self.registered(id, asked, Err(RegisterError::Address));
            return;
        };
        match self.transactions.request(now.mono, bytes, Peer::udp(self.server, 0)) {
            Ok(key) => {
                self.purposes.insert(key, Purpose::Register(attempt));
            }
            Err(error) => self.registered(id, asked, Err(refused(503, &error.to_string()))),
        }
    }

    fn register_answered(&mut self, now: Now, attempt: RegisterTry, response: &Message) {
        let RegisterTry { account: id, expires_s, authorised, asked, lengthened } = attempt;
        let status = response.status();
        if matches!(status, 401 | 407) && may_authorise(authorised, response) {
            let cnonce = self.tokens.cnonce();
            let credentials = self.account(id).and_then(|state| {
                let uri = format!("sip:{}", state.account.domain);
                state.digest.answer(response, b"REGISTER", uri.as_bytes(), b"", &cnonce)
            });
            if credentials.is_some() {
                let attempt = RegisterTry { authorised: authorised.saturating_add(1), ..attempt };
                self.register_try(now, attempt, credentials);
                return;
            }
        }
        if status == 423 && !lengthened {
            let wanted = response.header(HeaderName::MinExpires).and_then(|v| sip_message::grammar::number(v).ok());
            if let Some(min) = wanted.filter(|min| *min > expires_s) {
                let attempt = RegisterTry { expires_s: min, authorised: 0, lengthened: true, ..attempt };
                self.register_try(now, attempt, None);
                return;
            }
        }
        if !(200..300).contains(&status) {
            self.registered(id, asked, Err(refused(status, &text(response.reason()))));
            return;
        }
        let granted = self.granted(id, response, expires_s);
        if let Some(state) = self.account(id) {
            state.registered = granted > 0;
        }
        if granted > 0 {
            let refresh = Duration::from_secs(u64::from(granted)).saturating_mul(4) / 5;
            self.alarm(now.mono + refresh, Alarm::Refresh(id.0));
        }
        self.registered(id, asked, Ok(granted));
    }

    /// What the server granted our Contact.
    fn granted(&self, id: AccountId, response: &Message, asked_s: u32) -> u32 {
        if asked_s == 0 {
            return 0;
        }
        let contact = self.contact(Some(id));
        let ours = response.contacts().filter_map(Result::ok).find_map(|contact_of| match contact_of {
            sip_message::Contact::Addr(addr) => {
                let same = contact.as_bytes().get(1..contact.len().saturating_sub(1)) == Some(addr.uri.raw);
                same.then(|| addr.params.get(b"expires").and_then(|v| sip_message::grammar::number(v).ok()))
            }
            sip_message::Contact::Star => None,
        });
        ours.flatten().or_else(|| response.expires()).unwrap_or(asked_s)
    }

    fn registered(&mut self, id: AccountId, asked: bool, result: Result<u32, RegisterError>) {
        match result {
            Err(error) if !asked => tracing::warn!(%error, "a registration could not be refreshed"),
            _ if !asked => {}
            result => self.events.push_back(Event::Registered(id, result)),
        }
    }

    // Placing calls.

    pub fn place(&mut self, now: Now, request: CallRequest, media: &mut dyn Media) -> Result<CallKey, PlaceError> {
        if self.calls.len() >= CALLS_MAX {
            return Err(PlaceError::Full);
        }
        let (from, domain, account) = match &request.caller {
            Caller::Number(number) => (format!("sip:{number}@{}", self.sent_by), self.server.to_string(), None),
            Caller::Account(id) => {
                let state = self.account(*id).ok_or(PlaceError::Account)?;
                let Account { user, domain, .. } = &state.account;
                (format!("sip:{user}@{domain}"), domain.clone(), Some(*id))
            }
        };
        let target = if request.to.contains('@') {
            format!("sip:{}", request.to)
        } else {
            format!("sip:{}@{domain}", request.to)
        };
        let call = self.next_call();
        let local = media.open(call).ok_or(PlaceError::Media)?;
        let session_id = self.session_id();
        let body = sdp::author(&author(local, session_id, Direction::SendRecv));
        let (tag, call_id, branch) = (self.tokens.tag(), self.tokens.call_id(CALL_ID_PREFIX), self.tokens.branch());
        let built = RequestBuilder::new(&Method::Invite, target.as_bytes())
            .via(Transport::Udp.as_str(), self.sent_by.as_bytes(), branch.as_bytes())
            .base(
                format!("<{from}>;tag={tag}").as_bytes(),
                format!("<{target}>").as_bytes(),
                call_id.as_bytes(),
                1,
                &Method::Invite,
                70,
            )
            .header(HeaderName::Contact, self.contact(account))
            .header(HeaderName::Allow, ALLOW)
            .body("application/sdp", body)
            .finish();
        let invite = built.ok().and_then(|bytes| Message::parse_datagram(bytes).ok());
        let sent = invite.and_then(|invite| {
            let bytes = invite.as_bytes().clone();
            let key = self.transactions.request(now.mono, bytes, Peer::udp(self.server, 0)).ok()?;
            Some((key, invite))
        });
        let Some((key, invite)) = sent else {
            media.close(call);
            return Err(PlaceError::Address);
        };
        self.purposes.insert(key, Purpose::Invite(call));
        let outcome = new_outcome(now, Role::Caller, &invite);
        let patience_ms = request.cancel_after_ms.unwrap_or(u64::MAX).min(request.ring_timeout_ms);
        self.alarm_in(now, patience_ms, Alarm::Cancel(call));
        self.calls.insert(
            call,
            Call {
                state: State::Calling { key, invite, authorised: 0 },
                outcome,
                account,
                hang_up_after_ms: request.hang_up_after_ms,
                cancelled: false,
                answered: None,
                local,
                session_id,
            },
        );
        Ok(call)
    }

    fn invite_answered(&mut self, now: Now, call: CallKey, response: &Message, media: &mut dyn Media) {
        let status = response.status();
        match status {
            100 => {}
            101..=199 => {
                if let Some(state) = self.calls.get_mut(&call)
                    && state.outcome.ringing_at.is_none()
                    && matches!(status, 180 | 183)
                {
                    state.outcome.ringing_at = Some(now.utc);
                    self.events.push_back(Event::Progress(call, Progress::Ringing));
                }
            }
            200..=299 => self.answered(now, call, response, media),
            _ => self.invite_refused(now, call, response, media),
        }
    }

    fn invite_refused(&mut self, now: Now, call: CallKey, response: &Message, media: &mut dyn Media) {
        if matches!(response.status(), 401 | 407) && self.authorise(now, call, response) {
            return;
        }
        let Some(state) = self.calls.get_mut(&call) else { return };
        let by = if state.cancelled { ReleasedBy::Caller } else { ReleasedBy::Callee };
        state.outcome.status = response.status();
        state.outcome.reason = text(response.reason());
        self.end(now, call, Some(by), media);
    }

    /// Repeats the INVITE with credentials; false when that can't help.
    fn authorise(&mut self, now: Now, call: CallKey, refusal: &Message) -> bool {
        let (branch, cnonce) = (self.tokens.branch(), self.tokens.cnonce());
        let Some(Call { state: State::Calling { key, invite, authorised }, account: Some(id), cancelled, .. }) =
            self.calls.get_mut(&call)
        else {
            return false;
        };
        // One client per account: its count of a nonce goes on over all calls.
        let Some(account) = usize::try_from(id.0).ok().and_then(|at| self.accounts.get_mut(at)) else { return false };
        if *cancelled || !may_authorise(*authorised, refusal) {
            return false;
        }
        let answered = account.digest.answer(refusal, b"INVITE", invite.request_uri(), invite.body(), &cnonce);
        let again = answered.and_then(|credentials| repeat(invite, &self.sent_by, &branch, &credentials).ok());
        let Some(again) = again.and_then(|bytes| Message::parse_datagram(bytes).ok()) else { return false };
        let bytes = again.as_bytes().clone();
        let Ok(next) = self.transactions.request(now.mono, bytes, Peer::udp(self.server, 0)) else { return false };
        self.purposes.insert(next, Purpose::Invite(call));
        (*key, *invite, *authorised) = (next, again, authorised.saturating_add(1));
        true
    }

    /// A 2xx to our INVITE: the first, a repeated one, or one of another fork.
    fn answered(&mut self, now: Now, call: CallKey, response: &Message, media: &mut dyn Media) {
        let Some(state) = self.calls.get_mut(&call) else { return };
        let invite = match &state.state {
            State::Calling { invite, .. } => invite.clone(),
            State::Up { dialog, peer, ack: Some(ack), .. } if dialog.matches(response) => {
                // Our ACK was lost.
                let (ack, peer) = (ack.clone(), *peer);
                self.transactions.send(ack, peer);
                return;
            }
            State::Up { .. } | State::Ringing { .. } | State::Leaving { .. } => return,
        };
        let Ok(dialog) = Dialog::uac(&invite, response) else {
            // Without a dialog there is nothing to acknowledge or to end; the callee gives up after 64*T1.
            state.outcome.status = 502;
            "unusable 200".clone_into(&mut state.outcome.reason);
            self.end(now, call, Some(ReleasedBy::Network), media);
            return;
        };
        let invite_cseq = dialog.local_seq();
        let peer = Peer::udp(dialog.next_hop_address(Transport::Udp).unwrap_or(self.server), 0);
        let branch = self.tokens.branch();
        let hop = Hop { transport: Transport::Udp, sent_by: self.sent_by.as_bytes(), branch: &branch };
        let ack = dialog.ack(invite_cseq, &hop).finish().ok();
        if let Some(ack) = &ack {
            self.transactions.send(ack.clone(), peer);
        }
        state.outcome.status = response.status();
        state.outcome.reason = text(response.reason());
        state.outcome.answered_at = Some(now.utc);
        state.answered = Some(now.mono);
        let unwanted = state.cancelled;
        let hang_up_after_ms = state.hang_up_after_ms;
        if let Ok(answer) = Sdp::parse(response.body())
            && !unwanted
        {
            media.start(call, answer.remote(), format_of(&answer));
        }
        self.by_dialog.insert(dialog.id().clone(), call);
        state.state = State::Up { dialog: Box::new(dialog), peer, invite_cseq, ack, retransmit: None };
        self.events.push_back(Event::Progress(call, Progress::Answered));
        if unwanted {
            self.hang_up(now, call, media);
        } else if let Some(ms) = hang_up_after_ms {
            self.alarm_in(now, ms, Alarm::HangUp(call));
        }
    }

    /// Ends a call from our side, whatever its state: BYE, CANCEL or a refusal.
    pub fn hang_up(&mut self, now: Now, call: CallKey, media: &mut dyn Media) {
        let Some(state) = self.calls.get_mut(&call) else { return };
        match &mut state.state {
            State::Calling { key, .. } => {
                state.cancelled = true;
                let key = *key;
                self.transactions.cancel(now.mono, key);
            }
            State::Ringing { .. } => self.refuse_ringing(now, call, 480, ReleasedBy::Callee, media),
            State::Up { dialog, peer, .. } => {
                let branch = self.tokens.branch();
                let hop = Hop { transport: Transport::Udp, sent_by: self.sent_by.as_bytes(), branch: &branch };
                let bye = dialog.request(&Method::Bye, &hop).finish();
                let (peer, dialog) = (*peer, dialog.id().clone());
                let by = own(state.outcome.role);
                stop(now, call, state, Some(by), media);
                state.state = State::Leaving { dialog };
                match bye.ok().and_then(|bye| self.transactions.request(now.mono, bye, peer).ok()) {
                    Some(key) => {
                        self.purposes.insert(key, Purpose::Bye(call));
                    }
                    None => self.forget(call),
                }
            }
            State::Leaving { .. } => {}
        }
    }

    /// Forgets a call without a word, as a phone does whose battery died.
    pub fn abandon(&mut self, now: Now, call: CallKey, media: &mut dyn Media) {
        if let Some(state) = self.calls.get_mut(&call) {
            stop(now, call, state, None, media);
            self.forget(call);
        }
    }

    // Answering calls.

    fn invited(&mut self, now: Now, key: ServerKey, invite: Message, peer: Peer, media: &mut dyn Media) {
        if let Some(call) = DialogId::of_request(&invite).map(|id| self.by_dialog.get(&id).copied()) {
            // A new offer within a call: this phone keeps what it has.
            let status = if call.is_some() { 488 } else { 481 };
            self.refuse(now, key, &invite, peer, status);
            return;
        }
        let Some((account, behaviour)) = self.called(&invite) else {
            self.refuse(now, key, &invite, peer, 404);
            return;
        };
        let (after_ms, talk) = match behaviour {
            _ if self.calls.len() >= CALLS_MAX => return self.refuse(now, key, &invite, peer, 503),
            Behaviour::Answer { after_ms, talk } => (Some(after_ms), talk),
            Behaviour::NoAnswer => (None, Talk::UntilFarEnd),
            Behaviour::Busy => return self.note_refusal(now, key, &invite, peer, 486),
            Behaviour::Decline => return self.note_refusal(now, key, &invite, peer, 603),
            Behaviour::Reject(status) => return self.note_refusal(now, key, &invite, peer, status),
        };
        if !invite.body().is_empty() && Sdp::parse(invite.body()).is_err() {
            self.refuse(now, key, &invite, peer, 488);
            return;
        }
        let call = self.next_call();
        let Some(local) = media.open(call) else {
            self.refuse(now, key, &invite, peer, 500);
            return;
        };
        let tag = self.tokens.tag();
        let mut outcome = new_outcome(now, Role::Callee, &invite);
        outcome.ringing_at = Some(now.utc);
        let ringing = ResponseBuilder::response_to(&invite, 180, reason_of(180))
            .to_tag(tag.as_bytes())
            .source(peer.remote)
            .record_route()
            .header(HeaderName::Contact, self.contact(account))
            .finish();
        if let Ok(ringing) = ringing {
            self.transactions.respond(now.mono, key, ringing);
        }
        self.by_invite.insert(key, call);
        self.calls.insert(
            call,
            Call {
                state: State::Ringing { key, invite, tag, talk },
                outcome,
                account,
                hang_up_after_ms: None,
                cancelled: false,
                answered: None,
                local,
                session_id: self.last_call,
            },
        );
        if let Some(ms) = after_ms {
            self.alarm_in(now, ms, Alarm::Answer(call));
        }
    }

    /// Who is called, and what that one does.
    fn called(&self, invite: &Message) -> Option<(Option<AccountId>, Behaviour)> {
        let uri = Uri::parse(invite.request_uri()).ok()?;
        let user = uri.user_text()?;
        let account = user.strip_prefix('a').and_then(|n| n.parse::<u32>().ok()).map(AccountId);
        if let Some(id) = account
            && let Some(state) = usize::try_from(id.0).ok().and_then(|at| self.accounts.get(at))
        {
            return Some((account, state.account.behaviour));
        }
        // Called by its address of record, without a server in between.
        let host = uri.host_text();
        let named = self.accounts.iter().zip(0_u32..);
        let mut named = named.filter(|(state, _)| state.account.user == user && state.account.domain == host);
        if let Some((state, number)) = named.next() {
            return Some((Some(AccountId(number)), state.account.behaviour));
        }
        let routes = self.trunk.iter().filter(|route| user.starts_with(&route.prefix));
        routes.max_by_key(|route| route.prefix.len()).map(|route| (None, route.behaviour))
    }

    fn answer(&mut self, now: Now, call: CallKey, media: &mut dyn Media) {
        let contact = self.contact(self.calls.get(&call).and_then(|state| state.account));
        let Some(state) = self.calls.get_mut(&call) else { return };
        let State::Ringing { key, invite, tag, talk } = &state.state else { return };
        let (key, invite, tag, talk) = (*key, invite.clone(), tag.clone(), *talk);
        let offer = Sdp::parse(invite.body());
        let ours = author(state.local, state.session_id, Direction::SendRecv);
        let body = offer.as_ref().map_or_else(|_| sdp::author(&ours), |offer| offer.answer(&ours));
        let ok = ResponseBuilder::response_to(&invite, 200, reason_of(200))
            .to_tag(tag.as_bytes())
            .record_route()
            .header(HeaderName::Contact, contact)
            .header(HeaderName::Allow, ALLOW)
            .body("application/sdp", body)
            .finish();
        let response_peer = self.transactions.response_peer(key);
        let (Ok(ok), Ok(dialog), Some(peer)) = (ok, Dialog::uas(&invite, tag.as_bytes()), response_peer) else {
            self.refuse_ringing(now, call, 400, ReleasedBy::Network, media);
            return;
        };
        if let Ok(offer) = &offer {
            media.start(call, offer.remote(), format_of(offer));
        }
        self.by_invite.remove(&key);
        self.by_dialog.insert(dialog.id().clone(), call);
        let retransmit = Retransmit::new(now.mono, &self.timers, ok.clone(), peer);
        let next = retransmit.next_timeout();
        let target = dialog.next_hop_address(Transport::Udp).map_or(peer, |remote| Peer::udp(remote, 0));
        let invite_cseq = invite.cseq().map_or(0, |(number, _)| number);
        state.outcome.status = 200;
        reason_of(200).clone_into(&mut state.outcome.reason);
        state.outcome.answered_at = Some(now.utc);
        state.answered = Some(now.mono);
        state.state =
            State::Up { dialog: Box::new(dialog), peer: target, invite_cseq, ack: None, retransmit: Some(retransmit) };
        self.transactions.respond(now.mono, key, ok);
        self.alarm(next, Alarm::Retransmit(call));
        if let Talk::Ms(ms) = talk {
            self.alarm_in(now, ms, Alarm::HangUp(call));
        }
    }

    fn acknowledged(&mut self, now: Now, ack: &Message, media: &mut dyn Media) {
        let Some(call) = DialogId::of_request(ack).and_then(|id| self.by_dialog.get(&id).copied()) else { return };
        let Some(Call { state: State::Up { invite_cseq, retransmit, .. }, .. }) = self.calls.get_mut(&call) else {
            return;
        };
        if ack.cseq().is_ok_and(|(number, _)| number == *invite_cseq) && retransmit.take().is_some() {
            // An INVITE without SDP: the answer comes with the ACK.
            if let Ok(answer) = Sdp::parse(ack.body()) {
                media.start(call, answer.remote(), format_of(&answer));
            }
            tracing::trace!(at = %now.utc, "the 200 is acknowledged");
        }
    }

    fn cancelled(
        &mut self,
        now: Now,
        key: ServerKey,
        invite: Option<ServerKey>,
        cancel: &Message,
        peer: Peer,
        media: &mut dyn Media,
    ) {
        let status = if invite.is_some() { 200 } else { 481 };
        self.refuse(now, key, cancel, peer, status);
        if let Some(call) = invite.and_then(|invite| self.by_invite.get(&invite).copied()) {
            self.refuse_ringing(now, call, 487, ReleasedBy::Caller, media);
        }
    }

    fn refuse_ringing(&mut self, now: Now, call: CallKey, status: u16, by: ReleasedBy, media: &mut dyn Media) {
        let Some(state) = self.calls.get_mut(&call) else { return };
        let State::Ringing { key, invite, tag, .. } = &state.state else { return };
        let response = ResponseBuilder::response_to(invite, status, reason_of(status)).to_tag(tag.as_bytes()).finish();
        state.outcome.status = status;
        reason_of(status).clone_into(&mut state.outcome.reason);
        if let Ok(response) = response {
            self.transactions.respond(now.mono, *key, response);
        }
        self.end(now, call, Some(by), media);
    }

    /// Answers a request and is done with it.
    fn refuse(&mut self, now: Now, key: ServerKey, request: &Message, peer: Peer, status: u16) {
        let tag = self.tokens.tag();
        let response = ResponseBuilder::response_to(request, status, reason_of(status))
            .to_tag(tag.as_bytes())
            .source(peer.remote)
            .header(HeaderName::Allow, ALLOW)
            .finish();
        if let Ok(response) = response {
            self.transactions.respond(now.mono, key, response);
        }
    }

    /// A refusal that counts as a call.
    fn note_refusal(&mut self, now: Now, key: ServerKey, invite: &Message, peer: Peer, status: u16) {
        // A success or a provisional status is no refusal: a mistaken configuration shall not hang the caller.
        let status = if (300..700).contains(&status) { status } else { 500 };
        self.refuse(now, key, invite, peer, status);
        let mut outcome = new_outcome(now, Role::Callee, invite);
        outcome.status = status;
        reason_of(status).clone_into(&mut outcome.reason);
        outcome.released_by = Some(ReleasedBy::Callee);
        let call = self.next_call();
        self.events.push_back(Event::Ended(call, Box::new(outcome)));
    }

    // What comes in.

    pub fn receive(&mut self, now: Now, datagram: Bytes, from: SocketAddr, media: &mut dyn Media) {
        match Message::parse_datagram(datagram) {
            Ok(message) => {
                self.transactions.receive(now.mono, message, Peer::udp(from, 0));
                self.work(now, media);
            }
            Err(error) => tracing::debug!(%error, "a datagram is no SIP message"),
        }
    }

    pub fn handle_timeout(&mut self, now: Now, media: &mut dyn Media) {
        self.transactions.handle_timeout(now.mono);
        self.work(now, media);
        while let Some(Reverse((at, alarm))) = self.alarms.peek().copied()
            && at <= now.mono
        {
            self.alarms.pop();
            self.ring(now, alarm, media);
        }
        self.work(now, media);
    }

    fn ring(&mut self, now: Now, alarm: Alarm, media: &mut dyn Media) {
        match alarm {
            Alarm::Answer(call) => self.answer(now, call, media),
            Alarm::HangUp(call) => self.hang_up(now, call, media),
            Alarm::Cancel(call) => {
                if matches!(self.calls.get(&call), Some(Call { state: State::Calling { .. }, .. })) {
                    self.hang_up(now, call, media);
                }
            }
            Alarm::Retransmit(call) => self.retransmit(now, call, media),
            Alarm::Refresh(account) => {
                let id = AccountId(account);
                if let Some(expires_s) = self.account(id).filter(|a| a.registered).map(|a| a.account.expires_s) {
                    let attempt =
                        RegisterTry { account: id, expires_s, authorised: 0, asked: false, lengthened: false };
                    self.register_try(now, attempt, None);
                }
            }
        }
    }

    fn retransmit(&mut self, now: Now, call: CallKey, media: &mut dyn Media) {
        let Some(Call { state: State::Up { retransmit: Some(retransmit), .. }, .. }) = self.calls.get_mut(&call) else {
            return;
        };
        match retransmit.poll(now.mono) {
            Due::Wait(at) => self.alarm(at, Alarm::Retransmit(call)),
            Due::Send(bytes, peer) => {
                let next = retransmit.next_timeout();
                self.transactions.send(bytes, peer);
                self.alarm(next, Alarm::Retransmit(call));
            }
            Due::Expired => self.hang_up(now, call, media),
        }
    }

    fn work(&mut self, now: Now, media: &mut dyn Media) {
        while let Some(event) = self.transactions.poll_event() {
            match event {
                TransactionEvent::Request { key, msg, peer } => self.requested(now, key, msg, peer, media),
                TransactionEvent::Cancel { key, invite, msg, peer } => {
                    self.cancelled(now, key, invite, &msg, peer, media);
                }
                TransactionEvent::Ack { msg, .. } => self.acknowledged(now, &msg, media),
                TransactionEvent::Response { key, msg } => self.responded(now, key, &msg, media),
                TransactionEvent::Timeout { key } => self.failed(now, key, 408, media),
                TransactionEvent::TransportError { key } => self.failed(now, key, 503, media),
                TransactionEvent::ClientTerminated { key } => {
                    self.purposes.remove(&key);
                }
                TransactionEvent::StrayResponse { .. }
                | TransactionEvent::AckTimeout { .. }
                | TransactionEvent::ServerTerminated { .. } => {}
            }
        }
    }

    fn requested(&mut self, now: Now, key: ServerKey, request: Message, peer: Peer, media: &mut dyn Media) {
        match request.method() {
            Method::Invite => self.invited(now, key, request, peer, media),
            Method::Bye => {
                let call = DialogId::of_request(&request).and_then(|id| self.by_dialog.get(&id).copied());
                self.refuse(now, key, &request, peer, if call.is_some() { 200 } else { 481 });
                if let Some(call) = call
                    && let Some(Call { state: State::Up { .. }, outcome, .. }) = self.calls.get(&call)
                {
                    let by = other(outcome.role);
                    self.end(now, call, Some(by), media);
                }
            }
            Method::Options => self.refuse(now, key, &request, peer, 200),
            Method::Update => self.refuse(now, key, &request, peer, 488),
            _ => self.refuse(now, key, &request, peer, 405),
        }
    }

    fn responded(&mut self, now: Now, key: ClientKey, response: &Message, media: &mut dyn Media) {
        let last = response.status() >= 200;
        match self.purposes.get(&key) {
            Some(Purpose::Invite(call)) => {
                let call = *call;
                self.invite_answered(now, call, response, media);
            }
            Some(Purpose::Register(_)) if last => {
                if let Some(Purpose::Register(attempt)) = self.purposes.insert(key, Purpose::Forgotten) {
                    self.register_answered(now, attempt, response);
                }
            }
            Some(Purpose::Bye(call)) if last => {
                let call = *call;
                self.purposes.insert(key, Purpose::Forgotten);
                if let Some(state) = self.calls.get_mut(&call) {
                    state.outcome.bye_status = Some(response.status());
                }
                self.forget(call);
            }
            Some(Purpose::Register(_) | Purpose::Bye(_) | Purpose::Forgotten) | None => {}
        }
    }

    /// No response, or no transport.
    fn failed(&mut self, now: Now, key: ClientKey, status: u16, media: &mut dyn Media) {
        match self.purposes.remove(&key) {
            Some(Purpose::Invite(call)) => {
                if let Some(state @ Call { state: State::Calling { .. }, .. }) = self.calls.get_mut(&call) {
                    state.outcome.status = status;
                    reason_of(status).clone_into(&mut state.outcome.reason);
                    self.end(now, call, Some(ReleasedBy::Network), media);
                }
            }
            Some(Purpose::Bye(call)) => self.forget(call),
            Some(Purpose::Register(attempt)) => {
                let error = refused(status, reason_of(status));
                self.registered(attempt.account, attempt.asked, Err(error));
                if !attempt.asked {
                    // The server may be back soon: a refresh is tried again after half a minute.
                    self.alarm_in(now, 30_000, Alarm::Refresh(attempt.account.0));
                }
            }
            Some(Purpose::Forgotten) | None => {}
        }
    }

    // Small things.

    fn end(&mut self, now: Now, call: CallKey, by: Option<ReleasedBy>, media: &mut dyn Media) {
        if let Some(state) = self.calls.get_mut(&call) {
            stop(now, call, state, by, media);
            self.forget(call);
        }
    }

    /// Takes the call out of all tables and reports it.
    fn forget(&mut self, call: CallKey) {
        let Some(state) = self.calls.remove(&call) else { return };
        match state.state {
            State::Ringing { key, .. } => {
                self.by_invite.remove(&key);
            }
            State::Up { dialog, .. } => {
                self.by_dialog.remove(dialog.id());
            }
            State::Leaving { dialog } => {
                self.by_dialog.remove(&dialog);
            }
            State::Calling { .. } => {}
        }
        self.events.push_back(Event::Ended(call, Box::new(state.outcome)));
    }

    fn alarm(&mut self, at: Instant, alarm: Alarm) {
        self.alarms.push(Reverse((at, alarm)));
    }

    /// An alarm so far ahead that the clock can't say it never rings.
    fn alarm_in(&mut self, now: Now, ms: u64, alarm: Alarm) {
        if let Some(at) = now.mono.checked_add(Duration::from_millis(ms)) {
            self.alarm(at, alarm);
        }
    }

    fn account(&mut self, id: AccountId) -> Option<&mut AccountState> {
        usize::try_from(id.0).ok().and_then(|at| self.accounts.get_mut(at))
    }

    /// Our Contact. Accounts are told apart by number: two domains may have the same user.
    fn contact(&self, account: Option<AccountId>) -> String {
        match account {
            Some(AccountId(number)) => format!("<sip:a{number}@{}>", self.local),
            None => format!("<sip:{}>", self.local),
        }
    }

    fn next_call(&mut self) -> CallKey {
        self.last_call = self.last_call.wrapping_add(1);
        self.last_call
    }

    fn session_id(&self) -> u64 {
        self.last_call
    }
}

/// Whether credentials can help: at the first challenge, and when only the nonce was too old.
fn may_authorise(authorised: u8, refusal: &Message) -> bool {
    authorised == 0 || (authorised < CREDENTIALS_MAX && is_stale(refusal))
}

/// Media off, times noted.
fn stop(now: Now, call: CallKey, state: &mut Call, by: Option<ReleasedBy>, media: &mut dyn Media) {
    let (sent, received) = media.close(call);
    let talked = state.answered.map(|answered| now.mono.saturating_duration_since(answered)).unwrap_or_default();
    let outcome = &mut state.outcome;
    outcome.rtp_sent = sent;
    outcome.rtp_received = received;
    outcome.ended_at = now.utc;
    outcome.released_by = by;
    outcome.talk_ms = u64::try_from(talked.as_millis()).unwrap_or(u64::MAX);
}

fn new_outcome(now: Now, role: Role, invite: &Message) -> CallOutcome {
    let user_of = |uri: Option<Uri<'_>>| uri.and_then(|uri| uri.user_text()).unwrap_or_default();
    CallOutcome {
        role,
        from: user_of(invite.from().ok().map(|from| from.uri)),
        to: user_of(invite.uri().ok()),
        status: 0,
        reason: String::new(),
        call_id: text(invite.call_id()),
        invited_at: now.utc,
        ringing_at: None,
        answered_at: None,
        ended_at: now.utc,
        released_by: None,
        bye_status: None,
        rtp_sent: 0,
        rtp_received: 0,
        talk_ms: 0,
    }
}

/// The INVITE again with credentials: next CSeq, new branch, all else the same.
fn repeat(
    invite: &Message,
    sent_by: &str,
    branch: &str,
    (name, value): &(HeaderName, Vec<u8>),
) -> Result<Bytes, BuildError> {
    let field = |name| invite.header(name).unwrap_or_default();
    let cseq = invite.cseq().map_or(1, |(number, _)| number.saturating_add(1));
    RequestBuilder::new(&Method::Invite, invite.request_uri())
        .via(Transport::Udp.as_str(), sent_by.as_bytes(), branch.as_bytes())
        .base(field(HeaderName::From), field(HeaderName::To), invite.call_id(), cseq, &Method::Invite, 70)
        .header(HeaderName::Contact, field(HeaderName::Contact))
        .header(HeaderName::Allow, ALLOW)
        .header(*name, value)
        .body("application/sdp", invite.body())
        .finish()
}

const fn author(addr: SocketAddr, session_id: u64, direction: Direction) -> Author<'static> {
    Author { addr, session_id, session_version: 1, formats: &FORMATS, direction }
}

fn format_of(sdp: &Sdp<'_>) -> AudioFormat {
    FORMATS.into_iter().find(|format| sdp.shares(*format)).unwrap_or(AudioFormat::Pcmu)
}

const fn own(role: Role) -> ReleasedBy {
    match role {
        Role::Caller => ReleasedBy::Caller,
        Role::Callee => ReleasedBy::Callee,
    }
}

const fn other(role: Role) -> ReleasedBy {
    match role {
        Role::Caller => ReleasedBy::Callee,
        Role::Callee => ReleasedBy::Caller,
    }
}

fn refused(status: u16, reason: &str) -> RegisterError {
    RegisterError::Refused { status, reason: reason.to_owned() }
}

fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}
