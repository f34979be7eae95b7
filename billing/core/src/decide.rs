//! The decisions behind the commands: pure functions from what the store found to a plan or a refusal.

use std::collections::HashSet;

use model::actor::Permission;
use model::change::{
    Effect, EffectKind, Plan, Refusal, RefusalCode, ResourceKind, ResourceRef, ResourceVersion, Reversibility,
};
use model::id::AccountId;
use model::money::AMOUNT_DECIMALS;
use model::tenancy::{AccountPath, Scope};
use model::text::is_deceptive;
use serde_json::{Value, json};

use crate::command::Command;
use crate::resource::{
    Acknowledgement, AssignmentTarget, BillingFile, ON_NET_PREFIX, Rate, Stream, Tariff, TariffAssignment,
};
use crate::tariff::{PREFIX_MAX, is_digits};

/// Rates of one command: a national price list. The larger deck comes by import, staged and flipped.
pub const RATES_MAX: usize = 10_000;
/// Characters of a name.
pub const NAME_MAX: usize = 100;
/// Characters of a description or reason.
pub const TEXT_MAX: usize = 500;
/// Characters of a stream's name, which is part of file names.
pub const STREAM_NAME_MAX: usize = 40;
/// The longest unit, initial period or increment: a day.
pub const PERIOD_MAX_MS: i64 = 86_400_000;
/// The shortest period after which a stream closes its file: a minute. Shorter ones make more files than records.
pub const CLOSE_PERIOD_MIN_MS: i64 = 60_000;
/// The longest: a year.
pub const CLOSE_PERIOD_MAX_MS: i64 = 366 * 86_400_000;
/// Open charges that one retry takes, the oldest first: what one short transaction rates.
pub const RETRY_MAX: i64 = 10_000;
/// Rates that a plan shows one by one; of a larger tariff it shows the count.
const RATES_SHOWN_MAX: usize = 100;
/// Refusals that are told: enough to see the pattern in a bad price list.
const REFUSALS_MAX: usize = 20;

/// An account, as far as decisions look at it. The store gives none for a foreign one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountView {
    /// Its identifier.
    pub id: AccountId,
    /// Where it sits.
    pub path: AccountPath,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: i64,
}

/// The target of an assignment: the account, or the trunk with its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetView {
    /// The account that is charged, or the owner of the trunk.
    pub account: AccountView,
    /// The resource itself and its version.
    pub version: ResourceVersion,
}

/// What was refused, one by one.
pub type Refusals = Vec<Refusal>;

fn invalid(field: &str, message: impl Into<String>, remedy: &str) -> Refusal {
    Refusal::new(RefusalCode::Invalid, field, message, remedy)
}

fn missing(field: &str, what: &str) -> Refusals {
    vec![Refusal::new(
        RefusalCode::NotFound,
        field,
        format!("there is no such {what}, or not for you"),
        "list what there is and take an identifier from there",
    )]
}

fn taken(what: &str, name: &str) -> Refusal {
    Refusal::new(
        RefusalCode::Conflict,
        "name",
        format!("the account has a {what} with the name {name:?}"),
        "choose another name",
    )
}

fn version_of(account: &AccountView) -> ResourceVersion {
    ResourceVersion {
        resource: ResourceRef { kind: ResourceKind::Account, id: account.id.uuid() },
        version: account.version,
    }
}

fn created(resource: ResourceRef, name: &str, after: Value) -> Effect {
    Effect { kind: EffectKind::Created, resource, name: name.to_owned(), before: None, after: Some(after) }
}

fn done<T>(refusals: Refusals, value: T) -> Result<T, Refusals> {
    if refusals.is_empty() { Ok(value) } else { Err(refusals.into_iter().take(REFUSALS_MAX).collect()) }
}

fn check_name(name: &str, refusals: &mut Refusals) {
    let length = name.chars().count();
    if !(1..=NAME_MAX).contains(&length) || name.trim() != name || name.chars().any(is_deceptive) {
        let message = format!("a name is 1 to {NAME_MAX} printable characters without spaces at its ends");
        refusals.push(invalid("name", message, "shorten or correct it"));
    }
}

