//! Tenants as a YAML file: accounts with all that hangs below them, nested as they are. It is another form of the lines
//! of a bulk job: each object becomes a line that puts it.

use std::collections::BTreeMap;

use provisioning::bulk::job::LINES_MAX;
use provisioning::bulk::{AccountName, Fields, Kind};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value, json};

/// Nodes of a file: as many lines as a job has, each with all fields.
const NODES_MAX: usize = 40 * LINES_MAX as usize;

/// Left out, or a value that may be null.
type Given<T> = Option<Option<T>>;

fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Given<T>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// A file.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tenants {
    /// What the account of the token itself has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    numbers: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    sites: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    domains: Vec<Domain>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    accounts: Vec<Account>,
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Account {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timezone: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    currency: Option<String>,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    call_limit: Given<u32>,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    subscriber_quota: Given<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    enabled: Option<bool>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    numbers: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    sites: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    domains: Vec<Domain>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    accounts: Vec<Account>,
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Domain {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    country_code: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    national_prefix: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    international_prefix: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    subscribers: Vec<Subscriber>,
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Subscriber {
    username: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    display_name: Option<String>,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    site: Given<String>,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    extension: Given<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    password: Option<String>,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    call_limit: Given<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    enabled: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    numbers: Option<Vec<String>>,
}

/// What hangs below one account.
struct Below<'a> {
    numbers: &'a [String],
    sites: &'a [String],
    domains: &'a [Domain],
    accounts: &'a [Account],
}

impl Tenants {
    /// Reads a file.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut options = serde_saphyr::Options::default();
        // A line of the file may hold a password.
        options.with_snippet = false;
        if let Some(budget) = &mut options.budget {
            (budget.max_nodes, budget.max_events) = (NODES_MAX, 2 * NODES_MAX);
        }
        serde_saphyr::from_str_with_options(text, options).map_err(|error| error.to_string())
    }

    /// Writes one.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn to_yaml(&self) -> Result<String, String> {
        serde_saphyr::to_string(self).map_err(|error| error.to_string())
    }

    /// The lines of a bulk job, in an order in which they can be done.
    #[must_use]
    pub fn lines(&self) -> Vec<Fields> {
        let Self { numbers, sites, domains, accounts } = self;
        let mut lines = Vec::new();
        lines_below(&[], &Below { numbers, sites, domains, accounts }, &mut lines);
        lines
    }

    /// From the lines of an export.
    #[must_use]
    pub fn of_lines(lines: &[Map<String, Value>]) -> Self {
        let mut tenants = Self::default();
        let of = |kind: Kind| lines.iter().filter(move |line| text(line, "kind").as_deref() == Some(kind.as_str()));
        for line in of(Kind::Account) {
            let names = names(line);
            let Some((name, above)) = names.split_last() else { continue };
            let account = Account {
                name: name.clone(),
                kind: text(line, "accountKind"),
                timezone: text(line, "timezone"),
                currency: text(line, "currency"),
                call_limit: number(line, "callLimit"),
                subscriber_quota: number(line, "subscriberQuota"),
                enabled: line.get("enabled").and_then(Value::as_bool),
                ..Account::default()
            };
            tenants.at(above, |below| below.accounts.push(account));
        }
        for line in of(Kind::Site) {
            tenants.at(&names(line), |below| below.sites.extend(text(line, "site")));
        }
        for line in of(Kind::Number) {
            tenants.at(&names(line), |below| below.numbers.extend(text(line, "number")));
        }
        let mut subscribers: BTreeMap<String, Vec<Subscriber>> = BTreeMap::new();
        for line in of(Kind::Subscriber) {
            let list = line.get("numbers").and_then(Value::as_array);
            let list = list.map(|list| list.iter().filter_map(Value::as_str).map(str::to_owned).collect());
            let subscriber = Subscriber {
                username: text(line, "username").unwrap_or_default(),
                display_name: text(line, "displayName"),
                site: line.get("site").map(|site| site.as_str().map(str::to_owned)),
                extension: line.get("extension").map(|extension| extension.as_str().map(str::to_owned)),
                password: None,
                call_limit: number(line, "callLimit"),
                enabled: line.get("enabled").and_then(Value::as_bool),
                numbers: list,
            };
            subscribers.entry(text(line, "domain").unwrap_or_default()).or_default().push(subscriber);
        }
        for line in of(Kind::Domain) {
            let name = text(line, "domain").unwrap_or_default();
            let domain = Domain {
                country_code: text(line, "countryCode"),
                national_prefix: text(line, "nationalPrefix"),
                international_prefix: text(line, "internationalPrefix"),
                subscribers: subscribers.remove(&name).unwrap_or_default(),
                name,
            };
            tenants.at(&names(line), |below| below.domains.push(domain));
        }
        tenants
    }

    /// Puts something below an account; an account that is not there is passed over, as its line would have been.
    fn at(&mut self, names: &[String], put: impl FnOnce(BelowMut<'_>)) {
        let Self { numbers, sites, domains, accounts } = self;
        let mut below = BelowMut { numbers, sites, domains, accounts };
        for name in names {
            let Some(account) = below.accounts.iter_mut().find(|account| account.name == *name) else { return };
            let Account { numbers, sites, domains, accounts, .. } = account;
            below = BelowMut { numbers, sites, domains, accounts };
        }
        put(below);
    }
}

/// What hangs below one account, to be added to.
struct BelowMut<'a> {
    numbers: &'a mut Vec<String>,
    sites: &'a mut Vec<String>,
    domains: &'a mut Vec<Domain>,
    accounts: &'a mut Vec<Account>,
}

