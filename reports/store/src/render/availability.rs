//! How availability is shown: by the page as lines, by table and workbook as the same cells under the same names.

use model::time::Timestamp;
use reports::availability::{Availability, Down, Outage};
use reports::resource::Ratio;

use super::number::{UNDEFINED, grouped};

/// Milliseconds of a minute.
const MINUTE_MS: i64 = 60_000;
/// The cells of a node or trunk in table and workbook.
pub(super) const UP_COLUMNS: [&str; 5] = ["up_ms", "observed_ms", "availability_percent", "stopped_ms", "failed_ms"];
/// The cells of an outage.
pub(super) const OUTAGE_COLUMNS: [&str; 4] = ["begin", "end", "counted_ms", "cause"];

/// A line of the page.
pub(super) struct Line {
    pub(super) name: String,
    pub(super) percent: String,
    pub(super) up: String,
    pub(super) stopped: String,
    pub(super) failed: String,
}

/// An outage on the page.
pub(super) struct OutageLine {
    pub(super) name: String,
    pub(super) begin: String,
    pub(super) end: String,
    pub(super) counted: String,
    pub(super) cause: String,
}

/// A node or trunk: section, key, name, and the cells of [`UP_COLUMNS`].
pub(super) type UpCells<'a> = (&'static str, String, &'a str, [Option<String>; 5]);

fn minutes(ms: i64) -> String {
    let minutes = Ratio { numerator: ms, denominator: MINUTE_MS }.decimal(1);
    minutes.map_or_else(|| UNDEFINED.to_owned(), |text| grouped(&text))
}

fn line(name: &str, up_ms: Ratio, stopped: String, failed_ms: i64) -> Line {
    Line {
        name: name.to_owned(),
        percent: up_ms.percent_rounded_down().map_or_else(|| UNDEFINED.to_owned(), |text| format!("{text} %")),
        up: format!("{} of {}", minutes(up_ms.numerator), minutes(up_ms.denominator)),
        stopped,
        failed: minutes(failed_ms),
    }
}

pub(super) fn nodes(availability: &Availability) -> Vec<Line> {
    let nodes = availability.nodes.iter();
    nodes.map(|node| line(&node.node, node.up_ms, minutes(node.stopped_ms), node.failed_ms)).collect()
}

pub(super) fn trunks(availability: &Availability) -> Vec<Line> {
    let down = |up_ms: Ratio| up_ms.denominator.saturating_sub(up_ms.numerator);
    let trunks = availability.trunks.iter();
    trunks.map(|trunk| line(&trunk.name, trunk.up_ms, String::new(), down(trunk.up_ms))).collect()
}

pub(super) fn outages(availability: &Availability, local: impl Fn(Timestamp) -> String) -> Vec<OutageLine> {
    let line = |outage: &Outage| OutageLine {
        name: outage.name.clone(),
        begin: local(outage.begin),
        end: outage.end.map_or_else(|| "goes on".to_owned(), &local),
        counted: minutes(outage.counted_ms),
        cause: outage.cause.clone(),
    };
    availability.outages.iter().map(line).collect()
}

/// Nodes and trunks for table and workbook.
pub(super) fn up_cells(availability: &Availability) -> Vec<UpCells<'_>> {
    let shares = |ratio: Ratio| {
        [Some(ratio.numerator.to_string()), Some(ratio.denominator.to_string()), ratio.percent_rounded_down()]
    };
    let nodes = availability.nodes.iter().map(|node| {
        let [up, observed, percent] = shares(node.up_ms);
        let cells = [up, observed, percent, Some(node.stopped_ms.to_string()), Some(node.failed_ms.to_string())];
        ("node_availability", node.node.clone(), node.node.as_str(), cells)
    });
    let trunks = availability.trunks.iter().map(|trunk| {
        let [up, observed, percent] = shares(trunk.up_ms);
        let cells = [up, observed, percent, None, None];
        ("trunk_availability", trunk.trunk.to_string(), trunk.name.as_str(), cells)
    });
    nodes.chain(trunks).collect()
}

/// What was down, and the cells of [`OUTAGE_COLUMNS`].
pub(super) fn outage_cells(outage: &Outage) -> (String, [String; 4]) {
    let key = match &outage.down {
        Down::Node(node) => format!("node:{node}"),
        Down::Trunk(trunk) => format!("trunk:{trunk}"),
    };
    let end = outage.end.map(|end| end.to_string()).unwrap_or_default();
    (key, [outage.begin.to_string(), end, outage.counted_ms.to_string(), outage.cause.clone()])
}
