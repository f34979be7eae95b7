//! The rule of layers and folders: `docs/ARCHITECTURE.md`, "Layers".

use std::collections::BTreeMap;
use std::fmt;

use crate::workspace::Package;

/// The highest layer: the root, which may know everything.
const LAYER_MAX: u8 = 5;

/// Layers from here down have no runtime, socket, clock or database.
const PURE_MAX: u8 = 2;

/// What gives a crate a runtime, a socket, a database, randomness or a face.
const IMPURE: [&str; 33] = [
    "async-graphql",
    "async-snmp",
    "axum",
    "axum-core",
    "figment",
    "getrandom",
    "hickory-resolver",
    "hyper",
    "lettre",
    "libc",
    "metrics-exporter-prometheus",
    "mio",
    "nix",
    "quinn-udp",
    "rand",
    "reqwest",
    "rusqlite",
    "russh",
    "rustls",
    "snmp2",
    "socket2",
    "sqlx",
    "tempfile",
    "tokio",
    "tokio-cron-scheduler",
    "tokio-rustls",
    "tokio-stream",
    "tokio-tungstenite",
    "tokio-util",
    "tonic",
    "tower",
    "tower-http",
    "tracing-subscriber",
];

/// What only a face (layer 4) or the root may know.
const FACE_ONLY: [&str; 2] = ["async-graphql", "axum"];

/// SQL, which faces must not know.
const SQL: [&str; 2] = ["rusqlite", "sqlx"];

/// Folders that faces (layer 4) must not know: the call core.
const CALL_CORE: [&str; 2] = ["media", "sip-core"];

/// Libraries that one crate alone may name, and that crate's directory.
const HOMES: [(&str, &str); 4] = [
    ("async-graphql", "api/graphql"),
    ("async-snmp", "fault/snmp"),
    ("rsip", "sip-core/message"),
    ("rusqlite", "schemas/db"),
];

/// Folders whose crates everybody may use.
const SHARED_FOLDER: &str = "schemas";

/// Folders whose crates may use every folder.
const OPEN_FOLDERS: [&str; 2] = ["api", "tests"];

/// Edges from one folder into another that the design names one by one.
const NAMED_EDGES: [(&str, &str); 1] = [("sip-core/services", "media/engine")];

/// One broken rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Violation {
    /// A member without a layer, or with one that does not exist.
    NoLayer {
        /// The crate.
        package: String,
    },
    /// A dependency on a layer that this one may not use.
    Order {
        /// The crate and its layer.
        from: (String, u8),
        /// What it uses.
        to: (String, u8),
    },
    /// A dependency sideways, from one folder into another.
    Folder {
        /// The directory of the crate.
        from: String,
        /// The directory of what it uses.
        to: String,
    },
    /// A library that the layer may not use.
    Library {
        /// The crate and its layer.
        from: (String, u8),
        /// The library.
        library: String,
    },
    /// A library that belongs to one crate.
    Home {
        /// The directory of the crate.
        from: String,
        /// The library.
        library: &'static str,
        /// Where it belongs.
        home: &'static str,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoLayer { package } => write!(
                f,
                "{package}: no layer from 0 to {LAYER_MAX}; set `layer` below [package.metadata.tandem] in its manifest"
            ),
            Self::Order { from, to } => {
                write!(f, "{} (layer {}) may not use {} (layer {})", from.0, from.1, to.0, to.1)
            }
            Self::Folder { from, to } => write!(
                f,
                "{from} may not use {to}: put the type into schemas/model, or the question into a port that the root answers"
            ),
            Self::Library { from, library } => write!(f, "{} (layer {}) may not use {library}", from.0, from.1),
            Self::Home { from, library, home } => write!(f, "{from} may not use {library}: only {home} names it"),
        }
    }
}

/// Whether a crate of one layer may use a crate of another, folders aside.
const fn may_use(from: u8, to: u8) -> bool {
    match from {
        0 => to == 0,
        // Cores do not know each other, so layer 2 stops at layer 1.
        1 | 2 => to <= 1,
        3 => to <= 3,
        4 => matches!(to, 0 | 2 | 4),
        _ => true,
    }
}

