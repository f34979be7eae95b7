//! Reading a file of lines: JSON Lines, or CSV with a header.

use model::change::{Refusal, RefusalCode};

use super::field::{Fields, columns};
use crate::port::StagedLine;

/// Octets of one line.
const LINE_MAX: usize = 16 * 1_024;
/// What spreadsheets put before UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One JSON object in each line.
    JsonLines,
    /// A header with names of fields, separated by commas or by semicolons; then a record for each object. An empty cell
    /// leaves a value as it is, `-` takes it away, and a list is separated by spaces.
    Csv,
}

/// The lines of a file. Lines that cannot be read are lines that are refused; empty ones are passed over.
///
/// # Errors
/// When the header of CSV has unknown or repeated columns, or none at all.
pub fn read(format: Format, file: &[u8]) -> Result<Box<dyn Iterator<Item = StagedLine> + Send + '_>, Refusal> {
    let file = file.strip_prefix(BYTE_ORDER_MARK).unwrap_or(file);
    match format {
        Format::JsonLines => Ok(Box::new(json_lines(file))),
        Format::Csv => Ok(Box::new(csv_records(file)?)),
    }
}

fn json_lines(file: &[u8]) -> impl Iterator<Item = StagedLine> + Send + '_ {
    let lines = file.split(|octet| *octet == b'\n').map(<[u8]>::trim_ascii).zip(1_u32..);
    lines.filter(|(line, _)| !line.is_empty()).map(|(line, number)| {
        let fields = bounded(line.len())
            .and_then(|()| std::str::from_utf8(line).map_err(|_| no_utf8()).and_then(Fields::from_json));
        StagedLine { line: number, fields }
    })
}

fn csv_records(file: &[u8]) -> Result<impl Iterator<Item = StagedLine> + Send + '_, Refusal> {
    let header = file.split(|octet| *octet == b'\n').next().unwrap_or_default();
    let count = |separator: u8| header.iter().filter(|octet| **octet == separator).count();
    // spreadsheets of countries with a decimal comma write semicolons
    let separator = if count(b';') > count(b',') { b';' } else { b',' };
    let mut reader = csv::ReaderBuilder::new().delimiter(separator).flexible(true).from_reader(file);
    let refused = |message: String| {
        let remedy = format!("the first line names the columns, of: {}", columns().join(", "));
        Refusal::new(RefusalCode::Invalid, "", message, remedy)
    };
    let header = reader.headers().map_err(|_| refused("the first line is no UTF-8".to_owned()))?;
    let header: Vec<String> = header.iter().map(|name| name.trim().to_owned()).collect();
    if header.iter().all(String::is_empty) {
        return Err(refused("the file has no header".to_owned()));
    }
    for (place, name) in header.iter().enumerate() {
        if !columns().contains(&name.as_str()) {
            let shown: String = name.chars().take(40).collect();
            return Err(refused(format!("there is no column {shown:?}")));
        }
        if header.iter().take(place).any(|before| before == name) {
            return Err(refused(format!("the column {name} comes twice")));
        }
    }
    let mut lines = LineCounter { file, octet: 0, line: 1, told: 0 };
    Ok(reader.into_byte_records().filter_map(move |record| {
        let position = match &record {
            Ok(record) => record.position(),
            Err(error) => error.position(),
        };
        let line = lines.at(position.map_or(0, csv::Position::byte));
        let fields = match record {
            Ok(record) if record.iter().all(<[u8]>::is_empty) => return None,
            Ok(record) => record_fields(&header, &record),
            Err(error) => Err(refused_record(&error.to_string())),
        };
        Some(StagedLine { line, fields })
    }))
}

/// Lines of a file: a record may have several, and its position may lie before the line ends of those before it.
struct LineCounter<'a> {
    file: &'a [u8],
    octet: usize,
    line: u32,
    /// The last one that was given.
    told: u32,
}

impl LineCounter<'_> {
    /// The line of the record that begins at or behind an octet, which is not before the last one. No two records have
    /// the same.
    fn at(&mut self, octet: u64) -> u32 {
        let octet = usize::try_from(octet).unwrap_or(usize::MAX);
        let rest = self.file.get(octet..).unwrap_or_default();
        let ends = rest.iter().take_while(|octet| matches!(octet, b'\r' | b'\n')).count();
        let passed = self.file.get(self.octet..octet.saturating_add(ends)).unwrap_or_default();
        // CR alone ends a line, too
        let next = passed.iter().skip(1).chain(std::iter::once(&0));
        let more = passed.iter().zip(next).filter(|(own, next)| **own == b'\n' || (**own == b'\r' && **next != b'\n'));
        self.line = self.line.saturating_add(u32::try_from(more.count()).unwrap_or(u32::MAX)).max(self.told + 1);
        self.octet = self.octet.saturating_add(passed.len());
        self.told = self.line;
        self.line
    }
}

