//! Registrations on their way to the store. REGISTER never waits: shards put changes into a bounded queue, a worker
//! writes them in batches; when the store is away, the newest state per contact is kept until it is back.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use model::id::{SubscriberId, TrunkId};
use provisioning::port::{Registration as Stored, RegistrationChange as StoredChange, Registrations};
use sip_engine::Transport;
use sip_message::Uri;
use sip_services::location::{Binding, Registration, RegistrationChange};
use sip_services::trunk::TrunkReason;
use sip_transport::NodeEvents;
use tokio::sync::watch;

use super::worker::{Step, StepError};

/// Changes that wait for the store at most: a contact of each of a quarter million subscribers. Beyond it changes are
/// dropped and counted; the phone's next refresh brings them again.
const PENDING_MAX: usize = 262_144;
/// Changes of one transaction.
const BATCH_MAX: usize = 1_024;

type Contact = (SubscriberId, Box<str>);

/// What the shards report.
#[derive(Debug)]
pub struct NodeReports {
    pending: Mutex<HashMap<Contact, StoredChange>>,
    registrations: watch::Sender<u64>,
    trunks: watch::Sender<u64>,
}

impl NodeReports {
    /// Nothing reported yet.
    pub fn new() -> Self {
        Self { pending: Mutex::default(), registrations: watch::Sender::new(0), trunks: watch::Sender::new(0) }
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
        let batch: Vec<(Contact, StoredChange)> = {
            let mut pending = self.pending();
            let keys: Vec<Contact> = pending.keys().take(BATCH_MAX).cloned().collect();
            keys.into_iter().filter_map(|key| pending.remove_entry(&key)).collect()
        };
        if batch.is_empty() {
            return Ok(Step::Idle);
        }
        let full = batch.len() == BATCH_MAX;
        let changes = batch.iter().map(|(_, change)| change.clone()).collect();
        if let Err(error) = store.registration_store(changes).await {
            let mut pending = self.pending();
            for (contact, change) in batch {
                // A newer change of the same contact has come meanwhile: it stands.
                pending.entry(contact).or_insert(change);
            }
            return Err(error.into());
        }
        Ok(if full { Step::More } else { Step::Idle })
    }

    fn pending(&self) -> std::sync::MutexGuard<'_, HashMap<Contact, StoredChange>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl NodeEvents for NodeReports {
    fn registration_changed(&self, change: RegistrationChange) {
        let (contact, change) = to_store(change);
        {
            let mut pending = self.pending();
            if pending.len() >= PENDING_MAX && !pending.contains_key(&contact) {
                metrics::counter!("tandem_registrations_not_stored_total").increment(1);
                return;
            }
            pending.insert(contact, change);
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

    use model::time::Timestamp;
    use sip_services::location::Location;

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
}
