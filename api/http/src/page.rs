//! Pages in query and answer.

use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use model::page::{Page, PageRequest};
use serde::{Deserialize, Serialize};

use crate::limit::PAGE_DEFAULT;
use crate::problem::Problem;

/// `?first=…&after=…`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PageQuery {
    first: Option<u32>,
    after: Option<String>,
}

/// One page as JSON.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PageDto<T> {
    items: Vec<T>,
    has_next: bool,
    /// What to send as `after` for the next page.
    end_cursor: Option<String>,
}

impl<T> PageDto<T> {
    pub(crate) fn of<S>(page: Page<S>, convert: impl Fn(S) -> T) -> Self {
        let end_cursor = page.items.last().map(|(cursor, _)| cursor.clone());
        Self {
            items: page.items.into_iter().map(|(_, item)| convert(item)).collect(),
            has_next: page.has_next,
            end_cursor,
        }
    }
}

/// The page that a query asks for.
pub(crate) fn page_request(query: Result<Query<PageQuery>, QueryRejection>) -> Result<PageRequest, Problem> {
    let Query(query) = query.map_err(|rejection| {
        Problem::invalid("", rejection.body_text(), "a list knows the arguments first and after")
    })?;
    let page = PageRequest { first: query.first.unwrap_or(PAGE_DEFAULT), after: query.after };
    page.check()?;
    Ok(page)
}
