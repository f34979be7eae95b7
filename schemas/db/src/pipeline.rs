//! The pipeline of all mutations, once: a folder brings what its commands look at, decide and write ([`Commands`]);
//! permission, idempotency, versions, audit and event are the same for all.

use std::sync::Arc;

use async_trait::async_trait;
use model::actor::Permission;
use model::change::{ChangeError, CommitOptions, Committed, Plan, Refusal, RefusalCode};
use model::ctx::Ctx;
use model::event::store::StoreEvent;
use model::id::ChangeId;
use model::secret::Secret;
use model::tenancy::AccountPath;

use crate::change::{Entry, Hash, Replay, check_expected, hash_request, record, replay};
use crate::error::{DbError, WriteError};
use crate::store::{Db, Tx};

/// Why a step of the pipeline ended: the database failed, or the command is refused.
pub type Failed = WriteError<ChangeError>;

/// A decided command.
#[derive(Debug)]
pub struct Decided<W> {
    /// What it does, as it may be shown.
    pub plan: Plan,
    /// The account whose subtree is changed.
    pub path: AccountPath,
    /// What is to be written.
    pub write: W,
}

/// What writing gave.
#[derive(Debug, Default)]
pub struct Written {
    /// Events beside `changed`.
    pub events: Vec<StoreEvent>,
    /// A secret that is shown this once.
    pub revealed: Option<Secret<String>>,
}

/// The commands of one folder, over its part of the store.
#[async_trait]
pub trait Commands: Clone + Send + Sync + 'static {
    /// A command.
    type Command: Send + Sync + 'static;
    /// What a decision says is to be written.
    type Write: Send;

    /// The store.
    fn db(&self) -> &Db;

    /// The command's name in audit, idempotency and logs.
    fn name(command: &Self::Command) -> &'static str;

    /// The permission that it needs.
    fn required(command: &Self::Command) -> Permission;

    /// All that the client said, in a fixed order: the same key with something else is a conflict. A secret takes part
    /// as a keyed digest.
    fn request(&self, command: &Self::Command) -> Vec<Vec<u8>>;

    /// What is done before the transaction of a plan or a commit, outside of it. It changes nothing that the command is
    /// about; when it fails, the command is looked at all the same.
    async fn prepare(&self, _command: &Self::Command) {}

    /// Loads what the command looks at, in the scope of `ctx`, and decides: for a plan on a snapshot, for a commit in
    /// the transaction that writes. None only for what the daemon asks of itself: there was nothing to do after all.
    ///
    /// # Errors
    /// Refused, or the database failed.
    async fn decide(
        &self,
        tx: &mut Tx,
        ctx: &Ctx,
        command: &Self::Command,
    ) -> Result<Option<Decided<Self::Write>>, Failed>;

    /// Writes the rows of `change`.
    ///
    /// # Errors
    /// When the database fails.
    async fn write(&self, tx: &mut Tx, ctx: &Ctx, change: ChangeId, write: Self::Write) -> Result<Written, DbError>;

    /// Two changes wanted the same thing at the same time, and this one came second: a unique index refused it.
    #[must_use]
    fn raced(constraint: String) -> ChangeError {
        DbError::Unique { constraint }.into()
    }
}

/// What the command would do now: [`model::change::Change::plan`].
///
/// # Errors
/// [`ChangeError`].
pub async fn plan<P: Commands>(folder: &P, ctx: &Ctx, command: &P::Command) -> Result<Plan, ChangeError>
where
    P::Command: Clone,
{
    ctx.require(P::required(command))?;
    folder.prepare(command).await;
    let shared = (folder.clone(), ctx.clone(), command.clone());
    let decided = folder.db().read::<_, Failed, _>(move |tx| {
        Box::pin(async move {
            let (folder, ctx, command) = &shared;
            Ok(folder.decide(tx, ctx, command).await?.map(|decided| decided.plan))
        })
    });
    decided.await?.ok_or_else(nothing)
}

/// Does it: [`model::change::Change::commit`].
///
/// # Errors
/// [`ChangeError`]; nothing was written then.
pub async fn commit<P: Commands>(
    folder: &P,
    ctx: &Ctx,
    command: P::Command,
    options: CommitOptions,
) -> Result<Committed, ChangeError> {
    commit_if_needed(folder, ctx, command, options).await?.ok_or_else(nothing)
}

/// As [`commit`], for what the daemon asks of itself; none when there was nothing to do after all.
///
/// # Errors
/// [`ChangeError`]; nothing was written then.
pub async fn commit_if_needed<P: Commands>(
    folder: &P,
    ctx: &Ctx,
    command: P::Command,
    options: CommitOptions,
) -> Result<Option<Committed>, ChangeError> {
    ctx.require(P::required(&command))?;
    folder.prepare(&command).await;
    let request = request_hash(folder, &command, &options)?;
    let shared = Arc::new((folder.clone(), ctx.clone(), command, options));
    let committed = folder.db().write(move |tx| {
        let shared = Arc::clone(&shared);
        Box::pin(async move {
            let (folder, ctx, command, options) = &*shared;
            commit_in(folder, tx, ctx, command, options, &request).await
        })
    });
    committed.await.map_err(|error| match error {
        WriteError::Db(DbError::Unique { constraint }) => P::raced(constraint),
        WriteError::Db(DbError::ForeignKey) => reference_lost(),
        other => other.into(),
    })
}

async fn commit_in<P: Commands>(
    folder: &P,
    tx: &mut Tx,
    ctx: &Ctx,
    command: &P::Command,
    options: &CommitOptions,
    request: &Hash,
) -> Result<Option<Committed>, Failed> {
    let key = options.idempotency_key.as_ref();
    if let Replay::Answer(committed) = replay(tx, ctx, key, request).await? {
        return Ok(Some(committed));
    }
    let Some(Decided { plan, path, write }) = folder.decide(tx, ctx, command).await? else { return Ok(None) };
    check_expected(&plan, options).map_err(WriteError::Refused)?;
    let change = ChangeId::new(&*ctx.ids);
    let Written { events, revealed } = folder.write(tx, ctx, change, write).await?;
    let entry = Entry { command: P::name(command), plan: &plan, key, request, path: &path, events: &events };
    record(tx, ctx, change, entry).await?;
    Ok(Some(Committed { change, plan, replayed: false, revealed }))
}

fn request_hash<P: Commands>(folder: &P, command: &P::Command, options: &CommitOptions) -> Result<Hash, ChangeError> {
    let expected = serde_json::to_vec(&options.expected).map_err(|e| ChangeError::Internal(e.to_string()))?;
    let said = folder.request(command);
    let mut parts = vec![P::name(command).as_bytes()];
    parts.extend(said.iter().map(Vec::as_slice));
    parts.push(&expected);
    Ok(hash_request(&parts))
}

/// Something was decided on what another change removed, or has begun to refer to, at the same time.
fn reference_lost() -> ChangeError {
    Refusal::new(
        RefusalCode::Conflict,
        "",
        "what this change refers to was removed at the same time, or what it removes is referred to by now",
        "read it again, and repeat the change",
    )
    .into()
}

/// Only the daemon's own rounds find that there is nothing to do, so this is a defect when a client sees it.
fn nothing() -> ChangeError {
    ChangeError::Internal("a command that was asked for has nothing to do".to_owned())
}
