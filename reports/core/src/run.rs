//! Which runs there are to be: decided here, written by the store.

use chrono_tz::Tz;
use model::change::{Effect, EffectKind, Plan, Refusal, RefusalCode, ResourceKind, ResourceRef, Reversibility};
use model::id::{AccountId, RunId};
use model::tenancy::AccountPath;
use model::time::Timestamp;

use crate::command::Command;
use crate::figures::Completeness;
use crate::period::{Bounds, InvalidPeriod, Month, zone};
use crate::resource::{ReportRun, RunState};

/// How long after its end a period is settled: the last interval is counted, late ends and ratings have come in.
pub const SETTLE_MS: i64 = 30 * 60_000;
/// How long a run of the schedule waits for what is missing in its figures, after which it goes out provisional: for the
/// end of a call that was answered in the period, or a node that is away with a part of its journal.
pub const WAIT_MAX_MS: i64 = 12 * 3_600_000;
/// Finished months that are caught up after a downtime: a quarter. Older ones are run by hand.
pub const CATCH_UP_MAX: usize = 3;
/// Recipients of one run. More than a list of people is a mailing list, which is one address.
pub const RECIPIENTS_MAX: usize = 20;
/// Octets of a mail address (RFC 5321, section 4.5.3.1.3, less the angle brackets).
pub const ADDRESS_MAX: usize = 254;
/// Octets of its local part (RFC 5321, section 4.5.3.1.1).
const LOCAL_PART_MAX: usize = 64;

/// The account that a run is about, as the store knows it, and what was run before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// The account.
    pub account: AccountId,
    /// Its path.
    pub path: AccountPath,
    /// Its name.
    pub name: String,
    /// Its zone.
    pub timezone: String,
    /// The revision after the last one of the same definition and period; 0 when there is none.
    pub next_revision: i32,
}

/// A run that is to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct Planned {
    /// The row.
    pub run: ReportRun,
    /// Who gets it.
    pub recipients: Vec<String>,
    /// What is shown and audited.
    pub plan: Plan,
}

/// The definition of runs that somebody asked for.
#[must_use]
pub fn requested(account: AccountId) -> String {
    format!("monthly:{account}")
}

/// The definition of runs that the schedule makes. It is another one than [`requested`], so that a run by hand never
/// takes the place of the one that the recipients wait for.
#[must_use]
pub fn scheduled(account: AccountId) -> String {
    format!("scheduled:{account}")
}

/// Whether a run is better made later, because its figures still grow: one that the schedule made, for a while. Who asked
/// for a report gets it as it is.
#[must_use]
pub fn waits(run: &ReportRun, completeness: &Completeness, now: Timestamp) -> bool {
    run.definition == scheduled(run.account) && !completeness.is_settled() && now.ms_since(run.created_at) < WAIT_MAX_MS
}

/// Decides a command. `view` is none when the account is missing or out of scope.
///
/// # Errors
/// Every reason for a refusal.
pub fn plan(view: Option<&View>, command: &Command, run: RunId, now: Timestamp) -> Result<Planned, Vec<Refusal>> {
    let Command::ReportRun { account, period, recipients } = command;
    let Some(view) = view else {
        let message = format!("there is no account {account}");
        return Err(vec![Refusal::new(RefusalCode::NotFound, "account", message, "list the accounts that you see")]);
    };
    let mut refusals = Vec::new();
    let recipients = checked_recipients(recipients, &mut refusals);
    let month = period.parse::<Month>().map_err(|invalid| refusals.push(invalid_period(&invalid))).ok();
    let zone = zone(&view.timezone).map_err(|invalid| refusals.push(invalid_zone(&invalid))).ok();
    let bounds = month
        .zip(zone)
        .and_then(|(month, zone)| month.bounds(zone).map_err(|invalid| refusals.push(invalid_period(&invalid))).ok());
    if bounds.is_some_and(|bounds| bounds.from > now) {
        refusals.push(Refusal::new(
            RefusalCode::Invalid,
            "period",
            format!("{period} has not begun in {}", view.timezone),
            "ask for this month (provisional) or an earlier one",
        ));
    }
    match (month, bounds) {
        (Some(month), Some(bounds)) if refusals.is_empty() => {
            Ok(planned(view, requested(view.account), month, bounds, recipients, run, now))
        }
        _ => Err(refusals),
    }
}

