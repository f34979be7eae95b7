//! What a client sends that means well, and what one sends that does not.

use api_http::global_id;
use model::change::ResourceKind;
use serde_json::{Value, json};

use super::face::Installed;
use super::types::{Leaf, Step, Types, put, text, told};

/// The input of a mutation as a well-meaning client sends it, with every field; what must be unique is so.
///
/// # Panics
/// For a field that is not known here: say what is valid.
pub fn input(face: &Installed, types: &Types, mutation: &str, input: &Value) -> Value {
    let (leaves, _) = types.leaves(input, &[]);
    let mut whole = json!({});
    for (way, leaf) in leaves {
        if let Some(value) = sample(face, mutation, &told(&way), leaf) {
            put(&mut whole, &way, value);
        }
    }
    whole
}

/// What is valid at a place; none: it is left out.
fn sample(face: &Installed, mutation: &str, way: &str, leaf: Leaf) -> Option<Value> {
    let n = face.fresh();
    let object = |name: &str| match name {
        "account" => &face.customer,
        "domain" => &face.domain,
        "site" => &face.site,
        "subscriber" => &face.subscriber,
        "number" => &face.number,
        "trunk" => &face.trunk,
        "token" => &face.issued,
        "tariff" => &face.tariff,
        "stream" => &face.stream,
        "billingFile" => &face.file,
        "change" => &face.change,
        other => panic!("say which {other} there is"),
    };
    let value = match (mutation, way) {
        // An account or a trunk, not both
        ("tariffAssign", "trunkId") => return None,
        ("tariffCreate" | "streamCreate" | "trunkCreate", "accountId") => json!(face.reseller),
        ("domainDelete", "id") => json!(face.bare_domain),
        ("siteDelete", "id") => json!(face.bare_site),
        ("numberReserve", "id") => json!(face.bare_number),
        ("numberRelease", "id") => json!(face.held_number),
        ("alarmAcknowledge", "id") => json!(global_id::encode(ResourceKind::Alarm, format!("node1/{n}"))),
        ("bulkJobStart" | "bulkJobCancel", "id") => json!(face.job),
        ("bulkJobStart", "mode") => json!("CHECK"),
        ("domainCreate", "name") => json!(format!("d{n}.example")),
        ("streamCreate", "name") => json!(format!("stream-{n}")),
        (_, "id") => {
            let kind = mutation.find(|c: char| c.is_ascii_uppercase()).map_or(mutation, |at| {
                let kind = mutation.split_at(at).0;
                if kind == "billing" { "billingFile" } else { kind }
            });
            json!(object(kind))
        }
        // Names that are given here must be free where objects are renamed.
        (_, "parentId") => json!(face.provider),
        ("siteCreate", "accountId") => json!(face.bare_customer),
        (_, "target") => json!(global_id::encode(ResourceKind::NotificationTarget, "node1/noc")),
        (_, way) if way.ends_with("Id") => json!(object(way.trim_end_matches("Id"))),
        (_, "name" | "displayName") => json!(format!("Name {n}")),
        (_, "kind") => json!("CUSTOMER"),
        (_, "timezone") => json!("Europe/Vienna"),
        (_, "currency") => json!("EUR"),
        (_, "dialPlan.countryCode") => json!("43"),
        (_, "dialPlan.nationalPrefix") => json!("0"),
        (_, "dialPlan.internationalPrefix") => json!("00"),
        (_, "username") => json!(format!("user{n}")),
        (_, "extension") => json!(format!("{}", 10_000 + n)),
        (_, "password" | "credentials.password") => json!("correct-horse-battery"),
        (_, "e164") => json!(format!("+43721{n:06}")),
        (_, "address" | "registration.registrar") => json!(format!("192.0.2.9:{n}")),
        (_, "credentials.username") => json!("tandem"),
        (_, "registration.domain") => json!("carrier.example"),
        (_, "permissions.0") => json!("billing:read"),
        (_, "networks.0") => json!("192.0.2.0/24"),
        (_, "expiresAt" | "validTo") => json!("2027-01-01T00:00:00Z"),
        (_, "until") => json!("2026-03-01T00:00:00Z"),
        (_, "validFrom") => json!("2026-06-01T00:00:00Z"),
        (_, "rounding.mode") => json!("HALF_UP"),
        (_, "side") => json!("SELL"),
        (_, "rates.0.prefix") => json!("43"),
        (_, "rates.0.description" | "reason" | "note") => json!("as it is"),
        (_, "rates.0.connectFee" | "rates.0.price") => json!("0.05"),
        (_, "period") => json!("2026-01"),
        (_, "recipients.0") => json!("operations@example.com"),
        (_, "callLimit" | "subscriberQuota" | "priority") => json!(1_000),
        (_, "rounding.decimals") => json!(2),
        (_, "rates.0.perMs" | "rates.0.initialMs" | "rates.0.incrementMs") => json!(60_000),
        (_, "closePeriodMs" | "keepaliveMs" | "overlapS") => json!(0),
        (_, "registration.expiresS") => json!(600),
        (_, "accepted") => json!(false),
        _ if leaf == Leaf::Boolean => json!(true),
        (mutation, way) => panic!("say what is valid for {way} of {mutation}"),
    };
    Some(value)
}

