//! `tandem migrate`.

use std::process::ExitCode;

use super::Failure;
use crate::config::Config;

pub async fn run(config: Config) -> Result<ExitCode, Failure> {
    crate::data_dir::create(&config.node.data_dir)?;
    let store = crate::storage::open_store(&config).await?;
    store.close().await;
    println!("the schema of the store fits this version");
    Ok(ExitCode::SUCCESS)
}