/// A run of a finished month that the schedule makes.
#[must_use]
pub fn plan_scheduled(
    view: &View,
    month: Month,
    bounds: Bounds,
    recipients: &[String],
    run: RunId,
    now: Timestamp,
) -> Planned {
    planned(view, scheduled(view.account), month, bounds, recipients.to_vec(), run, now)
}

fn planned(
    view: &View,
    definition: String,
    month: Month,
    bounds: Bounds,
    recipients: Vec<String>,
    id: RunId,
    now: Timestamp,
) -> Planned {
    let run = ReportRun {
        id,
        definition,
        period: month.to_string(),
        revision: view.next_revision,
        account: view.account,
        path: view.path.clone(),
        timezone: view.timezone.clone(),
        period_from: bounds.from,
        period_to: bounds.to,
        provisional: now < bounds.to.plus_ms(SETTLE_MS),
        state: RunState::Due,
        error: None,
        created_at: now,
        finished_at: None,
    };
    let effect = Effect {
        kind: EffectKind::Created,
        resource: ResourceRef { kind: ResourceKind::ReportRun, id: id.uuid() },
        name: format!("monthly report {} of {}", run.period, view.name),
        before: None,
        after: Some(serde_json::json!({
            "definition": run.definition,
            "account": run.account,
            "period": run.period,
            "revision": run.revision,
            "timezone": run.timezone,
            "periodFrom": run.period_from,
            "periodTo": run.period_to,
            "provisional": run.provisional,
            "recipients": recipients,
        })),
    };
    let plan = Plan {
        effects: vec![effect],
        versions: Vec::new(),
        reversibility: Reversibility::Final("a mail that was sent cannot be called back".to_owned()),
    };
    Planned { run, recipients, plan }
}

/// The finished months that the schedule owes at `now`, oldest first: settled, at most [`CATCH_UP_MAX`], and not
/// wholly before the account existed.
///
/// # Errors
/// When the year is out of range.
pub fn months_due(
    zone: Tz,
    account_created_at: Timestamp,
    now: Timestamp,
) -> Result<Vec<(Month, Bounds)>, InvalidPeriod> {
    let mut due = Vec::new();
    let mut month = Month::containing(now.plus_ms(-SETTLE_MS), zone)?.previous()?;
    while due.len() < CATCH_UP_MAX {
        let bounds = month.bounds(zone)?;
        if bounds.to <= account_created_at {
            break;
        }
        due.push((month, bounds));
        month = month.previous()?;
    }
    due.reverse();
    Ok(due)
}

fn checked_recipients(recipients: &[String], refusals: &mut Vec<Refusal>) -> Vec<String> {
    if recipients.len() > RECIPIENTS_MAX {
        let message = format!("a report goes to at most {RECIPIENTS_MAX} recipients");
        refusals.push(Refusal::new(RefusalCode::Invalid, "recipients", message, "send it to a mailing list"));
        return Vec::new();
    }
    let mut checked: Vec<String> = Vec::new();
    for (index, recipient) in recipients.iter().enumerate() {
        if !is_address(recipient) {
            refusals.push(Refusal::new(
                RefusalCode::Invalid,
                &format!("recipients[{index}]"),
                "this is no mail address",
                "send it as name@domain, without a display name",
            ));
        } else if !checked.contains(recipient) {
            checked.push(recipient.clone());
        }
    }
    checked
}

/// Whether the text is a plain mail address: a dot-atom, `@`, a domain name (RFC 5321, section 4.1.2; neither quoted
/// local parts nor address literals).
#[must_use]
pub fn is_address(text: &str) -> bool {
    let Some((local, domain)) = text.split_once('@') else { return false };
    let atom = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&b))
    };
    let label = |part: &str| {
        !part.is_empty()
            && part.len() <= 63
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    text.len() <= ADDRESS_MAX
        && local.len() <= LOCAL_PART_MAX
        && local.split('.').all(atom)
        && domain.split('.').all(label)
}

fn invalid_period(invalid: &InvalidPeriod) -> Refusal {
    Refusal::new(RefusalCode::Invalid, "period", invalid.to_string(), "send a month such as 2026-11")
}

