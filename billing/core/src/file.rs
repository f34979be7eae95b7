//! The billing file: CSV (RFC 4180) and its manifest, the same bytes whenever they are rendered.
//!
//! Nothing in them depends on the run: order and content come from the committed list of items, instants are those
//! of the rows. Values are plain: instants RFC 3339 in UTC, amounts decimal text, numbers E.164 with `+`.
//! The format is described in `schemas/billing/README.md`.

use std::collections::BTreeMap;

use model::id::{FileId, InstallationId, StreamId};
use model::money::{Currency, Total};
use model::time::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::resource::{CurrencyTotal, RatedUsage, Stream, Usage};

/// The version of the format: columns are only added, at the end, with a new number.
pub const FORMAT_VERSION: i64 = 1;
/// The name of the format in the manifest.
pub const FORMAT: &str = "tandem-billing-file";
/// Records of one file. A loader takes a file in one transaction; what is left over is in the next file.
pub const FILE_RECORDS_MAX: i64 = 1_000_000;
/// What the manifest's name adds to the name of the file without `.csv`.
pub const MANIFEST_SUFFIX: &str = ".manifest.json";

/// The header, in the order of the fields.
pub const COLUMNS: [&str; 29] = [
    "record_id",
    "record_type",
    "call_id",
    "leg",
    "part",
    "is_last",
    "side",
    "version",
    "account_id",
    "subscriber_id",
    "trunk_id",
    "dialled",
    "calling",
    "called",
    "invited_at",
    "answered_at",
    "ended_at",
    "duration_ms",
    "billed_ms",
    "cause",
    "released_by",
    "estimated",
    "aborted",
    "tariff_id",
    "tariff_version",
    "prefix",
    "currency",
    "amount",
    "exact_amount",
];

/// The name of the file with `sequence` in the stream `name`.
#[must_use]
pub fn file_name(name: &str, sequence: i64) -> String {
    format!("{name}_{sequence:010}.csv")
}

/// The name of the manifest of the file `name`.
#[must_use]
pub fn manifest_name(name: &str) -> String {
    format!("{}{MANIFEST_SUFFIX}", name.strip_suffix(".csv").unwrap_or(name))
}

/// One record: a charge with the usage behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The charge.
    pub rated: RatedUsage,
    /// The leg that it is for.
    pub usage: Usage,
}

/// The stable name of a record: the same in every rendering, and never of another charge.
#[must_use]
pub fn record_id(rated: &RatedUsage) -> String {
    let RatedUsage { call, leg, part, account, side, version, .. } = rated;
    format!("{call}/{leg}/{part}/{account}/{}/{version}", side.as_str())
}

/// Why a file could not be rendered.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// The CSV writer failed.
    #[error("the record cannot be written as CSV")]
    Csv(#[source] csv::Error),
    /// The manifest cannot be written.
    #[error("the manifest cannot be written as JSON")]
    Json(#[source] serde_json::Error),
}

/// What was rendered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rendered {
    /// Octets.
    pub size: i64,
    /// SHA-256 of all octets.
    pub sha256: [u8; 32],
    /// Records.
    pub record_count: i64,
    /// Sum of the charged time, milliseconds.
    pub billed_ms: i64,
    /// Sum of the durations, milliseconds.
    pub duration_ms: i64,
    /// Sums per currency, ordered by its code.
    pub totals: Vec<CurrencyTotal>,
    /// The first record.
    pub first_record_id: Option<String>,
    /// The last one.
    pub last_record_id: Option<String>,
    /// Answer of the first and the last call.
    pub answered_range: Option<(Timestamp, Timestamp)>,
}

/// Renders a file piece by piece: [`Renderer::header`], then [`Renderer::records`] as often as there are pages, then
/// [`Renderer::finish`]. It keeps sums and hash only, so a file may be larger than memory.
#[derive(Debug, Default)]
pub struct Renderer {
    hash: Sha256,
    done: Rendered,
    sums: BTreeMap<Currency, (Total, i64)>,
}

impl Renderer {
    /// The first line.
    ///
    /// # Errors
    /// [`RenderError`], which plain text in memory does not give.
    pub fn header(&mut self) -> Result<Vec<u8>, RenderError> {
        let mut writer = writer();
        writer.write_record(COLUMNS).map_err(RenderError::Csv)?;
        self.take(writer)
    }

