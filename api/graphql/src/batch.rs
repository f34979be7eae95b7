//! What every object of a list is asked for is read for all of them at once: a page of fifty tariffs with their rates
//! takes two reads, not fifty-one. The objects of a page know each other; whoever is asked first reads for all. No timer
//! says which belong together, so the number of reads is the same under any load.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use billing::port::Queries;
use billing::resource::Rate;
use model::ctx::Ctx;
use model::id::TariffId;
use model::page::{Page, PageRequest, ReadError};
use tokio::sync::OnceCell;

/// The tariffs of one page, within one request.
#[derive(Debug)]
pub(crate) struct Tariffs {
    ids: Vec<TariffId>,
    /// By what is asked for: aliases may want other pages of rates.
    lists: Mutex<HashMap<Asked, Arc<Read>>>,
}

/// Size and begin of a page.
type Asked = (u32, Option<String>);
/// A page of rates per tariff, read once.
type Read = OnceCell<Result<HashMap<TariffId, Page<Rate>>, ReadError>>;

impl Tariffs {
    pub(crate) fn new(ids: impl IntoIterator<Item = TariffId>) -> Arc<Self> {
        Arc::new(Self { ids: ids.into_iter().collect(), lists: Mutex::default() })
    }

    /// A page of the rates of one of them.
    ///
    /// # Errors
    /// As [`Queries::rate_lists`].
    pub(crate) async fn rates(
        &self,
        billing: &dyn Queries,
        ctx: &Ctx,
        tariff: TariffId,
        page: PageRequest,
    ) -> Result<Page<Rate>, ReadError> {
        let lists = {
            let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(lists.entry((page.first, page.after.clone())).or_default())
        };
        // A failure is everybody's: a store that is away is not asked once per tariff.
        let read = lists.get_or_init(async || {
            let pages = billing.rate_lists(ctx, &self.ids, page).await?;
            Ok(self.ids.iter().copied().zip(pages).collect())
        });
        let lists = read.await.as_ref().map_err(Clone::clone)?;
        lists.get(&tariff).cloned().ok_or_else(|| ReadError::Internal(format!("the rates of {tariff} were not read")))
    }
}
