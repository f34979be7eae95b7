//! The reads of billing.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use billing::file::manifest_name;
use billing::port::Queries;
use billing::resource::{
    BillingFile, LedgerBalance, Rate, RatedUsage, Side, Stream, Suspense, TariffAssignment, TariffHead, Usage,
};
use db::dialect::is_storable;
use db::{DbError, Tx};
use model::actor::Permission;
use model::ctx::Ctx;
use model::id::{AccountId, CallId, FileId, StreamId, TariffId};
use model::money::Currency;
use model::page::{Page, PageRequest, ReadError};
use model::tenancy::{AccountPath, Scope};
use uuid::Uuid;

use crate::sql::read_error;
use crate::{BillingStore, file, ledger, publish, rated, stream, suspense, tariff, usage};

/// Octets of one read of a file. A face streams in pieces of this or less; the bound keeps many readers in memory.
pub const FILE_READ_MAX: usize = 16 * 1024 * 1024;

/// The sort key behind a cursor, such as `<path>/<call>/<leg>/<part>`.
struct Cursor<'c>(std::str::Split<'c, char>);

fn malformed() -> ReadError {
    ReadError::Invalid {
        field: "after",
        message: "it is no cursor of this list: take one from its last page".to_owned(),
    }
}

impl<'c> Cursor<'c> {
    fn of(text: &'c str) -> Self {
        Self(text.split('/'))
    }

    fn next<T: std::str::FromStr>(&mut self) -> Result<T, ReadError> {
        let part = self.0.next().filter(|part| is_storable(part));
        part.and_then(|part| part.parse().ok()).ok_or_else(malformed)
    }

    fn side(&mut self) -> Result<String, ReadError> {
        let side = self.0.next().and_then(Side::parse).ok_or_else(malformed)?;
        Ok(side.as_str().to_owned())
    }

    fn path(&mut self) -> Result<String, ReadError> {
        self.next::<AccountPath>().map(String::from)
    }

    fn end(mut self) -> Result<(), ReadError> {
        if self.0.next().is_none() { Ok(()) } else { Err(malformed()) }
    }
}

fn after_id(page: &PageRequest) -> Result<Uuid, ReadError> {
    page.after.as_deref().map_or(Ok(Uuid::nil()), |text| text.parse().map_err(|_| malformed()))
}

/// The key of a cursor that `read` takes apart; none for the first page.
fn after_key<K>(
    page: &PageRequest,
    read: impl FnOnce(&mut Cursor<'_>) -> Result<K, ReadError>,
) -> Result<Option<K>, ReadError> {
    let Some(text) = &page.after else { return Ok(None) };
    let mut cursor = Cursor::of(text);
    let key = read(&mut cursor)?;
    cursor.end().map(|()| Some(key))
}

fn after_usage(page: &PageRequest) -> Result<Option<usage::After>, ReadError> {
    after_key(page, |c| Ok((c.path()?, c.next()?, c.next()?, c.next()?)))
}

fn after_suspense(page: &PageRequest) -> Result<Option<suspense::After>, ReadError> {
    after_key(page, |c| Ok((c.path()?, c.next()?, c.next()?, c.next()?, c.next()?, c.side()?)))
}

fn after_rated(page: &PageRequest) -> Result<Option<rated::After>, ReadError> {
    after_key(page, |c| Ok((c.path()?, c.next()?, c.next()?, c.next()?, c.next()?, c.side()?, c.next()?)))
}

fn after_balance(page: &PageRequest) -> Result<Option<ledger::After>, ReadError> {
    after_key(page, |c| Ok((c.path()?, c.next()?, c.next()?, c.next::<Currency>()?.to_string())))
}

fn allow(ctx: &Ctx) -> Result<Scope, ReadError> {
    ctx.require(Permission::BillingRead)?;
    Ok(ctx.scope.clone())
}

fn allow_page(ctx: &Ctx, page: &PageRequest) -> Result<(Scope, PageRequest), ReadError> {
    page.check()?;
    Ok((allow(ctx)?, page.clone()))
}

impl BillingStore {
    /// One read on one snapshot.
    pub(crate) async fn read<T: Send>(
        &self,
        work: impl for<'t> FnOnce(&'t mut Tx) -> std::pin::Pin<Box<dyn Future<Output = Result<T, DbError>> + Send + 't>>
        + Send,
    ) -> Result<T, ReadError> {
        self.db.read::<T, DbError, _>(work).await.map_err(read_error)
    }

    /// The published file in the scope.
    async fn published(&self, ctx: &Ctx, id: FileId) -> Result<Option<BillingFile>, ReadError> {
        let scope = allow(ctx)?;
        let found = self.read(move |tx| Box::pin(async move { file::get(tx, &scope, id).await })).await?;
        Ok(found.filter(|file| file.published))
    }

    /// The published file, made again when it is missing or of another size than it was.
    async fn on_disk(&self, file: &BillingFile, path: &Path, size: Option<u64>) -> Result<(), ReadError> {
        let found = tokio::fs::metadata(path).await.ok().map(|data| data.len());
        if found.is_some_and(|found| size.is_none_or(|size| size == found)) {
            return Ok(());
        }
        self.restore(file.id).await.map_err(|error| {
            tracing::error!(file.name = %file.name, %error, "a published billing file is damaged and cannot be restored");
            ReadError::Internal(error.to_string())
        })
    }
}