    /// The lines of the next records.
    ///
    /// # Errors
    /// As [`Renderer::header`].
    pub fn records(&mut self, records: &[Record]) -> Result<Vec<u8>, RenderError> {
        let mut writer = writer();
        for record in records {
            let id = record_id(&record.rated);
            writer.write_record(fields(record, &id)).map_err(RenderError::Csv)?;
            self.count(record, id);
        }
        self.take(writer)
    }

    /// Sums and hash of all that was rendered.
    #[must_use]
    pub fn finish(mut self) -> Rendered {
        self.done.sha256 = self.hash.finalize().into();
        self.done.totals =
            self.sums.into_iter().map(|(currency, (total, n))| currency_total(currency, total, n)).collect();
        self.done
    }

    fn count(&mut self, Record { rated, usage }: &Record, id: String) {
        let done = &mut self.done;
        done.record_count += 1;
        done.billed_ms = done.billed_ms.saturating_add(rated.billed_ms);
        done.duration_ms = done.duration_ms.saturating_add(usage.duration_ms);
        let at = rated.answered_at;
        done.answered_range = done.answered_range.map_or(Some((at, at)), |(a, b)| Some((a.min(at), b.max(at))));
        done.first_record_id.get_or_insert_with(|| id.clone());
        done.last_record_id = Some(id);
        let (total, n) = self.sums.entry(rated.currency).or_default();
        total.add(rated.amount);
        *n += 1;
    }

    fn take(&mut self, writer: csv::Writer<Vec<u8>>) -> Result<Vec<u8>, RenderError> {
        let bytes = writer.into_inner().map_err(|e| RenderError::Csv(e.into_error().into()))?;
        self.hash.update(&bytes);
        self.done.size = self.done.size.saturating_add(i64::try_from(bytes.len()).unwrap_or(i64::MAX));
        Ok(bytes)
    }
}

/// The total of a currency as it is shown.
#[must_use]
pub fn currency_total(currency: Currency, total: Total, record_count: i64) -> CurrencyTotal {
    CurrencyTotal { currency, amount: total.to_string(), record_count }
}

fn writer() -> csv::Writer<Vec<u8>> {
    csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new())
}

fn fields(Record { rated, usage }: &Record, id: &str) -> [String; COLUMNS.len()] {
    let text = |value: Option<String>| value.unwrap_or_default();
    [
        id.to_owned(),
        "charge".to_owned(),
        rated.call.to_string(),
        rated.leg.to_string(),
        rated.part.to_string(),
        usage.is_last.to_string(),
        rated.side.as_str().to_owned(),
        rated.version.to_string(),
        rated.account.to_string(),
        text(usage.subscriber.map(|id| id.to_string())),
        text(usage.trunk.map(|id| id.to_string())),
        from_outside(&usage.dialled),
        text(usage.calling.map(|n| n.to_string())),
        text(usage.called.map(|n| n.to_string())),
        usage.invited_at.to_string(),
        usage.answered_at.to_string(),
        usage.ended_at.to_string(),
        usage.duration_ms.to_string(),
        rated.billed_ms.to_string(),
        usage.cause.as_str().to_owned(),
        usage.released_by.clone(),
        usage.estimated.to_string(),
        usage.aborted.to_string(),
        rated.tariff.to_string(),
        rated.tariff_version.to_string(),
        rated.prefix.clone(),
        rated.currency.to_string(),
        rated.amount.to_string(),
        rated.exact.to_string(),
    ]
}

/// Text that a caller chose: a leading `=`, `-`, `@` or `+` would be a formula in a spreadsheet, so it gets an
/// apostrophe. `+` and digits alone are a number, which is data and stays.
fn from_outside(text: &str) -> String {
    let number =
        text.strip_prefix('+').is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()));
    if !number && text.starts_with(['=', '+', '-', '@']) { format!("'{text}") } else { text.to_owned() }
}

/// The stream in a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestStream {
    /// Its identifier.
    pub id: StreamId,
    /// Its name.
    pub name: String,
    /// Whose rows.
    pub account: model::id::AccountId,
    /// Which side.
    pub side: crate::resource::Side,
}

