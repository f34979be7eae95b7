//! Registrations on their way to the store. REGISTER never waits: shards put changes into a bounded queue, a worker
//! writes them in batches; when the store is away, the newest state per contact is kept until it is back.
//!
//! Shards share a lock with the worker, which has less of the processor than they: it holds that lock for a moment that
//! does not grow with what waits, and sorts what it took outside.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use model::id::{SubscriberId, TrunkId};
use provisioning::port::{Registration as Stored, RegistrationChange as StoredChange, Registrations};
use sip_engine::Transport;
use sip_message::Uri;
use sip_services::location::{Binding, Registration, RegistrationChange};
use sip_services::trunk::TrunkReason;
use sip_transport::NodeEvents;
use tokio::sync::watch;

use super::worker::{Step, StepError, with_causes};

/// Changes that wait for the store at most: a contact of each of a quarter million subscribers. Beyond it changes are
/// dropped and counted; the phone's next refresh brings them again.
const PENDING_MAX: usize = 262_144;
/// Changes of one transaction.
const BATCH_MAX: usize = 1_024;

type Contact = (SubscriberId, Box<str>);
type Changes = HashMap<Contact, StoredChange>;

/// What the shards report.
#[derive(Debug)]
pub struct NodeReports {
    pending: Mutex<Pending>,
    /// What was taken and is not stored yet, older than what is pending. A change leaves it when it is in the store, so
    /// that a step which fails or is given up loses none.
    taken: tokio::sync::Mutex<Changes>,
    pending_max: usize,
    registrations: watch::Sender<u64>,
    trunks: watch::Sender<u64>,
}

/// What shards have put and nobody has taken.
#[derive(Debug, Default)]
struct Pending {
    changes: Changes,
    /// How many were taken and are not stored yet: they count against the bound.
    taken: usize,
}

impl NodeReports {
    /// Nothing reported yet.
    pub fn new() -> Self {
        Self::bounded(PENDING_MAX)
    }

    fn bounded(pending_max: usize) -> Self {
        let (registrations, trunks) = (watch::Sender::new(0), watch::Sender::new(0));
        Self { pending: Mutex::default(), taken: tokio::sync::Mutex::default(), pending_max, registrations, trunks }
    }

    /// Changes whenever a registration waits for the store.
    pub fn registrations(&self) -> watch::Receiver<u64> {
        self.registrations.subscribe()
    }

    /// Changes whenever a trunk went down or came up.
    pub fn trunks(&self) -> watch::Receiver<u64> {
        self.trunks.subscribe()
    }

