//! The schema, and what its resolvers are given.

use std::fmt;
use std::sync::Arc;

use async_graphql::{SDLExportOptions, SchemaBuilder};
use model::change::Change;
use model::id::IdSource;
use model::time::Clock;
use tokio::sync::watch;

use crate::limit::{COMPLEXITY_MAX, DEPTH_MAX, DIRECTIVES_MAX, RECURSION_MAX};
use crate::mutation::Mutation;
use crate::query::Query;
use crate::subscription::{ChangeFeed, Subscription};
use crate::trunk_state::TrunkStates;

/// The use cases of the four folders, and what subscriptions live on.
#[derive(Clone)]
pub struct GraphqlDeps {
    /// Reads of provisioning.
    pub provisioning: Arc<dyn provisioning::port::Queries>,
    /// Changes of provisioning.
    pub provisioning_change: Arc<dyn Change<provisioning::command::Command>>,
    /// Files of many changes.
    pub bulk: Arc<dyn provisioning::port::Bulk>,
    /// How trunks stand in the call core.
    pub trunk_states: Arc<dyn TrunkStates>,
    /// Reads of billing.
    pub billing: Arc<dyn billing::port::Queries>,
    /// Changes of billing.
    pub billing_change: Arc<dyn Change<billing::command::Command>>,
    /// Reads of alarms.
    pub fault: Arc<dyn fault::port::Queries>,
    /// Changes of alarms.
    pub fault_change: Arc<dyn Change<fault::command::Command>>,
    /// Reads of reports.
    pub reports: Arc<dyn reports::port::Queries>,
    /// Changes of reports.
    pub reports_change: Arc<dyn Change<reports::command::Command>>,
    /// What is committed, for subscribers.
    pub changes: Arc<dyn ChangeFeed>,
    /// Says again and again whether a subscriber's token is still good.
    pub authenticator: Arc<dyn provisioning::port::Authenticator>,
    /// The clock of this process.
    pub clock: Arc<dyn Clock>,
    /// The identifiers of this process.
    pub ids: Arc<dyn IdSource>,
    /// True ends all subscriptions: the face stops.
    pub stop: watch::Receiver<bool>,
}

impl fmt::Debug for GraphqlDeps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GraphqlDeps").finish_non_exhaustive()
    }
}

pub(crate) type Schema = async_graphql::Schema<Query, Mutation, Subscription>;

fn builder() -> SchemaBuilder<Query, Mutation, Subscription> {
    async_graphql::Schema::build(Query, Mutation, Subscription)
        .limit_depth(DEPTH_MAX)
        .limit_recursive_depth(RECURSION_MAX)
        .limit_complexity(COMPLEXITY_MAX)
        .limit_directives(DIRECTIVES_MAX)
}

pub(crate) fn schema(deps: GraphqlDeps) -> Schema {
    builder().data(deps).finish()
}

/// The schema in the schema definition language.
#[must_use]
pub fn sdl() -> String {
    builder().finish().sdl_with_options(SDLExportOptions::new().use_space_ident().indent_width(2))
}
