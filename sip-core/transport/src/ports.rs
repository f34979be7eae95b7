//! What the node asks of the rest of the process. Every method is called on a shard's thread and must not block.

use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError};

use mio::Waker;
use model::event::fact::Fact;
use model::id::TrunkId;
use sip_services::location::RegistrationChange;
use sip_services::trunk::TrunkReason;
use sip_services::{JournalPlaces, JournalPort, Token};

use crate::shard::Control;

/// Told whether a record reached the disk. When it is dropped unheard, that counts as "no".
pub type Notify = Box<dyn FnOnce(bool) + Send>;

/// The node journal.
pub trait JournalSink: Send + Sync {
    /// Reserves places for the answer and the end of one call; none when the journal can't keep up.
    fn reserve(&self) -> Option<Box<dyn PlacesSink>>;
    /// Queues a record that has no place reserved; when the queue is full it is lost and to be counted there.
    fn append(&self, fact: Fact);
}

/// The reserved places of one call; what is left comes back on drop.
pub trait PlacesSink: Send {
    /// Queues a record of the call.
    fn append(&mut self, fact: Fact, notify: Option<Notify>);
}

/// What happens on the node that others want to know.
pub trait NodeEvents: Send + Sync {
    /// The store has to write this, within a second.
    fn registration_changed(&self, change: RegistrationChange);
    /// A trunk went down or came up; [`crate::Node::trunk_states`] has the full set.
    fn trunk_changed(&self, trunk: TrunkId, up: bool, reason: TrunkReason);
}

/// How the rest of the process reaches a shard.
#[derive(Debug, Clone)]
pub(crate) struct Mailbox {
    pub controls: SyncSender<Control>,
    pub waker: Arc<Waker>,
}

impl Mailbox {
    pub fn send(&self, control: Control) {
        match self.controls.try_send(control) {
            Ok(()) => {}
            // The queue holds one place per call and some more. An answer of the journal that is lost here ends its call
            // when the wait for it is over.
            Err(TrySendError::Full(control)) => {
                tracing::error!(?control, "the queue of a shard is full: a message is lost")
            }
            Err(TrySendError::Disconnected(_)) => tracing::debug!("a shard that has stopped was sent a message"),
        }
        self.wake();
    }

    /// Tells the shard to stop. It waits for room: whoever stops a shard waits for its end, and a lost word would make
    /// that for ever.
    pub fn stop(&self) {
        self.wake();
        // An error means that the thread has ended already.
        let _ended = self.controls.send(Control::Stop);
        self.wake();
    }

    pub fn wake(&self) {
        if let Err(error) = self.waker.wake() {
            tracing::error!(%error, "a shard could not be woken");
        }
    }
}

/// Answers the shard once, also when the journal forgets to.
struct Reply {
    mailbox: Mailbox,
    token: Token,
    told: bool,
}

impl Reply {
    fn tell(&mut self, committed: bool) {
        if !std::mem::replace(&mut self.told, true) {
            self.mailbox.send(Control::Journaled { token: self.token, committed });
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.tell(false);
    }
}

/// The journal as one shard's core sees it.
pub(crate) struct ShardJournal {
    pub sink: Arc<dyn JournalSink>,
    pub mailbox: Mailbox,
}

impl JournalPort for ShardJournal {
    fn reserve(&mut self) -> Option<Box<dyn JournalPlaces>> {
        let places = self.sink.reserve()?;
        Some(Box::new(ShardPlaces { places, mailbox: self.mailbox.clone() }))
    }

    fn append(&mut self, fact: Fact) {
        self.sink.append(fact);
    }
}

struct ShardPlaces {
    places: Box<dyn PlacesSink>,
    mailbox: Mailbox,
}

impl JournalPlaces for ShardPlaces {
    fn append(&mut self, fact: Fact, notify: Option<Token>) {
        let notify = notify.map(|token| {
            let mut reply = Reply { mailbox: self.mailbox.clone(), token, told: false };
            Box::new(move |committed: bool| reply.tell(committed)) as Notify
        });
        self.places.append(fact, notify);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;

    #[test]
    fn a_full_queue_does_not_lose_the_stop() {
        let poll = mio::Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), crate::shard::WAKER).unwrap());
        let (controls, received) = sync_channel(1);
        let mailbox = Mailbox { controls, waker };
        mailbox.send(Control::Drain);
        mailbox.send(Control::Drain);
        std::thread::scope(|scope| {
            scope.spawn(|| mailbox.stop());
            assert!(matches!(received.recv(), Ok(Control::Drain)));
            assert!(matches!(received.recv(), Ok(Control::Stop)), "the second drain was lost, the stop waited");
        });
    }
}
