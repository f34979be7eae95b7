//! Which crates a change touches: the inner loop tests these and no others.

use std::collections::BTreeSet;

use crate::workspace::Package;

/// Files at the root that change every crate, beginning with these words.
const EVERY_CRATE: [&str; 5] = ["Cargo.toml", "Cargo.lock", "clippy.toml", "rustfmt.toml", ".cargo/"];

/// Names of the crates that own one of the files or depend, in any number of steps, on one that does, sorted.
///
/// A file in a folder but in none of its crates (a migration, the MIB, a schema) belongs to all crates of the folder.
pub fn crates<'a>(packages: &'a [Package], files: &[String]) -> Vec<&'a str> {
    let mut touched: BTreeSet<&str> = BTreeSet::new();
    for file in files {
        if EVERY_CRATE.iter().any(|begin| file.starts_with(begin)) {
            return packages.iter().map(|p| p.name.as_str()).collect();
        }
        match packages.iter().find(|p| is_below(file, &p.directory)) {
            Some(owner) => {
                touched.insert(&owner.name);
            }
            None => touched.extend(packages.iter().filter(|p| is_below(file, p.folder())).map(|p| p.name.as_str())),
        }
    }
    // Each round adds at least one crate or is the last, so there are at most as many rounds as crates.
    loop {
        let before = touched.len();
        for package in packages {
            // Dependencies of tests count here: it is tests that run.
            if package.dependencies.iter().any(|d| touched.contains(d.name.as_str())) {
                touched.insert(&package.name);
            }
        }
        if touched.len() == before {
            return touched.into_iter().collect();
        }
    }
}

fn is_below(file: &str, directory: &str) -> bool {
    file.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::testing::{package, with_dev};

    #[test]
    fn owners_and_their_dependents() {
        let packages = [
            package("model", "schemas/model", 0, &[]),
            package("db", "schemas/db", 3, &["model"]),
            package("billing", "billing/core", 2, &["model"]),
            package("store", "billing/store", 3, &["billing", "db"]),
            with_dev(package("fault", "fault/core", 2, &[]), "testkit"),
            package("testkit", "tests/testkit", 5, &["db"]),
        ];
        let check =
            |file: &str, expected: &[&str]| assert_eq!(crates(&packages, &[file.to_owned()]), expected, "{file}");
        check("billing/core/src/lib.rs", &["billing", "store"]);
        check("billing/store/src/lib.rs", &["store"]);
        check("schemas/db/src/lib.rs", &["db", "fault", "store", "testkit"]);
        check("schemas/migrations/sqlite/0001_store.sql", &["billing", "db", "fault", "model", "store", "testkit"]);
        check("Cargo.lock", &["model", "db", "billing", "store", "fault", "testkit"]);
        check("docs/ARCHITECTURE.md", &[]);
        check("billing/corexx/a.rs", &["billing", "store"]);
        assert!(crates(&packages, &[]).is_empty());
    }
}
