//! The SNMP engine of the node, as its database knows it (RFC 3411, section 5; RFC 3414, section 2.2).
//!
//! Identifier and boots lie together: a node that lost its database gets a new identifier, for boots that begin again
//! under an old one would be refused by every receiver that remembers them.

use std::convert::Infallible;

use db::{Db, DbError, node};

use crate::error::db_error;

/// Where the node keeps it: identifier in hexadecimal, a colon, boots.
const KEY: &str = "snmp_engine";

/// The identity of the engine for one run of the program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineBoot {
    /// `snmpEngineID`, stable over restarts.
    pub engine_id: Vec<u8>,
    /// `snmpEngineBoots`, one more than in the run before, and already durable.
    pub boots: u32,
}

/// The engine as it last started; none when it never did.
///
/// # Errors
/// When the database fails, or holds something else.
pub async fn engine_known(node_db: &Db) -> Result<Option<EngineBoot>, DbError> {
    let Some(text) = node::meta(node_db, KEY).await? else { return Ok(None) };
    let broken = || DbError::corrupt("node_meta.snmp_engine", format!("{text} is no engine"));
    let (id, boots) = text.split_once(':').ok_or_else(broken)?;
    let boots: u32 = boots.parse().map_err(|_| broken())?;
    Ok(Some(EngineBoot { engine_id: unhex(id).ok_or_else(broken)?, boots }))
}

/// Counts a start of the engine. `fresh_id` is taken when the database has none yet.
///
/// # Errors
/// When the database fails, or holds something else.
pub async fn engine_boot(node_db: &Db, fresh_id: Vec<u8>) -> Result<EngineBoot, DbError> {
    let boot = match engine_known(node_db).await? {
        None => EngineBoot { engine_id: fresh_id, boots: 1 },
        Some(EngineBoot { engine_id, boots }) => EngineBoot { engine_id, boots: boots.saturating_add(1) },
    };
    let text = format!("{}:{}", hex(&boot.engine_id), boot.boots);
    let written = node_db.write::<_, Infallible, _>(move |tx| {
        let text = text.clone();
        Box::pin(async move { Ok(node::set_meta(tx, KEY, &text).await?) })
    });
    written.await.map_err(db_error)?;
    Ok(boot)
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}
