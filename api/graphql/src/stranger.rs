//! What a request without a token is answered: that there is GraphQL here, and what is wrong with the request.
//!
//! Strangers have a schema of their own with nothing in it. So neither errors with their suggestions, nor types in
//! fragments or variables, nor introspection can tell them anything of ours: `__type` knows no type, `__schema` is
//! refused like every field.

use async_graphql::parser::types::{ExecutableDocument, OperationDefinition, OperationType, Selection, SelectionSet};
use async_graphql::{EmptyMutation, EmptySubscription, Object};

use crate::limit::STRANGER_DEPTH_MAX;

pub(crate) type Schema = async_graphql::Schema<Query, EmptyMutation, EmptySubscription>;

/// The name under which strangers and callers know the root.
const ROOT: &str = "Query";

/// The root of strangers.
pub(crate) struct Query;

#[Object]
impl Query {
    /// A type must have a field; [`is_for_strangers`] lets nobody ask for it.
    #[graphql(visible = false)]
    async fn nothing(&self) -> Option<bool> {
        None
    }
}

pub(crate) fn schema() -> Schema {
    async_graphql::Schema::build(Query, EmptyMutation, EmptySubscription)
        .disable_introspection()
        .disable_suggestions()
        .limit_depth(STRANGER_DEPTH_MAX)
        .finish()
}

/// Whether the schema of strangers may judge and answer an operation: a query of `__typename` and `__type` alone. All
/// else needs a caller, whether it exists or not. Fragments must be free of cycles.
pub(crate) fn is_for_strangers(document: &ExecutableDocument, operation: &OperationDefinition) -> bool {
    operation.ty == OperationType::Query && is_empty(document, &operation.selection_set.node)
}

fn is_empty(document: &ExecutableDocument, set: &SelectionSet) -> bool {
    set.items.iter().all(|selection| match &selection.node {
        Selection::Field(field) => matches!(field.node.name.node.as_str(), "__typename" | "__type"),
        Selection::InlineFragment(inline) => {
            let condition = inline.node.type_condition.as_ref();
            condition.is_none_or(|condition| condition.node.on.node == ROOT)
                && is_empty(document, &inline.node.selection_set.node)
        }
        // an unknown fragment is the validation's to report
        Selection::FragmentSpread(spread) => {
            let fragment = document.fragments.get(&spread.node.fragment_name.node);
            fragment.is_none_or(|fragment| {
                fragment.node.type_condition.node.on.node == ROOT
                    && is_empty(document, &fragment.node.selection_set.node)
            })
        }
    })
}
