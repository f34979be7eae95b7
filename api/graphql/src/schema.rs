//! The schema, and what its resolvers are given.

use std::fmt;
use std::sync::Arc;

use async_graphql::{EmptySubscription, SDLExportOptions, SchemaBuilder};
use model::change::Change;

use crate::limit::{COMPLEXITY_MAX, DEPTH_MAX, DIRECTIVES_MAX, RECURSION_MAX};
use crate::mutation::Mutation;
use crate::query::Query;
use crate::trunk_state::TrunkStates;

/// The use cases of the four folders.
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
}

impl fmt::Debug for GraphqlDeps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GraphqlDeps").finish_non_exhaustive()
    }
}

pub(crate) type Schema = async_graphql::Schema<Query, Mutation, EmptySubscription>;

fn builder() -> SchemaBuilder<Query, Mutation, EmptySubscription> {
    async_graphql::Schema::build(Query, Mutation, EmptySubscription)
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