/// What proves a file complete and in its place. It appears after the file: who sees it may read both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: String,
    /// [`FORMAT_VERSION`].
    pub format_version: i64,
    /// Who made it.
    pub installation: InstallationId,
    /// Its stream.
    pub stream: ManifestStream,
    /// The file.
    pub file: FileId,
    /// Dense in the stream, from 1.
    pub sequence: i64,
    /// Name of the CSV file.
    pub name: String,
    /// Why it was closed.
    pub closure_reason: String,
    /// When.
    pub closed_at: Timestamp,
    /// Records.
    pub record_count: i64,
    /// Sum of the charged time, milliseconds.
    pub billed_ms: i64,
    /// Sum of the durations, milliseconds.
    pub duration_ms: i64,
    /// Sums per currency.
    pub totals: Vec<CurrencyTotal>,
    /// The first record.
    pub first_record_id: Option<String>,
    /// The last one.
    pub last_record_id: Option<String>,
    /// Answer of the first call.
    pub answered_from: Option<Timestamp>,
    /// Answer of the last call.
    pub answered_to: Option<Timestamp>,
    /// Octets of the CSV file.
    pub size: i64,
    /// SHA-256 of the CSV file, hex.
    pub sha256: String,
    /// SHA-256 of the CSV file before it in the stream, hex; none for the first.
    pub previous_sha256: Option<String>,
}

/// What a file is, beside its content: committed when it was closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// The file.
    pub file: FileId,
    /// Its sequence.
    pub sequence: i64,
    /// Its name.
    pub name: String,
    /// Why it was closed.
    pub closure_reason: String,
    /// When.
    pub closed_at: Timestamp,
    /// SHA-256 of the file before it.
    pub previous_sha256: Option<[u8; 32]>,
}

impl Manifest {
    /// The manifest of a rendered file.
    #[must_use]
    pub fn new(installation: InstallationId, stream: &Stream, closed: &Closed, rendered: &Rendered) -> Self {
        Self {
            format: FORMAT.to_owned(),
            format_version: FORMAT_VERSION,
            installation,
            stream: ManifestStream {
                id: stream.id,
                name: stream.name.clone(),
                account: stream.account,
                side: stream.side,
            },
            file: closed.file,
            sequence: closed.sequence,
            name: closed.name.clone(),
            closure_reason: closed.closure_reason.clone(),
            closed_at: closed.closed_at,
            record_count: rendered.record_count,
            billed_ms: rendered.billed_ms,
            duration_ms: rendered.duration_ms,
            totals: rendered.totals.clone(),
            first_record_id: rendered.first_record_id.clone(),
            last_record_id: rendered.last_record_id.clone(),
            answered_from: rendered.answered_range.map(|(from, _)| from),
            answered_to: rendered.answered_range.map(|(_, to)| to),
            size: rendered.size,
            sha256: hex::encode(rendered.sha256),
            previous_sha256: closed.previous_sha256.map(hex::encode),
        }
    }

