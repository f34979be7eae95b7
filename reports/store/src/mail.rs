//! Delivery of reports by mail (RFC 5321, RFC 5322) from the outbox.
//!
//! A message is tried until the server takes it or refuses it for good. Only a refusal of the server (5xx) is for good:
//! a connection that is refused, a name that does not resolve, a time-out are tried again, up to [`GIVE_UP_MS`].

use std::fmt;
use std::time::Duration;

use db::lease::{self, Lease};
use db::outbox::{self, Message as Queued, Next};
use db::{DbError, WriteError};
use lettre::address::AddressError;
use lettre::message::header::ContentType;
use lettre::message::{Attachment, Mailbox, MultiPart, SinglePart};
use lettre::transport::smtp;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor};
use model::id::RunId;
use model::tenancy::Scope;
use model::time::Timestamp;
use reports::resource::Format;
use serde::{Deserialize, Serialize};

use crate::worker::unrefused;
use crate::{ReportsStore, artefact, render};

/// Begin of the targets of mail in the outbox.
pub const TARGET_PREFIX: &str = "mail:";
/// The kind of our messages in the outbox.
pub const KIND: &str = "report";
/// The lease of the one who serves mail.
const LEASE: &str = "reports_mail";
/// How long the lease holds: longer than one message takes.
const LEASE_MS: i64 = 120_000;
/// Longest wait for the server at each step.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Messages of one call, so that a slow server does not keep the caller from its other work.
const MESSAGES_MAX: u32 = 20;
/// Shortest wait after a failure: a minute, as mail servers do; doubled up to the outbox' longest.
const RETRY_FIRST_MS: i64 = 60_000;
/// A message that could not be delivered for three days is given up.
pub const GIVE_UP_MS: i64 = 3 * 86_400_000;

/// How the connection to the server is secured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailTls {
    /// In clear: for a relay on this machine.
    None,
    /// STARTTLS, required.
    Starttls,
    /// TLS from the first octet.
    Tls,
}

/// How mail leaves.
#[derive(Clone, PartialEq, Eq)]
pub struct MailConfig {
    /// The SMTP server.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is secured.
    pub tls: MailTls,
    /// The sender: an address, or `Name <address>`.
    pub from: String,
    /// User and password, where the server asks for them.
    pub credentials: Option<(String, String)>,
    /// What stands behind the `@` of each `Message-ID`: the same on all nodes and for ever, such as the identifier of
    /// the installation. Another value makes servers take a repeated mail for a new one.
    pub installation: String,
}

impl fmt::Debug for MailConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MailConfig").field("host", &self.host).field("port", &self.port).finish_non_exhaustive()
    }
}

/// The configuration of mail cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidMailConfig {
    /// The sender is no address.
    #[error("the sender of mail is no mail address")]
    From(#[source] AddressError),
    /// TLS cannot be set up for the host.
    #[error("TLS to the mail server cannot be set up")]
    Tls(#[source] smtp::Error),
    /// The installation is no text of a domain.
    #[error("the installation in Message-IDs may hold letters, digits, dots and hyphens only")]
    Installation,
}

/// A server that takes mail.
#[derive(Debug, Clone)]
pub struct Mailer {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    installation: String,
}

/// What one call of [`ReportsStore::deliver_due`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Delivery {
    /// Messages that the server took.
    pub sent: usize,
    /// Messages that wait for another attempt.
    pub retried: usize,
    /// Messages that were given up.
    pub given_up: usize,
}

#[derive(Serialize, Deserialize)]
struct Payload {
    run: RunId,
    recipient: String,
}

/// What is queued: which run, for whom. The rest is made when it is sent.
pub(crate) fn payload(run: RunId, recipient: &str) -> Result<String, DbError> {
    let payload = Payload { run, recipient: recipient.to_owned() };
    serde_json::to_string(&payload).map_err(|e| DbError::corrupt("outbox.payload", e))
}

/// The run that a queued mail carries.
pub(crate) fn run_of(payload: &str) -> Option<RunId> {
    serde_json::from_str::<Payload>(payload).ok().map(|payload| payload.run)
}

