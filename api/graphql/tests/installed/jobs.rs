//! A bulk job, seen by a subscriber from its start to its end.

use std::sync::Arc;

use axum::body::Body;
use http_body_util::BodyExt as _;
use model::id::IdSource;
use model::time::Clock;
use provisioning_store::BulkStep;
use serde_json::{Value, json};
use testkit::{TestDb, on_each_database};
use tower::ServiceExt as _;

use super::face::Installed;
use super::support::http::request;

#[tokio::test]
async fn a_subscriber_sees_how_far_a_job_is() {
    on_each_database(async |db: TestDb| {
        let face = Installed::new(db).await;
        let watch = |token: &str| {
            let document = json!({ "query": format!(
                "subscription {{ bulkJob(id: \"{}\") {{ state mode applied unchanged finishedAt }} }}", face.job
            ) });
            let builder = request("POST", "/graphql", Some(token)).header("content-type", "application/json");
            let builder = builder.header("accept", "text/event-stream");
            face.router.clone().oneshot(builder.body(Body::from(document.to_string())).unwrap())
        };
        let mut seen = Vec::new();
        let mut events = watch(&face.token).await.unwrap().into_body();
        let mut text = String::new();
        while let Some(frame) = events.frame().await {
            let Ok(data) = frame.unwrap().into_data() else { continue };
            text.push_str(std::str::from_utf8(&data).unwrap());
            while let Some(end) = text.find("\n\n") {
                let event: String = text.drain(..end + 2).collect();
                let Some(body) = event.lines().find_map(|line| line.strip_prefix("data: ")) else { continue };
                let Ok(Value::Object(body)) = serde_json::from_str(body) else { continue };
                seen.push(body["data"]["bulkJob"].clone());
                // each step is told before the next is done
                match seen.len() {
                    1 => start(&face, "CHECK").await,
                    2 => step(&face).await,
                    3 => start(&face, "PER_LINE").await,
                    _ => step(&face).await,
                }
            }
        }
        let told: Vec<_> =
            seen.iter().map(|job| (job["state"].as_str().unwrap(), job["applied"].as_u64().unwrap())).collect();
        let expected = [("STAGED", 0), ("RUNNING", 0), ("STAGED", 1), ("RUNNING", 0), ("RUNNING", 1), ("FINISHED", 1)];
        assert_eq!(told, expected, "{seen:?}");
        assert!(seen[2]["finishedAt"].is_string() && seen[3]["finishedAt"].is_null(), "{seen:?}");
        // another tenant's job looks like one that never was
        let issued = json!({ "input": { "accountId": face.bare_customer, "name": "other",
            "permissions": ["provisioning:read"] } });
        let issued = face.change("tokenIssue", issued).await;
        let foreign = watch(issued["data"]["tokenIssue"]["revealedSecret"].as_str().unwrap()).await.unwrap();
        let foreign = foreign.into_body().collect().await.unwrap().to_bytes();
        assert!(String::from_utf8_lossy(&foreign).contains("there is no such bulk job"), "{foreign:?}");
    })
    .await;
}

async fn start(face: &Installed, mode: &str) {
    let started = face.change("bulkJobStart", json!({ "input": { "id": face.job, "mode": mode } })).await;
    assert!(started["data"]["bulkJobStart"]["changeId"].is_string(), "{started}");
}

async fn step(face: &Installed) {
    let clock: Arc<dyn Clock> = face.world.clock.clone();
    let ids: Arc<dyn IdSource> = face.world.ids.clone();
    if face.provisioning.bulk_step(&clock, &ids).await.unwrap() == BulkStep::Idle {
        face.provisioning.bulk_check("node1", &clock, &ids).await.unwrap();
    }
}
