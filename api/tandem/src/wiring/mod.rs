//! Where one folder's port meets another's implementation.

pub mod billing_detector;
pub mod certificate;
pub mod changes;
pub mod clock_step;
pub mod consumers;
pub mod detectors;
pub mod directory;
pub mod disks;
pub mod duty;
pub mod journal;
pub mod lost_journal;
pub mod media;
pub mod recovery;
pub mod registrations;
pub mod standing;
pub mod storage_detector;
pub mod storage_watch;
pub mod trunk_states;
pub mod worker;
pub mod write_health;

#[cfg(test)]
mod store_away;
