//! The agent: answers GET, GETNEXT and GETBULK about this node, read-only, v2c and v3.
//!
//! The SNMP library decodes, authenticates and walks, but looks at no source address, gives its sockets to nobody and
//! bounds no rate. So it listens on loopback, and the gate before it (`gate`) has the socket that others see: it drops
//! whoever is not on the list, whoever asks too much, and every request with a wrong community or user, without an
//! answer. What the library answers with comes from one picture of the node (`view`), taken anew at most once a second.

mod config;
mod gate;
mod view;

#[cfg(test)]
mod mutations;
#[cfg(test)]
mod tests;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use async_snmp::agent::SecurityModel;
use async_snmp::handler::MibHandler;
use async_snmp::{CryptoError, Oid, SecurityLevel, oid};
use bytes::Bytes;
use fault::port::NodeView;
use model::time::Clock;
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use config::{AgentConfig, CommunityConfig};
pub use gate::GateCounts;

use crate::config::SnmpConfig;
use crate::engine::Engine;
use gate::{Gate, IN_FLIGHT_MAX};
use view::{Subtree, View};

/// The agent cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The port is taken, or the address is none of this machine.
    #[error("SNMP cannot be heard at {address}: {source}; is another agent there? See snmp.agent.listen")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// The library refuses.
    #[error("the SNMP agent cannot be started: {0}")]
    Library(String),
}

/// A running agent.
pub struct Agent {
    local_addr: SocketAddr,
    counts: Arc<GateCounts>,
    library: async_snmp::Agent,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Agent {
    /// Listens where `config` says, and answers from `node`.
    ///
    /// # Errors
    /// [`AgentError`]; also when the configuration names no address.
    pub async fn start(
        config: &SnmpConfig,
        version: &str,
        engine: &Engine,
        node: Arc<dyn NodeView>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, AgentError> {
        let agent = &config.agent;
        let address = agent.listen.ok_or_else(|| AgentError::Library("snmp.agent.listen is not set".to_owned()))?;
        let socket = UdpSocket::bind(address).await.map_err(|source| AgentError::Listen { address, source })?;
        let local_addr = socket.local_addr().map_err(|source| AgentError::Listen { address, source })?;
        let counts = Arc::new(GateCounts::default());
        let view = Arc::new(View::new(config, version, node, Arc::clone(&clock), Arc::clone(&counts)));
        let library = library(config, engine, &view)
            .map_err(|error| AgentError::Library(error.to_string()))?
            .build()
            .await
            .map_err(|error| AgentError::Library(error.to_string()))?;
        let stop = watch::Sender::new(false);
        let gate = Gate::new(socket, library.local_addr(), agent, view.doors(), Arc::clone(&counts), clock);
        let running = library.clone();
        let tasks = vec![
            tokio::spawn(async move {
                if let Err(error) = running.run().await {
                    tracing::error!(%error, "the SNMP agent has ended");
                }
            }),
            tokio::spawn(gate.run(stop.subscribe())),
        ];
        tracing::info!(snmp.agent = %local_addr, "the SNMP agent answers");
        Ok(Self { local_addr, counts, library, stop, tasks })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// What was asked, and what was refused.
    #[must_use]
    pub fn counts(&self) -> &GateCounts {
        &self.counts
    }

    /// Ends it, and waits for what is being answered.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        self.library.cancel();
        for task in self.tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a task of the SNMP agent broke");
            }
        }
    }
}

/// The library's agent: who it knows, what they may read, and what there is.
fn library(
    config: &SnmpConfig,
    engine: &Engine,
    view: &Arc<View>,
) -> Result<async_snmp::agent::AgentBuilder, CryptoError> {
    const GROUP: &[u8] = b"readers";
    const VIEW: &[u8] = b"all";
    let agent = &config.agent;
    let communities: Vec<Bytes> =
        agent.communities.values().map(|entry| Bytes::copy_from_slice(entry.community.as_bytes())).collect();
    let users: Vec<Bytes> = agent.users.iter().map(|name| Bytes::copy_from_slice(name.as_bytes())).collect();
    let mut builder = async_snmp::Agent::builder()
        .bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).to_string())
        .max_concurrent_requests(Some(IN_FLIGHT_MAX))
        .authoritative_engine(engine.0.clone())
        .communities(communities.iter())
        .vacm(|mut vacm| {
            for community in communities.clone() {
                vacm = vacm.group(community, SecurityModel::V2c, GROUP);
            }
            for user in users.clone() {
                vacm = vacm.group(user, SecurityModel::Usm, GROUP);
            }
            // No write view: there is nothing to set. A user without privacy gets nothing, whatever it has keys for.
            vacm.access(GROUP, SecurityModel::V2c, SecurityLevel::NoAuthNoPriv, |access| access.read_view(VIEW))
                .access(GROUP, SecurityModel::Usm, SecurityLevel::AuthPriv, |access| access.read_view(VIEW))
                .view(VIEW, |view| view.include(oid!(1, 3, 6, 1)))
        });
    for prefix in view.prefixes() {
        let handler: Arc<dyn MibHandler> = Arc::new(Subtree::new(Arc::clone(view), prefix.clone()));
        builder = builder.handler(prefix, handler);
    }
    for name in &agent.users {
        if let Some(user) = config.users.get(name) {
            builder = builder.usm_user(Bytes::copy_from_slice(name.as_bytes()), |usm| user.inbound(usm))?;
        }
    }
    Ok(builder)
}

/// The `system` group (RFC 3418).
pub(crate) fn system() -> Oid {
    oid!(1, 3, 6, 1, 2, 1, 1)
}

/// The `snmp` group (RFC 3418).
pub(crate) fn snmp() -> Oid {
    oid!(1, 3, 6, 1, 2, 1, 11)
}