/// All broken rules, in the order of the crates. Dependencies of tests are exempt.
pub fn check(packages: &[Package]) -> Vec<Violation> {
    let by_name: BTreeMap<&str, &Package> = packages.iter().map(|p| (p.name.as_str(), p)).collect();
    let mut violations = Vec::new();
    for package in packages {
        let Some(layer) = package.layer.filter(|&layer| layer <= LAYER_MAX) else {
            violations.push(Violation::NoLayer { package: package.name.clone() });
            continue;
        };
        for dependency in package.dependencies.iter().filter(|d| !d.dev) {
            match by_name.get(dependency.name.as_str()) {
                Some(used) => check_edge(package, layer, used, &mut violations),
                None => check_library(package, layer, &dependency.name, &mut violations),
            }
        }
    }
    violations
}

fn check_edge(package: &Package, layer: u8, used: &Package, violations: &mut Vec<Violation>) {
    // A crate without a layer has its own line already.
    if let Some(to) = used.layer.filter(|&to| to <= LAYER_MAX && !may_use(layer, to)) {
        violations.push(Violation::Order { from: (package.name.clone(), layer), to: (used.name.clone(), to) });
    }
    let sideways = package.folder() != used.folder()
        && used.folder() != SHARED_FOLDER
        && !OPEN_FOLDERS.contains(&package.folder())
        && !NAMED_EDGES.contains(&(package.directory.as_str(), used.directory.as_str()));
    let blind_face = layer == 4 && CALL_CORE.contains(&used.folder());
    if sideways || blind_face {
        violations.push(Violation::Folder { from: package.directory.clone(), to: used.directory.clone() });
    }
}

fn check_library(package: &Package, layer: u8, library: &str, violations: &mut Vec<Violation>) {
    let refused = match layer {
        0..=PURE_MAX => IMPURE.contains(&library),
        3 => FACE_ONLY.contains(&library),
        4 => SQL.contains(&library),
        _ => false,
    };
    if refused {
        violations.push(Violation::Library { from: (package.name.clone(), layer), library: library.to_owned() });
    }
    if let Some((library, home)) = HOMES.into_iter().find(|(name, home)| *name == library && *home != package.directory)
    {
        violations.push(Violation::Home { from: package.directory.clone(), library, home });
    }
}

