//! The crates of the workspace as cargo describes them: name, folder, layer, dependencies.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

/// The workspace.
#[derive(Debug)]
pub struct Workspace {
    /// Its directory.
    pub root: PathBuf,
    /// Its members, by name.
    pub packages: Vec<Package>,
}

/// One member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// The name that cargo knows.
    pub name: String,
    /// Its directory below the root, with slashes: `sip-core/engine`.
    pub directory: String,
    /// Its layer, when the manifest has one.
    pub layer: Option<u8>,
    /// What it depends on.
    pub dependencies: Vec<Dependency>,
}

impl Package {
    /// The subject that the crate belongs to: the first part of its directory.
    pub fn folder(&self) -> &str {
        self.directory.split('/').next().unwrap_or_default()
    }
}

/// One dependency of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependency {
    /// The name of the package, not a rename.
    pub name: String,
    /// Only for tests.
    pub dev: bool,
}

/// Why the workspace cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum WorkspaceError {
    /// cargo does not run.
    #[error("cargo cannot be started: {0}")]
    Start(std::io::Error),
    /// cargo refuses.
    #[error("cargo metadata failed: {0}")]
    Refused(String),
    /// What it prints is not what it documents.
    #[error("the output of cargo metadata has another form: {0}")]
    Form(serde_json::Error),
}

impl Workspace {
    /// Asks cargo, without the network.
    ///
    /// # Errors
    /// [`WorkspaceError`].
    pub fn load() -> Result<Self, WorkspaceError> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo)
            .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
            .output()
            .map_err(WorkspaceError::Start)?;
        if !output.status.success() {
            return Err(WorkspaceError::Refused(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
        }
        Self::parse(&output.stdout).map_err(WorkspaceError::Form)
    }

    fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        let raw: RawMetadata = serde_json::from_slice(json)?;
        let mut packages: Vec<Package> = raw.packages.into_iter().map(|p| p.resolve(&raw.workspace_root)).collect();
        packages.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self { root: raw.workspace_root, packages })
    }
}

#[derive(Deserialize)]
struct RawMetadata {
    packages: Vec<RawPackage>,
    workspace_root: PathBuf,
}

#[derive(Deserialize)]
struct RawPackage {
    name: String,
    manifest_path: PathBuf,
    metadata: Option<RawPackageMetadata>,
    dependencies: Vec<RawDependency>,
}

#[derive(Deserialize)]
struct RawPackageMetadata {
    tandem: Option<RawTandem>,
}

#[derive(Deserialize)]
struct RawTandem {
    layer: Option<u8>,
}

#[derive(Deserialize)]
struct RawDependency {
    name: String,
    kind: Option<String>,
}

impl RawPackage {
    fn resolve(self, root: &Path) -> Package {
        let directory = self.manifest_path.parent().unwrap_or(root);
        let directory = directory.strip_prefix(root).unwrap_or(directory);
        Package {
            name: self.name,
            directory: directory.to_string_lossy().replace('\\', "/"),
            layer: self.metadata.and_then(|m| m.tandem).and_then(|t| t.layer),
            dependencies: self
                .dependencies
                .into_iter()
                .map(|d| Dependency { dev: d.kind.as_deref() == Some("dev"), name: d.name })
                .collect(),
        }
    }
}

#[cfg(test)]
pub mod testing {
    //! Short words for workspaces in tests.

    use super::{Dependency, Package};

    /// A member with normal dependencies.
    pub fn package(name: &str, directory: &str, layer: u8, dependencies: &[&str]) -> Package {
        let dependencies = dependencies.iter().map(|&d| Dependency { name: d.into(), dev: false }).collect();
        Package { name: name.into(), directory: directory.into(), layer: Some(layer), dependencies }
    }

    /// The same with one more, which only its tests use.
    pub fn with_dev(mut package: Package, dependency: &str) -> Package {
        package.dependencies.push(Dependency { name: dependency.into(), dev: true });
        package
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cargo_prints_is_read() {
        let json = br#"{"workspace_root":"/r","extra":1,"packages":[
            {"name":"b","manifest_path":"/r/x/b/Cargo.toml","metadata":null,"dependencies":[]},
            {"name":"a","manifest_path":"/r/x/a/Cargo.toml","metadata":{"tandem":{"layer":2}},
             "dependencies":[{"name":"b","kind":null},{"name":"proptest","kind":"dev"},{"name":"cc","kind":"build"}]}]}"#;
        let workspace = Workspace::parse(json).expect("the form of cargo");
        let [a, b] = workspace.packages.as_slice() else { panic!("two members") };
        assert_eq!((a.name.as_str(), a.directory.as_str(), a.folder(), a.layer), ("a", "x/a", "x", Some(2)));
        assert_eq!(a.dependencies.iter().map(|d| d.dev).collect::<Vec<_>>(), [false, true, false]);
        assert_eq!(b.layer, None);
    }
}
