//! The committed schema is the schema.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at what must not be")]

use std::path::Path;

#[test]
fn the_committed_schema_is_true() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schemas/graphql/schema.graphql");
    let sdl = tandem_graphql::sdl();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &sdl).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == sdl,
        "schemas/graphql/schema.graphql is old: run this test with UPDATE=1 and read the difference"
    );
}
