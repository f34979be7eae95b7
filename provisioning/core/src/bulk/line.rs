//! A line with types: what is to be done, and to what.

use std::fmt;
use std::str::FromStr;

use model::change::{Refusal, RefusalCode};
use model::domain::SipDomain;
use model::money::Currency;
use model::number::{E164, Extension};
use model::secret::Secret;
use model::tenancy::AccountKind;

use super::field::Fields;
use super::name::AccountName;

/// Numbers of one subscriber in one line.
const NUMBERS_MAX: usize = 100;

/// What is to be done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Action {
    /// There is such an object afterwards: it is made when it is missing, and changed where it differs. What a line leaves
    /// out stays.
    #[default]
    Put,
    /// It is made; refused when it is there.
    Create,
    /// It is changed; refused when it is missing.
    Update,
    /// It goes; refused when it is missing.
    Delete,
}

impl FromStr for Action {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "put" => Ok(Self::Put),
            "create" => Ok(Self::Create),
            "update" => Ok(Self::Update),
            "delete" => Ok(Self::Delete),
            _ => Err("an action is put, create, update or delete"),
        }
    }
}

/// What kind of object a line is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// An account.
    Account,
    /// A SIP domain.
    Domain,
    /// A site.
    Site,
    /// A subscriber, with its numbers.
    Subscriber,
    /// A number.
    Number,
}

impl Kind {
    /// All, in the order in which they can be made: a subscriber takes numbers that are not there into its customer's
    /// inventory.
    pub const ALL: [Self; 5] = [Self::Account, Self::Domain, Self::Site, Self::Number, Self::Subscriber];

    /// The name in a line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Account => "account",
            Self::Domain => "domain",
            Self::Site => "site",
            Self::Subscriber => "subscriber",
            Self::Number => "number",
        }
    }
}

impl FromStr for Kind {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|kind| kind.as_str() == text);
        found.ok_or("a kind is account, domain, site, subscriber or number")
    }
}

/// A line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// What is to be done.
    pub action: Action,
    /// To what.
    pub object: Object,
}

/// The object of a line: by which names it is known, and what it is to be. None: the line does not say.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of the resources, documented there")]
pub enum Object {
    /// Known by `name`.
    Account {
        name: AccountName,
        kind: Option<AccountKind>,
        timezone: Option<String>,
        currency: Option<Currency>,
        call_limit: Option<Option<u32>>,
        subscriber_quota: Option<Option<u32>>,
        enabled: Option<bool>,
    },
    /// Known by `name`.
    Domain {
        name: SipDomain,
        account: Option<AccountName>,
        country_code: Option<String>,
        national_prefix: Option<String>,
        international_prefix: Option<String>,
    },
    /// Known by `account` and `name`.
    Site { account: AccountName, name: String },
    /// Known by `address`. `numbers`: all that it answers from now on.
    Subscriber {
        address: AddressOfRecord,
        display_name: Option<String>,
        site: Option<Option<String>>,
        extension: Option<Option<Extension>>,
        password: Option<Secret<String>>,
        call_limit: Option<Option<u32>>,
        enabled: Option<bool>,
        numbers: Option<Vec<E164>>,
    },
    /// Known by `number`.
    Number { number: E164, account: Option<AccountName>, subscriber: Option<Option<AddressOfRecord>> },
}

/// User and domain of a subscriber.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AddressOfRecord {
    /// The user part.
    pub username: String,
    /// The domain.
    pub domain: SipDomain,
}

impl fmt::Display for AddressOfRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.username, self.domain)
    }
}

impl FromStr for AddressOfRecord {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (username, domain) = text.split_once('@').ok_or("an address is user@domain")?;
        let domain = domain.parse().map_err(|error: <SipDomain as FromStr>::Err| error.to_string())?;
        Ok(Self { username: username.to_owned(), domain })
    }
}

impl Line {
    /// Gives the fields their types.
    ///
    /// # Errors
    /// All that is wrong with the line.
    pub fn parse(mut fields: Fields) -> Result<Self, Vec<Refusal>> {
        let action = fields.parsed("action").unwrap_or_default();
        let Some(kind) = fields.parsed::<Kind>("kind") else {
            let missing = "send account, domain, site, subscriber or number";
            return Err(vec![Refusal::new(
                RefusalCode::Invalid,
                "kind",
                "the kind of the object is not known",
                missing,
            )]);
        };
        // what an export tells beside: where it stands, nothing that is asked for
        fields.text("id");
        let object = match kind {
            Kind::Account => account(&mut fields),
            Kind::Domain => domain(&mut fields),
            Kind::Site => site(&mut fields),
            Kind::Subscriber => subscriber(&mut fields),
            Kind::Number => number(&mut fields),
        };
        fields.finish(&format!("a {}", kind.as_str()))?;
        let remedy = "send the fields by which it is known";
        object.map(|object| Self { action, object }).ok_or_else(|| {
            vec![Refusal::new(RefusalCode::Invalid, "", "the line does not say which object it is about", remedy)]
        })
    }
}

fn account_name(fields: &mut Fields) -> Option<AccountName> {
    let text = fields.text("account")?;
    match AccountName::parse("account", &text) {
        Ok(name) => Some(name),
        Err(Refusal { message, remedy, .. }) => {
            fields.refuse("account", message, remedy);
            None
        }
    }
}

fn account_kind(fields: &mut Fields) -> Option<AccountKind> {
    fields.parsed("accountKind")
}

