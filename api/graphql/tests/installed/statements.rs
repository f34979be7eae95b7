//! How many statements a request runs: as many for fifty rows as for one. Counted on PostgreSQL, where the driver tells
//! each statement to a listener of the test; the statements are the same on both engines.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use db::Db;
use db::sqlx::ConnectOptions as _;
use db::sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use serde_json::{Value, json};
use testkit::TestDb;
use tracing::field::{Field, Visit};
use tracing::{Event, Metadata, Subscriber, span};

use super::face::Installed;
use super::samples::{self, name};
use super::types::{Types, array, text};

/// Rows of each list.
const ROWS: [usize; 3] = [1, 10, 50];
/// What every request runs to know who asks: the token, and whether an account of its path is disabled.
const DOOR: usize = 2;
/// What a page takes beside it.
const PAGE: usize = 1;

/// Statements beside those of [`DOOR`] that a mutation commits with, the entry of the audit trail, the event and their
/// counters (six) included. Who adds one to a mutation says so here.
const MUTATIONS: [(&str, usize); 35] = [
    ("accountCreate", 13),
    ("accountUpdate", 14),
    ("alarmAcknowledge", 12),
    ("alarmResync", 12),
    ("billingFileAcknowledge", 12),
    ("billingFileClose", 17),
    ("bulkJobCancel", 13),
    ("bulkJobStart", 16),
    ("changeRevert", 20),
    ("domainCreate", 13),
    ("domainDelete", 14),
    ("domainUpdate", 13),
    ("numberAssign", 15),
    ("numberCreate", 15),
    ("numberDelete", 13),
    ("numberRelease", 13),
    ("numberReserve", 14),
    ("reportRun", 13),
    ("siteCreate", 13),
    ("siteDelete", 14),
    ("siteUpdate", 14),
    ("streamCreate", 12),
    ("subscriberCreate", 17),
    ("subscriberDelete", 19),
    ("subscriberPasswordSet", 14),
    ("subscriberUpdate", 16),
    ("suspenseRetry", 12),
    ("tariffAssign", 13),
    ("tariffCreate", 13),
    ("tokenIssue", 13),
    ("tokenRevoke", 13),
    ("tokenRotate", 13),
    ("tokenUpdate", 13),
    ("trunkCreate", 14),
    ("trunkUpdate", 13),
];

/// Notes what the driver runs in this thread, in which all tasks of the test run.
#[derive(Clone, Default)]
struct Statements(Arc<Mutex<Vec<String>>>);

struct Summary(String);

impl Visit for Summary {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "summary" {
            value.clone_into(&mut self.0);
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

impl Subscriber for Statements {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "sqlx::query"
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut summary = Summary(String::new());
        event.record(&mut summary);
        if !["COMMIT", "ROLLBACK"].contains(&summary.0.as_str()) {
            self.0.lock().unwrap().push(summary.0);
        }
    }
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

impl Statements {
    /// What ran since it was last asked.
    fn taken(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// An installation whose statements are noted.
async fn noted() -> (Installed, Statements, tracing::subscriber::DefaultGuard) {
    let db = TestDb::postgres().await;
    let connect: PgConnectOptions = db.url().unwrap().parse().unwrap();
    let connect = connect.log_statements("trace".parse().unwrap());
    let pool = PgPoolOptions::new().max_connections(4).connect_with(connect).await.unwrap();
    let statements = Statements::default();
    let guard = tracing::subscriber::set_default(statements.clone());
    (Installed::over(db, Db::Postgres(pool)).await, statements, guard)
}

#[tokio::test]
async fn a_page_takes_the_same_statements_whatever_its_size() {
    let (face, statements, _guard) = noted().await;
    face.crowd().await;
    let types = Types::of(&face).await;
    let mut lists = 0;
    for field in types.fields("Query") {
        let (field, kind) = (name(field), text_of(&field["type"]));
        let Some(node) = kind.strip_suffix("Connection") else { continue };
        lists += 1;
        let more = if field == "billingFiles" { format!(", streamId: \"{}\"", face.stream) } else { String::new() };
        let selection = types.selection(node, 2);
        for rows in ROWS {
            let document = format!("{{ {field}(first: {rows}{more}) {{ nodes {{ {selection} }} }} }}");
            statements.taken();
            let answer = face.ask(&document, Value::Null).await;
            assert_eq!(array(&answer["data"][field]["nodes"]).len(), rows, "{field}: {:.500}", answer.to_string());
            let ran = statements.taken();
            let nested = usize::from(field == "tariffs");
            assert_eq!(ran.len(), DOOR + PAGE + nested, "{field}, {rows} rows: {ran:#?}");
        }
    }
    assert!(lists > 15, "{lists} lists");
}

#[tokio::test]
async fn a_mutation_runs_no_more_statements_than_are_known() {
    let (face, statements, _guard) = noted().await;
    face.alarms(1, 6_000).await;
    face.execute(vec!["INSERT INTO notification_target (node, target) VALUES ('node1', 'noc')".to_owned()]).await;
    let types = Types::of(&face).await;
    let known: BTreeMap<&str, usize> = MUTATIONS.into_iter().collect();
    let mut found = Vec::new();
    let mut mutations: Vec<&Value> = types.fields("Mutation").iter().collect();
    // What takes back begins, what removes ends, what refers to others before them.
    mutations.sort_by_key(|field| match name(field) {
        "changeRevert" => 0,
        "subscriberDelete" => 2,
        other => 1 + 2 * usize::from(other.ends_with("Delete") || other == "bulkJobCancel"),
    });
    for field in mutations {
        let mutation = name(field);
        let kind = &array(&field["args"]).iter().find(|arg| arg["name"] == "input").unwrap()["type"];
        let input = samples::input(&face, &types, mutation, kind);
        statements.taken();
        let answer = face.change(mutation, json!({ "input": input, "idempotencyKey": mutation })).await;
        let ran = statements.taken();
        assert!(answer["data"][mutation]["changeId"].is_string(), "{mutation}: {answer}");
        println!("(\"{mutation}\", {}),", ran.len() - DOOR);
        found.push((mutation, ran));
    }
    for (mutation, ran) in found {
        let known = known.get(mutation).unwrap_or_else(|| panic!("say how many statements {mutation} takes"));
        assert!(ran.len() - DOOR <= *known, "{mutation} took more than {known}: {ran:#?}");
    }
}

fn text_of(kind: &Value) -> &str {
    if kind["ofType"].is_null() { text(&kind["name"]) } else { text_of(&kind["ofType"]) }
}
