//! What faces and wiring ask of billing. Implemented by the store.

use async_trait::async_trait;
use model::ctx::Ctx;
use model::id::{AccountId, CallId, FileId, StreamId, TariffId};
use model::page::{Page, PageRequest, ReadError};

use crate::resource::{
    BillingFile, LedgerBalance, Rate, RatedUsage, Stream, Suspense, TariffAssignment, TariffHead, Usage,
};

/// Reads of billing. Each requires `billing:read` and is confined to the scope of `ctx`. Usage, rated usage, suspense
/// and balances go account by account, and within an account in the order of the call's identifier (time of the INVITE);
/// files go in the order of the sequence.
#[async_trait]
#[expect(missing_docs, reason = "one pair per resource: `_get` by identifier, `_list` by owner (none: whole scope)")]
pub trait Queries: Send + Sync {
    async fn tariff_get(&self, ctx: &Ctx, id: TariffId) -> Result<Option<TariffHead>, ReadError>;
    async fn tariff_list(
        &self,
        ctx: &Ctx,
        account: Option<AccountId>,
        page: PageRequest,
    ) -> Result<Page<TariffHead>, ReadError>;
    /// The same page of the rates of each tariff, by prefix, in the order of `tariffs`; an empty page where there is no such
    /// tariff in the scope.
    async fn rate_lists(
        &self,
        ctx: &Ctx,
        tariffs: &[TariffId],
        page: PageRequest,
    ) -> Result<Vec<Page<Rate>>, ReadError>;
    async fn tariff_assignment_list(&self, ctx: &Ctx, page: PageRequest) -> Result<Page<TariffAssignment>, ReadError>;
    async fn stream_get(&self, ctx: &Ctx, id: StreamId) -> Result<Option<Stream>, ReadError>;
    async fn stream_list(
        &self,
        ctx: &Ctx,
        account: Option<AccountId>,
        page: PageRequest,
    ) -> Result<Page<Stream>, ReadError>;
    async fn file_get(&self, ctx: &Ctx, id: FileId) -> Result<Option<BillingFile>, ReadError>;
    /// The file with `sequence` in a stream.
    async fn file_find(&self, ctx: &Ctx, stream: StreamId, sequence: i64) -> Result<Option<BillingFile>, ReadError>;
    async fn file_list(&self, ctx: &Ctx, stream: StreamId, page: PageRequest) -> Result<Page<BillingFile>, ReadError>;
    /// Octets `offset .. offset + length` of a published file (shorter at its end).
    async fn file_read(&self, ctx: &Ctx, id: FileId, offset: u64, length: usize) -> Result<Option<Vec<u8>>, ReadError>;
    /// The manifest of a published file, as it lies on disk (JSON).
    async fn manifest_read(&self, ctx: &Ctx, id: FileId) -> Result<Option<Vec<u8>>, ReadError>;
    async fn usage_get(&self, ctx: &Ctx, call: CallId) -> Result<Vec<Usage>, ReadError>;
    async fn usage_list(
        &self,
        ctx: &Ctx,
        account: Option<AccountId>,
        page: PageRequest,
    ) -> Result<Page<Usage>, ReadError>;
    async fn rated_list(
        &self,
        ctx: &Ctx,
        account: Option<AccountId>,
        page: PageRequest,
    ) -> Result<Page<RatedUsage>, ReadError>;
    /// Open charges in suspense.
    async fn suspense_list(
        &self,
        ctx: &Ctx,
        account: Option<AccountId>,
        page: PageRequest,
    ) -> Result<Page<Suspense>, ReadError>;
    async fn ledger_balance_list(
        &self,
        ctx: &Ctx,
        account: Option<AccountId>,
        page: PageRequest,
    ) -> Result<Page<LedgerBalance>, ReadError>;
}
