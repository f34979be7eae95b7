//! The call core's ports, and where secrets lie.

use md5::{Digest as _, Md5};
use model::change::{ResourceKind, ResourceRef};
use model::time::Timestamp;
use provisioning::port::{DirectoryEntry, DirectorySource as _, Registration, RegistrationChange, Registrations as _};
use sha2::Sha256;
use testkit::clock::START;

use super::*;

#[tokio::test]
async fn the_directory_has_everything_and_its_place_in_the_feed() {
    on_each_database(async |db: TestDb| {
        let house = House::new(db).await;
        let t = house.tenant(1).await;
        let (sequence, entries) = house.store.directory_snapshot().await.unwrap();
        assert_eq!(sequence, db::feed::head(&house.db).await.unwrap());
        let count = |is: fn(&DirectoryEntry) -> bool| entries.iter().filter(|e| is(e)).count();
        assert_eq!(count(|e| matches!(e, DirectoryEntry::Account(_))), 3);
        assert_eq!(count(|e| matches!(e, DirectoryEntry::Domain(_))), 1);
        assert_eq!(count(|e| matches!(e, DirectoryEntry::Number(_))), 1);
        let secrets = entries.iter().find_map(|e| match e {
            DirectoryEntry::Subscriber(s, secrets) if s.id == t.subscriber => Some(secrets),
            _ => None,
        });
        let (secrets, input) = (secrets.unwrap(), format!("alice:c1.example:{SIP_PASSWORD}"));
        assert_eq!(*secrets.ha1_md5.expose(), hex::encode(Md5::digest(&input)));
        assert_eq!(*secrets.ha1_sha256.expose(), hex::encode(Sha256::digest(&input)));
        let trunk = entries.iter().find_map(|e| match e {
            DirectoryEntry::Trunk(trunk, path, password) => Some((trunk, path, password.as_ref())),
            _ => None,
        });
        let (trunk, path, password) = trunk.unwrap();
        assert_eq!((trunk.id, path), (t.trunk, &t.reseller.path));
        assert_eq!(password.unwrap().expose(), TRUNK_PASSWORD);
        assert_eq!(trunk.registration, None);

        // Each resource alone gives what the snapshot gave.
        let named = |kind, id| ResourceRef { kind, id };
        let resources = [
            named(ResourceKind::Account, t.customer.id.uuid()),
            named(ResourceKind::Domain, t.domain.uuid()),
            named(ResourceKind::Subscriber, t.subscriber.uuid()),
            named(ResourceKind::Number, t.number.uuid()),
            named(ResourceKind::Trunk, t.trunk.uuid()),
        ];
        let alone = house.store.directory_entries(&resources).await.unwrap();
        assert!(alone.len() == 5 && alone.iter().all(|entry| entries.contains(entry)));
        house.done(&t.ctx, Command::SubscriberDelete { id: t.subscriber }).await;
        let gone = [
            named(ResourceKind::Subscriber, t.subscriber.uuid()),
            named(ResourceKind::Site, t.site.uuid()),
            named(ResourceKind::Token, t.token.uuid()),
        ];
        let entries = house.store.directory_entries(&gone).await.unwrap();
        assert_eq!(entries, gone.map(DirectoryEntry::Gone));
        let next = db::feed::read_after(&house.db, sequence, 10).await.unwrap();
        assert_eq!(next.len(), 1, "the change after the snapshot is the next event");
    })
    .await;
}

#[tokio::test]
async fn another_key_file_opens_nothing() {
    let house = House::new(TestDb::sqlite().await).await;
    house.tenant(1).await;
    let dir = tempfile::tempdir().unwrap();
    let key = KeyFile::open_or_create(&dir.path().join("other.key")).unwrap();
    let store = ProvisioningStore::new(Db::clone(&house.db), &key);
    let (_, entries) = store.directory_snapshot().await.unwrap();
    let mut left_out = 0;
    for entry in &entries {
        match entry {
            DirectoryEntry::Unreadable(_, why) if why.contains("key file") => left_out += 1,
            DirectoryEntry::Unreadable(..) | DirectoryEntry::Subscriber(..) => panic!("{entry:?}"),
            _ => {}
        }
    }
    assert!(left_out > 0 && left_out < entries.len(), "what has no secret is there all the same");
}