/// The permission that a command needs.
#[must_use]
pub const fn required(command: &Command) -> Permission {
    match command {
        Command::FileAcknowledge { .. } => Permission::BillingAcknowledge,
        Command::TariffCreate { .. }
        | Command::TariffAssign { .. }
        | Command::StreamCreate { .. }
        | Command::FileClose { .. }
        | Command::SuspenseRetry { .. } => Permission::BillingWrite,
    }
}

/// A new tariff.
///
/// # Errors
/// Every reason why not, at most twenty.
pub fn tariff_create(account: Option<&AccountView>, name_taken: bool, tariff: &Tariff) -> Result<Plan, Refusals> {
    let account = account.ok_or_else(|| missing("account", "account"))?;
    let mut refusals = Vec::new();
    check_name(&tariff.name, &mut refusals);
    if name_taken {
        refusals.push(taken("tariff", &tariff.name));
    }
    if tariff.rounding.decimals > AMOUNT_DECIMALS {
        let message = format!("amounts have at most {AMOUNT_DECIMALS} decimal places");
        refusals.push(invalid("rounding.decimals", message, "round to 6 decimal places or fewer"));
    }
    if !(1..=RATES_MAX).contains(&tariff.rates.len()) {
        let message = format!("a tariff has 1 to {RATES_MAX} rates, not {}", tariff.rates.len());
        refusals.push(invalid("rates", message, "split the price list"));
    }
    let mut seen = HashSet::new();
    for (index, rate) in tariff.rates.iter().take(RATES_MAX).enumerate() {
        check_rate(index, rate, &mut refusals);
        if !seen.insert(&*rate.prefix) {
            let message = format!("the prefix {:?} stands twice", rate.prefix);
            refusals.push(invalid(&format!("rates[{index}].prefix"), message, "keep one of them"));
        }
        if refusals.len() >= REFUSALS_MAX {
            break;
        }
    }
    let plan = Plan {
        effects: vec![created(
            ResourceRef { kind: ResourceKind::Tariff, id: tariff.id.uuid() },
            &tariff.name,
            tariff_shown(tariff),
        )],
        versions: vec![version_of(account)],
        reversibility: Reversibility::Final("calls may be rated by it at once: end its assignments instead".to_owned()),
    };
    done(refusals, plan)
}

fn check_rate(index: usize, rate: &Rate, refusals: &mut Refusals) {
    let field = |name: &str| format!("rates[{index}].{name}");
    if rate.prefix != ON_NET_PREFIX && !is_digits(&rate.prefix) {
        let message = format!("a prefix is 1 to {PREFIX_MAX} digits without +, or {ON_NET_PREFIX}");
        refusals.push(invalid(&field("prefix"), message, "write 43 for Austria"));
    }
    if rate.description.chars().count() > TEXT_MAX || rate.description.chars().any(is_deceptive) {
        let message = format!("a description has at most {TEXT_MAX} printable characters");
        refusals.push(invalid(&field("description"), message, "shorten or correct it"));
    }
    for (name, price) in [("connectFee", rate.connect_fee), ("price", rate.price)] {
        if price.units() < 0 {
            refusals.push(invalid(&field(name), "a price is not negative", "give credits outside of the tariff"));
        }
    }
    for (name, ms) in [("perMs", rate.per_ms), ("initialMs", rate.initial_ms), ("incrementMs", rate.increment_ms)] {
        if !(1..=PERIOD_MAX_MS).contains(&ms) {
            let message = format!("must be 1 to {PERIOD_MAX_MS} milliseconds");
            refusals.push(invalid(&field(name), message, "write 60000 for a minute"));
        }
    }
}

fn tariff_shown(tariff: &Tariff) -> Value {
    let mut shown = json!({
        "account": tariff.account,
        "name": tariff.name,
        "currency": tariff.currency,
        "rounding": tariff.rounding,
        "rate_count": tariff.rates.len(),
    });
    if tariff.rates.len() <= RATES_SHOWN_MAX {
        shown["rates"] = json!(tariff.rates);
    }
    shown
}

