use testkit::{TestDb, on_each_database};

use super::Fixture;
use super::mails::{Server, finished};
use crate::troubles::{TroubleKind, UNDELIVERED_MS};
use crate::worker::{ATTEMPTS_MAX, LEASE_MS};

impl Fixture {
    /// What is wrong, as kind and a part of the text that must be in it.
    async fn troubles(&self, expected: &[(TroubleKind, &[&str])]) {
        let troubles = self.store.troubles().await.unwrap();
        assert_eq!(troubles.len(), expected.len(), "{troubles:?}");
        for (trouble, (kind, parts)) in troubles.iter().zip(expected) {
            assert_eq!(trouble.kind, *kind);
            assert_eq!(trouble.path, self.reseller.1);
            for part in *parts {
                assert!(trouble.text.contains(part), "{part}: {}", trouble.text);
            }
        }
    }
}

#[tokio::test]
async fn a_run_that_was_given_up_is_a_trouble_until_a_later_one_finishes() {
    on_each_database(async |db: TestDb| {
        let f = Fixture::new(&db).await;
        f.set("2026-11-24T00:00:00Z");
        let folder = f.dir.path().join("reports");
        // A file stands where the folder should be.
        std::fs::write(&folder, "").unwrap();
        let give_up = async |recipients: &[&str]| {
            let id = f.requested("2026-10", recipients).await;
            for _ in 0..ATTEMPTS_MAX {
                assert_eq!(f.store.run_due("node-1").await.unwrap(), 0);
                f.world.clock.advance_ms(u32::try_from(LEASE_MS).unwrap() + 1);
            }
            id
        };
        let first = give_up(&[]).await;
        f.troubles(&[(TroubleKind::Failed, &["2026-10", "revision 0", "disk"])]).await;
        // The next one fails as well: that is the trouble then.
        let second = give_up(&[]).await;
        f.troubles(&[(TroubleKind::Failed, &["revision 1"])]).await;
        assert_ne!(first, second);
        // Of another month, which does not help.
        std::fs::remove_file(&folder).unwrap();
        f.requested("2026-09", &[]).await;
        assert_eq!(f.store.run_due("node-1").await.unwrap(), 1);
        f.troubles(&[(TroubleKind::Failed, &["revision 1"])]).await;
        // Asked for is not finished.
        f.requested("2026-10", &[]).await;
        f.troubles(&[(TroubleKind::Failed, &["revision 1"])]).await;
        assert_eq!(f.store.run_due("node-1").await.unwrap(), 1);
        f.troubles(&[]).await;
    })
    .await;
}

#[tokio::test]
async fn a_run_by_hand_ends_the_trouble_of_the_schedule() {
    on_each_database(async |db: TestDb| {
        let f = Fixture::new(&db).await;
        f.set("2026-11-24T00:00:00Z");
        let definition = crate::Definition { account: f.reseller.0, recipients: Vec::new() };
        assert_eq!(f.store.schedule_due(&[definition]).await.unwrap(), 3);
        let folder = f.dir.path().join("reports");
        std::fs::write(&folder, "").unwrap();
        for _ in 0..ATTEMPTS_MAX {
            assert_eq!(f.store.run_due("node-1").await.unwrap(), 0);
            f.world.clock.advance_ms(u32::try_from(LEASE_MS).unwrap() + 1);
        }
        let failed = |period: &'static [&'static str]| (TroubleKind::Failed, period);
        f.troubles(&[failed(&["2026-08"]), failed(&["2026-09"]), failed(&["2026-10"])]).await;
        std::fs::remove_file(&folder).unwrap();
        f.requested("2026-09", &[]).await;
        assert_eq!(f.store.run_due("node-1").await.unwrap(), 1);
        f.troubles(&[failed(&["2026-08"]), failed(&["2026-10"])]).await;
    })
    .await;
}

#[tokio::test]
async fn a_mail_that_was_given_up_is_a_trouble_until_it_is_queued_again_or_a_week_is_over() {
    on_each_database(async |db: TestDb| {
        let f = finished(&db, &["ops@example.com", "nobody@example.com"]).await;
        let refusing = Server::start(&["550 5.1.1 no such user", "550 5.1.1 nor this one"]).await;
        f.troubles(&[]).await;
        assert_eq!(f.store.deliver_due(&refusing.mailer(), "node-1").await.unwrap().given_up, 2);
        let both: &[&str] = &["2026-10", "nobody@example.com", "ops@example.com", "5.1.1"];
        f.troubles(&[(TroubleKind::Undelivered, both)]).await;
        // Another month to the same recipient says nothing of this one.
        f.requested("2026-09", &["ops@example.com"]).await;
        assert_eq!(f.store.run_due("node-1").await.unwrap(), 1);
        f.troubles(&[(TroubleKind::Undelivered, both)]).await;
        // The same month again, to one of them.
        f.requested("2026-10", &["ops@example.com"]).await;
        assert_eq!(f.store.run_due("node-1").await.unwrap(), 1);
        f.troubles(&[(TroubleKind::Undelivered, &["revision 0", "to nobody@example.com ("])]).await;
        // Given up as well, so that the newer run is the trouble.
        let other = Server::start(&["250 ok", "550 5.1.1 again"]).await;
        f.store.deliver_due(&other.mailer(), "node-1").await.unwrap();
        f.store.deliver_due(&other.mailer(), "node-1").await.unwrap();
        let parts: [&[&str]; 2] = [&["revision 0", "nobody@example.com"], &["revision 1", "ops@example.com", "again"]];
        f.troubles(&[(TroubleKind::Undelivered, parts[0]), (TroubleKind::Undelivered, parts[1])]).await;
        let now = f.store.now();
        f.world.clock.set_utc(now.plus_ms(UNDELIVERED_MS));
        f.troubles(&[(TroubleKind::Undelivered, parts[0]), (TroubleKind::Undelivered, parts[1])]).await;
        f.world.clock.set_utc(now.plus_ms(UNDELIVERED_MS + 1));
        f.troubles(&[]).await;
    })
    .await;
}
