//! What a document may be, before anything is validated or executed: async-graphql 7 walks fragments without a memory,
//! so a small document of nested fragments would keep it busy for ever.

use std::collections::HashMap;

use async_graphql::parser::types::{
    DocumentOperations, ExecutableDocument, OperationDefinition, OperationType, Selection, SelectionSet,
};
use serde_json::Value;

use crate::limit::{
    ALIASES_MAX, DIRECTIVES_MAX, FRAGMENTS_MAX, INTROSPECTION_LISTS_MAX, OPERATIONS_MAX, SELECTIONS_MAX,
};

/// Why a document is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DocumentError {
    #[error("the document has more than {OPERATIONS_MAX} operations")]
    Operations,
    #[error("the document has more than {FRAGMENTS_MAX} fragments")]
    Fragments,
    #[error("the document has more than {ALIASES_MAX} aliases; send several requests")]
    Aliases,
    #[error("the document has more than {DIRECTIVES_MAX} directives")]
    Directives,
    #[error("the document selects more than {SELECTIONS_MAX} fields when its fragments are written out")]
    Selections,
    #[error("a fragment spreads itself")]
    Cycle,
    #[error("introspection nests more than {INTROSPECTION_LISTS_MAX} lists")]
    IntrospectionNested,
    #[error("a mutation has one root field: what a second one found after a failure could not be told")]
    RootFields,
    #[error("a subscription has one root field")]
    SubscriptionFields,
    #[error("there is no operation of that name")]
    NoOperation,
    #[error("the document has several operations; say which by operationName")]
    Ambiguous,
    #[error("the variable ${0} is required and has no value")]
    VariableMissing(String),
}

/// Checks the limits.
pub(crate) fn check(document: &ExecutableDocument) -> Result<(), DocumentError> {
    if document.fragments.len() > FRAGMENTS_MAX {
        return Err(DocumentError::Fragments);
    }
    if document.operations.iter().nth(OPERATIONS_MAX).is_some() {
        return Err(DocumentError::Operations);
    }
    let mut written = Written::default();
    for fragment in document.fragments.values() {
        written.directives += fragment.node.directives.len();
        written.count(&fragment.node.selection_set.node);
    }
    for (_, operation) in document.operations.iter() {
        written.directives += operation.node.directives.len();
        written.count(&operation.node.selection_set.node);
    }
    if written.aliases > ALIASES_MAX {
        return Err(DocumentError::Aliases);
    }
    if written.directives > DIRECTIVES_MAX {
        return Err(DocumentError::Directives);
    }
    let mut expansion = Expansion { document, known: HashMap::new() };
    for (_, operation) in document.operations.iter() {
        let set = &operation.node.selection_set.node;
        let size = expansion.size(set)?;
        if size.selections > SELECTIONS_MAX {
            return Err(DocumentError::Selections);
        }
        if size.introspection_lists > INTROSPECTION_LISTS_MAX {
            return Err(DocumentError::IntrospectionNested);
        }
        // after `size`, which has refused cycles
        if operation.node.ty == OperationType::Mutation && root_fields(document, set) > 1 {
            return Err(DocumentError::RootFields);
        }
        if operation.node.ty == OperationType::Subscription && root_fields(document, set) > 1 {
            return Err(DocumentError::SubscriptionFields);
        }
    }
    Ok(())
}

/// The operation that a request runs.
pub(crate) fn operation<'a>(
    document: &'a ExecutableDocument,
    name: Option<&str>,
) -> Result<&'a OperationDefinition, DocumentError> {
    match (&document.operations, name) {
        (DocumentOperations::Single(operation), None) => Ok(&operation.node),
        (DocumentOperations::Single(_), Some(_)) => Err(DocumentError::NoOperation),
        (DocumentOperations::Multiple(operations), Some(name)) => {
            operations.get(name).map(|operation| &operation.node).ok_or(DocumentError::NoOperation)
        }
        (DocumentOperations::Multiple(operations), None) => match operations.values().next() {
            Some(operation) if operations.len() == 1 => Ok(&operation.node),
            _ => Err(DocumentError::Ambiguous),
        },
    }
}

/// A required variable without a value is an error of the request (GraphQL, section 6.1.2); async-graphql 7 would find
/// it only at the field that uses it.
pub(crate) fn check_variables(operation: &OperationDefinition, values: &Value) -> Result<(), DocumentError> {
    let missing = operation.variable_definitions.iter().find(|definition| {
        let definition = &definition.node;
        let required = !definition.var_type.node.nullable && definition.default_value.is_none();
        required && values.get(definition.name.node.as_str()).is_none_or(Value::is_null)
    });
    match missing {
        Some(definition) => Err(DocumentError::VariableMissing(definition.node.name.node.to_string())),
        None => Ok(()),
    }
}

/// The values with the defaults of those that are left out (GraphQL, section 6.1.2). async-graphql 7 forgets them where
/// `@skip` and `@include` ask.
pub(crate) fn with_defaults(operation: &OperationDefinition, mut values: Value) -> Value {
    if values.is_null() {
        values = Value::Object(serde_json::Map::new());
    }
    let Some(map) = values.as_object_mut() else { return values };
    for definition in &operation.variable_definitions {
        if let Some(default) = &definition.node.default_value {
            let name = definition.node.name.node.to_string();
            map.entry(name).or_insert_with(|| default.node.clone().into_json().unwrap_or_default());
        }
    }
    values
}

/// Counts of the text as it is written.
#[derive(Default)]
struct Written {
    aliases: usize,
    directives: usize,
}

