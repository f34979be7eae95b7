//! The node journal as the call core's sink.

use db::journal::{Journal, Places};
use model::event::fact::Fact;
use sip_transport::{JournalSink, Notify, PlacesSink};

/// The journal of this node.
#[derive(Debug)]
pub struct NodeJournal(pub Journal);

impl JournalSink for NodeJournal {
    fn reserve(&self) -> Option<Box<dyn PlacesSink>> {
        let places = self.0.reserve().ok()?;
        Some(Box::new(CallPlaces(places)))
    }

    fn append(&self, fact: Fact) {
        let kind = fact.kind();
        if self.0.append(&fact, None).is_err() {
            metrics::counter!("tandem_journal_lost_records_total", "kind" => kind).increment(1);
        }
    }
}

struct CallPlaces(Places);

impl PlacesSink for CallPlaces {
    fn append(&mut self, fact: Fact, notify: Option<Notify>) {
        let kind = fact.kind();
        // A refusal drops `notify` unheard, which the call takes as "no": it is not answered.
        if self.0.append(&fact, notify).is_err() {
            metrics::counter!("tandem_journal_lost_records_total", "kind" => kind).increment(1);
        }
    }
}
