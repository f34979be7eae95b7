//! Checks of the workspace that neither the compiler nor clippy makes.
//!
//! What it does: checks the layers ([`layers`]) and the hygiene of the tree ([`hygiene`]), and names the crates that a
//! change touches ([`changed`]). What it never does: change a file. Drive it as `cargo xtask layers`,
//! `cargo xtask hygiene`, `cargo xtask changed`; it exits with 1 when a check finds something, with 2 when it cannot
//! look.

mod changed;
mod git;
mod hygiene;
mod layers;
mod workspace;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::workspace::{Workspace, WorkspaceError};

/// Checks of the workspace.
#[derive(Parser)]
#[command(name = "xtask", about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check that every crate depends only on what its layer and folder may use
    Layers {
        /// Also print each crate with its layer and its edges
        #[arg(long)]
        print: bool,
    },
    /// Check sources for machine paths, unfinished work and fixed waits
    Hygiene,
    /// Print the crates whose files changed, and those that depend on them, one a line
    Changed {
        /// The revision to compare with; without it: the branch point from origin/main, or else HEAD
        #[arg(long, value_name = "REVISION")]
        base: Option<String>,
    },
}

#[derive(Debug, thiserror::Error)]
enum XtaskError {
    #[error(transparent)]
    Workspace(#[from] WorkspaceError),
    #[error(transparent)]
    Git(#[from] git::GitError),
    #[error("the output cannot be written")]
    Output(#[from] std::io::Error),
}

fn main() -> ExitCode {
    match run(&Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            // Nothing is left to do when standard error is closed too.
            let _closed = writeln!(std::io::stderr(), "xtask: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(command: &Command) -> Result<ExitCode, XtaskError> {
    let workspace = Workspace::load()?;
    match command {
        Command::Layers { print } => {
            if *print {
                emit(&layers::table(&workspace.packages))?;
            }
            let crates = workspace.packages.len();
            verdict(&layers::check(&workspace.packages), &format!("layers: {crates} crates hold"))
        }
        Command::Hygiene => {
            let files = git::files(&workspace.root)?;
            let findings = hygiene::check(&workspace.root, &files);
            verdict(&findings, &format!("hygiene: {} files hold", files.len()))
        }
        Command::Changed { base } => {
            let base = match base {
                Some(base) => base.clone(),
                None => git::branch_point(&workspace.root)?,
            };
            let files = git::changed_files(&workspace.root, &base)?;
            emit(&changed::crates(&workspace.packages, &files))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Prints findings, or the sentence that says there are none.
fn verdict<T: std::fmt::Display>(findings: &[T], holds: &str) -> Result<ExitCode, XtaskError> {
    if findings.is_empty() {
        emit(&[holds])?;
        return Ok(ExitCode::SUCCESS);
    }
    emit(findings)?;
    Ok(ExitCode::FAILURE)
}

fn emit<T: std::fmt::Display>(lines: &[T]) -> Result<(), XtaskError> {
    let mut out = std::io::stdout().lock();
    for line in lines {
        writeln!(out, "{line}")?;
    }
    out.flush()?;
    Ok(())
}
