//! A node that has lost its journal must not begin another one under its old name.

use std::path::{Path, PathBuf};

use db::journal::JournalReader;
use db::{Db, Position};

use crate::daemon::ServeError;

/// The store has read further than this node's journal goes. A new journal would count from the begin again, and its
/// records be taken for known ones.
#[derive(Debug, thiserror::Error)]
#[error(
    "consumers have read the journal of node {node} up to {read}, and {} holds none of that epoch: restore the data \
     directory, or, if it is lost, give the node a name that no node had (node.name)",
    dir.display()
)]
pub struct JournalLost {
    /// The node.
    node: String,
    /// Where the furthest consumer stands.
    read: Position,
    /// The data directory.
    dir: PathBuf,
}

/// Refuses a journal that was begun anew under the name of a node that had one.
///
/// # Errors
/// [`JournalLost`], or when store or journal cannot be read.
pub async fn refuse_lost_journal(store: &Db, node: &str, dir: &Path) -> Result<(), ServeError> {
    let cursors = db::cursor::list(store, &db::cursor::journal_source(node)).await?;
    let Some(read) = cursors.into_iter().map(|(_, position)| position).max() else { return Ok(()) };
    let reader = JournalReader::open(dir);
    let kept = tokio::task::spawn_blocking(move || reader.stat()).await??.last;
    if kept.is_none_or(|last| last.epoch < read.epoch) {
        return Err(JournalLost { node: node.to_owned(), read, dir: dir.to_owned() }.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use db::journal::Journal;
    use model::time::Timestamp;
    use testkit::{ManualClock, TestDb};

    use super::*;

    #[tokio::test]
    async fn a_journal_that_was_begun_anew_under_an_old_name_is_refused() {
        let (db, dir) = (TestDb::sqlite().await, tempfile::tempdir().expect("a directory"));
        let check = async |node: &str| refuse_lost_journal(&db, node, dir.path()).await;
        let read = Position::new(2, 40);
        let advanced = db.write::<(), std::convert::Infallible, _>(move |tx| {
            let source = db::cursor::journal_source("node1");
            Box::pin(async move {
                Ok(db::cursor::advance(tx, "billing", &source, Position::START, read, Timestamp(0)).await?)
            })
        });
        assert!(advanced.await.is_ok());
        let refused = check("node1").await.expect_err("there is no journal").to_string();
        assert!(refused.contains("up to 2:40") && refused.contains("node.name"), "{refused}");
        check("node2").await.expect("a new name has nothing to lose");
        let clock = Arc::new(ManualClock::at(Timestamp(1_000)));
        let open = || Journal::open(dir.path(), clock.clone(), "test").expect("the journal opens").0.close();
        open();
        check("node1").await.expect_err("it begins anew");
        open();
        check("node1").await.expect("it goes at least as far");
        db.remove().await;
    }
}
