//! Accounts and trunks, as far as billing looks at them.

use billing::decide::{AccountView, TargetView, target_ref};
use billing::resource::AssignmentTarget;
use db::{DbError, Tx, on_tx, statements};
use model::change::ResourceVersion;
use model::id::AccountId;
use model::tenancy::{AccountPath, Scope};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use crate::sql::{lock_of, parse};

statements! {
    GET = "SELECT id, path, name, version FROM account WHERE id = $1 AND path >= $2 AND path < $3";
    TRUNK = "SELECT t.version, a.id, a.path, a.name, a.version FROM trunk t JOIN account a ON a.id = t.account_id \
        WHERE t.id = $1 AND a.path >= $2 AND a.path < $3";
    PATH = "SELECT path FROM account WHERE id = $1 AND path >= $2 AND path < $3";
}

/// The account with `id`, if it lies in the scope. In a write transaction its row stays locked: what is unique in an
/// account is decided under that lock.
pub(crate) async fn get(tx: &mut Tx, scope: &Scope, id: AccountId) -> Result<Option<AccountView>, DbError> {
    let sql = format!("{GET}{}", tx.lock_clause());
    let row: Option<(Uuid, String, String, i64)> = on_tx!(tx, c => sqlx::query_as(AssertSqlSafe(sql))
        .bind(id.uuid()).bind(scope.lower()).bind(scope.upper()).fetch_optional(c).await)?;
    row.map(|(id, path, name, version)| view(id, &path, name, version)).transpose()
}

/// The target of an assignment, if it lies in the scope; locked as in [`get`].
pub(crate) async fn target(
    tx: &mut Tx,
    scope: &Scope,
    target: AssignmentTarget,
) -> Result<Option<TargetView>, DbError> {
    let resource = target_ref(target);
    match target {
        AssignmentTarget::Account(id) => {
            let account = get(tx, scope, id).await?;
            Ok(account
                .map(|account| TargetView { version: ResourceVersion { resource, version: account.version }, account }))
        }
        AssignmentTarget::Trunk(id) => {
            let sql = format!("{TRUNK}{}", lock_of(tx, "t"));
            let row: Option<(i64, Uuid, String, String, i64)> = on_tx!(tx, c => sqlx::query_as(AssertSqlSafe(sql))
                .bind(id.uuid()).bind(scope.lower()).bind(scope.upper()).fetch_optional(c).await)?;
            row.map(|(version, id, path, name, account_version)| {
                let account = view(id, &path, name, account_version)?;
                Ok(TargetView { account, version: ResourceVersion { resource, version } })
            })
            .transpose()
        }
    }
}

/// The path of an account in the scope. Accounts never move, so what was booked on the account has it.
pub(crate) async fn path(tx: &mut Tx, scope: &Scope, id: AccountId) -> Result<Option<AccountPath>, DbError> {
    let path: Option<String> = on_tx!(tx, c => sqlx::query_scalar(PATH)
        .bind(id.uuid()).bind(scope.lower()).bind(scope.upper()).fetch_optional(c).await)?;
    path.map(|path| parse("account.path", &path)).transpose()
}

fn view(id: Uuid, path: &str, name: String, version: i64) -> Result<AccountView, DbError> {
    Ok(AccountView { id: AccountId::from_uuid(id), path: parse("account.path", path)?, name, version })
}
