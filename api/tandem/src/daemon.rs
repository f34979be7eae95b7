//! The daemon: opens, recovers, wires, serves, drains.
//!
//! Order of the start: directory of data (one daemon each), store and its schema, node database, journal with a new
//! epoch, ends of calls that an earlier run left open, the call core's directory, media relay, shards, workers, faces.
//! The end goes backwards: no new calls, calls in progress may end, faces close, consumers finish their step, the call
//! core ends, its last registrations are stored, the journal is flushed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use db::Db;
use db::journal::{Health, Journal, JournalOptions, JournalReader, Opened};
use db::system::{SystemClock, SystemIds};
use model::ctx::Ctx;
use model::event::fact::{Fact, Heartbeat};
use model::id::IdSource;
use model::secret::Secret;
use model::time::{Clock, Timestamp};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::config::{Config, MailTls};
use crate::reload::Reload;
use crate::wiring::billing_detector::BillingDetector;
use crate::wiring::certificate::CertificateDetector;
use crate::wiring::changes::{CHANGES_PERIOD, ChangeFeed};
use crate::wiring::clock_step::{ClockDetector, ClockWatch};
use crate::wiring::consumers::{BATCH_MAX, ConsumerLags, JournalConsumer, JournalFeed, spawn_feed, spawn_journal};
use crate::wiring::detectors::{Detectors, ReportDetector};
use crate::wiring::directory::{BATCH_PERIOD, DirectoryFeed};
use crate::wiring::duty::Duty;
use crate::wiring::journal::NodeJournal;
use crate::wiring::lost_journal::refuse_lost_journal;
use crate::wiring::media::RelayPort;
use crate::wiring::recovery::end_open_calls;
use crate::wiring::registrations::{NodeReports, from_store};
use crate::wiring::storage_detector::StorageDetector;
use crate::wiring::storage_watch::StorageWatch;
use crate::wiring::trunk_states::NodeTrunks;
use crate::wiring::worker::{Step, StepError, Workers};
use crate::wiring::write_health::WriteHealth;

/// The duty, and its worker, that tells of reports.
const REPORT_ALARMS: &str = "report_alarms";
/// The duty, and its worker, that tells of billing.
const BILLING_ALARMS: &str = "billing_alarms";
/// How often detectors look: an alarm is raised within a second of its condition.
const DETECT_PERIOD: Duration = Duration::from_secs(1);
/// How often failed reports and mails are looked for: they fail by the hour, and the look reads the store.
const REPORT_DETECT_PERIOD: Duration = Duration::from_secs(5);
/// How often the certificate is looked at, beside each time that another one is shown: days pass slowly, and an alarm
/// that stays up is written at each look.
const CERTIFICATE_DETECT_PERIOD: Duration = Duration::from_secs(60);
/// How often charges without a price and late billing files are looked for: a look reads all that waits in suspense.
const BILLING_DETECT_PERIOD: Duration = Duration::from_secs(10);
/// How often files and reports are looked after when nothing asks for it.
const HOUSEKEEPING_PERIOD: Duration = Duration::from_millis(500);
/// How often bulk jobs are looked for that were started.
const BULK_PERIOD: Duration = Duration::from_millis(200);
/// How often it is written when tokens were last used: `lastUsedAt` is that exact.
const TOKEN_USES_PERIOD: Duration = Duration::from_secs(30);
/// How often the journal's old files are looked at.
const PRUNE_PERIOD: Duration = Duration::from_secs(600);
/// How often the ticker of scheduled reports ticks.
const SCHEDULE_PERIOD: Duration = Duration::from_secs(20);
/// How long a stop waits for the store to take the last registrations: some seconds for a busy one, and little beside
/// what a supervisor grants a stop.
const REGISTRATIONS_STOP_MAX: Duration = Duration::from_secs(5);
/// Descriptors that the daemon asks for: four per media session, and room for connections.
const DESCRIPTORS_WANTED: u64 = 65_536;

/// Any failure to start, for people.
pub type ServeError = Box<dyn std::error::Error + Send + Sync>;

/// The installation has no provider yet.
#[derive(Debug, thiserror::Error)]
#[error(
    "this installation has no provider yet; run `tandem account init --name NAME --timezone ZONE --currency CODE` first"
)]
pub struct NotInitialised;

