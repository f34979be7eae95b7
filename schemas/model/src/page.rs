//! Reading in pages, and why a read can fail. Cursors are opaque to clients: the sort key of the last item.

use crate::ctx::Denied;

/// Most items of one page. A client that wants more asks again; the bound keeps one answer below a megabyte.
pub const PAGE_MAX: u32 = 100;

/// Which page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageRequest {
    /// Items wanted, 1 to [`PAGE_MAX`].
    pub first: u32,
    /// The cursor of the last item of the page before.
    pub after: Option<String>,
}

impl Default for PageRequest {
    fn default() -> Self {
        Self { first: PAGE_MAX, after: None }
    }
}

/// One page, in the order of the list's sort key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The items, each with its cursor.
    pub items: Vec<(String, T)>,
    /// Whether more follow.
    pub has_next: bool,
}

impl<T> Page<T> {
    /// Cuts a page from rows that were read with `LIMIT first + 1`.
    #[must_use]
    pub fn cut(rows: Vec<T>, request: &PageRequest, cursor: impl Fn(&T) -> String) -> Self {
        let first = usize::try_from(request.first).unwrap_or(usize::MAX);
        let has_next = rows.len() > first;
        let items = rows.into_iter().take(first).map(|row| (cursor(&row), row)).collect();
        Self { items, has_next }
    }
}

/// Why a read gave nothing. A foreign object is no error: it looks like a missing one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// A permission is missing.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The page request or filter is malformed.
    #[error("{field}: {message}")]
    Invalid {
        /// The argument.
        field: &'static str,
        /// What is wrong, and what to send.
        message: String,
    },
    /// The store cannot be reached; the same read is safe to repeat.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// A defect of ours; the log has the detail under the trace.
    #[error("internal error: {0}")]
    Internal(String),
}

impl PageRequest {
    /// Refuses sizes outside 1 to [`PAGE_MAX`].
    ///
    /// # Errors
    /// [`ReadError::Invalid`] naming `first`.
    pub fn check(&self) -> Result<(), ReadError> {
        if (1..=PAGE_MAX).contains(&self.first) {
            Ok(())
        } else {
            Err(ReadError::Invalid { field: "first", message: format!("ask for 1 to {PAGE_MAX} items") })
        }
    }
}
