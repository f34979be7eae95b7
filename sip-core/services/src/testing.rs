//! The little world of this crate's own tests: a provider, a reseller, two customers, three subscribers, two trunks.

use std::net::SocketAddr;

use model::event::fact::{Answered, CallSetup, Party, TrunkParty};
use model::id::{AccountId, CallId, DomainId, NumberId, SubscriberId, TrunkId};
use model::number::E164;
use model::secret::Secret;
use model::tenancy::AccountPath;
use model::time::Timestamp;
use uuid::Uuid;

use crate::directory::{
    Account, Directory, DirectoryChange, DirectoryEntry, Domain, Number, Subscriber, Trunk, TrunkCredentials,
};

/// See the module.
pub struct World {
    pub customer_path: AccountPath,
    pub accounts: Vec<Account>,
    pub domain: Domain,
    pub other_domain: Domain,
    pub alice: Subscriber,
    pub bob: Subscriber,
    pub carol: Subscriber,
    pub alice_number: E164,
    pub bob_number: E164,
    pub trunk: Trunk,
    pub backup_trunk: Trunk,
}

pub const PASSWORD: &str = "correct horse";
pub const TRUNK_PASSWORD: &str = "battery staple";

fn account_id(n: u128) -> AccountId {
    AccountId::from_uuid(Uuid::from_u128(n))
}

fn number(digits: &str) -> E164 {
    E164::from_digits(digits).expect("a number")
}

impl World {
    pub fn new() -> Self {
        let provider = AccountPath::root(account_id(1));
        let reseller = provider.child(account_id(2)).expect("shallow");
        let customer_path = reseller.child(account_id(3)).expect("shallow");
        let other_path = reseller.child(account_id(4)).expect("shallow");
        let account = |n: u128, path: &AccountPath| Account {
            id: account_id(n),
            path: path.clone(),
            call_limit: None,
            enabled: true,
        };
        let domain = Domain {
            id: DomainId::from_uuid(Uuid::from_u128(10)),
            name: "alpha.example".parse().expect("a domain"),
            account: account_id(3),
            country_code: "43".to_owned(),
            national_prefix: "0".to_owned(),
            international_prefix: "00".to_owned(),
        };
        let other_domain = Domain {
            id: DomainId::from_uuid(Uuid::from_u128(11)),
            name: "beta.example".parse().expect("a domain"),
            account: account_id(4),
            ..domain.clone()
        };
        let subscriber = |n: u128, domain: &Domain, username: &str, extension: &str| {
            let (ha1_md5, ha1_sha256) =
                crate::auth::ha1_pair(username, domain.name.as_str(), &Secret::new(PASSWORD.to_owned()));
            Subscriber {
                id: SubscriberId::from_uuid(Uuid::from_u128(n)),
                account: domain.account,
                domain: domain.id,
                site: None,
                username: username.to_owned(),
                extension: Some(extension.to_owned()),
                ha1_md5: Secret::new(ha1_md5),
                ha1_sha256: Secret::new(ha1_sha256),
                call_limit: None,
                enabled: true,
            }
        };
        let trunk = Trunk {
            id: TrunkId::from_uuid(Uuid::from_u128(40)),
            account: account_id(1),
            path: provider.clone(),
            name: "carrier".to_owned(),
            address: SocketAddr::from(([10, 0, 9, 1], 5060)),
            credentials: Some(TrunkCredentials {
                username: "tandem".to_owned(),
                password: Secret::new(TRUNK_PASSWORD.to_owned()),
            }),
            registration: None,
            call_limit: None,
            priority: 1,
            keepalive_ms: 0,
            enabled: true,
        };
        Self {
            accounts: vec![
                account(1, &provider),
                account(2, &reseller),
                account(3, &customer_path),
                account(4, &other_path),
            ],
            alice: subscriber(20, &domain, "alice", "100"),
            bob: subscriber(21, &domain, "bob", "101"),
            carol: subscriber(22, &other_domain, "carol", "100"),
            customer_path,
            domain,
            other_domain,
            alice_number: number("43720000100"),
            bob_number: number("43720000101"),
            backup_trunk: Trunk {
                id: TrunkId::from_uuid(Uuid::from_u128(41)),
                name: "backup".to_owned(),
                address: SocketAddr::from(([10, 0, 9, 2], 5060)),
                priority: 2,
                credentials: None,
                ..trunk.clone()
            },
            trunk,
        }
    }

    pub fn entries(&self) -> Vec<DirectoryEntry> {
        let number = |n: u128, e164: E164, owner: &Subscriber| {
            DirectoryEntry::Number(Number {
                id: NumberId::from_uuid(Uuid::from_u128(n)),
                e164,
                account: owner.account,
                subscriber: Some(owner.id),
            })
        };
        let mut entries: Vec<_> = self.accounts.iter().cloned().map(DirectoryEntry::Account).collect();
        entries.extend([&self.domain, &self.other_domain].into_iter().cloned().map(DirectoryEntry::Domain));
        entries.extend([&self.alice, &self.bob, &self.carol].into_iter().cloned().map(DirectoryEntry::Subscriber));
        entries.extend([&self.trunk, &self.backup_trunk].into_iter().cloned().map(DirectoryEntry::Trunk));
        entries.push(number(30, self.alice_number, &self.alice));
        entries.push(number(31, self.bob_number, &self.bob));
        entries
    }

    pub fn directory(&self) -> Directory {
        Directory::default().apply(self.entries().into_iter().map(DirectoryChange::Upsert))
    }
}

/// An answer with little more than its call and time.
pub fn answered(call: u128, at: i64) -> Answered {
    let account = account_id(1);
    let party = Party::Trunk(TrunkParty {
        trunk: TrunkId::from_uuid(Uuid::from_u128(40)),
        account,
        path: AccountPath::root(account),
    });
    Answered {
        setup: CallSetup {
            call: CallId::from_uuid(Uuid::from_u128(call)),
            invited_at: Timestamp(at - 100),
            a: party.clone(),
            b: Some(party),
            dialled: "100".to_owned(),
            called: None,
            calling: None,
            a_sip_call_id: format!("a{call}"),
            b_sip_call_id: None,
            tried: None,
        },
        answered_at: Timestamp(at),
        pdd_ms: 50,
    }
}