impl Mailer {
    /// Prepares the way to the server; nothing is connected yet.
    ///
    /// # Errors
    /// When the sender or the installation is malformed, or TLS cannot be set up.
    pub fn new(config: &MailConfig) -> Result<Self, InvalidMailConfig> {
        let from = config.from.parse().map_err(InvalidMailConfig::From)?;
        let is_domain = |b: u8| b.is_ascii_alphanumeric() || b == b'.' || b == b'-';
        if config.installation.is_empty() || !config.installation.bytes().all(is_domain) {
            return Err(InvalidMailConfig::Installation);
        }
        let parameters = || TlsParameters::new(config.host.clone()).map_err(InvalidMailConfig::Tls);
        let tls = match config.tls {
            MailTls::None => Tls::None,
            MailTls::Starttls => Tls::Required(parameters()?),
            MailTls::Tls => Tls::Wrapper(parameters()?),
        };
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(config.host.clone())
            .port(config.port)
            .tls(tls)
            .timeout(Some(TIMEOUT));
        if let Some((user, password)) = &config.credentials {
            builder = builder.credentials(Credentials::new(user.clone(), password.clone()));
        }
        Ok(Self { transport: builder.build(), from, installation: config.installation.clone() })
    }

    /// The same on every attempt: a server that saw the mail before knows it.
    fn message_id(&self, run: RunId, recipient: &str) -> String {
        let hash: String = hex::encode(artefact::sha256(recipient.as_bytes())).chars().take(16).collect();
        format!("<{run}.{hash}@{}>", self.installation)
    }
}

/// Why a message did not go.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    /// For good: it would fail in the same way again.
    #[error("{0}")]
    Permanent(String),
    /// It may go later.
    #[error("{0}")]
    Transient(String),
}

impl From<smtp::Error> for SendError {
    fn from(error: smtp::Error) -> Self {
        let text = match std::error::Error::source(&error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        };
        if error.is_permanent() { Self::Permanent(text) } else { Self::Transient(text) }
    }
}