fn invalid_zone(invalid: &InvalidPeriod) -> Refusal {
    Refusal::new(RefusalCode::Invalid, "account", invalid.to_string(), "set the time zone of the account")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::customer;

    fn view() -> View {
        let (account, path) = customer();
        View { account, path, name: "Harbour".into(), timezone: "Europe/Berlin".into(), next_revision: 2 }
    }

    fn run(period: &str, recipients: &[&str], now: &str) -> Result<Planned, Vec<(RefusalCode, String)>> {
        let recipients = recipients.iter().map(|r| (*r).to_owned()).collect();
        let command = Command::ReportRun { account: view().account, period: period.into(), recipients };
        let id = format!("{:032x}", 9).parse().unwrap();
        plan(Some(&view()), &command, id, now.parse().unwrap())
            .map_err(|refusals| refusals.into_iter().map(|r| (r.code, r.field)).collect())
    }

    #[test]
    fn a_month_is_provisional_until_it_is_settled() {
        let check = |now, provisional| {
            let planned = run("2027-03", &["ops@example.com", "ops@example.com"], now).unwrap();
            assert_eq!((planned.run.provisional, planned.run.revision, planned.recipients.len()), (provisional, 2, 1));
        };
        check("2027-03-10T00:00:00Z", true);
        check("2027-03-31T22:29:59.999Z", true);
        check("2027-03-31T22:30:00Z", false);
        let planned = run("2027-03", &[], "2027-04-10T00:00:00Z").unwrap();
        assert_eq!(planned.run.period_to.to_string(), "2027-03-31T22:00:00.000Z");
        assert!(matches!(planned.plan.reversibility, Reversibility::Final(_)));
    }

    #[test]
    fn refusals_name_the_field() {
        let check = |period, recipients: &[&str], field: &str| {
            let refused = run(period, recipients, "2027-03-10T00:00:00Z").unwrap_err();
            assert_eq!(refused, [(RefusalCode::Invalid, field.to_owned())]);
        };
        check("2027-3", &[], "period");
        check("2027-04", &[], "period");
        check("2027-03", &["a@example.com", "Ops <ops@example.com>"], "recipients[1]");
        check("2027-03", &["a@example.com"; 21], "recipients");
        assert!(run("x", &["y"], "2027-03-10T00:00:00Z").unwrap_err().len() == 2);
        let missing = Command::ReportRun { account: view().account, period: "2027-03".into(), recipients: Vec::new() };
        let refused = plan(None, &missing, format!("{:032x}", 9).parse().unwrap(), Timestamp(0)).unwrap_err();
        assert_eq!(refused[0].code, RefusalCode::NotFound);
    }

    #[test]
    fn addresses() {
        for good in ["ops@example.com", "first.last+tag@mail.example.org", "root@localhost", "o'neil@ex-ample.com"] {
            assert!(is_address(good), "{good}");
        }
        for bad in ["", "@", "a@", "@b", "a b@c.d", "a@b@c", "a@-b.c", "a..b@c.d", "a@b\r\nBcc: x@y.z", "ä@b.c", "a@b."]
        {
            assert!(!is_address(bad), "{bad}");
        }
    }

    #[test]
    fn the_schedule_owes_the_last_finished_months() {
        let berlin = zone("Europe/Berlin").unwrap();
        let check = |created: &str, now: &str, expected: &[&str]| {
            let due = months_due(berlin, created.parse().unwrap(), now.parse().unwrap()).unwrap();
            let due: Vec<String> = due.iter().map(|(month, _)| month.to_string()).collect();
            assert_eq!(due, expected, "{now}");
        };
        check("2020-01-01T00:00:00Z", "2027-03-31T22:29:00Z", &["2026-12", "2027-01", "2027-02"]);
        check("2020-01-01T00:00:00Z", "2027-03-31T22:30:00Z", &["2027-01", "2027-02", "2027-03"]);
        check("2027-02-03T00:00:00Z", "2027-04-15T00:00:00Z", &["2027-02", "2027-03"]);
        check("2027-04-03T00:00:00Z", "2027-04-15T00:00:00Z", &[]);
    }
}
