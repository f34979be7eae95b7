//! The disks below the node's directories: how much is free, and whether a small file can be written.

use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use fault::resource::Severity;

use super::worker::{Step, StepError};
use crate::config::Config;

/// Octets of the file that is written: one block.
const PROBE_BYTES: usize = 4_096;
/// What a MiB has.
const MIB: u64 = 1024 * 1024;

/// A directory that the node fills.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Area {
    /// Its name in resources of alarms.
    pub name: &'static str,
    /// Where it lies.
    pub path: PathBuf,
    /// Whether files come and go in it, so that one more tells something. The databases tell of themselves.
    pub takes_files: bool,
}

/// The directories of this configuration, most important first.
#[must_use]
pub fn areas(config: &Config) -> Vec<Area> {
    let data = &config.node.data_dir;
    let area = |name, path: PathBuf, takes_files| Area { name, path, takes_files };
    let mut areas = vec![area("journal", data.join(db::journal::FOLDER), false), area("node", data.clone(), false)];
    if config.database.url.is_empty() {
        areas.push(area("store", crate::storage::store_folder(config), false));
    }
    areas.push(area("billing", config.billing_files_dir(), true));
    areas.push(area("reports", config.reports_dir(), true));
    areas
}

/// Free space at which a disk is told, MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    /// Below: a warning.
    pub low_mib: u32,
    /// Below: critical.
    pub critical_mib: u32,
}

/// What is wrong with an area.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskTrouble {
    /// The area.
    pub area: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// For people.
    pub text: String,
}

/// What one look found.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    area: &'static str,
    path: PathBuf,
    /// Its file system; none when that gives an error.
    space: Option<Space>,
    /// Why a small file cannot be written, or nothing be learned of it.
    refused: Option<String>,
}

/// What a file system says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Space {
    /// Areas of one file system have the same number.
    device: u64,
    free_bytes: u64,
}

/// What is known of the disks. Clones share it.
#[derive(Debug, Clone)]
pub struct Disks {
    areas: Arc<[Area]>,
    thresholds: Thresholds,
    troubles: Arc<Mutex<Option<Vec<DiskTrouble>>>>,
}

impl Disks {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(areas: Vec<Area>, thresholds: Thresholds) -> Self {
        Self { areas: areas.into(), thresholds, troubles: Arc::default() }
    }

    /// What the last look found wrong, at most one per area; none before the first one has come back.
    #[must_use]
    pub fn troubles(&self) -> Option<Vec<DiskTrouble>> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks once. A file system of the network that hangs keeps this waiting, and nobody else.
    ///
    /// # Errors
    /// When the look was ended, as at shutdown.
    pub async fn look(&self) -> Result<Step, StepError> {
        let areas = Arc::clone(&self.areas);
        let found = tokio::task::spawn_blocking(move || areas.iter().filter_map(look).collect::<Vec<_>>()).await?;
        for (area, space) in found.iter().filter_map(|disk| Some((disk.area, disk.space?))) {
            // A gauge is a float by its nature; the octets of any disk are far below 2^53.
            #[expect(
                clippy::cast_precision_loss,
                reason = "a gauge is a float; a disk has far fewer octets than 2^53"
            )]
            metrics::gauge!("tandem_disk_free_bytes", "area" => area).set(space.free_bytes as f64);
        }
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        *troubles = Some(judge(&found, self.thresholds, troubles.as_deref().unwrap_or_default()));
        Ok(Step::Idle)
    }
}

/// An area that is not there yet takes its space where it will be made.
fn look(area: &Area) -> Option<Found> {
    for path in area.path.ancestors() {
        let space = match space(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            space => space,
        };
        let written = if area.takes_files && path == area.path { write_file(path) } else { Ok(()) };
        let refused = match (&space, written) {
            (Err(error), _) => Some(format!("{} cannot be looked at: {error}", path.display())),
            (Ok(_), Err(error)) => Some(format!("no file can be written in {}: {error}", path.display())),
            (Ok(_), Ok(())) => None,
        };
        return Some(Found { area: area.name, path: path.to_owned(), space: space.ok(), refused });
    }
    None
}

fn space(path: &Path) -> std::io::Result<Space> {
    let metadata = std::fs::metadata(path)?;
    if !metadata.is_dir() {
        return Err(ErrorKind::NotADirectory.into());
    }
    let space = nix::sys::statvfs::statvfs(path)?;
    let (blocks, size): (u64, u64) = (space.blocks_available(), space.fragment_size());
    Ok(Space { device: metadata.dev(), free_bytes: blocks.saturating_mul(size) })
}

/// A file without a name, gone with its handle. Its space is taken when it is written; to wait for the disk as well would
/// hold up the journal beside it.
fn write_file(folder: &Path) -> std::io::Result<()> {
    tempfile::tempfile_in(folder)?.write_all(&[0; PROBE_BYTES])
}