impl ReportsStore {
    /// Sends the mail that is due. Only the holder of a lease sends; the others do nothing.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn deliver_due(&self, mailer: &Mailer, holder: &str) -> Result<Delivery, DbError> {
        let mut delivery = Delivery::default();
        if outbox::due(&self.db, TARGET_PREFIX, self.now(), 1).await?.is_empty() {
            return Ok(delivery);
        }
        let Some(mut held) = self.mail_lease(holder).await? else { return Ok(delivery) };
        for message in outbox::due(&self.db, TARGET_PREFIX, self.now(), MESSAGES_MAX).await? {
            let now = self.now();
            match self.renew(&held, now).await {
                Ok(renewed) => held = renewed,
                Err(DbError::LeaseLost { .. }) => return Ok(delivery),
                Err(error) => return Err(error),
            }
            match self.send(mailer, &message).await {
                Ok(()) => {
                    outbox::sent(&self.db, message.id, self.now()).await?;
                    delivery.sent += 1;
                }
                Err(error) => self.not_sent(&message, &error, &mut delivery).await?,
            }
        }
        let released = self.db.write::<(), std::convert::Infallible, _>(move |tx| {
            let held = held.clone();
            Box::pin(async move { Ok(lease::release(tx, &held).await?) })
        });
        unrefused(released.await)?;
        Ok(delivery)
    }

    async fn not_sent(&self, message: &Queued, error: &SendError, delivery: &mut Delivery) -> Result<(), DbError> {
        let now = self.now();
        let too_old = now.ms_since(message.created_at) >= GIVE_UP_MS;
        let next = if too_old || matches!(error, SendError::Permanent(_)) {
            delivery.given_up += 1;
            metrics::counter!("tandem_report_mails_given_up_total").increment(1);
            tracing::error!(message.id = %message.id, %error, "a report could not be delivered and is given up");
            Next::GiveUp
        } else {
            delivery.retried += 1;
            tracing::warn!(message.id = %message.id, attempts = message.attempts + 1, %error, "a report waits to be sent again");
            Next::Retry(now.plus_ms(retry_delay_ms(message.attempts + 1)))
        };
        outbox::failed(&self.db, message.id, &error.to_string(), next).await?;
        Ok(())
    }

    async fn mail_lease(&self, holder: &str) -> Result<Option<Lease>, DbError> {
        let (holder, now) = (holder.to_owned(), self.now());
        let lease = self.db.write::<_, std::convert::Infallible, _>(move |tx| {
            let holder = holder.clone();
            Box::pin(async move { Ok(lease::acquire(tx, LEASE, &holder, now, LEASE_MS).await?) })
        });
        unrefused(lease.await)
    }

    async fn renew(&self, held: &Lease, now: Timestamp) -> Result<Lease, DbError> {
        let held = held.clone();
        let renewed: Result<Lease, WriteError<std::convert::Infallible>> = self
            .db
            .write(move |tx| {
                let held = held.clone();
                Box::pin(async move { Ok(lease::renew(tx, &held, now, LEASE_MS).await?) })
            })
            .await;
        unrefused(renewed)
    }

    pub(crate) async fn send(&self, mailer: &Mailer, queued: &Queued) -> Result<(), SendError> {
        let mail = self.compose(mailer, queued).await?;
        mailer.transport.send(mail).await?;
        metrics::counter!("tandem_report_mails_sent_total").increment(1);
        Ok(())
    }

    /// Text, page, table and workbook of the run, to one recipient.
    async fn compose(&self, mailer: &Mailer, queued: &Queued) -> Result<Message, SendError> {
        let permanent = |error: &dyn fmt::Display| SendError::Permanent(error.to_string());
        let transient = |error: &dyn fmt::Display| SendError::Transient(error.to_string());
        let payload: Payload = serde_json::from_str(&queued.payload).map_err(|e| permanent(&e))?;
        let to: Mailbox = payload.recipient.parse().map_err(|e: AddressError| permanent(&e))?;
        // The daemon's own errand: the recipients were checked when the run was asked for.
        let scope = Scope::installation();
        let gone = || SendError::Permanent(format!("the run {} is gone", payload.run));
        let figures = self.figures_of(&scope, payload.run).await.map_err(|e| transient(&e))?.ok_or_else(gone)?;
        let html =
            self.artefact(&scope, payload.run, Format::Html).await.map_err(|e| transient(&e))?.ok_or_else(gone)?;
        let csv = self.artefact(&scope, payload.run, Format::Csv).await.map_err(|e| transient(&e))?.ok_or_else(gone)?;
        let xlsx =
            self.artefact(&scope, payload.run, Format::Xlsx).await.map_err(|e| transient(&e))?.ok_or_else(gone)?;
        let name = |extension| format!("call-report-{}-r{}.{extension}", figures.period, figures.revision);
        let page = String::from_utf8(html.clone()).map_err(|e| permanent(&e))?;
        let text = render::text(&figures).map_err(|e| permanent(&e))?;
        let csv_type = ContentType::parse("text/csv; charset=utf-8; header=present").map_err(|e| permanent(&e))?;
        let xlsx_type = ContentType::parse(Format::XLSX_MEDIA_TYPE).map_err(|e| permanent(&e))?;
        let body = MultiPart::alternative().singlepart(SinglePart::plain(text)).singlepart(SinglePart::html(page));
        let parts = MultiPart::mixed()
            .multipart(body)
            // Many readers strip the charts of a mail's body; the attached page has them.
            .singlepart(Attachment::new(name("html")).body(html, ContentType::TEXT_HTML))
            .singlepart(Attachment::new(name("csv")).body(csv, csv_type))
            .singlepart(Attachment::new(name("xlsx")).body(xlsx, xlsx_type));
        Message::builder()
            .from(mailer.from.clone())
            .to(to)
            .subject(render::subject(&figures).map_err(|e| permanent(&e))?)
            .message_id(Some(mailer.message_id(payload.run, &payload.recipient)))
            .date(queued.created_at.to_chrono().into())
            .multipart(parts)
            .map_err(|e| permanent(&e))
    }
}

/// A minute after the first failure, doubled up to the outbox' longest wait.
fn retry_delay_ms(attempts: i64) -> i64 {
    outbox::retry_delay_ms(attempts).saturating_mul(RETRY_FIRST_MS / outbox::RETRY_FIRST_MS).min(outbox::RETRY_MAX_MS)
}