fn account(fields: &mut Fields) -> Option<Object> {
    let object = Object::Account {
        name: account_name(fields).unwrap_or_default(),
        kind: account_kind(fields),
        timezone: fields.text("timezone"),
        currency: fields.parsed("currency"),
        call_limit: fields.nullable("callLimit", Fields::count),
        subscriber_quota: fields.nullable("subscriberQuota", Fields::count),
        enabled: fields.truth("enabled"),
    };
    if matches!(&object, Object::Account { name, .. } if name.names().is_empty()) {
        fields.refuse("account", "the account of the token itself cannot be a line", "name an account below it");
    }
    Some(object)
}

fn domain(fields: &mut Fields) -> Option<Object> {
    let name = fields.required("domain");
    let name = match name.parse() {
        Ok(name) => Some(name),
        Err(error) => {
            let error: <SipDomain as FromStr>::Err = error;
            if !name.is_empty() {
                fields.refuse("domain", error.to_string(), "send a host name");
            }
            None
        }
    };
    let (account, country_code) = (account_name(fields), fields.text("countryCode"));
    let (national_prefix, international_prefix) = (fields.text("nationalPrefix"), fields.text("internationalPrefix"));
    Some(Object::Domain { name: name?, account, country_code, national_prefix, international_prefix })
}

fn site(fields: &mut Fields) -> Option<Object> {
    let name = fields.required("site");
    let Some(account) = account_name(fields) else {
        fields.refuse("account", "it is missing", "name the customer");
        return None;
    };
    Some(Object::Site { account, name })
}

fn subscriber(fields: &mut Fields) -> Option<Object> {
    let username = fields.required("username");
    let domain = fields.required("domain");
    let domain = match domain.parse::<SipDomain>() {
        Ok(domain) => Some(domain),
        Err(error) => {
            if !domain.is_empty() {
                fields.refuse("domain", error.to_string(), "send a host name");
            }
            None
        }
    };
    // an export tells whose it is; the domain says it
    account_name(fields);
    let numbers = fields.list("numbers");
    if numbers.as_ref().is_some_and(|numbers: &Vec<E164>| numbers.len() > NUMBERS_MAX) {
        let remedy = "send the others in lines of their own, of the kind number";
        fields.refuse("numbers", format!("a line has at most {NUMBERS_MAX} numbers"), remedy);
    }
    let (display_name, password) = (fields.text("displayName"), fields.text("password").map(Secret::new));
    let (site, call_limit) = (fields.nullable("site", Fields::text), fields.nullable("callLimit", Fields::count));
    let extension = fields.nullable("extension", Fields::parsed);
    let enabled = fields.truth("enabled");
    let address = AddressOfRecord { username, domain: domain? };
    Some(Object::Subscriber { address, display_name, site, extension, password, call_limit, enabled, numbers })
}

fn number(fields: &mut Fields) -> Option<Object> {
    let number = fields.parsed("number");
    let (account, subscriber) = (account_name(fields), fields.nullable("subscriber", Fields::parsed));
    Some(Object::Number { number: number?, account, subscriber })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> Result<Line, Vec<(String, String)>> {
        let said = |r: Vec<Refusal>| r.into_iter().map(|r| (r.field, r.message)).collect();
        Line::parse(Fields::from_json(text).expect("JSON")).map_err(said)
    }

    #[test]
    fn a_line_tells_all_that_is_wrong_with_it() {
        let line = r#"{"kind":"subscriber","username":"100","domain":"-","extension":"1","callLimit":"many",
            "enabled":"yes","numbers":["+1","12"],"colour":"red","timezone":"UTC","account":"%"}"#;
        let wrong = parsed(line).expect_err("much is wrong");
        let fields: Vec<&str> = wrong.iter().map(|(field, _)| field.as_str()).collect();
        let expected = [
            "domain",
            "account",
            "numbers[0]",
            "numbers[1]",
            "callLimit",
            "extension",
            "enabled",
            "colour",
            "timezone",
        ];
        assert_eq!(fields, expected, "{wrong:?}");
        assert_eq!(parsed("{}").expect_err("no kind")[0].0, "kind");
        assert_eq!(parsed(r#"{"kind":"account"}"#).expect_err("which")[0].0, "account");
        assert_eq!(parsed(r#"{"kind":"site","account":"."}"#).expect_err("which")[0].0, "site");
        assert_eq!(
            parsed(r#"{"kind":"number"}"#).expect_err("which")[0].1,
            "the line does not say which object it is about"
        );
    }

    #[test]
    fn left_out_is_not_taken_away() {
        let line = parsed(r#"{"kind":"subscriber","username":"100","domain":"a.example","site":null,"extension":100}"#);
        let Ok(Line { action: Action::Put, object: Object::Subscriber { site, extension, call_limit, .. } }) = line
        else {
            panic!("{line:?}")
        };
        assert_eq!((site, call_limit), (Some(None), None));
        assert_eq!(extension.flatten().as_ref().map(Extension::as_str), Some("100"));
    }

    proptest! {
        #[test]
        fn no_line_panics(
            kind in "account|domain|site|subscriber|number",
            fields in proptest::collection::btree_map(
                proptest::sample::select(super::super::field::columns()), "null|true|7|\"\\PC{0,8}\"|\\[\"a\"\\]", 0..10),
        ) {
            let fields: Vec<String> = fields.iter().filter(|(n, _)| **n != "kind").map(|(n, v)| format!("{n:?}:{v}")).collect();
            let text = format!("{{\"kind\":{kind:?}{}{}}}", if fields.is_empty() { "" } else { "," }, fields.join(","));
            if let Ok(fields) = Fields::from_json(&text) {
                drop(Line::parse(fields));
            }
        }
    }
}
