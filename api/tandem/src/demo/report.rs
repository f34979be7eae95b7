//! The monthly report over the demo's calls: provisional, mailed once, agreeing with the file.

use std::path::{Path, PathBuf};

use db::system::SystemClock;
use model::time::Clock;
use serde_json::json;

use super::billing::PulledFile;
use super::calls::Placed;
use super::check::Checks;
use super::sinks::SmtpSink;
use super::world::{OPERATIONS_MAIL, TIMEZONE, World};
use super::{DemoError, await_some};

/// Runs the report and checks it; gives where the HTML lies.
///
/// # Errors
/// When it does not come about.
pub async fn run_and_check(
    checks: &mut Checks,
    world: &World,
    mails: &SmtpSink,
    dir: &Path,
    placed: &[Placed],
    killed: usize,
    file: &PulledFile,
) -> Result<PathBuf, DemoError> {
    let period = this_month()?;
    let input = json!({ "accountId": world.provider_account, "period": period, "recipients": [OPERATIONS_MAIL] });
    let run = world.provider.mutate("reportRun", input).await?.id;
    let path = format!("/reports/runs/{run}");
    let meta = await_some("the finished report", async || {
        let meta = world.provider.get_json(&path).await?;
        Ok::<_, crate::client::ClientError>((meta["state"] == "finished").then_some(meta))
    })
    .await?;
    let html = String::from_utf8(world.provider.get(&format!("{path}/html")).await?)?;
    let csv = String::from_utf8(world.provider.get(&format!("{path}/csv")).await?)?;
    let mail = await_some("the report's mail", async || Ok::<_, DemoError>(mails.mails().into_iter().next())).await?;

    checks.equal("report: marked provisional (the month is not over)", true, meta["provisional"] == true);
    let states = html.contains(TIMEZONE) && html.to_lowercase().contains("provisional");
    checks.equal("report: the HTML states zone and provisional", true, states);
    // A wrong password is no attempt of anybody: it is only counted.
    let attempts = placed.iter().filter(|call| !call.plan.wrong_password).count() + killed;
    let answered = placed.iter().filter(|call| call.outcome.is_answered()).count() + killed;
    let figures = format!("{} attempts, {} answered", figure(&csv, "attempts"), figure(&csv, "answered"));
    checks.equal("report: calls as placed", format!("{attempts} attempts, {answered} answered"), figures);
    let agrees = csv.contains(&file.total) && html.contains(&file.total);
    checks.verdict(
        "report: revenue agrees with the billing file",
        &file.total,
        if agrees { &file.total } else { "another" },
        agrees,
    );
    let to = mail.recipients.join(", ");
    checks.equal("report: mailed to", OPERATIONS_MAIL, to);
    let complete = mail.data.contains("text/html") && mail.data.contains("Message-ID");
    checks.equal("report: the mail has HTML and a Message-ID", true, complete);
    checks.equal("report: mails", 1, mails.mails().len());

    let kept = dir.join("report.html");
    std::fs::write(&kept, html)?;
    Ok(kept)
}

/// The month of now in the demo's zone: `YYYY-MM`.
///
/// # Errors
/// When the zone is unknown, which it is not.
pub fn this_month() -> Result<String, DemoError> {
    let zone: chrono_tz::Tz = TIMEZONE.parse()?;
    Ok(SystemClock.now().utc.to_chrono().with_timezone(&zone).format("%Y-%m").to_string())
}

/// A figure of the report's totals, by the name of its column.
fn figure(csv: &str, name: &str) -> String {
    let mut lines = csv.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let column = lines.next().and_then(|header| header.iter().position(|column| *column == name));
    let total = lines.find(|fields| fields.first() == Some(&"total"));
    let value = column.zip(total).and_then(|(column, total)| total.get(column).map(|value| (*value).to_owned()));
    value.unwrap_or_else(|| "none".to_owned())
}
