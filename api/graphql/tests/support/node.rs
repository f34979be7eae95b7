//! A script that Node.js runs with packages of npm, in a folder of its own.

use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;

/// Installing from a registry may be slow; a script takes a second.
const BOUND: Duration = Duration::from_secs(180);

/// A folder with packages and a script.
pub struct Node {
    folder: tempfile::TempDir,
}

impl Node {
    /// Installs pinned packages beside an ES module.
    pub async fn set_up(packages: &[&str], script: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("package.json"), r#"{"private":true,"type":"module"}"#).unwrap();
        std::fs::write(folder.path().join("script.js"), script).unwrap();
        let node = Self { folder };
        let mut install = Command::new("npm");
        install.args(["install", "--no-audit", "--no-fund", "--ignore-scripts"]).args(packages);
        node.finish(install).await;
        node
    }

    /// What the script prints for these arguments: one JSON document.
    pub async fn run(&self, arguments: &[&str]) -> Value {
        let mut script = Command::new("node");
        script.arg("script.js").args(arguments);
        serde_json::from_str(&self.finish(script).await).unwrap()
    }

    async fn finish(&self, mut command: Command) -> String {
        let remedy = "install node and npm, and let npm reach a registry";
        command.current_dir(self.folder.path()).stdin(Stdio::null()).kill_on_drop(true);
        let output = tokio::time::timeout(BOUND, command.output()).await.expect("within the bound");
        let output = output.unwrap_or_else(|error| panic!("{remedy}: {error}"));
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{remedy}: {errors}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}