impl Written {
    fn count(&mut self, set: &SelectionSet) {
        for selection in &set.items {
            self.directives += selection.node.directives().len();
            match &selection.node {
                Selection::Field(field) => {
                    self.aliases += usize::from(field.node.alias.is_some());
                    self.count(&field.node.selection_set.node);
                }
                Selection::InlineFragment(inline) => self.count(&inline.node.selection_set.node),
                Selection::FragmentSpread(_) => {}
            }
        }
    }
}

#[derive(Clone, Copy, Default)]
struct Size {
    selections: usize,
    introspection_lists: usize,
}

/// Sizes with fragments written out, each fragment looked at once.
struct Expansion<'a> {
    document: &'a ExecutableDocument,
    /// `None` while a fragment is being looked at.
    known: HashMap<&'a str, Option<Size>>,
}

impl<'a> Expansion<'a> {
    fn size(&mut self, set: &'a SelectionSet) -> Result<Size, DocumentError> {
        let mut total = Size::default();
        for selection in &set.items {
            let inner = match &selection.node {
                Selection::Field(field) => {
                    let mut inner = self.size(&field.node.selection_set.node)?;
                    let name = field.node.name.node.as_str();
                    if matches!(name, "fields" | "interfaces" | "possibleTypes" | "inputFields") {
                        inner.introspection_lists += 1;
                    }
                    inner
                }
                Selection::InlineFragment(inline) => self.size(&inline.node.selection_set.node)?,
                Selection::FragmentSpread(spread) => self.fragment(spread.node.fragment_name.node.as_str())?,
            };
            total.selections = total.selections.saturating_add(inner.selections).saturating_add(1);
            total.introspection_lists = total.introspection_lists.max(inner.introspection_lists);
        }
        Ok(total)
    }

    fn fragment(&mut self, name: &str) -> Result<Size, DocumentError> {
        // an unknown fragment is the validation's to report
        let Some((name, fragment)) = self.document.fragments.get_key_value(name) else { return Ok(Size::default()) };
        match self.known.get(name.as_str()) {
            Some(Some(size)) => Ok(*size),
            Some(None) => Err(DocumentError::Cycle),
            None => {
                self.known.insert(name.as_str(), None);
                let size = self.size(&fragment.node.selection_set.node)?;
                self.known.insert(name.as_str(), Some(size));
                Ok(size)
            }
        }
    }
}

/// Root fields, conservatively: skipped and included ones count. `__typename` changes nothing and does not.
fn root_fields(document: &ExecutableDocument, set: &SelectionSet) -> usize {
    let count = |selection: &Selection| match selection {
        Selection::Field(field) => usize::from(field.node.name.node != "__typename"),
        Selection::InlineFragment(inline) => root_fields(document, &inline.node.selection_set.node),
        Selection::FragmentSpread(spread) => document
            .fragments
            .get(&spread.node.fragment_name.node)
            .map_or(0, |fragment| root_fields(document, &fragment.node.selection_set.node)),
    };
    set.items.iter().fold(0, |sum: usize, selection| sum.saturating_add(count(&selection.node)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_graphql::parser::parse_query;

    fn judge(text: &str) -> Result<(), DocumentError> {
        check(&parse_query(text).expect("it parses"))
    }

    #[test]
    fn floods_are_refused() {
        let fields = |n: usize, one: &str| (0..n).map(|i| one.replace('#', &i.to_string())).collect::<String>();
        assert_eq!(judge("{ viewer { permissions } }"), Ok(()));
        assert_eq!(judge(&format!("{{ {} }}", fields(31, "a#: viewer { permissions } "))), Err(DocumentError::Aliases));
        assert_eq!(
            judge(&format!("{{ viewer {} {{ permissions }} }}", fields(31, "@skip(if: false) "))),
            Err(DocumentError::Directives)
        );
        assert_eq!(judge(&fields(21, "query q# { __typename } ")), Err(DocumentError::Operations));
        let many = format!("{{ __typename }} {}", fields(101, "fragment f# on Query { __typename } "));
        assert_eq!(judge(&many), Err(DocumentError::Fragments));
        // each fragment spreads the next twice: 2^60 selections in 2 kB
        let bomb: String = (0..60).map(|i| format!("fragment f{i} on Query {{ ...f{0} ...f{0} }} ", i + 1)).collect();
        let bomb = format!("{{ ...f0 }} {bomb} fragment f60 on Query {{ __typename }}");
        assert_eq!(judge(&bomb), Err(DocumentError::Selections));
        let cycle = "{ ...a } fragment a on Query { ...b } fragment b on Query { ...a }";
        assert_eq!(judge(cycle), Err(DocumentError::Cycle));
        let nested = "{ __schema { types { fields { type { fields { type { fields { name } } } } } } } }";
        assert_eq!(judge(nested), Err(DocumentError::IntrospectionNested));
    }

    #[test]
    fn a_mutation_has_one_root_field() {
        let refused = Err(DocumentError::RootFields);
        assert_eq!(judge("mutation { __typename a { id } }"), Ok(()));
        assert_eq!(judge("mutation { a { id } b { id } }"), refused);
        assert_eq!(judge("mutation { x: a { id } y: a { id } }"), refused);
        assert_eq!(judge("mutation { ... on Mutation { a { id } } b @skip(if: true) { id } }"), refused);
        assert_eq!(judge("mutation { ...f ...f } fragment f on Mutation { a { id } }"), refused);
        assert_eq!(judge("query q { a { id } b { id } } mutation m { a { id } }"), Ok(()));
    }
}