/// Runs until SIGTERM or SIGINT; SIGHUP reads the configuration again (see [`Reload`]).
///
/// # Errors
/// When something cannot be opened or started; nothing is served then.
pub async fn serve(mut config: Config, reload: Reload) -> Result<(), ServeError> {
    let mut terminate = signal(SignalKind::terminate())?;
    // From the begin: without a handler the signal would end a daemon that is still starting.
    let mut hangup = signal(SignalKind::hangup())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let _lock = crate::data_dir::lock_when_free(&config.node.data_dir).await?;
    raise_descriptor_limit();
    let metrics = api_http::install_metrics()?;
    let tls = config.http.tls.load()?.map(api_http::Tls::new);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let ids: Arc<dyn IdSource> = Arc::new(SystemIds);
    let node: Arc<str> = config.node.name.as_str().into();

    let store = crate::storage::open_store(&config).await?;
    let node_db = db::node::open(&config.node.data_dir).await?;
    refuse_lost_journal(&store, &node, &config.node.data_dir).await?;
    let (journal, reader) = open_journal(&config, &clock)?;
    let storage = StorageWatch::begin(&config, &store, &node_db, &clock).await;

    let key = crate::storage::key_file(&config);
    let provisioning = Arc::new(provisioning_store::ProvisioningStore::open(store.clone(), &key).await?);
    let installation = provisioning.installation().await?.ok_or(NotInitialised)?;
    let system = provisioning.system(Arc::clone(&clock), Arc::clone(&ids)).await?.ok_or(NotInitialised)?;
    let billing = Arc::new(billing_store::BillingStore::new(
        store.clone(),
        config.billing_files_dir(),
        installation,
        Arc::clone(&clock),
        Arc::clone(&ids),
    ));
    let reports = Arc::new(reports_store::ReportsStore::new(
        store.clone(),
        Arc::clone(&clock),
        Arc::clone(&ids),
        config.reports_dir(),
    ));
    let engine = start_engine(&config, &node_db).await?;
    let (alarms, sender) = alarms(&config, &node_db, &engine, &clock, &ids)?;
    let store_alarms = Arc::new(fault_store::StoreAlarms::new(store.clone()).beside(alarms.clone()));

    let directory = DirectoryFeed::load(provisioning.clone(), store.clone()).await?;
    let picture = directory.directory();
    let relay = Arc::new(media_relay::Relay::start(&config.media, Arc::clone(&clock))?);
    let node_reports = Arc::new(NodeReports::new());
    let kept = provisioning::port::Registrations::registration_list(&*provisioning, clock.now().utc).await?;
    let deps = sip_transport::Deps {
        directory: Arc::clone(&picture),
        registrations: kept.into_iter().map(from_store).collect(),
        media: {
            let relay = Arc::clone(&relay);
            Box::new(move |_shard| Box::new(RelayPort(relay.handle())))
        },
        journal: Arc::new(NodeJournal(journal.clone())),
        events: node_reports.clone(),
        clock: Arc::clone(&clock),
        ids: Arc::clone(&ids),
        seed: Secret::new(random_seed()?),
        services: config.sip.services.clone(),
        transactions: sip_engine::TransactionConfig::default(),
        digest: sip_engine::digest::DigestConfig { sha256: config.sip.challenge_sha256, ..Default::default() },
    };
    let sip = Arc::new(sip_transport::Node::start(&config.sip.transport, deps)?);

    let mut workers = Workers::new(Arc::clone(&clock));
    let board = workers.board();
    let lags = ConsumerLags::default();
    let feed = JournalFeed {
        reader: Arc::new(reader),
        journal: journal.clone(),
        store: store.clone(),
        node: node.clone(),
        lags: lags.clone(),
        clock: Arc::clone(&clock),
    };
    spawn_journal(&mut workers, &feed, Arc::new(BillingConsumer(billing.clone())));
    spawn_journal(&mut workers, &feed, Arc::new(CountingConsumer(reports.clone())));
    spawn_revenue(&mut workers, &feed, &reports);
    spawn_files(&mut workers, &billing, system);
    spawn_reports(&mut workers, &config, &reports, installation, &node)?;
    spawn_alarms(&mut workers, &alarms, &sender, &store, &clock);
    spawn_registrations(&mut workers, &node_reports, &provisioning);
    spawn_bulk(&mut workers, &provisioning, &node, &clock, &ids);
    spawn_pruning(&mut workers, &config, &store, &provisioning, &alarms, &clock);
    storage.spawn(&mut workers, &config, &store, &node_db, &clock);
    spawn_storage_alarms(&mut workers, &config, &storage, &alarms, &journal, &clock);
    let left_out = directory.left_out();
    spawn_directory(&mut workers, directory, &sip, &clock);
    let changes = Arc::new(ChangeFeed::begin(store.clone()).await?);
    let telling = Arc::clone(&changes);
    workers.spawn("changes", CHANGES_PERIOD, None::<watch::Receiver<()>>, move || {
        let changes = Arc::clone(&telling);
        async move { Ok(changes.look().await?) }
    });
    let detectors = Arc::new(Detectors {
        authority: alarms.clone(),
        node: Arc::clone(&sip),
        directory: Arc::clone(&picture),
        journal: journal.clone(),
        board,
        lags,
        left_out,
        node_name: node.clone(),
        clock: Arc::clone(&clock),
    });
    workers.spawn("detectors", DETECT_PERIOD, Some(node_reports.trunks()), move || {
        let detectors = Arc::clone(&detectors);
        async move { detectors.look().await }
    });
    let duty = |name| Duty { name, store: store.clone(), node: node.clone(), clock: Arc::clone(&clock) };
    let detector = Arc::new(ReportDetector {
        duty: duty(REPORT_ALARMS),
        authority: Arc::new(alarms.clone()),
        reports: Arc::clone(&reports),
        clock: Arc::clone(&clock),
    });
    workers.spawn(REPORT_ALARMS, REPORT_DETECT_PERIOD, None::<watch::Receiver<()>>, move || {
        let detector = Arc::clone(&detector);
        async move { detector.look().await }
    });
    spawn_certificate(&mut workers, &config, &alarms, tls.as_ref(), &clock);
    spawn_clock_watch(&mut workers, &node, &alarms, &clock);
    spawn_billing_alarms(&mut workers, &config, duty(BILLING_ALARMS), &alarms, &billing, &clock);
    let schedule = schedule(&config, &reports).await?;
    let agent = start_agent(&config, &engine, &sender, &clock).await?;
    // Before the faces say that the daemon is ready.
    crate::priority::put_calls_first();

    let faces = Faces::start(
        &config,
        FaceDeps {
            provisioning: Arc::clone(&provisioning),
            billing,
            reports,
            alarms: store_alarms,
            clock: Arc::clone(&clock),
            ids: Arc::clone(&ids),
            storage,
            journal: journal.clone(),
            changes,
            trunk_states: Arc::new(NodeTrunks(Arc::downgrade(&sip))),
            metrics,
            tls: tls.clone(),
        },
    )
    .await?;
    tracing::info!(http = %config.http.listen, sip = ?sip.local_addrs(), node = &*node, "tandem serves");

    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => reload.run(&mut config, tls.as_ref()),
        }
    }
    tracing::info!("draining: no new calls from now on");
    let drain_max = Duration::from_secs(u64::from(config.node.drain_max_s));
    let draining = Arc::clone(&sip);
    let left = tokio::task::spawn_blocking(move || draining.drain(drain_max)).await?;
    if left > 0 {
        tracing::warn!(calls = left, "calls are still up after the drain; they are ended now");
    }
    faces.stop().await;
    if let Some(agent) = agent {
        agent.stop().await;
    }
    schedule.stop().await?;
    // The detectors hold the node; after the workers have stopped, this is its last owner.
    workers.stop().await;
    match Arc::into_inner(sip) {
        Some(sip) => {
            tokio::task::spawn_blocking(move || sip.shutdown()).await?;
            let stopping = Heartbeat { at: clock.now().utc, calls_up: 0, stopping: Some(true) };
            if let Err(error) = journal.append(&Fact::Heartbeat(stopping), None) {
                tracing::warn!(%error, "the journal does not say that the node stops in order");
            }
        }
        None => tracing::error!("the call core is still held: its calls are ended at the next start, as estimates"),
    }
    // REGISTER is answered until the shards have ended, and the worker that stores them has ended before.
    node_reports.store_rest(&*provisioning, REGISTRATIONS_STOP_MAX).await;
    tokio::task::spawn_blocking(move || journal.close()).await?;
    drop(relay);
    node_db.close().await;
    store.close().await;
    tracing::info!("tandem has stopped");
    Ok(())
}

