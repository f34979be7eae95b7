//! Arguments of queries, and what every resolver begins with.

use std::str::FromStr;

use api_http::global_id;
use async_graphql::connection::{Connection, Edge};
use async_graphql::{Context, ID, OutputType, Result};
use model::actor::Permission;
use model::change::ResourceKind;
use model::ctx::Ctx;
use model::page::{Page, PageRequest, ReadError};
use reports::resource::INTERVAL_MS;
use uuid::Uuid;

use crate::error;
use crate::limit::{COMPLEXITY_MAX, LIST_COMPLEXITY};
use crate::scalar::Timestamp;
use crate::schema::GraphqlDeps;

/// The use cases.
pub(crate) fn deps<'a>(context: &Context<'a>) -> Result<&'a GraphqlDeps> {
    context.data::<GraphqlDeps>()
}

/// Who asks. The handler puts it there; without it nothing is answered.
pub(crate) fn caller<'a>(context: &Context<'a>) -> Result<&'a Ctx> {
    context.data::<Ctx>().map_err(|_| error::internal("a resolver ran without a caller"))
}

/// Who asks, when they may.
pub(crate) fn allowed<'a>(context: &Context<'a>, permission: Permission) -> Result<&'a Ctx> {
    let ctx = caller(context)?;
    ctx.require(permission).map_err(error::forbidden)?;
    Ok(ctx)
}

/// The page that is asked for.
pub(crate) fn page(first: u32, after: Option<String>) -> Result<PageRequest> {
    let page = PageRequest { first, after };
    page.check().map_err(error::read)?;
    Ok(page)
}

/// A filter by identifier. Text that can be no identifier is an error of the request, not an empty list.
pub(crate) fn filter<K: FromStr>(kind: ResourceKind, field: &'static str, id: Option<ID>) -> Result<Option<K>> {
    id.map(|id| required(kind, field, &id)).transpose()
}

/// An identifier of a kind.
pub(crate) fn required<K: FromStr>(kind: ResourceKind, field: &'static str, id: &ID) -> Result<K> {
    global_id::key(kind, id).ok_or_else(|| {
        let message = format!("this identifies no {}; send an identifier that a query gave", kind.as_str());
        error::read(ReadError::Invalid { field, message })
    })
}

/// The key of an object of whatever kind, as plans name it.
pub(crate) fn resource_key(field: &'static str, id: &ID) -> Result<Uuid> {
    global_id::decode(id).and_then(|(_, key)| key.parse().ok()).ok_or_else(|| {
        let message = "this is no identifier of an object with a history; send one that a query gave".to_owned();
        error::read(ReadError::Invalid { field, message })
    })
}

/// A page as a connection.
pub(crate) fn connection<S, T: OutputType + From<S>>(page: Page<S>, after: bool) -> Connection<String, T> {
    let mut connection = Connection::new(after, page.has_next);
    connection.edges = page.items.into_iter().map(|(cursor, item)| Edge::new(cursor, T::from(item))).collect();
    connection
}

/// What a page costs: its size times what is selected of each item.
pub(crate) fn page_complexity(first: u32, child: usize) -> usize {
    // what is over the limit need not be exact
    usize::try_from(first).unwrap_or(COMPLEXITY_MAX).saturating_mul(child).saturating_add(1)
}

/// What the intervals from `from` to `to` cost: as many as there can be, times what is selected of each.
pub(crate) fn interval_complexity(from: Timestamp, to: Timestamp, child: usize) -> usize {
    let span_ms = to.0.0.saturating_sub(from.0.0).max(0);
    let intervals = usize::try_from(span_ms.saturating_add(INTERVAL_MS - 1) / INTERVAL_MS).unwrap_or(COMPLEXITY_MAX);
    intervals.max(1).saturating_mul(child).saturating_add(1)
}

/// What a list without pages costs.
pub(crate) const fn list_complexity(child: usize) -> usize {
    LIST_COMPLEXITY.saturating_mul(child).saturating_add(1)
}
