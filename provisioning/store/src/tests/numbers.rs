//! Where numbers stand: free, reserved, assigned, quarantined; and that reservation and quarantine end by themselves.

use RefusalCode::{Conflict, InUse, Invalid, NotFound};
use model::time::Timestamp;
use provisioning::number::{QUARANTINE_MS, RESERVATION_MAX_MS};
use provisioning::resource::NumberState;

use super::reversals::revert;
use super::*;

const DAY_MS: u32 = 86_400_000;

/// A reseller with a number of its own, and two customers with a subscriber each.
struct Inventory {
    house: House,
    t: Tenant,
    number: NumberId,
    other: AccountId,
    other_subscriber: SubscriberId,
}

impl Inventory {
    async fn new(db: TestDb) -> Self {
        let house = House::new(db).await;
        let t = house.tenant(1).await;
        let other = house.account(t.reseller.id, AccountKind::Customer, "Other").await.id;
        let domain = DomainId::from_uuid(house.done(&t.ctx, domain_create(other, "other.example")).await);
        let other_subscriber = house.done(&t.ctx, subscriber_create(domain, "bob", None)).await;
        let number = house.done(&t.ctx, number_create(t.reseller.id, "+4372099", None)).await;
        let (other_subscriber, number) = (SubscriberId::from_uuid(other_subscriber), NumberId::from_uuid(number));
        Self { house, t, number, other, other_subscriber }
    }

    fn now(&self) -> Timestamp {
        self.t.ctx.now()
    }

    async fn state(&self) -> NumberState {
        let number = self.house.store.number_get(&self.t.ctx, self.number).await.unwrap().unwrap();
        assert!(number.subscriber.is_none() || number.hold.is_none(), "{number:?}");
        number.state(self.now())
    }

    async fn assign(&self, subscriber: Option<SubscriberId>) -> Result<Committed, ChangeError> {
        self.house.commit(&self.t.ctx, Command::NumberAssign { id: self.number, subscriber }).await
    }

    async fn reserve(&self, account: AccountId, until: Timestamp) -> Result<Committed, ChangeError> {
        self.house.commit(&self.t.ctx, Command::NumberReserve { id: self.number, account, until }).await
    }

    async fn release(&self) -> Result<Committed, ChangeError> {
        self.house.commit(&self.t.ctx, Command::NumberRelease { id: self.number }).await
    }

    async fn delete(&self) -> Result<Committed, ChangeError> {
        self.house.commit(&self.t.ctx, Command::NumberDelete { id: self.number }).await
    }
}

#[tokio::test]
async fn what_one_customer_gave_back_rests_before_another_has_it() {
    on_each_database(async |db: TestDb| {
        let i = Inventory::new(db).await;
        assert_eq!(i.state().await, NumberState::Free);
        refused_as(i.release().await, Conflict, "id");
        i.assign(Some(i.t.subscriber)).await.unwrap();
        assert_eq!(i.state().await, NumberState::Assigned(i.t.subscriber));
        for refused in [i.delete().await, i.release().await, i.reserve(i.other, i.now().plus_ms(1)).await] {
            refused_as(refused, InUse, "id");
        }
        let back = i.now();
        i.assign(None).await.unwrap();
        let NumberState::Quarantined(hold) = i.state().await else { panic!("{:?}", i.state().await) };
        assert_eq!((hold.account, hold.until), (i.t.customer.id, back.plus_ms(QUARANTINE_MS)));
        refused_as(i.assign(Some(i.other_subscriber)).await, Conflict, "id");
        refused_as(i.reserve(i.other, back.plus_ms(i64::from(DAY_MS))).await, Conflict, "id");
        // Nothing is given back a second time.
        i.assign(None).await.unwrap();
        assert_eq!(i.state().await, NumberState::Quarantined(hold));
        // Who had it can have it again, also by a reservation.
        refused_as(i.reserve(i.t.customer.id, back.plus_ms(1)).await, Conflict, "id");
        i.reserve(i.t.customer.id, hold.until).await.unwrap();
        i.assign(Some(i.t.subscriber)).await.unwrap();
        i.assign(None).await.unwrap();
        // It ends by itself, to the millisecond
        for _ in 0..29 {
            i.house.world.clock.advance_ms(DAY_MS);
        }
        i.house.world.clock.advance_ms(DAY_MS - 1);
        refused_as(i.assign(Some(i.other_subscriber)).await, Conflict, "id");
        i.house.world.clock.advance_ms(1);
        assert_eq!(i.state().await, NumberState::Free);
        refused_as(i.release().await, Conflict, "id");
        i.assign(Some(i.other_subscriber)).await.unwrap();
        // A subscriber that goes gives its numbers back; the release is everybody's who may change the number.
        let gone = i.house.commit(&i.t.ctx, Command::SubscriberDelete { id: i.other_subscriber }).await.unwrap();
        let NumberState::Quarantined(hold) = i.state().await else { panic!("{:?}", i.state().await) };
        assert_eq!(hold.account, i.other);
        refused_as(i.assign(Some(i.t.subscriber)).await, Conflict, "id");
        let released = i.release().await.unwrap();
        assert_eq!(i.state().await, NumberState::Free);
        // Taken back, the quarantine is there again, and then the subscriber with its number.
        i.house.commit(&i.t.ctx, revert(released.change)).await.unwrap();
        assert_eq!(i.state().await, NumberState::Quarantined(hold));
        i.house.commit(&i.t.ctx, revert(gone.change)).await.unwrap();
        assert_eq!(i.state().await, NumberState::Assigned(i.other_subscriber));
    })
    .await;
}

