//! The demo is the product's promise to a newcomer: all its checks hold.

use std::process::Stdio;

use tandem_e2e::program;

#[tokio::test]
async fn all_checks_of_the_demo_hold() {
    let run = tokio::process::Command::new(program())
        .args(["demo", "--ci", "--json"])
        .stdin(Stdio::null())
        .output()
        .await
        .expect("the demo runs");
    let (stdout, stderr) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    let report: serde_json::Value =
        serde_json::from_slice(&run.stdout).unwrap_or_else(|e| panic!("{e}\n{stdout}\n{stderr}"));
    let checks = report["checks"].as_array().expect("a list of checks");
    let failed: Vec<_> = checks.iter().filter(|check| check["ok"] != true).collect();
    assert!(failed.is_empty(), "{failed:#?}\n{stderr}");
    assert!(checks.len() >= 10, "at least ten checks, not {}", checks.len());
    assert!(run.status.success(), "{stderr}");
}