#[tokio::test]
async fn registrations_survive_a_restart() {
    on_each_database(async |db: TestDb| {
        let house = House::new(db).await;
        let t = house.tenant(1).await;
        let bound = |n: u32, expires_at: Timestamp| Registration {
            subscriber: t.subscriber,
            contact: format!("sip:alice@192.0.2.{n}:5060"),
            source: ([192, 0, 2, 7], 5060).into(),
            call_id: format!("call-{n}"),
            cseq: n,
            user_agent: "phone".to_owned(),
            expires_at,
        };
        let later = START.plus_ms(60_000);
        let stranger = Registration { subscriber: SubscriberId::new(&*house.world.ids), ..bound(9, later) };
        let changes: Vec<RegistrationChange> = (1..=600_u32)
            .map(|n| RegistrationChange::Bound(bound(n, later)))
            .chain([
                RegistrationChange::Bound(bound(1, START)),
                RegistrationChange::Bound(bound(1, later.plus_ms(1))),
                RegistrationChange::Unbound(t.subscriber, bound(2, later).contact),
                RegistrationChange::Bound(stranger),
            ])
            .collect();
        house.store.registration_store(changes.clone()).await.unwrap();
        house.store.registration_store(changes).await.unwrap();
        let refreshed = RegistrationChange::Bound(Registration { cseq: 77, ..bound(3, START.plus_ms(5)) });
        house.store.registration_store(vec![refreshed]).await.unwrap();

        let listed = house.store.registration_list(START).await.unwrap();
        assert_eq!(listed.len(), 599);
        let contact = |n| bound(n, later).contact;
        let of = |n| listed.iter().find(|r| r.contact == contact(n)).unwrap();
        assert_eq!((of(3).cseq, of(3).expires_at), (77, START.plus_ms(5)));
        assert_eq!(of(1), &bound(1, later.plus_ms(1)), "the last change of a batch decides");
        let listed = house.store.registration_list(later).await.unwrap();
        assert_eq!(listed, [bound(1, later.plus_ms(1))]);
        assert_eq!(house.count("registration").await, 1, "what has ended goes");

        house.done(&t.ctx, Command::SubscriberDelete { id: t.subscriber }).await;
        assert_eq!(house.count("registration").await, 0);
        house.store.registration_store(Vec::new()).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn no_secret_lies_in_any_row() {
    on_each_database(async |db: TestDb| {
        let house = House::new(db).await;
        let t = house.tenant(1).await;
        let mut secrets = vec![
            SIP_PASSWORD.to_owned(),
            TRUNK_PASSWORD.to_owned(),
            house.bootstrap.token.expose().clone(),
            hex::encode(Md5::digest(format!("alice:c1.example:{SIP_PASSWORD}"))),
            hex::encode(Sha256::digest(format!("alice:c1.example:{SIP_PASSWORD}"))),
        ];
        let keyed = [
            (subscriber_create(t.domain, "keyed", None), "k1"),
            (Command::SubscriberPasswordSet { id: t.subscriber, password: None }, "k2"),
            (trunk_create(t.reseller.id, "keyed", 7000), "k3"),
            (token_issue(t.customer.id, "keyed", "audit:read"), "k4"),
        ];
        for (command, name) in keyed {
            let committed = house.store.commit(&t.ctx, command, key(name)).await.unwrap();
            let shown = format!("{committed:?}");
            assert!(!secrets.iter().any(|secret| shown.contains(secret.as_str())), "{shown}");
            secrets.extend(committed.revealed.map(|secret| secret.expose().clone()));
        }
        assert_eq!(secrets.len(), 7);
        let columns = columns(&house.db).await;
        assert!(columns.len() > 80, "all tables are looked at: {}", columns.len());
        let mut values = 0;
        for (table, column, is_text) in columns {
            for value in octets(&house.db, &table, &column, is_text).await {
                values += 1;
                for secret in &secrets {
                    let raw = hex::decode(secret).unwrap_or_else(|_| secret.clone().into_bytes());
                    let found = [secret.as_bytes(), &raw].iter().any(|s| value.windows(s.len()).any(|w| w == *s));
                    assert!(!found, "a secret lies in {table}.{column}");
                }
            }
        }
        assert!(values > 100, "there was something to look at: {values}");
    })
    .await;
}

/// Every column with text or octets of every table.
async fn columns(db: &Db) -> Vec<(String, String, bool)> {
    let sql = match db {
        Db::Sqlite(_) => {
            "SELECT m.name, p.name, p.type = 'TEXT' FROM sqlite_master m JOIN pragma_table_info(m.name) p \
             WHERE m.type = 'table' AND p.type IN ('TEXT', 'BLOB') AND m.name NOT LIKE '\\_sqlx%' ESCAPE '\\'"
        }
        Db::Postgres(_) => {
            "SELECT table_name::text, column_name::text, data_type = 'text' FROM information_schema.columns \
             WHERE table_schema = 'public' AND data_type IN ('text', 'bytea') AND table_name NOT LIKE '\\_sqlx%'"
        }
    };
    on_db!(db, c => sqlx::query_as(sql).fetch_all(c).await).unwrap()
}

async fn octets(db: &Db, table: &str, column: &str, is_text: bool) -> Vec<Vec<u8>> {
    let as_octets = match (db, is_text) {
        (Db::Sqlite(_), _) => format!("CAST({column} AS BLOB)"),
        (Db::Postgres(_), true) => format!("convert_to({column}, 'UTF8')"),
        (Db::Postgres(_), false) => column.to_owned(),
    };
    let sql = format!("SELECT {as_octets} FROM {table} WHERE {column} IS NOT NULL");
    on_db!(db, c => sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(c).await).unwrap()
}