/// Opens the journal with a new epoch, and ends the calls that an earlier run left open.
fn open_journal(config: &Config, clock: &Arc<dyn Clock>) -> Result<(Journal, JournalReader), ServeError> {
    let (dir, clock, now) = (config.node.data_dir.clone(), Arc::clone(clock), clock.now().utc);
    let options =
        JournalOptions { admit_lag_max_ms: u64::from(config.node.journal_lag_max_ms), ..JournalOptions::default() };
    // On the main thread, as `crate::priority` expects of the threads of the call core.
    let (journal, reader, Opened { epoch, .. }, ended) = tokio::task::block_in_place(|| -> Result<_, ServeError> {
        let (journal, opened) = Journal::open_with(&dir, clock, env!("CARGO_PKG_VERSION"), options)?;
        let reader = JournalReader::open(&dir);
        let ended = end_open_calls(&journal, &reader, opened, now)?;
        Ok((journal, reader, opened, ended))
    })?;
    if ended > 0 {
        tracing::warn!(calls = ended, epoch, "calls that an earlier run left open were ended at its last heartbeat");
    }
    Ok((journal, reader))
}

/// Counts the start of the SNMP engine, before its first message.
///
/// # Errors
/// When the node's database fails.
pub async fn start_engine(config: &Config, node_db: &Db) -> Result<fault_snmp::Engine, ServeError> {
    let mut instance = [0; fault_snmp::engine::INSTANCE_OCTETS];
    getrandom::fill(&mut instance).map_err(|error| format!("the system gives no random octets: {error}"))?;
    let fresh = fault_snmp::engine_id(config.snmp.enterprise_number, instance);
    let boot = fault_store::engine_boot(node_db, fresh).await?;
    tracing::info!(snmp.engine_id = hex_of(&boot.engine_id), snmp.engine_boots = boot.boots, "the SNMP engine starts");
    Ok(fault_snmp::Engine::start(boot.engine_id, boot.boots)?)
}

