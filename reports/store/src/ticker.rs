//! A ticker: one job in memory, every few seconds. What is owed stands in rows, so nothing is lost with it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};

/// The work of one tick.
pub type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A ticker that runs until it is stopped.
pub struct Ticker(JobScheduler);

impl std::fmt::Debug for Ticker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ticker").finish_non_exhaustive()
    }
}

impl Ticker {
    /// Calls `job` every `period`. A tick that comes while the work of the last one goes on is passed over.
    ///
    /// # Errors
    /// When the scheduler cannot be started.
    pub async fn start(
        period: Duration,
        job: impl Fn() -> Work + Send + Sync + 'static,
    ) -> Result<Self, JobSchedulerError> {
        let scheduler = JobScheduler::new().await?;
        let (job, busy) = (Arc::new(job), Arc::new(Mutex::new(())));
        let tick = Job::new_repeated_async(period, move |_, _| {
            let (job, busy) = (Arc::clone(&job), Arc::clone(&busy));
            Box::pin(async move {
                if let Ok(_held) = busy.try_lock() {
                    job().await;
                }
            })
        })?;
        scheduler.add(tick).await?;
        scheduler.start().await?;
        Ok(Self(scheduler))
    }

    /// Stops ticking. Work that goes on is not cut.
    ///
    /// # Errors
    /// When the scheduler is gone already.
    pub async fn stop(mut self) -> Result<(), JobSchedulerError> {
        self.0.shutdown().await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn it_ticks_until_it_is_stopped_and_never_beside_itself() {
        let (ticks, beside) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (count, running) = (Arc::clone(&ticks), Arc::clone(&beside));
        let ticker = Ticker::start(Duration::from_secs(1), move || {
            let (count, running) = (Arc::clone(&count), Arc::clone(&running));
            Box::pin(async move {
                assert_eq!(running.fetch_add(1, Ordering::SeqCst), 0);
                count.fetch_add(1, Ordering::SeqCst);
                running.fetch_sub(1, Ordering::SeqCst);
            })
        });
        let ticker = ticker.await.unwrap();
        testkit::wait_until(Duration::from_secs(20), async || ticks.load(Ordering::SeqCst) > 0).await;
        ticker.stop().await.unwrap();
    }
}
