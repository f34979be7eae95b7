//! Proofs from the machine itself, from the store and the files on disk.

use std::process::ExitCode;

use billing::port::Queries;
use model::page::PageRequest;
use serde_json::json;

use super::{Failure, Output};
use crate::cli::local::Local;
use crate::cli::output::print;
use crate::config::Config;

/// What to prove.
#[derive(Debug, Clone, Copy)]
pub enum Proof {
    /// Every file of every stream is whole.
    Files,
    /// Usage, charges, ledger and files agree.
    Books,
}

/// Exit code 0 when nothing was found.
pub async fn run(what: Proof, config: &Config, output: Output) -> Result<ExitCode, Failure> {
    let local = Local::open(config).await?;
    let (system, billing) = (local.system().await?, local.billing(config).await?);
    let clean = match what {
        Proof::Files => verify(&billing, &system, output).await?,
        Proof::Books => reconcile(&billing, &system, output).await?,
    };
    local.store.close().await;
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn verify(
    billing: &billing_store::BillingStore,
    system: &model::ctx::Ctx,
    output: Output,
) -> Result<bool, Failure> {
    let (mut page, mut reports) = (PageRequest::default(), Vec::new());
    loop {
        let streams = billing.stream_list(system, None, page.clone()).await?;
        for (_, stream) in &streams.items {
            reports.extend(billing.verify(system, stream.id).await?);
        }
        match streams.items.last() {
            Some((cursor, _)) if streams.has_next => page.after = Some(cursor.clone()),
            _ => break,
        }
    }
    let json: Vec<_> = reports
        .iter()
        .map(|report| {
            let findings: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
            json!({ "stream": report.name, "files": report.files, "records": report.records, "findings": findings })
        })
        .collect();
    let rows = reports.iter().map(|report| {
        let findings: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
        let findings = if findings.is_empty() { "complete".to_owned() } else { findings.join("\n") };
        vec![report.name.clone(), report.files.to_string(), report.records.to_string(), findings]
    });
    print(output, &json, &["stream", "files", "records", "finding"], rows)?;
    Ok(reports.iter().all(billing_store::VerifyReport::is_clean))
}

async fn reconcile(
    billing: &billing_store::BillingStore,
    system: &model::ctx::Ctx,
    output: Output,
) -> Result<bool, Failure> {
    let report = billing.reconcile(system).await?;
    let findings: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    let books = report.ledger.iter().map(|book| (format!("ledger: {}", book.book), book.amount.clone(), book.currency));
    let sides = report
        .rated
        .iter()
        .map(|side| (format!("charges: {}", side.side.as_str()), side.amount.clone(), side.currency));
    let totals: Vec<_> = sides.chain(books).collect();
    let json: Vec<_> = totals
        .iter()
        .map(|(what, amount, currency)| json!({ "what": what, "amount": amount, "currency": currency }))
        .collect();
    let json = json!({ "totals": json, "findings": findings });
    let rows = totals.iter().map(|(what, amount, currency)| vec![what.clone(), amount.clone(), currency.to_string()]);
    let rows = rows.chain(findings.iter().map(|finding| vec!["finding".to_owned(), finding.clone(), String::new()]));
    print(output, &json, &["what", "amount", "currency"], rows)?;
    Ok(report.is_clean())
}
