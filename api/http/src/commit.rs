//! Committing from a face.

use std::sync::Arc;

use model::change::{Change, ChangeError, CommitOptions, Committed};
use model::ctx::Ctx;
use tracing::Instrument;

/// Commits in a task of its own: a client that disconnects or waits too long drops the waiting, never a transaction
/// half-way.
///
/// # Errors
/// As [`Change::commit`]; a panic of the use case is [`ChangeError::Internal`].
pub async fn commit<C: Send + Sync + 'static>(
    change: &Arc<dyn Change<C>>,
    ctx: &Ctx,
    command: C,
    options: CommitOptions,
) -> Result<Committed, ChangeError> {
    let (change, ctx) = (Arc::clone(change), ctx.clone());
    let work = async move { change.commit(&ctx, command, options).await }.in_current_span();
    match tokio::spawn(work).await {
        Ok(committed) => committed,
        Err(stopped) => Err(ChangeError::Internal(format!("the task of a change stopped: {stopped}"))),
    }
}