    /// Its bytes: indented JSON with a final line end, fields in a fixed order.
    ///
    /// # Errors
    /// [`RenderError::Json`], which these fields do not give.
    pub fn to_bytes(&self) -> Result<Vec<u8>, RenderError> {
        let mut bytes = serde_json::to_vec_pretty(self).map_err(RenderError::Json)?;
        bytes.push(b'\n');
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use model::event::fact::Fact;

    use super::*;
    use crate::charging::{Outcome, assess};
    use crate::mediation::mediate;
    use crate::resource::Side;
    use crate::samples;
    use crate::tariff::{CompiledTariff, TariffBook};

    fn record(dialled: &str) -> Record {
        let mut book = TariffBook::default();
        let tariff = samples::tariff(vec![samples::rate("43", "0.05", "0.06")]);
        book.assign_account(samples::account(2).1, Timestamp(0), None, Arc::new(CompiledTariff::new(tariff).unwrap()));
        let mut fact = samples::ended(samples::subscriber(2), Some(samples::trunk()), Some("+43720123456"), 60_000);
        dialled.clone_into(&mut fact.answered.setup.dialled);
        let leg = mediate(&Fact::Ended(fact)).remove(0);
        let Outcome::Rated(charge) = assess(&leg, &book) else { panic!("rated") };
        let rated = RatedUsage {
            call: leg.usage.call,
            leg: leg.usage.leg,
            part: leg.usage.part,
            account: charge.account,
            path: charge.path,
            side: charge.side,
            version: 1,
            sequence: 1,
            batch: samples::id(1),
            tariff: charge.tariff,
            tariff_version: charge.tariff_version,
            prefix: charge.prefix,
            billed_ms: charge.billed_ms,
            currency: charge.currency,
            exact: charge.exact,
            amount: charge.amount,
            answered_at: leg.usage.answered_at,
            rated_at: Timestamp(9_000),
        };
        Record { rated, usage: leg.usage }
    }

    fn render(pages: &[&[Record]]) -> (String, Rendered) {
        let mut renderer = Renderer::default();
        let mut bytes = renderer.header().unwrap();
        for page in pages {
            bytes.extend(renderer.records(page).unwrap());
        }
        (String::from_utf8(bytes).unwrap(), renderer.finish())
    }

    #[test]
    fn a_line_is_what_the_format_says() {
        let (text, rendered) = render(&[&[record("0720123456")]]);
        let expected = "00000000-0000-7000-8000-000000001388/0/0/00000000-0000-7000-8000-000000000002/sell/1,charge,\
            00000000-0000-7000-8000-000000001388,0,0,true,sell,1,00000000-0000-7000-8000-000000000002,\
            00000000-0000-7000-8000-0000000000c8,,0720123456,+43720000001,+43720123456,1970-01-01T00:00:01.000Z,\
            1970-01-01T00:00:03.000Z,1970-01-01T00:01:03.000Z,60000,60000,normal_clearing,callee,false,false,\
            00000000-0000-7000-8000-000000000384,1,43,EUR,0.11,11/100";
        assert_eq!(text.lines().nth(1), Some(expected));
        assert!(text.starts_with("record_id,record_type,") && text.ends_with("11/100\r\n"));
        assert_eq!(rendered.size, i64::try_from(text.len()).unwrap());
        assert_eq!(rendered.sha256, <[u8; 32]>::from(Sha256::digest(text.as_bytes())));
        assert_eq!((rendered.record_count, rendered.billed_ms, rendered.duration_ms), (1, 60_000, 60_000));
        assert_eq!(rendered.totals.len(), 1);
        assert_eq!((&*rendered.totals[0].amount, rendered.totals[0].record_count), ("0.11", 1));
    }

    #[test]
    fn pages_do_not_show() {
        let [a, b, c] = ["1", "2", "3"].map(record);
        let whole = render(&[&[a.clone(), b.clone(), c.clone()]]);
        assert_eq!(whole, render(&[&[a], &[], &[b, c]]));
        assert_eq!(whole.1.totals[0].amount, "0.33");
        let (empty, rendered) = render(&[]);
        assert_eq!((empty.lines().count(), rendered.record_count, rendered.answered_range), (1, 0, None));
    }

    #[test]
    fn only_text_from_outside_is_made_harmless() {
        let check = |dialled: &str, expected: &str| {
            let (text, _) = render(&[&[record(dialled)]]);
            let mut reader = csv::Reader::from_reader(text.as_bytes());
            let row = reader.records().next().unwrap().unwrap();
            assert_eq!((row.get(11), row.get(13)), (Some(expected), Some("+43720123456")));
        };
        check("+43720123456", "+43720123456");
        check("+43720-1", "'+43720-1");
        check("+", "'+");
        check("=1+1", "'=1+1");
        check("-1", "'-1");
        check("@SUM(A1)", "'@SUM(A1)");
        check("a=\"b\",c;d", "a=\"b\",c;d");
        check("", "");
    }

    #[test]
    fn names_and_manifest_are_stable() {
        let name = file_name("retail-eur", 42);
        assert_eq!(name, "retail-eur_0000000042.csv");
        assert_eq!(manifest_name(&name), "retail-eur_0000000042.manifest.json");
        let stream = Stream {
            id: samples::id(3),
            account: samples::id(1),
            name: "retail-eur".to_owned(),
            side: Side::Sell,
            close_period_ms: 0,
            next_sequence: 43,
            version: 1,
        };
        let closed = Closed {
            file: samples::id(4),
            sequence: 42,
            name,
            closure_reason: "request".to_owned(),
            closed_at: Timestamp(10_000),
            previous_sha256: Some([7; 32]),
        };
        let (_, rendered) = render(&[&[record("1")]]);
        let manifest = Manifest::new(samples::id(5), &stream, &closed, &rendered);
        let bytes = manifest.to_bytes().unwrap();
        assert_eq!(serde_json::from_slice::<Manifest>(&bytes).unwrap(), manifest);
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.starts_with("{\n  \"format\": \"tandem-billing-file\",\n  \"format_version\": 1,"));
        assert!(text.ends_with("}\n") && text.contains(&"07".repeat(32)));
    }
}