/// An assignment of a tariff, by somebody with this `scope`. `tariff` comes with its owner; `existing` are the
/// assignments of the same target.
///
/// # Errors
/// Every reason why not.
pub fn tariff_assign(
    scope: &Scope,
    tariff: Option<(&Tariff, &AccountPath)>,
    target: Option<&TargetView>,
    existing: &[TariffAssignment],
    assignment: &TariffAssignment,
) -> Result<Plan, Refusals> {
    let (tariff, owner) = tariff.ok_or_else(|| missing("tariff", "tariff"))?;
    // Who pays must not be the one who sets the price. What a trunk's operator charges is its owner's to write down.
    let (payer, field) = match assignment.target {
        AssignmentTarget::Account(_) => (true, "account"),
        AssignmentTarget::Trunk(_) => (false, "trunk"),
    };
    let target = target.ok_or_else(|| missing(field, field))?;
    let mut refusals = Vec::new();
    let above = target.account.path.ancestry().into_iter().rev().nth(1);
    if payer && above.is_some_and(|above| !scope.contains(&above)) {
        let message = "what an account pays is set by the account above it";
        refusals.push(Refusal::new(RefusalCode::Forbidden, field, message, "ask the account above"));
    }
    if !owner.contains(&target.account.path) {
        let message = "a tariff is assigned at or below the account that owns it";
        refusals.push(invalid("tariff", message, "take a tariff of the account or of one above it"));
    }
    if assignment.valid_to.is_some_and(|to| to <= assignment.valid_from) {
        refusals.push(invalid("validTo", "the end must be after the begin", "leave it out for an open end"));
    }
    let ends_after = |a: &TariffAssignment, at| a.valid_to.is_none_or(|to| to > at);
    let overlaps = |other: &&TariffAssignment| {
        ends_after(other, assignment.valid_from) && ends_after(assignment, other.valid_from)
    };
    if let Some(other) = existing.iter().find(overlaps) {
        let to = other.valid_to.map_or_else(|| "open".to_owned(), |to| to.to_string());
        let message = format!("assignment {} holds from {} to {to}", other.id, other.valid_from);
        refusals.push(Refusal::new(RefusalCode::Conflict, "validFrom", message, "choose a time that is free"));
    }
    let name = format!("{} for {}", tariff.name, target.account.name);
    let after = json!({
        "tariff": assignment.tariff,
        "target": assignment.target,
        "valid_from": assignment.valid_from,
        "valid_to": assignment.valid_to,
    });
    let tariff_version = ResourceVersion {
        resource: ResourceRef { kind: ResourceKind::Tariff, id: tariff.id.uuid() },
        version: tariff.version,
    };
    let plan = Plan {
        effects: vec![created(
            ResourceRef { kind: ResourceKind::TariffAssignment, id: assignment.id.uuid() },
            &name,
            after,
        )],
        versions: vec![tariff_version, target.version],
        reversibility: Reversibility::Final("calls may be rated by it at once".to_owned()),
    };
    done(refusals, plan)
}

/// A new stream.
///
/// # Errors
/// Every reason why not.
pub fn stream_create(account: Option<&AccountView>, name_taken: bool, stream: &Stream) -> Result<Plan, Refusals> {
    let account = account.ok_or_else(|| missing("account", "account"))?;
    let mut refusals = Vec::new();
    let name = stream.name.as_bytes();
    let is_word = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let is_fine = (1..=STREAM_NAME_MAX).contains(&name.len())
        && name.iter().all(|b| is_word(b) || *b == b'-')
        && name.first().is_some_and(is_word)
        && name.last().is_some_and(is_word);
    if !is_fine {
        let message = format!("a stream's name is 1 to {STREAM_NAME_MAX} characters a-z 0-9 -, no - at its ends");
        refusals.push(invalid("name", message, "write retail-eur"));
    }
    if name_taken {
        refusals.push(taken("stream", &stream.name));
    }
    let period = stream.close_period_ms;
    if period != 0 && !(CLOSE_PERIOD_MIN_MS..=CLOSE_PERIOD_MAX_MS).contains(&period) {
        let message = format!("must be 0 or {CLOSE_PERIOD_MIN_MS} to {CLOSE_PERIOD_MAX_MS} milliseconds");
        refusals.push(invalid("closePeriodMs", message, "write 86400000 for a day, 0 to close on request only"));
    }
    let after = json!({
        "account": stream.account,
        "name": stream.name,
        "side": stream.side,
        "close_period_ms": stream.close_period_ms,
    });
    let plan = Plan {
        effects: vec![created(ResourceRef { kind: ResourceKind::Stream, id: stream.id.uuid() }, &stream.name, after)],
        versions: vec![version_of(account)],
        reversibility: Reversibility::Final("its files are numbered without a gap from now on".to_owned()),
    };
    done(refusals, plan)
}