#[async_trait]
impl Queries for BillingStore {
    async fn tariff_get(&self, ctx: &Ctx, id: TariffId) -> Result<Option<TariffHead>, ReadError> {
        let scope = allow(ctx)?;
        let found = self.read(move |tx| Box::pin(async move { tariff::get(tx, &scope, id).await })).await?;
        Ok(found.map(|(tariff, _)| tariff))
    }

    async fn tariff_list(
        &self,
        ctx: &Ctx,
        account: Option<AccountId>,
        page: PageRequest,
    ) -> Result<Page<TariffHead>, ReadError> {
        let ((scope, page), after) = (allow_page(ctx, &page)?, after_id(&page)?);
        self.read(move |tx| Box::pin(async move { tariff::list(tx, &scope, account, after, &page).await })).await
    }

    async fn rate_lists(
        &self,
        ctx: &Ctx,
        tariffs: &[TariffId],
        page: PageRequest,
    ) -> Result<Vec<Page<Rate>>, ReadError> {
        let (scope, page) = allow_page(ctx, &page)?;
        if page.after.as_deref().is_some_and(|after| !is_storable(after)) {
            return Err(malformed());
        }
        let tariffs = tariffs.to_vec();
        self.read(move |tx| Box::pin(async move { tariff::rate_lists(tx, &scope, &tariffs, &page).await })).await
    }

    async fn tariff_assignment_list(&self, ctx: &Ctx, page: PageRequest) -> Result<Page<TariffAssignment>, ReadError> {
        let ((scope, page), after) = (allow_page(ctx, &page)?, after_id(&page)?);
        self.read(move |tx| Box::pin(async move { tariff::assignment_list(tx, &scope, after, &page).await })).await
    }

    async fn stream_get(&self, ctx: &Ctx, id: StreamId) -> Result<Option<Stream>, ReadError> {
        let scope = allow(ctx)?;
        let found = self.read(move |tx| Box::pin(async move { stream::get(tx, &scope, id).await })).await?;
        Ok(found.map(|state| state.stream))
    }

    async fn stream_list(
        &self,
        ctx: &Ctx,
        account: Option<AccountId>,
        page: PageRequest,
    ) -> Result<Page<Stream>, ReadError> {
        let ((scope, page), after) = (allow_page(ctx, &page)?, after_id(&page)?);
        let found =
            self.read(move |tx| Box::pin(async move { stream::list(tx, &scope, account, after, &page).await })).await?;
        let items = found.items.into_iter().map(|(cursor, state)| (cursor, state.stream)).collect();
        Ok(Page { items, has_next: found.has_next })
    }

    async fn file_get(&self, ctx: &Ctx, id: FileId) -> Result<Option<BillingFile>, ReadError> {
        let scope = allow(ctx)?;
        self.read(move |tx| Box::pin(async move { file::get(tx, &scope, id).await })).await
    }

    async fn file_find(&self, ctx: &Ctx, stream: StreamId, sequence: i64) -> Result<Option<BillingFile>, ReadError> {
        let scope = allow(ctx)?;
        self.read(move |tx| Box::pin(async move { file::find(tx, &scope, stream, sequence).await })).await
    }

