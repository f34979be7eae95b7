//! Who lives in the demo: one provider, two resellers, three customers, twenty subscribers, a trunk and a tariff.
//! Everything is provisioned through GraphQL, each reseller's part with the reseller's own token.

use std::net::SocketAddr;

use model::secret::Secret;
use serde_json::json;

use crate::client::{Client, ClientError};

/// Permissions of a reseller in the demo.
const RESELLER_PERMISSIONS: [&str; 7] = [
    "provisioning:read",
    "provisioning:write",
    "billing:read",
    "alarm:read",
    "report:read",
    "token:write",
    "audit:read",
];
/// Permissions of the BSS that pulls files.
const BSS_PERMISSIONS: [&str; 2] = ["billing:read", "billing:acknowledge"];
/// The zone of everybody in the demo.
pub const TIMEZONE: &str = "Europe/Vienna";
/// The name of the stream of all charges to customers.
pub const STREAM_NAME: &str = "retail";
/// The monthly report goes to this address.
pub const OPERATIONS_MAIL: &str = "operations@demo.example";

/// A price of the demo's tariff, as it is sent, and for the demo's own sums.
#[derive(Debug, Clone, Copy)]
pub struct Price {
    /// Prefix, or the name of calls inside one customer.
    pub prefix: &'static str,
    /// For people.
    pub description: &'static str,
    /// Per call, in 10⁻⁶ units.
    pub connect_fee: i64,
    /// Per minute, in 10⁻⁶ units.
    pub per_minute: i64,
    /// First charged time, milliseconds.
    pub initial_ms: i64,
    /// Increments after it, milliseconds.
    pub increment_ms: i64,
}

/// The tariff. Prices per minute are multiples of 60 units of 10⁻⁶, so that the demo can count in whole units.
pub const PRICES: [Price; 4] = [
    Price {
        prefix: "onnet",
        description: "Within the customer",
        connect_fee: 0,
        per_minute: 6_000,
        initial_ms: 1_000,
        increment_ms: 1_000,
    },
    Price {
        prefix: "43",
        description: "Austria",
        connect_fee: 10_000,
        per_minute: 30_000,
        initial_ms: 1_000,
        increment_ms: 1_000,
    },
    Price {
        prefix: "49",
        description: "Germany",
        connect_fee: 20_000,
        per_minute: 90_000,
        initial_ms: 30_000,
        increment_ms: 6_000,
    },
    Price {
        prefix: "4930",
        description: "Germany, Berlin",
        connect_fee: 20_000,
        per_minute: 60_000,
        initial_ms: 1_000,
        increment_ms: 1_000,
    },
];

impl Price {
    /// What an answered call of `duration_ms` costs by this price, in 10⁻⁶ units: the demo's own sum, independent of the
    /// rater's.
    #[must_use]
    pub const fn cost(&self, duration_ms: i64) -> i64 {
        let over = duration_ms - self.initial_ms;
        let increments = if over > 0 { (over + self.increment_ms - 1) / self.increment_ms } else { 0 };
        let billed_ms = self.initial_ms + increments * self.increment_ms;
        self.connect_fee + self.per_minute * billed_ms / 60_000
    }
}

/// A subscriber and how it registers.
#[derive(Debug, Clone)]
pub struct Phone {
    /// Index of its customer in [`World::customers`].
    pub customer: usize,
    /// User part.
    pub username: String,
    /// Short number.
    pub extension: String,
    /// Its number, `+` and digits.
    pub number: String,
    /// Its password.
    pub password: Secret<String>,
}

/// A customer of the demo.
#[derive(Debug, Clone)]
pub struct Customer {
    /// Global identifier of its account.
    pub account: String,
    /// Its name.
    pub name: &'static str,
    /// Its SIP domain.
    pub domain: &'static str,
    /// Index of its reseller.
    pub reseller: usize,
}

/// A reseller of the demo.
#[derive(Debug, Clone)]
pub struct Reseller {
    /// Global identifier of its account.
    pub account: String,
    /// Its name.
    pub name: &'static str,
    /// A client with the reseller's own token.
    pub client: Client,
    /// The token.
    pub token: Secret<String>,
}

/// What was provisioned.
#[derive(Debug)]
pub struct World {
    /// A client with the provider's token.
    pub provider: Client,
    /// Global identifier of the provider's account.
    pub provider_account: String,
    /// North and South.
    pub resellers: Vec<Reseller>,
    /// Alpha and Beta (North), Gamma (South).
    pub customers: Vec<Customer>,
    /// All subscribers.
    pub phones: Vec<Phone>,
    /// Global identifier of the trunk.
    pub trunk: String,
    /// Global identifier of the stream.
    pub stream: String,
    /// A client that may only read billing.
    pub bss: Client,
    /// Its token.
    pub bss_token: Secret<String>,
}

impl World {
    /// Phones of one customer.
    pub fn phones_of(&self, customer: usize) -> impl Iterator<Item = &Phone> {
        self.phones.iter().filter(move |phone| phone.customer == customer)
    }
}