    /// Writes one batch; what could not be written stays.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn store_batch(&self, store: &dyn Registrations) -> Result<Step, StepError> {
        let mut taken = self.taken.lock().await;
        self.take(&mut taken);
        if taken.is_empty() {
            return Ok(Step::Idle);
        }
        let (contacts, batch): (Vec<Contact>, Vec<StoredChange>) =
            taken.iter().take(BATCH_MAX).map(|(contact, change)| (contact.clone(), change.clone())).unzip();
        store.registration_store(batch).await?;
        for contact in &contacts {
            taken.remove(contact);
        }
        self.pending().taken = taken.len();
        Ok(if taken.is_empty() { Step::Idle } else { Step::More })
    }

    /// Writes all that waits, for a stop: after the shards have ended, nobody else will. Tells in the log what could
    /// not be written `within` this time.
    pub async fn store_rest(&self, store: &dyn Registrations, within: Duration) {
        let all = async {
            while self.store_batch(store).await? == Step::More {}
            Ok::<_, StepError>(())
        };
        let error = match tokio::time::timeout(within, all).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => with_causes(&*error),
            Err(_) => "the store did not answer in time".to_owned(),
        };
        let changes = self.waiting();
        tracing::warn!(
            changes,
            error,
            "registrations were not stored at the stop: phones bring them when they refresh"
        );
    }

    /// How many changes are not stored yet.
    fn waiting(&self) -> usize {
        let pending = self.pending();
        pending.changes.len() + pending.taken
    }

    /// Moves what is pending to `taken`, where it stands before an older change of the same contact.
    fn take(&self, taken: &mut Changes) {
        let newer = {
            let mut pending = self.pending();
            pending.taken += pending.changes.len();
            std::mem::take(&mut pending.changes)
        };
        if taken.is_empty() {
            *taken = newer;
        } else {
            taken.extend(newer);
        }
        self.pending().taken = taken.len();
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl NodeEvents for NodeReports {
    fn registration_changed(&self, change: RegistrationChange) {
        let (contact, change) = to_store(change);
        {
            let mut pending = self.pending();
            let waiting = pending.changes.len() + pending.taken;
            if waiting >= self.pending_max && !pending.changes.contains_key(&contact) {
                metrics::counter!("tandem_registrations_not_stored_total").increment(1);
                return;
            }
            pending.changes.insert(contact, change);
        }
        self.registrations.send_modify(|version| *version += 1);
    }

    fn trunk_changed(&self, trunk: TrunkId, up: bool, reason: TrunkReason) {
        let reason = reason.as_str();
        if up {
            tracing::info!(trunk.id = %trunk, reason, "a trunk is up");
        } else {
            tracing::warn!(trunk.id = %trunk, reason, "a trunk is down");
        }
        self.trunks.send_modify(|version| *version += 1);
    }
}

fn to_store(change: RegistrationChange) -> (Contact, StoredChange) {
    match change {
        RegistrationChange::Bound(Registration { subscriber, binding }) => {
            let contact = (subscriber, binding.contact.clone());
            let stored = Stored {
                subscriber,
                contact: binding.contact.into(),
                source: binding.source,
                call_id: binding.call_id.into(),
                cseq: binding.cseq,
                user_agent: binding.user_agent.into(),
                expires_at: binding.expires_at,
            };
            (contact, StoredChange::Bound(stored))
        }
        RegistrationChange::Unbound { subscriber, contact } => {
            let stored = StoredChange::Unbound(subscriber, contact.to_string());
            ((subscriber, contact), stored)
        }
    }
}

/// The transport that a contact names; UDP when it names none (RFC 3261, section 19.1.2).
fn contact_transport(contact: &str) -> Transport {
    let uri = Uri::parse(contact.as_bytes()).ok();
    uri.and_then(|uri| Transport::of_param(uri.params.get(b"transport")?)).unwrap_or_default()
}

/// Longest time that an Expires can name (RFC 3261, section 20.19: a 32-bit number of seconds).
const EXPIRES_LONGEST_MS: i64 = (u32::MAX as i64) * 1_000;

/// What the store kept, as the core takes it back at its start. The time of the last refresh is not kept: the end of
/// the binding orders kept contacts among each other, so much earlier that every contact that registers from now on is
/// later, and rings.
///
/// Nor is the transport kept: the contact tells it. The connection of a contact over TCP ended with the process; it is
/// reached again when it registers anew, or at the address of its contact.
pub fn from_store(stored: Stored) -> Registration {
    let transport = contact_transport(&stored.contact);
    Registration {
        subscriber: stored.subscriber,
        binding: Binding {
            contact: stored.contact.into(),
            source: stored.source,
            listener: 0,
            transport,
            flow: None,
            call_id: stored.call_id.into(),
            cseq: stored.cseq,
            user_agent: stored.user_agent.into(),
            expires_at: stored.expires_at,
            refreshed_at: stored.expires_at.plus_ms(-EXPIRES_LONGEST_MS),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use async_trait::async_trait;
    use model::page::ReadError;
    use model::time::Timestamp;
    use sip_services::location::Location;
    use tokio::sync::Notify;

    use super::*;

    fn kept(contact: &str, expires_at: i64) -> Binding {
        let stored = Stored {
            subscriber: SubscriberId::from_uuid(uuid::Uuid::nil()),
            contact: contact.to_owned(),
            source: SocketAddr::from(([127, 0, 0, 1], 5_060)),
            call_id: String::new(),
            cseq: 1,
            user_agent: String::new(),
            expires_at: Timestamp(expires_at),
        };
        from_store(stored).binding
    }

    #[test]
    fn a_phone_that_registers_from_a_new_port_after_a_restart_rings() {
        let subscriber = SubscriberId::from_uuid(uuid::Uuid::nil());
        let now = Timestamp(1_800_000_000_000);
        let (older, newer) = (kept("older", now.0 + 100_000), kept("newer", now.0 + 3_600_000));
        let location = Location::new(1);
        let rings = |bindings: &[&Binding]| {
            location.put(0, subscriber, bindings.iter().copied().cloned().collect());
            location.latest(0, subscriber, now).map(|binding| binding.contact.into_string())
        };
        assert_eq!(rings(&[&newer, &older]), Some("newer".to_owned()));
        let expires_at = now.plus_ms(60_000);
        let fresh = Binding { contact: "fresh".into(), expires_at, refreshed_at: now, ..older.clone() };
        assert_eq!(rings(&[&newer, &older, &fresh]), Some("fresh".to_owned()));
    }

    /// A store that keeps what it is given, and can be away.
    #[derive(Default)]
    struct Kept {
        changes: Mutex<Vec<StoredChange>>,
        state: Mutex<State>,
        asked: Notify,
        goes_on: Notify,
    }

    #[derive(Default, Clone, Copy, PartialEq, Eq)]
    enum State {
        #[default]
        There,
        /// It fails.
        Away,
        /// It answers when `goes_on` tells so.
        Slow,
    }

    impl Kept {
        fn be(&self, state: State) {
            *self.state.lock().expect("no panic") = state;
        }

        /// The contacts as a registrar would find them, with the `CSeq` of their last change.
        fn found(&self) -> HashMap<String, u32> {
            let mut found = HashMap::new();
            for change in &*self.changes.lock().expect("no panic") {
                match change {
                    StoredChange::Bound(bound) => drop(found.insert(bound.contact.clone(), bound.cseq)),
                    StoredChange::Unbound(_, contact) => drop(found.remove(contact)),
                }
            }
            found
        }
    }

    #[async_trait]
    impl Registrations for Kept {
        async fn registration_list(&self, _now: Timestamp) -> Result<Vec<Stored>, ReadError> {
            Ok(Vec::new())
        }

        async fn registration_store(&self, changes: Vec<StoredChange>) -> Result<(), ReadError> {
            let state = *self.state.lock().expect("no panic");
            self.asked.notify_one();
            match state {
                State::There => {}
                State::Away => return Err(ReadError::Invalid { field: "store", message: "is away".to_owned() }),
                State::Slow => self.goes_on.notified().await,
            }
            assert!(changes.len() <= BATCH_MAX);
            self.changes.lock().expect("no panic").extend(changes);
            Ok(())
        }
    }

    fn registers(reports: &NodeReports, contact: &str, cseq: u32) {
        let subscriber = SubscriberId::from_uuid(uuid::Uuid::nil());
        let binding = Binding { cseq, ..kept(contact, 0) };
        reports.registration_changed(RegistrationChange::Bound(Registration { subscriber, binding }));
    }

    #[tokio::test]
    async fn a_stop_stores_what_was_answered_last() {
        let (reports, store) = (NodeReports::new(), Kept::default());
        let count = BATCH_MAX * 2 + 1;
        for contact in 0..count {
            registers(&reports, &contact.to_string(), 1);
        }
        assert_eq!(reports.waiting(), count);
        reports.store_rest(&store, Duration::from_secs(60)).await;
        assert_eq!((store.found().len(), reports.waiting()), (count, 0));
    }

    #[tokio::test]
    async fn a_stop_does_not_wait_for_a_store_that_is_away() {
        let (reports, store) = (NodeReports::new(), Kept::default());
        registers(&reports, "a", 1);
        for state in [State::Away, State::Slow] {
            store.be(state);
            reports.store_rest(&store, Duration::ZERO).await;
            assert_eq!((store.found().len(), reports.waiting()), (0, 1), "nothing is taken for stored");
        }
        store.be(State::There);
        reports.store_rest(&store, Duration::from_secs(60)).await;
        assert_eq!((store.found().len(), reports.waiting()), (1, 0));
    }

    #[tokio::test]
    async fn a_newer_change_stands_before_one_that_could_not_be_stored() {
        let (reports, store) = (NodeReports::new(), Kept::default());
        let subscriber = SubscriberId::from_uuid(uuid::Uuid::nil());
        for contact in ["refreshed", "ended", "same"] {
            registers(&reports, contact, 1);
        }
        store.be(State::Away);
        assert!(reports.store_batch(&store).await.is_err());
        registers(&reports, "refreshed", 2);
        reports.registration_changed(RegistrationChange::Unbound { subscriber, contact: "ended".into() });
        assert!(reports.store_batch(&store).await.is_err());
        assert_eq!(reports.waiting(), 3, "one change of each contact");
        store.be(State::There);
        assert_eq!(reports.store_batch(&store).await.expect("it is there"), Step::Idle);
        assert_eq!(store.found(), HashMap::from([("refreshed".to_owned(), 2), ("same".to_owned(), 1)]));
        assert_eq!(store.changes.lock().expect("no panic").len(), 3);
    }

    #[tokio::test]
    async fn shards_go_on_while_a_batch_is_stored_and_what_is_being_stored_counts() {
        let (reports, store) = (NodeReports::bounded(3), Kept::default());
        store.be(State::Slow);
        registers(&reports, "a", 1);
        registers(&reports, "b", 1);
        let shards = async {
            store.asked.notified().await;
            registers(&reports, "a", 2);
            registers(&reports, "a", 3);
            registers(&reports, "c", 1);
            assert_eq!(reports.waiting(), 3, "there is no room for c: a and b are being stored");
            store.be(State::There);
            store.goes_on.notify_one();
        };
        let (stored, ()) = tokio::join!(reports.store_batch(&store), shards);
        assert_eq!((stored.expect("it goes on"), reports.waiting()), (Step::Idle, 1));
        registers(&reports, "c", 2);
        reports.store_rest(&store, Duration::from_secs(60)).await;
        let expected = [("a", 3), ("b", 1), ("c", 2)].map(|(contact, cseq)| (contact.to_owned(), cseq));
        assert_eq!(store.found(), HashMap::from(expected));
    }
}