/// Texts that no well-meaning client sends.
pub fn texts() -> Vec<String> {
    let plain = [
        "",
        " ",
        "\0",
        "a\0b",
        "a\u{1}b",
        "a\u{1b}[31mb",
        "a\u{7f}b",
        "a\u{85}b",
        "a\u{9b}31mb",
        "a\r\nb",
        "a\tb",
        "a\u{202e}b",
        "a\u{2066}b\u{2069}",
        "\u{200f}a",
        "a\u{200b}b",
        "a\u{2028}b",
        "\u{feff}a",
        "\u{fffe}\u{ffff}",
        "\u{10ffff}",
        "\u{301}",
        "a\u{301}\u{301}\u{301}",
        "👩‍👩‍👧‍👦",
        "'; DROP TABLE account; --",
        "\" OR 1=1 --",
        "x') ON CONFLICT DO NOTHING; DELETE FROM audit; --",
        "$1",
        "%",
        "_",
        "\\",
        "{{7*7}}",
        "${7*7}",
        "#{7*7}",
        "<%= 7*7 %>",
        "{% raw %}",
        "<script>alert(1)</script>",
        "\"><img src=x onerror=alert(1)>",
        "&lt;b&gt;",
        "=cmd|'/C calc'!A0",
        "=1+1",
        "+1+1",
        "-1",
        "@SUM(1,1)",
        "\t=1+1",
        "\r=1+1",
        "../../../../etc/passwd",
        "..\\..\\x",
        "%00",
        "%2e%2e%2f",
        "file:///etc/passwd",
        "null",
        "a@b\r\nBcc: c@d",
        "NaN",
        "1e309",
        "9999-99-99T99:99:99Z",
        "+99999999999999999999",
        "00000000-0000-0000-0000-000000000000",
    ];
    let mut texts: Vec<String> = plain.into_iter().map(str::to_owned).collect();
    texts.push("x".repeat(10_000));
    texts.push("\u{1f600}".repeat(101));
    texts
}

/// Identifiers of that sort: of the kind that stands at the place, of an alarm and of a target, whose keys are text.
pub fn identifiers(sample: &Value) -> Vec<String> {
    let own = sample.as_str().and_then(global_id::decode).map(|(kind, _)| kind);
    let mut kinds: Vec<ResourceKind> = vec![ResourceKind::Alarm, ResourceKind::NotificationTarget];
    kinds.extend(own.filter(|own| !kinds.contains(own)));
    let keys = ["", "\0", "\0/1", "node1/\0", "' OR 1=1 --/7", "node1/99999999999", "x"];
    kinds.iter().flat_map(|kind| keys.map(|key| global_id::encode(*kind, key))).collect()
}

/// Numbers that no well-meaning client sends.
pub fn numbers() -> Vec<Value> {
    let mut numbers = vec![json!(-1), json!(1.5), json!("1"), json!(true), json!([1]), json!({ "a": 1 })];
    for text in ["2147483648", "4294967295", "4294967296", "9007199254740993", "9223372036854775807", "1e300"] {
        numbers.push(serde_json::from_str(text).unwrap());
    }
    numbers
}

/// Where a text is shown again under another name than it was sent, and where it is not shown at all.
pub fn shown_at(mutation: &str, way: &str) -> Option<String> {
    let elsewhere = match (mutation, way) {
        // Secrets
        (_, "password" | "credentials.password") => return None,
        // The list of who gets a report is no part of its run.
        ("reportRun", "recipients.0") => return None,
        (_, "credentials.username") => "username",
        ("alarmAcknowledge", "note") => "acknowledgement.note",
        ("billingFileAcknowledge", "reason") => "acknowledgement.reason",
        (_, same) => same,
    };
    Some(elsewhere.to_owned())
}

/// The object's type in the schema.
pub fn type_of(id: &str) -> String {
    let (kind, _) = global_id::decode(id).unwrap_or_else(|| panic!("no identifier: {id}"));
    kind.as_str().split('_').map(|word| word.get(..1).unwrap().to_ascii_uppercase() + word.get(1..).unwrap()).collect()
}

/// The steps before a list and the name of its mutation, for messages.
pub fn place(mutation: &str, way: &[Step]) -> String {
    format!("{mutation}({})", told(way))
}

/// The name of a field of the schema.
pub fn name(field: &Value) -> &str {
    text(&field["name"])
}