#[tokio::test]
async fn a_reserved_number_is_for_one_account_until_the_end() {
    on_each_database(async |db: TestDb| {
        let i = Inventory::new(db).await;
        let until = i.now().plus_ms(i64::from(DAY_MS));
        for bad in [i.now(), i.now().plus_ms(RESERVATION_MAX_MS + 1), Timestamp(0), Timestamp(i64::MAX)] {
            refused_as(i.reserve(i.other, bad).await, Invalid, "until");
        }
        let stranger = i.house.tenant(2).await;
        refused_as(i.reserve(stranger.customer.id, until).await, NotFound, "account");
        let above = i.house.bootstrap.provider;
        refused_as(i.reserve(above, until).await, NotFound, "account");
        let by_provider = Command::NumberReserve { id: i.number, account: stranger.customer.id, until };
        refused_as(i.house.commit(&i.house.provider, by_provider).await, NotFound, "account");

        let reserved = i.reserve(i.other, until).await.unwrap();
        let NumberState::Reserved(hold) = i.state().await else { panic!("{:?}", i.state().await) };
        assert_eq!((hold.account, hold.until), (i.other, until));
        refused_as(i.assign(Some(i.t.subscriber)).await, Conflict, "id");
        refused_as(i.delete().await, InUse, "id");
        // Freeing what nobody has leaves the promise as it is.
        i.assign(None).await.unwrap();
        assert_eq!(i.state().await, NumberState::Reserved(hold));
        // For the account and those below it
        i.reserve(i.t.reseller.id, until).await.unwrap();
        i.assign(Some(i.t.subscriber)).await.unwrap();
        i.assign(None).await.unwrap();
        i.release().await.unwrap();
        i.reserve(i.other, until).await.unwrap();
        i.house.world.clock.advance_ms(DAY_MS);
        assert_eq!(i.state().await, NumberState::Free);
        i.assign(Some(i.t.subscriber)).await.unwrap();
        // What was built on it is in the way of taking it back.
        assert!(
            refused(i.house.commit(&i.t.ctx, revert(reserved.change)).await).iter().all(|(code, _)| *code == Conflict)
        );
    })
    .await;
}

/// Entries of the trail from before numbers were held say nothing of it; what they would bring back is refused where it
/// would break a promise.
#[tokio::test]
async fn an_old_change_does_not_break_a_promise() {
    on_each_database(async |db: TestDb| {
        let i = Inventory::new(db).await;
        i.assign(Some(i.t.subscriber)).await.unwrap();
        let freed = i.assign(None).await.unwrap();
        i.release().await.unwrap();
        let forgotten = i.house.db.write::<(), ChangeError, _>(move |tx| {
            Box::pin(async move {
                // As an entry of that time was written, without the release after it
                let sql = "SELECT plan FROM audit WHERE change_id = $1";
                let id = freed.change.uuid();
                let plan: String = db::on_tx!(&mut *tx, c => sqlx::query_scalar(sql).bind(id).fetch_one(c).await)?;
                let mut plan: serde_json::Value = serde_json::from_str(&plan).unwrap();
                for side in ["before", "after"] {
                    plan["effects"][0][side].as_object_mut().unwrap().remove("hold").unwrap();
                }
                let sql = "UPDATE audit SET plan = $2 WHERE change_id = $1";
                db::on_tx!(&mut *tx, c => sqlx::query(sql).bind(id).bind(plan.to_string()).execute(c).await.map(|_| ()))?;
                Ok(())
            })
        });
        assert!(forgotten.await.is_ok());
        i.reserve(i.other, i.now().plus_ms(1)).await.unwrap();
        refused_as(i.house.commit(&i.t.ctx, revert(freed.change)).await, Conflict, "change");
        i.house.world.clock.advance_ms(1);
        i.house.commit(&i.t.ctx, revert(freed.change)).await.unwrap();
        assert_eq!(i.state().await, NumberState::Assigned(i.t.subscriber));
    })
    .await;
}
