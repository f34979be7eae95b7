//! What tests stand on: fresh databases of both engines, clocks that are advanced by hand, counted identifiers,
//! contexts, draws and mutations by seed with their short and long runs, what strangers send.
//!
//! What it does: gives each test a migrated SQLite file and a migrated PostgreSQL database of its own
//! ([`on_each_database`]); starts at most one PostgreSQL cluster per test process and leaves nothing of it behind.
//! What it never does: skip. Where PostgreSQL is missing, the test fails and says what installs it.
//!
//! A contract test is
//! `#[tokio::test] async fn contract() { testkit::on_each_database(async |db: TestDb| { … }).await }`; what it needs
//! of the outside comes from a [`World`].

pub mod clock;
pub mod database;
pub mod ids;
pub mod postgres;
pub mod seeded;
pub mod soak;
pub mod torture;
pub mod wait;
pub mod world;

pub use clock::ManualClock;
pub use database::{TestDb, on_each_database, prepare_all};
pub use ids::CountingIds;
pub use seeded::{Mutator, Random};
pub use wait::wait_until;
pub use world::{World, ctx};
