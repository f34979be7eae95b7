//! Tokens that are no good: each gets the same answer, whatever is wrong with it.

use std::net::IpAddr;

use axum::http::{Response, StatusCode};
use serde_json::{Value, json};
use testkit::{TestDb, on_each_database};

use super::face::{HERE, Installed};
use super::support::http::request;

const ELSEWHERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 7));

/// Status, fields and body, less what differs between any two requests.
fn shown(response: &Response<Vec<u8>>) -> (StatusCode, Vec<(String, String)>, Value) {
    let mut body: Value = serde_json::from_slice(response.body()).unwrap_or_default();
    if let Some(body) = body.as_object_mut() {
        body.remove("trace");
    }
    let fields = response.headers().iter().filter(|(name, _)| *name != "x-request-id");
    let fields = fields.map(|(name, value)| (name.to_string(), value.to_str().unwrap_or_default().to_owned()));
    let mut fields: Vec<_> = fields.collect();
    fields.sort();
    (response.status(), fields, body)
}

impl Installed {
    async fn token(&self, account: &str, more: Value) -> (String, String) {
        let name = format!("token {}", self.fresh());
        let mut input =
            json!({ "accountId": account, "name": name, "permissions": ["provisioning:read", "billing:read"] });
        for (field, value) in more.as_object().unwrap() {
            input[field] = value.clone();
        }
        let answer = self.change("tokenIssue", json!({ "input": input })).await;
        let payload = &answer["data"]["tokenIssue"];
        let text = |field: &str| payload[field].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned();
        (text("id"), text("revealedSecret"))
    }

    async fn get(&self, from: IpAddr, path: &str, token: &str) -> Response<Vec<u8>> {
        self.send_from(from, request("GET", path, Some(token)), Vec::new()).await
    }
}

#[tokio::test]
async fn no_answer_tells_what_is_wrong_with_a_token() {
    on_each_database(async |db: TestDb| {
        let face = Installed::new(db).await;
        let account = json!({ "parentId": face.reseller, "kind": "CUSTOMER", "name": "Closed", "timezone": "UTC", "currency": "EUR" });
        let closed = face.make("accountCreate", account).await;
        let in_an_hour = "2026-01-01T01:00:00Z";
        let (_, expired) = face.token(&face.customer, json!({ "expiresAt": in_an_hour })).await;
        let (revoked_id, revoked) = face.token(&face.customer, json!({})).await;
        let (rotated_id, rotated) = face.token(&face.customer, json!({})).await;
        let (_, disabled) = face.token(&closed, json!({})).await;
        let (_, bound) = face.token(&face.customer, json!({ "networks": ["192.0.2.7"] })).await;
        for token in [&expired, &revoked, &rotated, &disabled, &bound] {
            let good = face.get(HERE, "/billing/streams", token).await;
            assert_eq!(good.status(), StatusCode::OK);
        }
        face.world.clock.advance_ms(3_600_000);
        face.make("tokenRevoke", json!({ "id": revoked_id })).await;
        face.make("tokenRotate", json!({ "id": rotated_id, "overlapS": 0 })).await;
        face.make("accountUpdate", json!({ "id": closed, "enabled": false })).await;

        let unknown = format!("tdm_{}", "0".repeat(64));
        let long = "x".repeat(600);
        let odd = ["tdm_", "tdm_xyz", "' OR 1=1 --", "null", &long];
        let bad: Vec<(&str, IpAddr)> = [&expired, &revoked, &rotated, &disabled, &unknown]
            .map(|token| (token.as_str(), HERE))
            .into_iter()
            .chain([(bound.as_str(), ELSEWHERE)])
            .chain(odd.map(|token| (token, HERE)))
            .collect();
        for path in ["/billing/streams", "/graphql?query=%7B__typename%7D", "/reports/runs", "/no/such/path"] {
            let answers: Vec<_> = {
                let mut answers = Vec::new();
                for (token, from) in &bad {
                    answers.push(shown(&face.get(*from, path, token).await));
                }
                answers
            };
            assert_eq!(answers[0].0, StatusCode::UNAUTHORIZED);
            for (answer, (token, _)) in answers.iter().zip(&bad) {
                assert_eq!(answer, &answers[0], "{path}: {token:.20}");
            }
        }
    })
    .await;
}

/// A token that is good, for things of another tenant: they look like what never was.
#[tokio::test]
async fn things_of_another_tenant_look_like_what_never_was() {
    on_each_database(async |db: TestDb| {
        let face = Installed::new(db).await;
        let account = json!({ "parentId": face.provider, "kind": "RESELLER", "name": "Other", "timezone": "UTC", "currency": "EUR" });
        let other = face.make("accountCreate", account).await;
        let permissions: Vec<String> = model::actor::Permissions::all().iter().map(|p| p.to_string()).collect();
        let (_, token) = face.token(&other, json!({ "permissions": permissions })).await;
        let things = [&face.customer, &face.domain, &face.site, &face.subscriber, &face.number, &face.trunk,
            &face.issued, &face.tariff, &face.stream, &face.file, &face.change];
        for thing in things {
            let (kind, _) = api_http::global_id::decode(thing).unwrap();
            let never = api_http::global_id::encode(kind, uuid::Uuid::from_u128(1));
            let mut answers = Vec::new();
            for id in [thing, &never] {
                let answer = face.post(&token, "query($id: ID!) { node(id: $id) { id } }", json!({ "id": id })).await;
                answers.push(shown(&answer));
            }
            assert_eq!(answers[0], answers[1], "{kind:?}");
            assert_eq!(answers[0].2, json!({ "data": { "node": null } }));
        }
        let path = |stream: &str| format!("/billing/streams/{stream}/files");
        let never = api_http::global_id::encode(model::change::ResourceKind::Stream, uuid::Uuid::from_u128(1));
        for rest in ["", "/1", "/1/content", "/1/manifest"] {
            let foreign = shown(&face.get(HERE, &format!("{}{rest}", path(&face.stream)), &token).await);
            let missing = shown(&face.get(HERE, &format!("{}{rest}", path(&never)), &token).await);
            assert_eq!(foreign, missing, "{rest}");
        }
    })
    .await;
}