/// As NMS and `snmptrapd.conf` write an engine's identifier.
pub(crate) fn hex_of(octets: &[u8]) -> String {
    octets.iter().fold("0x".to_owned(), |text, octet| format!("{text}{octet:02x}"))
}

async fn start_agent(
    config: &Config,
    engine: &fault_snmp::Engine,
    sender: &Arc<fault_store::Sender>,
    clock: &Arc<dyn Clock>,
) -> Result<Option<fault_snmp::Agent>, ServeError> {
    if config.snmp.agent.listen.is_none() {
        return Ok(None);
    }
    let (node, version): (Arc<dyn fault::port::NodeView>, _) = (Arc::clone(sender) as _, env!("CARGO_PKG_VERSION"));
    Ok(Some(fault_snmp::Agent::start(&config.snmp, version, engine, node, Arc::clone(clock)).await?))
}

type AlarmParts = (fault_store::NodeAlarms, Arc<fault_store::Sender>);

fn alarms(
    config: &Config,
    node_db: &Db,
    engine: &fault_snmp::Engine,
    clock: &Arc<dyn Clock>,
    ids: &Arc<dyn IdSource>,
) -> Result<AlarmParts, ServeError> {
    for warning in config.snmp.check()? {
        tracing::warn!("{warning}");
    }
    let targets = fault_snmp::sinks(&config.snmp, clock, Some(engine))?;
    let names = targets.iter().map(|(name, _)| name.clone()).collect();
    let alarms = fault_store::NodeAlarms::new(node_db.clone(), &config.node.name, names, Arc::clone(ids));
    let heartbeat = Some(config.snmp.heartbeat_s).filter(|seconds| *seconds > 0);
    let options = fault_store::SenderOptions {
        heartbeat: heartbeat.map(|seconds| Duration::from_secs(u64::from(seconds))),
        give_up_after_ms: i64::from(config.snmp.give_up_after_s) * 1_000,
    };
    let sender = fault_store::Sender::new(&alarms, targets, options);
    Ok((alarms, Arc::new(sender)))
}

/// Bills what the journal holds.
pub(crate) struct BillingConsumer(pub(crate) Arc<billing_store::BillingStore>);

impl JournalConsumer for BillingConsumer {
    const NAME: &'static str = billing_store::CONSUMER;
    async fn consume(&self, reader: &JournalReader, node: &str) -> Result<usize, StepError> {
        Ok(self.0.consume(reader, node, BATCH_MAX).await?.records)
    }
}

struct CountingConsumer(Arc<reports_store::ReportsStore>);

impl JournalConsumer for CountingConsumer {
    const NAME: &'static str = reports_store::CONSUMER;
    async fn consume(&self, reader: &JournalReader, node: &str) -> Result<usize, StepError> {
        Ok(self.0.count(reader, node, BATCH_MAX).await?)
    }
}

fn spawn_revenue(workers: &mut Workers, feed: &JournalFeed, reports: &Arc<reports_store::ReportsStore>) {
    /// Events of one transaction.
    const EVENTS_MAX: u32 = 500;
    let (reports, events) = (Arc::clone(reports), feed.store.clone());
    spawn_feed(workers, "revenue", feed, move || {
        let (reports, events) = (Arc::clone(&reports), events.clone());
        async move {
            let read = reports.revenue(EVENTS_MAX).await?;
            let position = db::cursor::peek(&events, reports_store::CONSUMER, db::feed::SOURCE).await?;
            Ok((read, position.sequence))
        }
    });
}