/// One line per crate: layer, directory, the members that it uses.
pub fn table(packages: &[Package]) -> Vec<String> {
    let by_name: BTreeMap<&str, &Package> = packages.iter().map(|p| (p.name.as_str(), p)).collect();
    let mut rows: Vec<&Package> = packages.iter().collect();
    rows.sort_by(|a, b| (a.layer, &a.directory).cmp(&(b.layer, &b.directory)));
    rows.into_iter()
        .map(|package| {
            let uses: Vec<&str> = package
                .dependencies
                .iter()
                .filter(|d| !d.dev)
                .filter_map(|d| by_name.get(d.name.as_str()).map(|p| p.directory.as_str()))
                .collect();
            let layer = package.layer.map_or_else(|| "?".to_owned(), |layer| layer.to_string());
            format!("{layer}  {:<20} {}", package.directory, uses.join(" ")).trim_end().to_owned()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::testing::{package, with_dev};

    fn healthy() -> Vec<Package> {
        vec![
            package("model", "schemas/model", 0, &["serde"]),
            package("db", "schemas/db", 3, &["model", "sqlx", "rusqlite", "tokio"]),
            package("media-engine", "media/engine", 1, &["model", "bytes"]),
            package("services", "sip-core/services", 2, &["model", "media-engine"]),
            package("transport", "sip-core/transport", 3, &["services", "db", "mio"]),
            with_dev(package("billing", "billing/core", 2, &["model"]), "tokio"),
            package("billing-store", "billing/store", 3, &["model", "db", "billing", "sqlx"]),
            package("fault", "fault/core", 2, &["model"]),
            package("snmp", "fault/snmp", 3, &["fault", "async-snmp"]),
            package("http", "api/http", 4, &["model", "billing", "axum"]),
            package("graphql", "api/graphql", 4, &["model", "billing", "http", "async-graphql"]),
            package("tandem", "api/tandem", 5, &["db", "transport", "billing-store", "snmp", "graphql"]),
            package("testkit", "tests/testkit", 5, &["model", "db"]),
        ]
    }

    /// Plants one dependency into the healthy workspace and gives what is said about it.
    fn planted(name: &str, dependency: &str) -> Vec<String> {
        let mut packages = healthy();
        let found = packages.iter_mut().find(|p| p.name == name).expect("the name is in the workspace");
        *found = package(&found.name, &found.directory, found.layer.expect("set"), &[dependency]);
        check(&packages).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_healthy_workspace_holds() {
        assert_eq!(check(&healthy()), []);
    }

    #[test]
    fn each_planted_edge_is_found() {
        let check = |from: &str, to: &str, expected: &[&str]| {
            let found = planted(from, to);
            assert_eq!(found.len(), expected.len(), "{from} -> {to}: {found:?}");
            for (found, expected) in found.iter().zip(expected) {
                assert!(found.starts_with(expected), "{from} -> {to}: {found}");
            }
        };
        check("model", "db", &["model (layer 0) may not use db (layer 3)"]);
        check("services", "transport", &["services (layer 2) may not use transport (layer 3)"]);
        check(
            "billing",
            "fault",
            &["billing (layer 2) may not use fault (layer 2)", "billing/core may not use fault/core"],
        );
        check("billing-store", "fault", &["billing/store may not use fault/core"]);
        check(
            "billing-store",
            "tandem",
            &["billing-store (layer 3) may not use tandem (layer 5)", "billing/store may not use api/tandem"],
        );
        check("transport", "media-engine", &["sip-core/transport may not use media/engine"]);
        check("http", "db", &["http (layer 4) may not use db (layer 3)"]);
        check("http", "services", &["api/http may not use sip-core/services"]);
        check("graphql", "billing-store", &["graphql (layer 4) may not use billing-store (layer 3)"]);
    }

    #[test]
    fn each_planted_library_is_found() {
        let check = |from: &str, library: &str, expected: &[&str]| {
            assert_eq!(planted(from, library), expected, "{from} -> {library}");
        };
        for library in ["tokio", "mio", "socket2", "sqlx", "axum", "reqwest", "lettre"] {
            for (name, layer) in [("model", 0), ("media-engine", 1), ("billing", 2)] {
                check(name, library, &[&format!("{name} (layer {layer}) may not use {library}")]);
            }
        }
        check("billing-store", "axum", &["billing-store (layer 3) may not use axum"]);
        check("http", "sqlx", &["http (layer 4) may not use sqlx"]);
        check("http", "async-graphql", &["api/http may not use async-graphql: only api/graphql names it"]);
        check("tandem", "async-snmp", &["api/tandem may not use async-snmp: only fault/snmp names it"]);
        check("transport", "rsip", &["sip-core/transport may not use rsip: only sip-core/message names it"]);
        check("billing-store", "rusqlite", &["billing/store may not use rusqlite: only schemas/db names it"]);
    }

    #[test]
    fn a_crate_needs_a_layer_and_tests_are_exempt() {
        let mut packages = healthy();
        packages[0].layer = None;
        assert_eq!(check(&packages), [Violation::NoLayer { package: "model".into() }]);
        packages[0].layer = Some(6);
        assert_eq!(check(&packages), [Violation::NoLayer { package: "model".into() }]);
        let dev = with_dev(package("fault", "fault/core", 2, &[]), "testkit");
        assert_eq!(check(&[dev, package("testkit", "tests/testkit", 5, &[])]), []);
    }
}
