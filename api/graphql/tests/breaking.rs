//! Nothing that a client may rely on goes away: the schema against the one that was promised, `released.graphql`. Who
//! breaks it on purpose says so in CHANGELOG.md, and runs this test with `UPDATE_RELEASED=1`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at what must not be")]

mod support;

use std::path::Path;

use support::node::Node;

/// The reference implementation judges.
const PACKAGES: [&str; 1] = ["graphql@16.15.0"];

/// It also reports a built-in scalar that nothing refers to any more.
const SCRIPT: &str = "
import { readFileSync } from 'node:fs';
import { buildSchema, findBreakingChanges, specifiedScalarTypes } from 'graphql';
const [before, after] = process.argv.slice(2).map((file) => buildSchema(readFileSync(file, 'utf8')));
const builtIn = new Set(specifiedScalarTypes.map((type) => type.name));
const found = findBreakingChanges(before, after).map((change) => change.description);
console.log(JSON.stringify(found.filter((text) => !builtIn.has(text.split(' ')[0]))));
";

/// One break of each kind: what is replaced in the schema, by what, and what is told.
const PLANTED: [(&str, &str, &str); 5] = [
    ("type Site implements Node {", "type Site {", "Site no longer implements interface Node"),
    ("oldestFirst: Boolean! = false, ", "", "Query.changes arg oldestFirst was removed"),
    ("\n  RESELLER\n", "\n  DEALER\n", "RESELLER was removed from enum type AccountKind"),
    (
        "input SiteDeleteInput {\n",
        "input SiteDeleteInput {\n  reason: String!\n",
        "reason on input type SiteDeleteInput",
    ),
    ("  revertedById: ID\n", "  undoneById: ID\n", "Change.revertedById was removed"),
];

#[tokio::test(flavor = "multi_thread")]
async fn what_was_promised_is_kept() {
    let released = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schemas/graphql/released.graphql");
    let sdl = tandem_graphql::sdl();
    if std::env::var_os("UPDATE_RELEASED").is_some() {
        std::fs::write(&released, &sdl).unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let now = folder.path().join("now.graphql");
    std::fs::write(&now, &sdl).unwrap();
    let node = Node::set_up(&PACKAGES, SCRIPT).await;
    let compare = async |before: &Path, after: &Path| {
        let breaks = node.run(&[before.to_str().unwrap(), after.to_str().unwrap()]).await;
        serde_json::from_value::<Vec<String>>(breaks).unwrap()
    };
    let breaks = compare(&released, &now).await;
    assert!(
        breaks.is_empty(),
        "clients break: {breaks:#?}\nkeep them, or say so in CHANGELOG.md and UPDATE_RELEASED=1"
    );
    for (text, replacement, expected) in PLANTED {
        let broken = sdl.replacen(text, replacement, 1);
        assert!(broken != sdl, "{text} is not in the schema: plant another break");
        let file = folder.path().join("broken.graphql");
        std::fs::write(&file, broken).unwrap();
        let found = compare(&now, &file).await;
        assert!(found.iter().any(|text| text.contains(expected)), "{expected} is not among {found:?}");
    }
}
