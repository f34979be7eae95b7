//! What the face is given.

use std::fmt;
use std::sync::Arc;

use model::change::Change;
use model::id::IdSource;
use model::time::Clock;

/// The use cases behind the routes, and where time and identifiers come from.
#[derive(Clone)]
pub struct HttpDeps {
    /// Turns bearer tokens into actors.
    pub authenticator: Arc<dyn provisioning::port::Authenticator>,
    /// Files of many changes.
    pub bulk: Arc<dyn provisioning::port::Bulk>,
    /// Reads of billing.
    pub billing: Arc<dyn billing::port::Queries>,
    /// Changes of billing.
    pub billing_change: Arc<dyn Change<billing::command::Command>>,
    /// Reads of reports.
    pub reports: Arc<dyn reports::port::Queries>,
    /// The clock of this process.
    pub clock: Arc<dyn Clock>,
    /// The identifiers of this process.
    pub ids: Arc<dyn IdSource>,
}

impl fmt::Debug for HttpDeps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpDeps").finish_non_exhaustive()
    }
}
