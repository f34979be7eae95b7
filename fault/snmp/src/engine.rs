//! The SNMP engine of this node (RFC 3411, section 3.1.1): authoritative for the traps that it sends and the requests
//! that it answers.

use async_snmp::{AuthoritativeEngine, PersistedAuthoritativeEngine};

/// Octets of the part of the identifier that tells installations apart.
pub const INSTANCE_OCTETS: usize = 16;
/// The format of an identifier whose rest is octets of the administrator (RFC 3411, section 5, `SnmpEngineID`).
const FORMAT_OCTETS: u8 = 5;

/// The engine for one run of the program. Cheap to clone; clones share its time.
#[derive(Debug, Clone)]
pub struct Engine(pub(crate) AuthoritativeEngine);

/// The engine cannot be started.
#[derive(Debug, thiserror::Error)]
#[error("the SNMP engine cannot be started: {0}")]
pub struct EngineError(String);

/// Engine time ran over, after 68 years without a restart.
#[derive(Debug, thiserror::Error)]
#[error("snmpEngineTime ran over; restart the program, which counts snmpEngineBoots")]
struct EngineTimeOver;

/// A new `snmpEngineID`: the enterprise number with the highest bit set, the format, and `instance`.
#[must_use]
pub fn engine_id(enterprise_number: u32, instance: [u8; INSTANCE_OCTETS]) -> Vec<u8> {
    let mut id = (enterprise_number | 0x8000_0000).to_be_bytes().to_vec();
    id.push(FORMAT_OCTETS);
    id.extend_from_slice(&instance);
    id
}

impl Engine {
    /// The engine with this identifier in the run that has this `snmpEngineBoots`; both are durable already.
    ///
    /// # Errors
    /// [`EngineError`] when the identifier or the boots are none.
    pub fn start(engine_id: Vec<u8>, boots: u32) -> Result<Self, EngineError> {
        let durable = move |state: &PersistedAuthoritativeEngine| {
            if state.engine_boots() == boots { Ok(()) } else { Err(EngineTimeOver) }
        };
        let failed = |error: Box<async_snmp::Error>| EngineError(error.to_string());
        let engine = match boots.checked_sub(1) {
            Some(before @ 1..) => {
                let before = PersistedAuthoritativeEngine::new(engine_id, before).map_err(failed)?;
                AuthoritativeEngine::restart(before, durable)
            }
            _ => AuthoritativeEngine::install(engine_id, durable),
        };
        engine.map(Self).map_err(failed)
    }

    /// `snmpEngineID`.
    #[must_use]
    pub fn id(&self) -> &[u8] {
        self.0.engine_id()
    }

    /// `snmpEngineBoots`.
    #[must_use]
    pub fn boots(&self) -> u32 {
        self.0.engine_boots()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_have_the_form_of_the_standard() {
        let id = engine_id(32_473, [7; 16]);
        assert_eq!((id.len(), &id[..6]), (21, &[0x80, 0x00, 0x7e, 0xd9, 5, 7][..]));
    }

    #[test]
    fn boots_are_those_of_the_run() {
        for boots in [1, 2, 700] {
            let engine = Engine::start(engine_id(1, [1; 16]), boots).unwrap();
            assert_eq!((engine.boots(), engine.id()), (boots, &engine_id(1, [1; 16])[..]));
        }
        assert!(Engine::start(engine_id(1, [1; 16]), 0).is_err());
        assert!(Engine::start(vec![1], 1).is_err());
    }
}