/// The closing of a stream's open file; `file` is what it would be.
///
/// # Errors
/// When there is no such stream.
pub fn file_close(closing: Option<(&Stream, &BillingFile)>) -> Result<Plan, Refusals> {
    let (stream, file) = closing.ok_or_else(|| missing("stream", "stream"))?;
    let after = json!({
        "stream": file.stream,
        "sequence": file.sequence,
        "name": file.name,
        "closure_reason": file.closure_reason,
        "record_count": file.record_count,
        "billed_ms": file.billed_ms,
        "totals": file.totals,
    });
    let version = ResourceVersion {
        resource: ResourceRef { kind: ResourceKind::Stream, id: stream.id.uuid() },
        version: stream.version,
    };
    Ok(Plan {
        effects: vec![created(ResourceRef { kind: ResourceKind::BillingFile, id: file.id.uuid() }, &file.name, after)],
        versions: vec![version],
        reversibility: Reversibility::Final(
            "a closed file may have been fetched: corrections go to the next".to_owned(),
        ),
    })
}

/// What the BSS says of a file.
///
/// # Errors
/// When there is no such file, it is not published, or the reason does not fit.
pub fn file_acknowledge(file: Option<&BillingFile>, said: &Acknowledgement) -> Result<Plan, Refusals> {
    let file = file.ok_or_else(|| missing("file", "billing file"))?;
    let mut refusals = Vec::new();
    if !file.published {
        let message = "the file is closed but not published yet";
        refusals.push(Refusal::new(RefusalCode::Conflict, "file", message, "fetch it first"));
    }
    if said.reason.chars().count() > TEXT_MAX || said.reason.chars().any(is_deceptive) {
        let message = format!("a reason has at most {TEXT_MAX} printable characters");
        refusals.push(invalid("reason", message, "shorten or correct it"));
    }
    if !said.accepted && said.reason.trim().is_empty() {
        refusals.push(invalid("reason", "a rejection needs a reason", "say what is wrong and in which records"));
    }
    let shown = |said: &Acknowledgement| json!({ "accepted": said.accepted, "reason": said.reason, "by": said.by });
    let plan = Plan {
        effects: vec![Effect {
            kind: EffectKind::Updated,
            resource: ResourceRef { kind: ResourceKind::BillingFile, id: file.id.uuid() },
            name: file.name.clone(),
            before: Some(file.acknowledgement.as_ref().map_or(Value::Null, shown)),
            after: Some(shown(said)),
        }],
        versions: Vec::new(),
        reversibility: Reversibility::Final("what was said stays said: say otherwise".to_owned()),
    };
    done(refusals, plan)
}

/// What a retry of the suspense of an account finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retried {
    /// Open charges before.
    pub open: i64,
    /// Charges that were tried, at most [`RETRY_MAX`].
    pub tried: i64,
    /// Charges that have a price now.
    pub rated: i64,
}

/// The retry of what waits at and below an account.
///
/// # Errors
/// When there is no such account.
pub fn suspense_retry(account: Option<&AccountView>, retried: Retried) -> Result<Plan, Refusals> {
    let account = account.ok_or_else(|| missing("account", "account"))?;
    let Retried { open, tried, rated } = retried;
    Ok(Plan {
        effects: vec![Effect {
            kind: EffectKind::Updated,
            resource: ResourceRef { kind: ResourceKind::Account, id: account.id.uuid() },
            name: account.name.clone(),
            before: Some(json!({ "suspense_open": open })),
            after: Some(json!({ "suspense_open": open - rated, "tried": tried, "rated": rated })),
        }],
        versions: vec![version_of(account)],
        reversibility: Reversibility::Final("rated calls are charged".to_owned()),
    })
}

