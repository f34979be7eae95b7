//! What is wrong with billing, as one set of conditions. It reads the store, so it is a worker of its own: a store that
//! is away neither keeps the other detectors waiting nor clears an alarm.

use std::sync::Arc;

use billing_store::{BillingStore, ExportFailure, Unrated, UnratedLimits};
use fault::catalogue::{AlarmType, detector};
use fault::port::AlarmAuthority;
use fault::resource::Condition;
use model::time::Clock;

use super::duty::Duty;
use super::worker::{Step, StepError};

/// Looks for charges without a price and for billing files that are due and not there.
pub struct BillingDetector {
    /// Which node looks.
    pub duty: Duty,
    /// Where conditions are reported.
    pub authority: Arc<dyn AlarmAuthority>,
    /// Billing.
    pub billing: Arc<BillingStore>,
    /// How much may wait in suspense.
    pub limits: UnratedLimits,
    /// The clock.
    pub clock: Arc<dyn Clock>,
}

impl BillingDetector {
    /// Looks once, when it is this node's duty. What an earlier holder told, it takes back when it sees that it no longer
    /// is.
    ///
    /// # Errors
    /// When the store fails or the node database cannot be written.
    pub async fn look(&self) -> Result<Step, StepError> {
        let conditions = if self.duty.is_ours().await? { self.conditions().await? } else { Vec::new() };
        self.authority.observe(detector::BILLING, conditions, self.clock.now().utc).await?;
        Ok(Step::Idle)
    }

    async fn conditions(&self) -> Result<Vec<Condition>, StepError> {
        let unrated = self.billing.unrated(self.limits).await?;
        let failures = self.billing.export_failures().await?;
        Ok(unrated.into_iter().map(waits).chain(failures.into_iter().map(is_missing)).collect())
    }
}

fn waits(unrated: Unrated) -> Condition {
    let Unrated { account, path, records, oldest, code } = unrated;
    let charges = if records == 1 { "1 charge waits".to_owned() } else { format!("{records} charges wait") };
    Condition {
        alarm_type: AlarmType::UsageUnrated,
        resource: format!("account:{account}"),
        path: Some(path),
        severity: None,
        text: format!("{charges} without a price, the oldest since {oldest}: {code}"),
    }
}

fn is_missing(failure: ExportFailure) -> Condition {
    Condition {
        alarm_type: AlarmType::ExportFailed,
        resource: format!("stream:{}", failure.stream),
        path: Some(failure.path),
        severity: None,
        text: failure.text,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;
    use billing::command::Command;
    use billing::resource::Side;
    use db::on_tx;
    use model::change::{Change as _, ChangeError, CommitOptions};
    use model::id::{AccountId, InstallationId, StreamId};
    use model::page::ReadError;
    use model::tenancy::AccountPath;
    use model::time::Timestamp;
    use testkit::{TestDb, World};

    use super::*;

    /// Keeps the last set.
    #[derive(Default)]
    struct Heard(Mutex<Vec<Condition>>);

    #[async_trait]
    impl AlarmAuthority for Heard {
        async fn observe(
            &self,
            detector: &'static str,
            conditions: Vec<Condition>,
            _now: Timestamp,
        ) -> Result<(), ReadError> {
            assert_eq!(detector, detector::BILLING);
            for condition in &conditions {
                assert_eq!(condition.alarm_type.detector(), detector);
            }
            *self.0.lock().expect("nobody panicked") = conditions;
            Ok(())
        }
    }

    /// A charge that waits and a file that cannot be written, on a real store and a real folder.
    #[tokio::test]
    async fn it_reports_what_waits_and_what_is_missing_and_nothing_once_it_is_mended() {
        let db = TestDb::sqlite().await;
        let (world, dir) = (World::new(), tempfile::tempdir().expect("a directory"));
        let account = AccountId::new(&*world.ids);
        let path = AccountPath::root(account);
        let seeded = path.clone();
        let seeding = db.write::<(), ChangeError, _>(move |tx| {
            let path = seeded.clone();
            Box::pin(async move {
                on_tx!(&mut *tx, c => sqlx::query("INSERT INTO account (id, path, kind, name, timezone, currency, \
                    enabled, version, created_at, updated_at) \
                    VALUES ($1, $2, 'provider', 'Provider', 'UTC', 'EUR', $3, 1, 0, 0)")
                    .bind(account.uuid()).bind(path.as_str()).bind(true).execute(c).await.map(|_| ()))?;
                on_tx!(tx, c => sqlx::query("INSERT INTO suspense (call_id, leg, part, account_id, side, path, code, \
                    detail, attempts, created_at) VALUES ($1, 0, 0, $1, 'sell', $2, 'no_tariff', '', 1, 1000)")
                    .bind(account.uuid()).bind(path.as_str()).execute(c).await.map(|_| ()))?;
                Ok(())
            })
        });
        assert!(seeding.await.is_ok());
        let (files, installation) = (dir.path().join("files"), InstallationId::new(&*world.ids));
        let billing =
            BillingStore::new((*db).clone(), files.clone(), installation, world.clock.clone(), world.ids.clone());
        let (heard, clock) = (Arc::new(Heard::default()), world.clock.clone());
        let limits = UnratedLimits { age_max_ms: i64::MAX / 2, records_max: 0 };
        let billing = Arc::new(billing);
        let (name, store) = ("billing_alarms", (*db).clone());
        let duty = Duty { name, store, node: "node1".into(), clock: world.clock.clone() };
        let detector = BillingDetector { duty, authority: heard.clone(), billing: billing.clone(), limits, clock };
        let command = Command::StreamCreate { account, name: "all".into(), side: Side::Sell, close_period_ms: 0 };
        let made = billing.commit(&world.system(), command, CommitOptions::default()).await.expect("a stream");
        let stream = StreamId::from_uuid(made.plan.effects[0].resource.id);
        let close = Command::FileClose { stream };
        billing.commit(&world.system(), close, CommitOptions::default()).await.expect("a file");
        std::fs::write(&files, "").expect("a file where the folder should be");
        assert!(billing.publish_planned().await.is_err());
        world.clock.advance_ms(5_000);
        detector.look().await.expect("it looks");
        let found = heard.0.lock().expect("nobody panicked").clone();
        let [waits, missing] = found.try_into().expect("both");
        assert_eq!((waits.alarm_type, waits.path, waits.resource), {
            (AlarmType::UsageUnrated, Some(path.clone()), format!("account:{account}"))
        });
        assert_eq!(waits.text, "1 charge waits without a price, the oldest since 1970-01-01T00:00:01.000Z: no_tariff");
        assert_eq!((missing.alarm_type, missing.path, missing.resource), {
            (AlarmType::ExportFailed, Some(path), format!("stream:{stream}"))
        });
        assert!(missing.text.contains("all_0000000001.csv") && missing.text.contains("stream all"), "{}", missing.text);
        std::fs::remove_file(&files).expect("it goes");
        assert_eq!(billing.publish_planned().await.expect("it is written").len(), 1);
        let relaxed = BillingDetector { limits: UnratedLimits { records_max: 1, ..limits }, ..detector };
        relaxed.look().await.expect("it looks");
        assert_eq!(*heard.0.lock().expect("nobody panicked"), []);
        db.remove().await;
    }
}