    async fn file_list(&self, ctx: &Ctx, stream: StreamId, page: PageRequest) -> Result<Page<BillingFile>, ReadError> {
        let (scope, page) = allow_page(ctx, &page)?;
        let after = page.after.as_deref().map_or(Ok(0), |text| text.parse().map_err(|_| malformed()))?;
        self.read(move |tx| Box::pin(async move { file::list(tx, &scope, stream, after, &page).await })).await
    }

    async fn file_read(&self, ctx: &Ctx, id: FileId, offset: u64, length: usize) -> Result<Option<Vec<u8>>, ReadError> {
        let Some(file) = self.published(ctx, id).await? else { return Ok(None) };
        let size = u64::try_from(file.size.unwrap_or_default()).unwrap_or_default();
        let left = size.saturating_sub(offset);
        let length = u64::try_from(length).unwrap_or(u64::MAX).min(left);
        if length > u64::try_from(FILE_READ_MAX).unwrap_or(u64::MAX) {
            let message = format!("ask for {FILE_READ_MAX} octets or fewer at a time");
            return Err(ReadError::Invalid { field: "length", message });
        }
        if length == 0 {
            return Ok(Some(Vec::new()));
        }
        let path = publish::path(&self.files, &file, &file.name);
        self.on_disk(&file, &path, Some(size)).await?;
        read_range(path, offset, length).await.map(Some)
    }

    async fn manifest_read(&self, ctx: &Ctx, id: FileId) -> Result<Option<Vec<u8>>, ReadError> {
        let Some(file) = self.published(ctx, id).await? else { return Ok(None) };
        let path = publish::path(&self.files, &file, &manifest_name(&file.name));
        self.on_disk(&file, &path, None).await?;
        let bytes = tokio::fs::read(&path).await;
        bytes.map(Some).map_err(|error| ReadError::Internal(format!("{}: {error}", path.display())))
    }

    async fn usage_get(&self, ctx: &Ctx, call: CallId) -> Result<Vec<Usage>, ReadError> {
        let scope = allow(ctx)?;
        self.read(move |tx| Box::pin(async move { usage::get(tx, &scope, call).await })).await
    }

    async fn usage_list(
        &self,
        ctx: &Ctx,
        account: Option<AccountId>,
        page: PageRequest,
    ) -> Result<Page<Usage>, ReadError> {
        let ((scope, page), after) = (allow_page(ctx, &page)?, after_usage(&page)?);
        self.read(move |tx| Box::pin(async move { usage::list(tx, &scope, account, after, &page).await })).await
    }

    async fn rated_list(
        &self,
        ctx: &Ctx,
        account: Option<AccountId>,
        page: PageRequest,
    ) -> Result<Page<RatedUsage>, ReadError> {
        let ((scope, page), after) = (allow_page(ctx, &page)?, after_rated(&page)?);
        self.read(move |tx| Box::pin(async move { rated::list(tx, &scope, account, after, &page).await })).await
    }

    async fn suspense_list(
        &self,
        ctx: &Ctx,
        account: Option<AccountId>,
        page: PageRequest,
    ) -> Result<Page<Suspense>, ReadError> {
        let ((scope, page), after) = (allow_page(ctx, &page)?, after_suspense(&page)?);
        self.read(move |tx| Box::pin(async move { suspense::list(tx, &scope, account, after, &page).await })).await
    }

    async fn ledger_balance_list(
        &self,
        ctx: &Ctx,
        account: Option<AccountId>,
        page: PageRequest,
    ) -> Result<Page<LedgerBalance>, ReadError> {
        let ((scope, page), after) = (allow_page(ctx, &page)?, after_balance(&page)?);
        self.read(move |tx| Box::pin(async move { ledger::balances(tx, &scope, account, after, &page).await })).await
    }
}

async fn read_range(path: PathBuf, offset: u64, length: u64) -> Result<Vec<u8>, ReadError> {
    let shown = path.display().to_string();
    let read = tokio::task::spawn_blocking(move || {
        let mut file = std::fs::File::open(path)?;
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = Vec::new();
        file.take(length).read_to_end(&mut bytes)?;
        Ok::<_, std::io::Error>(bytes)
    });
    let failed = |error: &dyn std::fmt::Display| ReadError::Internal(format!("{shown}: {error}"));
    match read.await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) => Err(failed(&error)),
        Err(error) => Err(failed(&error)),
    }
}