fn record_fields(header: &[String], record: &csv::ByteRecord) -> Result<Fields, Refusal> {
    bounded(record.as_slice().len())?;
    if record.len() != header.len() {
        let message = format!("it has {} cells, and the header has {}", record.len(), header.len());
        return Err(refused_record(&message));
    }
    let cells = record.iter().map(std::str::from_utf8).collect::<Result<Vec<_>, _>>().map_err(|_| no_utf8())?;
    Ok(Fields::from_record(header.iter().map(String::as_str), cells))
}

fn refused_record(message: &str) -> Refusal {
    Refusal::new(RefusalCode::Invalid, "", message, "put cells with separators, quotes or line ends in quotes")
}

fn no_utf8() -> Refusal {
    Refusal::new(RefusalCode::Invalid, "", "the line is no UTF-8", "save the file as UTF-8")
}

fn bounded(octets: usize) -> Result<(), Refusal> {
    if octets <= LINE_MAX {
        return Ok(());
    }
    let message = format!("the line has {octets} octets, and at most {LINE_MAX} are taken");
    Err(Refusal::new(RefusalCode::Invalid, "", message, "divide it"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(format: Format, file: &[u8]) -> Vec<(u32, String)> {
        let lines = read(format, file).expect("a file");
        let told = |line: StagedLine| match line.fields {
            Ok(fields) => (line.line, fields.to_json()),
            Err(refusal) => (line.line, refusal.message),
        };
        lines.map(told).collect()
    }

    #[test]
    fn lines_keep_their_numbers() {
        let file = b"\xef\xbb\xbf{\"kind\":\"site\"}\r\n\n[]\n\xff\n{}";
        let expected =
            [(1, r#"{"kind":"site"}"#), (3, "the line is no JSON object"), (4, "the line is no UTF-8"), (5, "{}")];
        assert_eq!(told(Format::JsonLines, file), expected.map(|(line, text)| (line, text.to_owned())));
        let file = "kind;site;account\r\nsite;\"Quay;\nEast\";.\n;;\nsite;-\nsite;'=1;'-\n";
        let expected = [
            (2, "{\"account\":\".\",\"kind\":\"site\",\"site\":\"Quay;\\nEast\"}"),
            (5, "it has 2 cells, and the header has 3"),
            (6, r#"{"account":"-","kind":"site","site":"=1"}"#),
        ];
        assert_eq!(told(Format::Csv, file.as_bytes()), expected.map(|(line, text)| (line, text.to_owned())));
    }

    #[test]
    fn line_ends_of_any_sort_are_counted() {
        for file in ["kind,site\rsite,a\rsite,b\r", "kind,site\r\nsite,a\r\nsite,b", "kind,site\nsite,a\nsite,b\n"] {
            let lines: Vec<u32> = told(Format::Csv, file.as_bytes()).into_iter().map(|(line, _)| line).collect();
            assert_eq!(lines, [2, 3], "{file:?}");
        }
        let stray = told(Format::Csv, b"kind,site\nsite,a\rb,c\nsite,d\n");
        assert_eq!(stray.into_iter().map(|(line, _)| line).collect::<Vec<_>>(), [2, 3, 4]);
    }

    #[test]
    fn a_header_is_known_or_refused() {
        let message = |file: &str| read(Format::Csv, file.as_bytes()).err().expect(file).message;
        assert_eq!(message(""), "the file has no header");
        assert_eq!(message("kind,colour\n"), "there is no column \"colour\"");
        assert_eq!(message("kind,site,kind\n"), "the column kind comes twice");
    }

    proptest! {
        #[test]
        fn no_file_panics(file in proptest::collection::vec(any::<u8>(), 0..200), header in any::<bool>()) {
            let file = if header { [b"kind,site\n", file.as_slice()].concat() } else { file };
            drop(read(Format::Csv, &file).map(Iterator::count));
            drop(read(Format::JsonLines, &file).map(Iterator::count));
        }
    }
}