fn lines_below(above: &[String], below: &Below<'_>, lines: &mut Vec<Fields>) {
    let account = || Some(json!(AccountName::new(above.to_vec()).to_string()));
    for number in below.numbers {
        let kind = Some(json!(Kind::Number.as_str()));
        lines.push(Fields::of([("kind", kind), ("account", account()), ("number", Some(json!(number)))]));
    }
    for site in below.sites {
        let kind = Some(json!(Kind::Site.as_str()));
        lines.push(Fields::of([("kind", kind), ("account", account()), ("site", Some(json!(site)))]));
    }
    for domain in below.domains {
        lines.push(Fields::of([
            ("kind", Some(json!(Kind::Domain.as_str()))),
            ("account", account()),
            ("domain", Some(json!(domain.name))),
            ("countryCode", domain.country_code.as_ref().map(|code| json!(code))),
            ("nationalPrefix", domain.national_prefix.as_ref().map(|prefix| json!(prefix))),
            ("internationalPrefix", domain.international_prefix.as_ref().map(|prefix| json!(prefix))),
        ]));
        lines.extend(domain.subscribers.iter().map(|subscriber| subscriber_line(&domain.name, subscriber)));
    }
    for account in below.accounts {
        let names = [above, std::slice::from_ref(&account.name)].concat();
        lines.push(Fields::of([
            ("kind", Some(json!(Kind::Account.as_str()))),
            ("account", Some(json!(AccountName::new(names.clone()).to_string()))),
            ("accountKind", account.kind.as_ref().map(|kind| json!(kind))),
            ("timezone", account.timezone.as_ref().map(|timezone| json!(timezone))),
            ("currency", account.currency.as_ref().map(|currency| json!(currency))),
            ("callLimit", account.call_limit.map(|limit| json!(limit))),
            ("subscriberQuota", account.subscriber_quota.map(|quota| json!(quota))),
            ("enabled", account.enabled.map(|enabled| json!(enabled))),
        ]));
        let Account { numbers, sites, domains, accounts, .. } = account;
        lines_below(&names, &Below { numbers, sites, domains, accounts }, lines);
    }
}

fn subscriber_line(domain: &str, subscriber: &Subscriber) -> Fields {
    Fields::of([
        ("kind", Some(json!(Kind::Subscriber.as_str()))),
        ("domain", Some(json!(domain))),
        ("username", Some(json!(subscriber.username))),
        ("displayName", subscriber.display_name.as_ref().map(|name| json!(name))),
        ("site", subscriber.site.as_ref().map(|site| json!(site))),
        ("extension", subscriber.extension.as_ref().map(|extension| json!(extension))),
        ("password", subscriber.password.as_ref().map(|password| json!(password))),
        ("callLimit", subscriber.call_limit.map(|limit| json!(limit))),
        ("enabled", subscriber.enabled.map(|enabled| json!(enabled))),
        ("numbers", subscriber.numbers.as_ref().map(|numbers| json!(numbers))),
    ])
}

fn names(line: &Map<String, Value>) -> Vec<String> {
    let name = text(line, "account").and_then(|name| AccountName::parse("account", &name).ok());
    name.map(|name| name.names().to_vec()).unwrap_or_default()
}

fn text(line: &Map<String, Value>, field: &str) -> Option<String> {
    line.get(field).and_then(Value::as_str).map(str::to_owned)
}

fn number(line: &Map<String, Value>, field: &str) -> Given<u32> {
    line.get(field).map(|value| value.as_u64().and_then(|value| value.try_into().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
numbers: ["+43720000100"]
accounts:
  - name: Quay/Hotel
    kind: customer
    timezone: Europe/Vienna
    currency: EUR
    callLimit: null
    sites: [Front desk]
    domains:
      - name: quay.example
        countryCode: 43
        nationalPrefix: 0
        internationalPrefix: 00
        subscribers:
          - username: 0100
            extension: 0100
            numbers: ["+43720000100"]
          - username: no
            site: null
"#;

    fn maps(lines: &[Fields]) -> Vec<Map<String, Value>> {
        lines.iter().map(|line| serde_json::from_str(&line.to_json()).expect("JSON")).collect()
    }

    #[test]
    fn a_file_is_lines_and_lines_are_a_file() {
        let tenants = Tenants::parse(FILE).expect("YAML");
        let lines = maps(&tenants.lines());
        let expected = [
            json!({ "kind": "number", "account": ".", "number": "+43720000100" }),
            json!({ "kind": "account", "account": "Quay%2FHotel", "accountKind": "customer",
                "timezone": "Europe/Vienna", "currency": "EUR", "callLimit": null }),
            json!({ "kind": "site", "account": "Quay%2FHotel", "site": "Front desk" }),
            json!({ "kind": "domain", "account": "Quay%2FHotel", "domain": "quay.example", "countryCode": "43",
                "nationalPrefix": "0", "internationalPrefix": "00" }),
            // digits stay as they are written, and `no` is a name
            json!({ "kind": "subscriber", "domain": "quay.example", "username": "0100", "extension": "0100",
                "numbers": ["+43720000100"] }),
            json!({ "kind": "subscriber", "domain": "quay.example", "username": "no", "site": null }),
        ];
        assert_eq!(lines.into_iter().map(Value::Object).collect::<Vec<_>>(), expected);
        let again = Tenants::of_lines(&maps(&tenants.lines()));
        assert_eq!(again, tenants);
        let yaml = again.to_yaml().expect("YAML");
        assert_eq!(Tenants::parse(&yaml).as_ref(), Ok(&tenants), "{yaml}");
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let message = Tenants::parse("accounts:\n  - name: a\n    colour: red\n").expect_err("no such field");
        assert!(message.contains("colour") && message.contains('3'), "{message}");
    }
}
