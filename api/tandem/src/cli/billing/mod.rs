//! `tandem billing`: files as a BSS sees them, over HTTP with a token; and proofs from the machine itself.

mod files;
mod proof;
mod pull;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;

use super::remote::Remote;
use super::{Failure, Output};
use crate::config::Config;

/// What to do with billing files.
#[derive(Debug, Subcommand)]
pub enum BillingCommand {
    /// The streams within the token's reach.
    Streams {
        #[command(flatten)]
        remote: Remote,
    },
    /// The closed files of a stream, in the order of the sequence.
    Files {
        #[command(flatten)]
        remote: Remote,
        /// The stream: its id, its global id, or its name where that is unique.
        stream: String,
    },
    /// Pull all files that a directory does not hold yet, and verify each: size, SHA-256, chain, count.
    Fetch {
        #[command(flatten)]
        remote: Remote,
        /// The stream: its id, its global id, or its name where that is unique.
        stream: String,
        /// Where to; what lies there already is verified and gone on from.
        #[arg(long, value_name = "DIR", default_value = ".")]
        directory: PathBuf,
        /// Acknowledge each file that was pulled and found whole.
        #[arg(long)]
        ack: bool,
    },
    /// Acknowledge a file: accepted, or rejected with a reason.
    Ack {
        #[command(flatten)]
        remote: Remote,
        /// The stream: its id, its global id, or its name where that is unique.
        stream: String,
        /// The file's sequence.
        sequence: u64,
        /// Reject it, for this reason.
        #[arg(long, value_name = "REASON")]
        reject: Option<String>,
    },
    /// Close the open file of a stream now.
    Close {
        #[command(flatten)]
        remote: Remote,
        /// The stream: its id, its global id, or its name where that is unique.
        stream: String,
    },
    /// On the machine itself: check every file of every stream: sequence without gap, hashes, items, the same bytes
    /// when rendered again.
    Verify,
    /// On the machine itself: check that usage, charges, ledger and files agree.
    Reconcile,
}

pub async fn run(command: BillingCommand, config: Config, output: Output) -> Result<ExitCode, Failure> {
    match command {
        BillingCommand::Streams { remote } => files::streams(&remote.client(&config)?, output).await?,
        BillingCommand::Files { remote, stream } => files::files(&remote.client(&config)?, &stream, output).await?,
        BillingCommand::Fetch { remote, stream, directory, ack } => {
            pull::run(&remote.client(&config)?, &stream, &directory, ack, output).await?;
        }
        BillingCommand::Ack { remote, stream, sequence, reject } => {
            files::acknowledge(&remote.client(&config)?, &stream, sequence, reject.as_deref(), output).await?;
        }
        BillingCommand::Close { remote, stream } => files::close(&remote.client(&config)?, &stream, output).await?,
        BillingCommand::Verify => return proof::run(proof::Proof::Files, &config, output).await,
        BillingCommand::Reconcile => return proof::run(proof::Proof::Books, &config, output).await,
    }
    Ok(ExitCode::SUCCESS)
}