/// What is wrong: per file system what its space says, told of its first area; per area whether it refuses files.
fn judge(found: &[Found], thresholds: Thresholds, before: &[DiskTrouble]) -> Vec<DiskTrouble> {
    let mut troubles: Vec<DiskTrouble> = Vec::new();
    let mut devices = Vec::new();
    for disk in found {
        let (area, path) = (disk.area, disk.path.display());
        if let Some(text) = disk.refused.clone() {
            troubles.push(DiskTrouble { area, severity: Severity::Critical, text });
            devices.extend(disk.space.map(|space| space.device));
        } else if let Some(Space { device, free_bytes }) = disk.space.filter(|space| !devices.contains(&space.device)) {
            devices.push(device);
            let was = before.iter().find(|trouble| trouble.area == area).map(|trouble| trouble.severity);
            let Some(severity) = level(free_bytes, thresholds, was) else { continue };
            let same = |other: &&Found| other.space.is_some_and(|space| space.device == device);
            let shared: Vec<&str> = found.iter().filter(same).map(|other| other.area).collect();
            let free = free_bytes / MIB;
            let text = format!("{free} MiB are free in {path}, the file system of: {}", shared.join(", "));
            troubles.push(DiskTrouble { area, severity, text });
        }
    }
    troubles
}

/// How bad it is that so much is free. A level that was reached is left only an eighth above its threshold: space that
/// comes and goes is one alarm.
fn level(free_bytes: u64, thresholds: Thresholds, was: Option<Severity>) -> Option<Severity> {
    let below = |mib: u32, held: bool| {
        let threshold = u64::from(mib) * MIB;
        free_bytes < if held { threshold + threshold / 8 } else { threshold }
    };
    if below(thresholds.critical_mib, was == Some(Severity::Critical)) {
        Some(Severity::Critical)
    } else if below(thresholds.low_mib, was.is_some()) {
        Some(Severity::Warning)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THRESHOLDS: Thresholds = Thresholds { low_mib: 800, critical_mib: 80 };

    #[test]
    fn a_level_is_left_above_its_threshold_alone() {
        let check = |free_mib: u64, was, expected| {
            assert_eq!(level(free_mib * MIB, THRESHOLDS, was), expected, "{free_mib} {was:?}");
        };
        check(800, None, None);
        check(799, None, Some(Severity::Warning));
        check(899, Some(Severity::Warning), Some(Severity::Warning));
        check(900, Some(Severity::Warning), None);
        check(79, Some(Severity::Warning), Some(Severity::Critical));
        check(89, Some(Severity::Critical), Some(Severity::Critical));
        check(90, Some(Severity::Critical), Some(Severity::Warning));
        check(90, None, Some(Severity::Warning));
        check(0, None, Some(Severity::Critical));
        assert_eq!(level(0, Thresholds { low_mib: 0, critical_mib: 0 }, None), None, "switched off");
    }

    #[test]
    fn one_trouble_per_file_system_and_one_per_area_that_refuses() {
        let disk = |area, device, free_mib: u64, refused: Option<&str>| Found {
            area,
            path: PathBuf::from(area),
            space: Some(Space { device, free_bytes: free_mib * MIB }),
            refused: refused.map(str::to_owned),
        };
        let found = [
            disk("journal", 1, 10, None),
            disk("node", 1, 10, None),
            disk("billing", 2, 5_000, Some("no file can be written in billing: read-only")),
            disk("reports", 2, 5_000, None),
        ];
        let troubles = judge(&found, THRESHOLDS, &[]);
        let told: Vec<_> = troubles.iter().map(|trouble| (trouble.area, trouble.severity, &*trouble.text)).collect();
        assert_eq!(
            told,
            [
                ("journal", Severity::Critical, "10 MiB are free in journal, the file system of: journal, node"),
                ("billing", Severity::Critical, "no file can be written in billing: read-only"),
            ]
        );
    }

    #[tokio::test]
    async fn a_directory_that_takes_files_is_tried_and_left_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let area = |path: PathBuf| Area { name: "billing", path, takes_files: true };
        let none = Thresholds { low_mib: 0, critical_mib: 0 };
        let disks = Disks::new(vec![area(dir.path().to_owned()), area(dir.path().join("later/on"))], none);
        assert_eq!(disks.troubles(), None, "nothing is known before");
        disks.look().await.unwrap();
        assert_eq!(disks.troubles(), Some(Vec::new()));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        let everything = Disks::new(disks.areas.to_vec(), Thresholds { low_mib: u32::MAX, critical_mib: u32::MAX });
        everything.look().await.unwrap();
        assert_eq!(everything.troubles().unwrap().len(), 1, "both lie on one file system");
    }

    #[tokio::test]
    async fn a_directory_of_which_nothing_can_be_learned_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let (looped, file) = (dir.path().join("loop"), dir.path().join("file"));
        std::os::unix::fs::symlink(&looped, &looped).unwrap();
        std::fs::write(&file, "").unwrap();
        let area = |name, path, takes_files| Area { name, path, takes_files };
        let areas = vec![
            area("journal", looped, false),
            area("node", file.clone(), true),
            area("store", file.join("of"), false),
        ];
        let disks = Disks::new(areas, Thresholds { low_mib: 0, critical_mib: 0 });
        disks.look().await.unwrap();
        let troubles = disks.troubles().unwrap();
        let told: Vec<_> = troubles.iter().map(|trouble| (trouble.area, trouble.severity)).collect();
        assert_eq!(told, ["journal", "node", "store"].map(|area| (area, Severity::Critical)));
        assert!(troubles.iter().all(|trouble| trouble.text.contains("cannot be looked at: ")), "{troubles:?}");
    }
}