/// `(name, domain, reseller, subscribers, first digits of the numbers)`. Alpha and Beta both have an extension 100.
const CUSTOMERS: [(&str, &str, usize, u32, &str); 3] = [
    ("Alpha GmbH", "alpha.example", 0, 8, "+43720100"),
    ("Beta OG", "beta.example", 0, 6, "+43720200"),
    ("Gamma AG", "gamma.example", 1, 6, "+43720300"),
];
const RESELLERS: [&str; 2] = ["North", "South"];

/// Provisions the demo's world.
///
/// # Errors
/// When a request fails or is refused.
pub async fn provision(
    provider: Client,
    provider_account: &str,
    trunk_address: SocketAddr,
) -> Result<World, ClientError> {
    let tariff = tariff(&provider, provider_account).await?;
    let assigned = json!({ "tariffId": tariff, "accountId": provider_account, "validFrom": "2020-01-01T00:00:00Z" });
    provider.mutate("tariffAssign", assigned).await?;
    let trunk = json!({
        "accountId": provider_account, "name": "carrier-a", "address": trunk_address.to_string(),
        "callLimit": 100, "priority": 1, "keepaliveMs": 500,
    });
    let trunk = provider.mutate("trunkCreate", trunk).await?.id;
    let stream = json!({ "accountId": provider_account, "name": STREAM_NAME, "side": "SELL", "closePeriodMs": 0 });
    let stream = provider.mutate("streamCreate", stream).await?.id;
    let bss_token = token(&provider, provider_account, "bss", &BSS_PERMISSIONS).await?;

    let mut resellers = Vec::new();
    for name in RESELLERS {
        let account = account(&provider, provider_account, "RESELLER", name).await?;
        let token = token(&provider, &account, "reseller", &RESELLER_PERMISSIONS).await?;
        let client = provider.with_token(token.clone());
        resellers.push(Reseller { account, name, client, token });
    }
    let (mut customers, mut phones) = (Vec::new(), Vec::new());
    for (index, (name, domain, reseller, count, digits)) in CUSTOMERS.into_iter().enumerate() {
        let Some(owner) = resellers.get(reseller) else { continue };
        let account = account(&owner.client, &owner.account, "CUSTOMER", name).await?;
        phones.extend(customer(&owner.client, index, &account, domain, count, digits).await?);
        customers.push(Customer { account, name, domain, reseller });
    }
    let bss = provider.with_token(bss_token.clone());
    Ok(World {
        provider,
        provider_account: provider_account.to_owned(),
        resellers,
        customers,
        phones,
        trunk,
        stream,
        bss,
        bss_token,
    })
}

async fn account(client: &Client, parent: &str, kind: &str, name: &str) -> Result<String, ClientError> {
    let input = json!({ "parentId": parent, "kind": kind, "name": name, "timezone": TIMEZONE, "currency": "EUR" });
    Ok(client.mutate("accountCreate", input).await?.id)
}

async fn token(client: &Client, account: &str, name: &str, rights: &[&str]) -> Result<Secret<String>, ClientError> {
    let input = json!({ "accountId": account, "name": name, "permissions": rights });
    client.mutate("tokenIssue", input).await?.secret.ok_or(ClientError::Missing("token"))
}

async fn tariff(client: &Client, account: &str) -> Result<String, ClientError> {
    let decimal = |units: i64| format!("{}.{:06}", units / 1_000_000, units % 1_000_000);
    let rates: Vec<_> = PRICES
        .iter()
        .map(|price| {
            json!({
                "prefix": price.prefix, "description": price.description,
                "connectFee": decimal(price.connect_fee), "price": decimal(price.per_minute), "perMs": 60_000,
                "initialMs": price.initial_ms, "incrementMs": price.increment_ms,
            })
        })
        .collect();
    let input = json!({
        "accountId": account, "name": "Standard", "currency": "EUR",
        "rounding": { "mode": "HALF_UP", "decimals": 4 }, "rates": rates,
    });
    Ok(client.mutate("tariffCreate", input).await?.id)
}

async fn customer(
    client: &Client,
    index: usize,
    account: &str,
    domain: &str,
    count: u32,
    digits: &str,
) -> Result<Vec<Phone>, ClientError> {
    let plan = json!({ "countryCode": "43", "nationalPrefix": "0", "internationalPrefix": "00" });
    let domain =
        client.mutate("domainCreate", json!({ "accountId": account, "name": domain, "dialPlan": plan })).await?.id;
    let site = client.mutate("siteCreate", json!({ "accountId": account, "name": "Headquarters" })).await?.id;
    let mut phones = Vec::new();
    for n in 0..count {
        let extension = (100 + n).to_string();
        let phone = Phone {
            customer: index,
            username: format!("phone{extension}"),
            number: format!("{digits}{extension}"),
            password: Secret::new(format!("demo-{index}-{extension}-secret")),
            extension,
        };
        let input = json!({
            "domainId": domain, "siteId": site, "username": phone.username,
            "displayName": format!("Phone {}", phone.extension), "extension": phone.extension,
            "password": phone.password.expose(),
        });
        let subscriber = client.mutate("subscriberCreate", input).await?.id;
        let number = json!({ "accountId": account, "e164": phone.number, "subscriberId": subscriber });
        client.mutate("numberCreate", number).await?;
        phones.push(phone);
    }
    Ok(phones)
}
