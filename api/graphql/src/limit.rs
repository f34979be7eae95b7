//! The limits of one document, each with its reason.

/// Text of a document, octets. Large inputs belong into variables, which the body's limit bounds.
pub const DOCUMENT_MAX: usize = 64 * 1_024;
/// Nesting of fields. The standard introspection query has 13.
pub const DEPTH_MAX: usize = 15;
/// Nesting of selection sets as the parser sees them, before fields are known.
pub const RECURSION_MAX: usize = 32;
/// Cost of an operation: a field costs 1, a connection its page size times what is selected. Two full pages of the
/// widest object fit.
pub const COMPLEXITY_MAX: usize = 5_000;
/// Nesting of fields for strangers: below `__type`, which knows nothing, there is nothing to nest.
pub const STRANGER_DEPTH_MAX: usize = 5;
/// Aliases of a document: an alias repeats a field, which is what floods are made of.
pub const ALIASES_MAX: usize = 30;
/// Directives at one place, and in a whole document: more has no meaning.
pub const DIRECTIVES_MAX: usize = 30;
/// Fragments of a document. They may multiply each other, which [`SELECTIONS_MAX`] bounds.
pub const FRAGMENTS_MAX: usize = 100;
/// Operations of a document; one of them is run.
pub const OPERATIONS_MAX: usize = 20;
/// Selections of an operation with its fragments written out.
pub const SELECTIONS_MAX: usize = 5_000;
/// Lists of the introspection (`fields`, `interfaces`, `possibleTypes`, `inputFields`) within each other: each level
/// multiplies the answer by the size of the schema.
pub const INTROSPECTION_LISTS_MAX: usize = 2;
/// Versions that a change may expect.
pub const EXPECTED_VERSIONS_MAX: usize = 100;
/// Legs and parts of one call: entries of a list that is not paged and has no better bound.
pub const LIST_COMPLEXITY: usize = 20;
