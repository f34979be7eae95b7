//! How trunks stand in the call core, for GraphQL.

use std::sync::Weak;

use api_graphql::{TrunkRegistrationState, TrunkState, TrunkStates};
use model::id::TrunkId;
use sip_services::trunk::RegistrationState;
use sip_transport::Node;

/// The call core of this node, as long as it is there: faces do not keep it from its end.
pub struct NodeTrunks(pub Weak<Node>);

impl TrunkStates for NodeTrunks {
    fn trunk_state(&self, trunk: TrunkId) -> Option<TrunkState> {
        let node = self.0.upgrade()?;
        let down = node.trunk_states().list().into_iter().find(|down| down.trunk == trunk);
        let registration = node.trunk_registration(trunk).map(|state| match state {
            RegistrationState::Pending => TrunkRegistrationState::Pending,
            RegistrationState::Registered { until } => TrunkRegistrationState::Registered(until),
            RegistrationState::Refused { status } => TrunkRegistrationState::Refused(status),
            RegistrationState::Expired => TrunkRegistrationState::Expired,
        });
        Some(TrunkState { down: down.map(|down| (down.since, down.reason.as_str())), registration })
    }
}