fn spawn_files(workers: &mut Workers, billing: &Arc<billing_store::BillingStore>, system: Ctx) {
    let billing = Arc::clone(billing);
    workers.spawn("billing_files", HOUSEKEEPING_PERIOD, None::<watch::Receiver<()>>, move || {
        let (billing, system) = (Arc::clone(&billing), system.clone());
        async move {
            // A stream that cannot be closed holds up neither the others nor what is closed already.
            let closed = billing.close_due(&system).await;
            billing.publish_planned().await?;
            closed?;
            Ok(Step::Idle)
        }
    });
}

fn spawn_billing_alarms(
    workers: &mut Workers,
    config: &Config,
    duty: Duty,
    alarms: &fault_store::NodeAlarms,
    billing: &Arc<billing_store::BillingStore>,
    clock: &Arc<dyn Clock>,
) {
    let detector = Arc::new(BillingDetector {
        duty,
        authority: Arc::new(alarms.clone()),
        billing: Arc::clone(billing),
        limits: config.billing.unrated_limits(),
        clock: Arc::clone(clock),
    });
    workers.spawn(BILLING_ALARMS, BILLING_DETECT_PERIOD, None::<watch::Receiver<()>>, move || {
        let detector = Arc::clone(&detector);
        async move { detector.look().await }
    });
}

/// Bulk jobs, and checks of such beside them.
fn spawn_bulk(
    workers: &mut Workers,
    provisioning: &Arc<provisioning_store::ProvisioningStore>,
    node: &Arc<str>,
    clock: &Arc<dyn Clock>,
    ids: &Arc<dyn IdSource>,
) {
    let step = |worked| match worked {
        provisioning_store::BulkStep::Worked => Step::More,
        provisioning_store::BulkStep::Idle => Step::Idle,
    };
    let (jobs, time, names) = (Arc::clone(provisioning), Arc::clone(clock), Arc::clone(ids));
    workers.spawn("bulk_jobs", BULK_PERIOD, None::<watch::Receiver<()>>, move || {
        let (jobs, time, names) = (Arc::clone(&jobs), Arc::clone(&time), Arc::clone(&names));
        async move { Ok(step(jobs.bulk_step(&time, &names).await?)) }
    });
    let (jobs, time, names) = (Arc::clone(provisioning), Arc::clone(clock), Arc::clone(ids));
    let node = Arc::clone(node);
    workers.spawn("bulk_checks", BULK_PERIOD, None::<watch::Receiver<()>>, move || {
        let (jobs, time, names, node) = (Arc::clone(&jobs), Arc::clone(&time), Arc::clone(&names), Arc::clone(&node));
        async move { Ok(step(jobs.bulk_check(&node, &time, &names).await?)) }
    });
}

fn spawn_reports(
    workers: &mut Workers,
    config: &Config,
    reports: &Arc<reports_store::ReportsStore>,
    installation: model::id::InstallationId,
    node: &Arc<str>,
) -> Result<(), ServeError> {
    let (runs, holder) = (Arc::clone(reports), Arc::clone(node));
    workers.spawn("report_runs", HOUSEKEEPING_PERIOD, None::<watch::Receiver<()>>, move || {
        let (runs, holder) = (Arc::clone(&runs), Arc::clone(&holder));
        async move {
            let done = runs.run_due(&holder).await?;
            Ok(if done > 0 { Step::More } else { Step::Idle })
        }
    });
    if config.mail.host.is_empty() {
        return Ok(());
    }
    let mailer = reports_store::mail::Mailer::new(&mail_config(config, installation))?;
    let (reports, holder) = (Arc::clone(reports), Arc::clone(node));
    workers.spawn("mail", HOUSEKEEPING_PERIOD, None::<watch::Receiver<()>>, move || {
        let (reports, mailer, holder) = (Arc::clone(&reports), mailer.clone(), Arc::clone(&holder));
        async move {
            let delivery = reports.deliver_due(&mailer, &holder).await?;
            if delivery.given_up > 0 {
                tracing::error!(mails = delivery.given_up, "mails could not be delivered and were given up");
            }
            Ok(Step::Idle)
        }
    });
    Ok(())
}

fn mail_config(config: &Config, installation: model::id::InstallationId) -> reports_store::mail::MailConfig {
    let mail = &config.mail;
    reports_store::mail::MailConfig {
        host: mail.host.clone(),
        port: mail.port,
        tls: match mail.tls {
            MailTls::None => reports_store::mail::MailTls::None,
            MailTls::Starttls => reports_store::mail::MailTls::Starttls,
            MailTls::Tls => reports_store::mail::MailTls::Tls,
        },
        from: mail.from.clone(),
        credentials: (!mail.username.is_empty()).then(|| (mail.username.clone(), mail.password.clone())),
        installation: installation.to_string(),
    }
}

