//! The databases are there, fresh and apart.

use db::sqlx;
use tandem_testkit::{self as testkit, TestDb, on_each_database};

async fn count(db: &TestDb) -> i64 {
    db::on_db!(&**db, c => sqlx::query_scalar("SELECT COUNT(*) FROM lease").fetch_one(c).await)
        .expect("the table is there")
}

async fn each_is_fresh(db: TestDb) {
    testkit::prepare_all(&db, &["SELECT value FROM counter WHERE name = $1"]).await;
    assert_eq!(count(&db).await, 0);
    db.write::<_, (), _>(|tx| {
        Box::pin(async move {
            let sql = "INSERT INTO lease (name, holder, fence, until) VALUES ('a', 'b', 1, 2)";
            db::on_tx!(tx, c => sqlx::query(sql).execute(c).await.map(|_| ()))?;
            Ok(())
        })
    })
    .await
    .expect("a row can be written");
    assert_eq!(count(&db).await, 1);
}

#[tokio::test]
async fn one() {
    on_each_database(each_is_fresh).await;
}

#[tokio::test]
async fn another_at_the_same_time() {
    on_each_database(each_is_fresh).await;
}

#[tokio::test]
#[should_panic(expected = "no such column")]
async fn a_misspelt_column_is_found() {
    let db = TestDb::sqlite().await;
    testkit::prepare_all(&db, &["SELECT colour FROM counter"]).await;
}