/// A command as octets, for the comparison of requests with the same idempotency key.
#[must_use]
pub fn request_bytes(command: &Command) -> Vec<u8> {
    let fields = match command {
        Command::TariffCreate { account, name, currency, rounding, rates } => {
            json!([account, name, currency, rounding, rates])
        }
        Command::TariffAssign { tariff, target, valid_from, valid_to } => json!([tariff, target, valid_from, valid_to]),
        Command::StreamCreate { account, name, side, close_period_ms } => json!([account, name, side, close_period_ms]),
        Command::FileClose { stream } => json!([stream]),
        Command::FileAcknowledge { file, accepted, reason } => json!([file, accepted, reason]),
        Command::SuspenseRetry { account } => json!([account]),
    };
    fields.to_string().into_bytes()
}

/// The resource that an assignment is for.
#[must_use]
pub const fn target_ref(target: AssignmentTarget) -> ResourceRef {
    match target {
        AssignmentTarget::Account(id) => ResourceRef { kind: ResourceKind::Account, id: id.uuid() },
        AssignmentTarget::Trunk(id) => ResourceRef { kind: ResourceKind::Trunk, id: id.uuid() },
    }
}

#[cfg(test)]
mod tests {
    use model::money::{Price, Rounding, RoundingMode};
    use model::time::Timestamp;

    use super::*;
    use crate::resource::Side;
    use crate::samples;

    fn account(n: u128) -> AccountView {
        let (id, path) = samples::account(n);
        AccountView { id, path, name: format!("Customer {n}"), version: 1 }
    }

    fn codes<T: std::fmt::Debug>(result: Result<T, Refusals>) -> Vec<(&'static str, String)> {
        result.unwrap_err().into_iter().map(|r| (r.code.as_str(), r.field)).collect()
    }

    fn rates(change: impl Fn(&mut Rate)) -> Vec<(&'static str, String)> {
        let mut rate = samples::rate("43", "0", "0.01");
        change(&mut rate);
        codes(tariff_create(Some(&account(2)), false, &samples::tariff(vec![rate])))
    }

    #[test]
    fn a_tariff_is_judged() {
        let good = samples::tariff(vec![samples::rate("43", "0", "0.01"), samples::rate("onnet", "0", "0")]);
        let plan = tariff_create(Some(&account(2)), false, &good).unwrap();
        assert_eq!((plan.effects.len(), plan.versions.len()), (1, 1));
        assert_eq!(codes(tariff_create(None, false, &good)), [("NOT_FOUND", "account".to_owned())]);
        assert_eq!(codes(tariff_create(Some(&account(2)), true, &good)), [("CONFLICT", "name".to_owned())]);
        let field = |name: &str| vec![("INVALID", format!("rates[0].{name}"))];
        for prefix in ["", "+43", "4 3", "ON-NET", "1234567890123456", "४३"] {
            assert_eq!(rates(|r| prefix.clone_into(&mut r.prefix)), field("prefix"), "{prefix}");
        }
        assert_eq!(rates(|r| r.price = Price::from_units(-1)), field("price"));
        assert_eq!(rates(|r| r.connect_fee = Price::from_units(-1)), field("connectFee"));
        assert_eq!(rates(|r| r.per_ms = 0), field("perMs"));
        assert_eq!(rates(|r| r.initial_ms = PERIOD_MAX_MS + 1), field("initialMs"));
        assert_eq!(rates(|r| r.increment_ms = -1), field("incrementMs"));
        let fine = Tariff { rounding: Rounding { mode: RoundingMode::Up, decimals: 7 }, ..good.clone() };
        assert_eq!(
            codes(tariff_create(Some(&account(2)), false, &fine)),
            [("INVALID", "rounding.decimals".to_owned())]
        );
        let twice = samples::tariff(vec![samples::rate("43", "0", "0"), samples::rate("43", "0", "1")]);
        assert_eq!(codes(tariff_create(Some(&account(2)), false, &twice)), [("INVALID", "rates[1].prefix".to_owned())]);
        let none = samples::tariff(Vec::new());
        assert_eq!(codes(tariff_create(Some(&account(2)), false, &none)), [("INVALID", "rates".to_owned())]);
        let many = samples::tariff((0..=RATES_MAX).map(|n| samples::rate(&format!("1{n}"), "0", "0")).collect());
        assert_eq!(codes(tariff_create(Some(&account(2)), false, &many)), [("INVALID", "rates".to_owned())]);
        let bad = samples::tariff((0..90).map(|n| samples::rate(&format!("x{n}"), "0", "0")).collect());
        assert_eq!(codes(tariff_create(Some(&account(2)), false, &bad)).len(), REFUSALS_MAX);
    }