fn spawn_alarms(
    workers: &mut Workers,
    alarms: &fault_store::NodeAlarms,
    sender: &Arc<fault_store::Sender>,
    store: &Db,
    clock: &Arc<dyn Clock>,
) {
    // One each: a target that lets us wait for its acknowledgements holds no other up.
    for lane in sender.lanes() {
        let (name, lane, clock) =
            (format!("notifications {}", lane.target().name()), Arc::clone(lane), Arc::clone(clock));
        workers.spawn(name, HOUSEKEEPING_PERIOD, Some(alarms.subscribe()), move || {
            let (lane, now) = (Arc::clone(&lane), clock.now());
            async move {
                let drained = lane.drain(now).await?;
                Ok(drained.wait.map_or(Step::Idle, Step::After))
            }
        });
    }
    let (observing, observing_clock) = (Arc::clone(sender), Arc::clone(clock));
    workers.spawn("notification_targets", DETECT_PERIOD, None::<watch::Receiver<()>>, move || {
        let (sender, now) = (Arc::clone(&observing), observing_clock.now().utc);
        async move {
            sender.observe_targets(now).await?;
            Ok(Step::Idle)
        }
    });
    let (alarms, store, clock) = (alarms.clone(), store.clone(), Arc::clone(clock));
    let (changed, published) = (alarms.subscribe(), Arc::new(AtomicBool::new(false)));
    workers.spawn("alarm_copy", HOUSEKEEPING_PERIOD, Some(changed), move || {
        let (alarms, store, now) = (alarms.clone(), store.clone(), clock.now().utc);
        let published = Arc::clone(&published);
        async move {
            if !published.load(Ordering::Relaxed) {
                alarms.publish_targets(&store).await?;
                published.store(true, Ordering::Relaxed);
            }
            let done = alarms.apply_acks(&store, now).await?
                + alarms.apply_resyncs(&store, now).await?
                + alarms.copy_pending(&store).await?;
            Ok(if done == 0 { Step::Idle } else { Step::More })
        }
    });
}

fn spawn_registrations(
    workers: &mut Workers,
    reports: &Arc<NodeReports>,
    provisioning: &Arc<provisioning_store::ProvisioningStore>,
) {
    let (pending, store) = (Arc::clone(reports), Arc::clone(provisioning));
    workers.spawn("registrations", HOUSEKEEPING_PERIOD, Some(reports.registrations()), move || {
        let (pending, store) = (Arc::clone(&pending), Arc::clone(&store));
        async move { pending.store_batch(&*store).await }
    });
    let store = Arc::clone(provisioning);
    workers.spawn("token_uses", TOKEN_USES_PERIOD, None::<watch::Receiver<()>>, move || {
        let store = Arc::clone(&store);
        async move {
            store.store_token_uses().await?;
            Ok(Step::Idle)
        }
    });
}

fn spawn_pruning(
    workers: &mut Workers,
    config: &Config,
    store: &Db,
    provisioning: &Arc<provisioning_store::ProvisioningStore>,
    alarms: &fault_store::NodeAlarms,
    clock: &Arc<dyn Clock>,
) {
    const DAY_MS: i64 = 86_400_000;
    /// Days that the answer to an idempotency key is kept: a client repeats within hours.
    const ANSWER_DAYS: i64 = 7;
    /// Days that the credentials of a removed subscriber are kept, for who takes the removal back.
    const CREDENTIAL_DAYS: i64 = 90;
    /// How long bulk jobs that ended are kept, with their results and the passwords in them.
    const BULK_DAYS: i64 = 7;
    let retention_ms = i64::from(config.node.journal_retention_days) * DAY_MS;
    let (dir, source) = (config.node.data_dir.clone(), db::cursor::journal_source(&config.node.name));
    let (journal_store, journal_clock) = (store.clone(), Arc::clone(clock));
    workers.spawn("journal_pruning", PRUNE_PERIOD, None::<watch::Receiver<()>>, move || {
        let (dir, source, store) = (dir.clone(), source.clone(), journal_store.clone());
        let older_than: Timestamp = journal_clock.now().utc.plus_ms(-retention_ms);
        async move {
            let expected = [billing_store::CONSUMER, reports_store::CONSUMER];
            let slowest = db::cursor::slowest(&store, &source, &expected).await?;
            tokio::task::spawn_blocking(move || db::journal::prune(&dir, slowest, older_than)).await??;
            Ok(Step::Idle)
        }
    });
    let (store, alarms, clock) = (store.clone(), alarms.clone(), Arc::clone(clock));
    let provisioning = Arc::clone(provisioning);
    workers.spawn("store_pruning", PRUNE_PERIOD, None::<watch::Receiver<()>>, move || {
        let (store, alarms, now) = (store.clone(), alarms.clone(), clock.now().utc);
        let provisioning = Arc::clone(&provisioning);
        async move {
            let before = now.plus_ms(-retention_ms);
            alarms.prune(before).await?;
            let expected = [reports_store::CONSUMER];
            db::retention::prune(&store, &expected, now.plus_ms(-ANSWER_DAYS * DAY_MS), before).await?;
            provisioning.forget_credentials(now.plus_ms(-CREDENTIAL_DAYS * DAY_MS)).await?;
            while provisioning.forget_job(now.plus_ms(-BULK_DAYS * DAY_MS), now).await? {}
            Ok(Step::Idle)
        }
    });
}

