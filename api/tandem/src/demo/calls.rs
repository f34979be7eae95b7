//! The calls of the demo: what is dialled, what must come of it, and what it must cost.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinSet;

use super::world::{PRICES, Price, World};
use crate::call::{
    Account, AccountId, Agent, AgentConfig, Behaviour, CallHandle, CallOutcome, CallRequest, Caller, PlaceError,
    Progress, RegisterError, StartError, Talk,
};

/// Pause between two calls: the demo is a demonstration, not a load test.
const CALL_SPACING: Duration = Duration::from_millis(50);
/// How often and how long a phone tries to register: two seconds in all.
const REGISTER_TRIES: u32 = 20;
/// Pause between two tries.
const REGISTER_PERIOD: Duration = Duration::from_millis(100);
/// Longest wait for an answer in the demo's own steps.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Why calls could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CallsError {
    /// An agent could not be started.
    #[error("the built-in caller could not be started")]
    Start(#[from] StartError),
    /// A phone could not register.
    #[error("{user} could not register")]
    Register {
        /// The phone.
        user: String,
        /// Why.
        source: RegisterError,
    },
    /// A call could not be tried.
    #[error("a call could not be placed")]
    Place(#[from] PlaceError),
    /// A task of the demo panicked.
    #[error("a call's task ended early")]
    Task(#[from] tokio::task::JoinError),
    /// A call that should have been up was not.
    #[error("a call to {0} was not answered in time")]
    NotAnswered(String),
}

/// What must come of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Answered, and charged by this price (`PRICES`); none: answered, and nobody of ours is charged.
    Answered(Option<usize>),
    /// One of these final statuses.
    Refused(&'static [u16]),
}

/// A call of the demo.
#[derive(Debug, Clone)]
pub struct Planned {
    /// A name for the table.
    pub kind: &'static str,
    /// Who calls: index of the phone; none: the carrier.
    pub caller: Option<usize>,
    /// What is dialled.
    pub dialled: String,
    /// Conversation, milliseconds. In the middle of a second, so that charged seconds don't hang on milliseconds.
    pub talk_ms: u64,
    /// Cancelled after this time.
    pub cancel_after_ms: Option<u64>,
    /// Whether the caller uses a wrong password.
    pub wrong_password: bool,
    /// What must come of it.
    pub expected: Expected,
}

/// A call and what came of it.
#[derive(Debug, Clone)]
pub struct Placed {
    /// The plan.
    pub plan: Planned,
    /// The outcome.
    pub outcome: CallOutcome,
}

impl Placed {
    /// Whether the outcome is the expected one.
    #[must_use]
    pub fn as_expected(&self) -> bool {
        match self.plan.expected {
            Expected::Answered(_) => self.outcome.is_answered(),
            Expected::Refused(statuses) => !self.outcome.is_answered() && statuses.contains(&self.outcome.status),
        }
    }
}

/// The phones and the carrier.
#[derive(Debug)]
pub struct Party {
    /// All phones, on one socket.
    pub phones: Agent,
    /// Accounts by index of the phone.
    pub accounts: Vec<AccountId>,
    /// The same phones with a wrong password (not registered).
    impostors: Vec<AccountId>,
    /// The carrier behind the trunk.
    pub carrier: Agent,
}

/// The carrier, started first: the trunk's address must be known.
///
/// # Errors
/// When no socket can be had.
pub async fn start_carrier(server: SocketAddr) -> Result<Agent, CallsError> {
    let answer = Behaviour::Answer { after_ms: 150, talk: Talk::UntilFarEnd };
    let config = AgentConfig::new(SocketAddr::from(([127, 0, 0, 1], 0)), server).trunk("", answer);
    Ok(Agent::start(config).await?)
}

/// Registers a phone as phones do: again after a refusal, for [`REGISTER_TRIES`] times. A change of provisioning reaches
/// the call core within a second.
///
/// # Errors
/// The last refusal.
pub async fn register_phone(phones: &Agent, account: Account) -> Result<AccountId, RegisterError> {
    let mut period = tokio::time::interval(REGISTER_PERIOD);
    period.tick().await;
    let mut refused = phones.register(account.clone()).await;
    for _ in 1..REGISTER_TRIES {
        if !matches!(refused, Err(RegisterError::Refused { status: 403, .. })) {
            break;
        }
        period.tick().await;
        refused = phones.register(account.clone()).await;
    }
    refused
}

/// Registers all phones of the world.
///
/// # Errors
/// When a registration is refused.
pub async fn register(world: &World, server: SocketAddr, carrier: Agent) -> Result<Party, CallsError> {
    let phones = Agent::start(AgentConfig::new(SocketAddr::from(([127, 0, 0, 1], 0)), server)).await?;
    let (mut accounts, mut impostors) = (Vec::new(), Vec::new());
    for (index, phone) in world.phones.iter().enumerate() {
        let Some(customer) = world.customers.get(phone.customer) else { continue };
        let account = |password: &str| Account::new(&*phone.username, customer.domain, password);
        let failed = |source| CallsError::Register { user: phone.username.clone(), source };
        let known = account(phone.password.expose()).behaving(behaviour(index));
        accounts.push(register_phone(&phones, known).await.map_err(failed)?);
        impostors.push(phones.add(account("guess")).await.map_err(failed)?);
    }
    Ok(Party { phones, accounts, impostors, carrier })
}

/// Phones by their index in the world: Alpha 0 to 7, Beta 8 to 13, Gamma 14 to 19.
const ALPHA: usize = 0;
const BETA: usize = 8;
const GAMMA: usize = 14;
const BUSY: [usize; 3] = [ALPHA + 6, BETA + 4, GAMMA + 5];
const SILENT: [usize; 2] = [ALPHA + 7, BETA + 5];
const DECLINING: usize = GAMMA + 4;

fn behaviour(phone: usize) -> Behaviour {
    if BUSY.contains(&phone) {
        Behaviour::Busy
    } else if SILENT.contains(&phone) {
        Behaviour::NoAnswer
    } else if phone == DECLINING {
        Behaviour::Decline
    } else {
        Behaviour::Answer { after_ms: 200, talk: Talk::UntilFarEnd }
    }
}

fn price(prefix: &str) -> Option<usize> {
    PRICES.iter().position(|price| price.prefix == prefix)
}

/// The fifty calls.
#[must_use]
pub fn plan(world: &World) -> Vec<Planned> {
    let extension = |phone: usize| world.phones.get(phone).map(|p| p.extension.clone()).unwrap_or_default();
    let number = |phone: usize| world.phones.get(phone).map(|p| p.number.clone()).unwrap_or_default();
    let call = |kind, caller, dialled, talk_ms, expected| Planned {
        kind,
        caller: Some(caller),
        dialled,
        talk_ms,
        cancel_after_ms: None,
        wrong_password: false,
        expected,
    };
    let talk = |n: usize| if n.is_multiple_of(2) { 1_500 } else { 2_500 };
    let mut calls =
        vec![call("long, over the trunk", ALPHA, "00493012345678".into(), 7_500, Expected::Answered(price("4930")))];
    for (n, (first, others)) in
        [(ALPHA, 5), (BETA, 3), (GAMMA, 3)].into_iter().flat_map(|c| std::iter::repeat_n(c, 5)).enumerate()
    {
        let (caller, callee) = (first + n % others, first + (n % others + 1) % others.min(4));
        if caller != callee {
            calls.push(call(
                "answered, on-net",
                caller,
                extension(callee),
                talk(n),
                Expected::Answered(price("onnet")),
            ));
        }
    }
    while calls.len() < 16 {
        let n = calls.len();
        calls.push(call("answered, on-net", ALPHA + 4, extension(ALPHA), talk(n), Expected::Answered(price("onnet"))));
    }
    for (n, (from, to)) in [
        (ALPHA, BETA),
        (BETA, GAMMA),
        (GAMMA, ALPHA),
        (ALPHA + 1, GAMMA + 1),
        (BETA + 1, ALPHA + 1),
        (GAMMA + 1, BETA + 1),
    ]
    .into_iter()
    .enumerate()
    {
        // National format: 0 and the number without the country code.
        let dialled = number(to).replace("+43", "0");
        calls.push(call("answered, other customer", from, dialled, talk(n), Expected::Answered(price("43"))));
    }
    for n in 0..8 {
        let caller = [ALPHA, BETA, GAMMA][n % 3] + n % 2;
        calls.push(call(
            "answered, over the trunk",
            caller,
            format!("0049308900{n}"),
            talk(n),
            Expected::Answered(price("4930")),
        ));
    }
    for n in 0..3 {
        calls.push(call(
            "answered, over the trunk",
            ALPHA + 2,
            format!("+49898900{n}"),
            talk(n),
            Expected::Answered(price("49")),
        ));
    }
    for n in 0..4 {
        let incoming = call(
            "answered, from the trunk",
            0,
            number([ALPHA, BETA, GAMMA, ALPHA + 3][n]),
            talk(n),
            Expected::Answered(None),
        );
        calls.push(Planned { caller: None, ..incoming });
    }
    for (caller, callee) in [(ALPHA, BUSY[0]), (ALPHA + 1, BUSY[0]), (BETA, BUSY[1]), (GAMMA, BUSY[2])] {
        calls.push(call("busy", caller, extension(callee), 1_500, Expected::Refused(&[486])));
    }
    for (caller, callee) in [(ALPHA + 2, SILENT[0]), (BETA + 1, SILENT[1])] {
        calls.push(call("no answer", caller, extension(callee), 1_500, Expected::Refused(&[408, 480])));
    }
    for (caller, callee) in [(ALPHA + 3, SILENT[0]), (BETA + 2, SILENT[1]), (ALPHA + 4, SILENT[0])] {
        let cancelled = call("cancelled", caller, extension(callee), 1_500, Expected::Refused(&[487]));
        calls.push(Planned { cancel_after_ms: Some(700), ..cancelled });
    }
    calls.push(call("declined", GAMMA + 1, extension(DECLINING), 1_500, Expected::Refused(&[603])));
    while calls.len() < 50 {
        let refused = call("wrong password", ALPHA + 5, extension(ALPHA), 1_500, Expected::Refused(&[401, 403, 407]));
        calls.push(Planned { wrong_password: true, ..refused });
    }
    calls
}

impl Party {
    fn request(&self, plan: &Planned) -> CallRequest {
        let caller = match plan.caller {
            None => Caller::Number("+493099887766".into()),
            Some(phone) => {
                let accounts = if plan.wrong_password { &self.impostors } else { &self.accounts };
                Caller::Account(accounts.get(phone).copied().unwrap_or_else(|| self.accounts[0]))
            }
        };
        CallRequest {
            caller,
            to: plan.dialled.clone(),
            hang_up_after_ms: Some(plan.talk_ms),
            cancel_after_ms: plan.cancel_after_ms,
            ring_timeout_ms: 30_000,
        }
    }

    async fn place(&self, plan: &Planned) -> Result<CallHandle, PlaceError> {
        let agent = if plan.caller.is_some() { &self.phones } else { &self.carrier };
        agent.place(self.request(plan)).await
    }

    /// Places all calls, the next before the one before is over, and waits for their ends; `progress` hears each end.
    ///
    /// # Errors
    /// When a call cannot be tried.
    pub async fn run(&self, plans: Vec<Planned>, progress: impl Fn()) -> Result<Vec<Placed>, CallsError> {
        let (mut calls, mut spacing) = (JoinSet::new(), tokio::time::interval(CALL_SPACING));
        for plan in plans {
            spacing.tick().await;
            let handle = self.place(&plan).await?;
            calls.spawn(async move { Ok::<_, PlaceError>(Placed { outcome: handle.outcome().await?, plan }) });
        }
        let mut placed = Vec::new();
        while let Some(call) = calls.join_next().await {
            placed.push(call??);
            progress();
        }
        Ok(placed)
    }

    /// Places calls and waits until all are answered.
    ///
    /// # Errors
    /// When one is not answered in time.
    pub async fn bring_up(&self, plans: &[Planned]) -> Result<Vec<CallHandle>, CallsError> {
        let mut handles = Vec::new();
        for plan in plans {
            let mut handle = self.place(plan).await?;
            let answered = tokio::time::timeout(ANSWER_MAX, handle.reached(Progress::Answered)).await;
            if answered != Ok(true) {
                return Err(CallsError::NotAnswered(plan.dialled.clone()));
            }
            handles.push(handle);
        }
        Ok(handles)
    }
}

/// Calls that will be up when the daemon is killed.
#[must_use]
pub fn plan_for_the_kill(world: &World) -> Vec<Planned> {
    let extension = |phone: usize| world.phones.get(phone).map(|p| p.extension.clone()).unwrap_or_default();
    let call = |caller, dialled, prefix| Planned {
        kind: "up at the kill",
        caller: Some(caller),
        dialled,
        talk_ms: 600_000,
        cancel_after_ms: None,
        wrong_password: false,
        expected: Expected::Answered(price(prefix)),
    };
    vec![
        call(ALPHA, extension(ALPHA + 1), "onnet"),
        call(BETA, "004930555001".into(), "4930"),
        call(GAMMA, "004930555002".into(), "4930"),
        call(ALPHA + 2, "004989555003".into(), "49"),
    ]
}

/// A call after the restart: the phones have not registered again.
#[must_use]
pub fn plan_after_the_kill(world: &World) -> Vec<Planned> {
    let extension = world.phones.get(BETA + 2).map(|p| p.extension.clone()).unwrap_or_default();
    vec![Planned {
        kind: "after the restart",
        caller: Some(BETA),
        dialled: extension,
        talk_ms: 1_500,
        cancel_after_ms: None,
        wrong_password: false,
        expected: Expected::Answered(price("onnet")),
    }]
}

/// The price by which a planned call is charged.
#[must_use]
pub fn price_of(plan: &Planned) -> Option<&'static Price> {
    match plan.expected {
        Expected::Answered(Some(index)) => PRICES.get(index),
        _ => None,
    }
}