    #[test]
    fn an_assignment_is_judged() {
        let tariff = samples::tariff(vec![samples::rate("43", "0", "0.01")]);
        let target = |n| {
            let account = account(n);
            TargetView { version: version_of(&account), account }
        };
        let root = account(2).path.ancestry().remove(0);
        let all = Scope::installation();
        let assignment = |from, to: Option<i64>| TariffAssignment {
            id: samples::id(40),
            tariff: tariff.id,
            target: AssignmentTarget::Account(account(2).id),
            valid_from: Timestamp(from),
            valid_to: to.map(Timestamp),
            version: 1,
        };
        let existing = [assignment(100, Some(200))];
        let check =
            |from, to| tariff_assign(&all, Some((&tariff, &root)), Some(&target(2)), &existing, &assignment(from, to));
        for (from, to) in [(0, Some(100)), (200, None), (200, Some(201))] {
            assert!(check(from, to).is_ok(), "{from} {to:?}");
        }
        for (from, to) in [(0, None), (0, Some(101)), (150, Some(160)), (199, None)] {
            assert_eq!(codes(check(from, to)), [("CONFLICT", "validFrom".to_owned())], "{from} {to:?}");
        }
        assert_eq!(codes(check(300, Some(300))), [("INVALID", "validTo".to_owned())]);
        let foreign =
            tariff_assign(&all, Some((&tariff, &account(3).path)), Some(&target(2)), &[], &assignment(0, None));
        assert_eq!(codes(foreign), [("INVALID", "tariff".to_owned())]);
        let own = Scope::of(&account(2).path);
        let by_payer = tariff_assign(&own, Some((&tariff, &root)), Some(&target(2)), &[], &assignment(0, None));
        assert_eq!(codes(by_payer), [("FORBIDDEN", "account".to_owned())]);
        let above = Scope::subtree(account(2).path.ancestry().iter().rev().nth(1).expect("account 2 has one above"));
        assert!(tariff_assign(&above, Some((&tariff, &root)), Some(&target(2)), &[], &assignment(0, None)).is_ok());
        let nothing = tariff_assign(&all, None, Some(&target(2)), &[], &assignment(0, None));
        assert_eq!(codes(nothing), [("NOT_FOUND", "tariff".to_owned())]);
        let nobody = tariff_assign(&all, Some((&tariff, &root)), None, &[], &assignment(0, None));
        assert_eq!(codes(nobody), [("NOT_FOUND", "account".to_owned())]);
    }

    #[test]
    fn a_stream_is_judged() {
        let stream = |name: &str, close_period_ms| Stream {
            id: samples::id(3),
            account: samples::id(2),
            name: name.to_owned(),
            side: Side::Sell,
            close_period_ms,
            next_sequence: 1,
            version: 1,
        };
        let check = |name, period| stream_create(Some(&account(2)), false, &stream(name, period));
        assert!(check("retail-eur", 0).is_ok() && check("a", 86_400_000).is_ok());
        let long = "a".repeat(41);
        for name in ["", "-a", "a-", "A", "a_b", "a/b", "..", &long] {
            assert_eq!(codes(check(name, 0)), [("INVALID", "name".to_owned())], "{name}");
        }
        for period in [-1, 59_999, i64::MAX] {
            assert_eq!(codes(check("a", period)), [("INVALID", "closePeriodMs".to_owned())], "{period}");
        }
    }

    #[test]
    fn requests_differ_by_every_field() {
        let close = |n| request_bytes(&Command::FileClose { stream: samples::id(n) });
        assert_eq!(close(1), close(1));
        assert_ne!(close(1), close(2));
    }
}