/// Watches the end of the certificate that the HTTP face shows.
fn spawn_certificate(
    workers: &mut Workers,
    config: &Config,
    alarms: &fault_store::NodeAlarms,
    tls: Option<&api_http::Tls>,
    clock: &Arc<dyn Clock>,
) {
    let detector = Arc::new(CertificateDetector {
        authority: Arc::new(alarms.clone()),
        tls: tls.cloned(),
        limits: config.http.tls.clone(),
        node_name: config.node.name.as_str().into(),
        clock: Arc::clone(clock),
    });
    workers.spawn("certificate_alarms", CERTIFICATE_DETECT_PERIOD, tls.map(api_http::Tls::subscribe), move || {
        let detector = Arc::clone(&detector);
        async move { detector.look().await }
    });
}

/// Watches the wall clock for steps.
fn spawn_clock_watch(workers: &mut Workers, node: &Arc<str>, alarms: &fault_store::NodeAlarms, clock: &Arc<dyn Clock>) {
    let detector = Arc::new(ClockDetector {
        authority: Arc::new(alarms.clone()),
        node_name: Arc::clone(node),
        clock: Arc::clone(clock),
        watch: std::sync::Mutex::new(ClockWatch::begin(&**clock)),
    });
    workers.spawn("clock_alarms", DETECT_PERIOD, None::<watch::Receiver<()>>, move || {
        let detector = Arc::clone(&detector);
        async move { detector.look().await }
    });
}

/// The alarms about store and disks.
fn spawn_storage_alarms(
    workers: &mut Workers,
    config: &Config,
    storage: &StorageWatch,
    alarms: &fault_store::NodeAlarms,
    journal: &Journal,
    clock: &Arc<dyn Clock>,
) {
    let detector = Arc::new(StorageDetector {
        authority: alarms.clone(),
        store: storage.store.clone(),
        store_is_local: config.database.url.is_empty(),
        node_db: storage.node_db.clone(),
        journal: journal.clone(),
        disks: storage.disks.clone(),
        node_name: config.node.name.as_str().into(),
        clock: Arc::clone(clock),
    });
    workers.spawn("storage_alarms", DETECT_PERIOD, None::<watch::Receiver<()>>, move || {
        let detector = Arc::clone(&detector);
        async move { detector.look().await }
    });
}

/// Applies changes of provisioning to the call core's directory, and compares everything now and then.
fn spawn_directory(
    workers: &mut Workers,
    directory: DirectoryFeed,
    sip: &Arc<sip_transport::Node>,
    clock: &Arc<dyn Clock>,
) {
    let (version, sip, clock) = (directory.subscribe(), Arc::downgrade(sip), Arc::clone(clock));
    let directory = Arc::new(tokio::sync::Mutex::new((directory, version)));
    workers.spawn("directory", BATCH_PERIOD, None::<watch::Receiver<()>>, move || {
        let (directory, sip, now) = (Arc::clone(&directory), sip.clone(), clock.now().mono);
        async move {
            let (directory, version) = &mut *directory.lock().await;
            let kept = directory.keep(now).await;
            if version.has_changed().unwrap_or_default() {
                version.mark_unchanged();
                if let Some(sip) = sip.upgrade() {
                    sip.directory_changed();
                }
            }
            kept?;
            Ok(Step::Idle)
        }
    });
}

async fn schedule(
    config: &Config,
    reports: &Arc<reports_store::ReportsStore>,
) -> Result<reports_store::ticker::Ticker, ServeError> {
    let mut definitions = Vec::new();
    for report in &config.reports.monthly {
        // The configuration was checked.
        let Some(account) = report.account_id() else { continue };
        definitions.push(reports_store::Definition { account, recipients: report.recipients.clone() });
    }
    let (definitions, reports): (Arc<[_]>, _) = (definitions.into(), Arc::clone(reports));
    let ticker = reports_store::ticker::Ticker::start(SCHEDULE_PERIOD, move || {
        let (definitions, reports) = (Arc::clone(&definitions), Arc::clone(&reports));
        Box::pin(async move {
            if let Err(error) = reports.schedule_due(&definitions).await {
                tracing::warn!(%error, "scheduled reports could not be looked after");
            }
        })
    });
    Ok(ticker.await?)
}

struct FaceDeps {
    provisioning: Arc<provisioning_store::ProvisioningStore>,
    billing: Arc<billing_store::BillingStore>,
    reports: Arc<reports_store::ReportsStore>,
    alarms: Arc<fault_store::StoreAlarms>,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdSource>,
    storage: StorageWatch,
    journal: Journal,
    changes: Arc<ChangeFeed>,
    trunk_states: Arc<dyn api_graphql::TrunkStates>,
    metrics: api_http::MetricsHandle,
    tls: Option<api_http::Tls>,
}

/// The listeners and their servers.
struct Faces {
    stop: watch::Sender<bool>,
    servers: Vec<tokio::task::JoinHandle<std::io::Result<()>>>,
}

impl Faces {
    async fn start(config: &Config, deps: FaceDeps) -> Result<Self, ServeError> {
        let http = api_http::HttpDeps {
            authenticator: deps.provisioning.clone(),
            bulk: deps.provisioning.clone(),
            billing: deps.billing.clone(),
            billing_change: deps.billing.clone(),
            reports: deps.reports.clone(),
            clock: Arc::clone(&deps.clock),
            ids: Arc::clone(&deps.ids),
        };
        let stop = watch::Sender::new(false);
        let graphql = api_graphql::graphql_router(api_graphql::GraphqlDeps {
            provisioning: deps.provisioning.clone(),
            bulk: deps.provisioning.clone(),
            provisioning_change: deps.provisioning.clone(),
            trunk_states: deps.trunk_states,
            billing: deps.billing.clone(),
            billing_change: deps.billing,
            fault: deps.alarms.clone(),
            fault_change: deps.alarms,
            reports: deps.reports.clone(),
            reports_change: deps.reports,
            changes: deps.changes,
            authenticator: deps.provisioning,
            clock: deps.clock,
            ids: deps.ids,
            stop: stop.subscribe(),
        });
        let readiness = Arc::new(NodeReadiness { storage: deps.storage, journal: deps.journal });
        let mut servers = Vec::new();
        let public = (config.http.listen, api_http::router(http, graphql), deps.tls);
        let admin = (config.admin.listen, api_http::admin_router(deps.metrics, readiness), None);
        for (address, router, tls) in [public, admin] {
            let listener = TcpListener::bind(address).await.map_err(|source| Listen { address, source })?;
            let stopped = stopped(stop.subscribe());
            servers.push(match tls {
                Some(tls) => tokio::spawn(api_http::serve_tls(listener, router, tls, stopped)),
                None => tokio::spawn(api_http::serve(listener, router, stopped)),
            });
        }
        Ok(Self { stop, servers })
    }

    async fn stop(self) {
        self.stop.send_replace(true);
        for server in self.servers {
            if let Ok(Err(error)) = server.await {
                tracing::warn!(%error, "a face ended with an error");
            }
        }
    }
}

/// A port of a face is taken.
#[derive(Debug, thiserror::Error)]
#[error("HTTP cannot be heard at {address}: {source}; is another program there? See http.listen and admin.listen")]
struct Listen {
    address: std::net::SocketAddr,
    source: std::io::Error,
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    // An error means that the sender is gone, which is the end as well.
    let _end = stop.wait_for(|stop| *stop).await.is_ok();
}

struct NodeReadiness {
    storage: StorageWatch,
    journal: Journal,
}

#[async_trait]
impl api_http::Readiness for NodeReadiness {
    async fn checks(&self) -> Vec<api_http::Check> {
        let written = |name, health: &WriteHealth| {
            let failing = health.failing();
            let ok = failing.is_none();
            let detail = failing.map_or_else(
                || "takes writes".to_owned(),
                |failing| format!("no write has succeeded since {}: {}", failing.since(), failing.error),
            );
            api_http::Check { name, ok, detail }
        };
        let health = self.journal.health();
        let journal = match &health {
            Health::Good => "takes writes".to_owned(),
            Health::Failing { since, error } => format!("no write has succeeded since {since}: {error}"),
            Health::Closed => "was closed".to_owned(),
        };
        vec![
            written("store", &self.storage.store),
            written("node_db", &self.storage.node_db),
            api_http::Check { name: "journal", ok: health == Health::Good, detail: journal },
        ]
    }
}

fn random_seed() -> Result<[u8; 32], ServeError> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| format!("the system gives no random octets: {error}"))?;
    Ok(seed)
}

/// Four descriptors per call with media: the usual soft limit of 1,024 is too low.
fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(soft, hard)| setrlimit(Resource::RLIMIT_NOFILE, soft.max(DESCRIPTORS_WANTED.min(hard)), hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
}
