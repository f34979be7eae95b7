//! The detector of certificates that end: the one that the HTTP face shows, as it is now.

use std::sync::Arc;

use api_http::{Tls, TlsIdentity};
use fault::catalogue::{AlarmType, detector};
use fault::port::AlarmAuthority;
use fault::resource::{Condition, Severity};
use model::time::{Clock, Timestamp};

use super::worker::{Step, StepError};
use crate::config::HttpTlsConfig;

const DAY_MS: i64 = 86_400_000;

/// What the detector looks at.
pub struct CertificateDetector {
    /// Where conditions are reported.
    pub authority: Arc<dyn AlarmAuthority>,
    /// What the HTTP face shows; none: it speaks in clear, and an alarm of before is cleared.
    pub tls: Option<Tls>,
    /// From when on it is an alarm.
    pub limits: HttpTlsConfig,
    /// Name of this node.
    pub node_name: Arc<str>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
}

impl CertificateDetector {
    /// Looks once.
    ///
    /// # Errors
    /// When the node database cannot be written.
    pub async fn look(&self) -> Result<Step, StepError> {
        let now = self.clock.now().utc;
        let found = self.tls.as_ref().and_then(|tls| expiry(&tls.identity(), &self.limits, now));
        let condition = found.map(|(severity, text)| Condition {
            alarm_type: AlarmType::CertificateExpiring,
            resource: format!("certificate:{}/http", self.node_name),
            path: None,
            severity: Some(severity),
            text,
        });
        self.authority.observe(detector::CERTIFICATES, condition.into_iter().collect(), now).await?;
        Ok(Step::Idle)
    }
}

/// What is wrong with the validity of a certificate, and how bad it is; none: nothing. The text names instants and no
/// number of days: it stays right while the alarm is up.
pub fn expiry(identity: &TlsIdentity, limits: &HttpTlsConfig, now: Timestamp) -> Option<(Severity, String)> {
    let (begin, end, file) = (identity.not_before(), identity.not_after(), identity.file().display());
    let before_end = |days: u32| now >= end.plus_ms(-DAY_MS * i64::from(days));
    if now < begin {
        return Some((
            Severity::Critical,
            format!("the certificate of {file} is valid from {begin} on: clients refuse it"),
        ));
    }
    if now > end {
        return Some((
            Severity::Critical,
            format!("the certificate of {file} has expired at {end}: clients refuse it"),
        ));
    }
    let severity = match () {
        () if before_end(limits.expiry_critical_days) => Severity::Critical,
        () if before_end(limits.expiry_warning_days) => Severity::Warning,
        () => return None,
    };
    Some((severity, format!("the certificate of {file} expires at {end}")))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use fault_store::NodeAlarms;
    use testkit::{CountingIds, ManualClock};

    use super::*;

    /// The end of all certificates of these tests.
    const END: &str = "2027-01-31T00:00:00Z";

    fn identity(dir: &Path, end: (i32, u8, u8)) -> TlsIdentity {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        params.not_before = rcgen::date_time_ymd(2026, 11, 1);
        params.not_after = rcgen::date_time_ymd(end.0, end.1, end.2);
        let (certificate, key_file) = (dir.join("certificate.pem"), dir.join("key.pem"));
        std::fs::write(&certificate, params.self_signed(&key).expect("a certificate").pem())
            .expect("it can be written");
        std::fs::write(&key_file, key.serialize_pem()).expect("it can be written");
        TlsIdentity::load(&certificate, &key_file).expect("a pair")
    }

    fn at(text: &str) -> Timestamp {
        text.parse().expect("an instant")
    }

    #[test]
    fn it_becomes_worse_with_each_bound() {
        let dir = tempfile::tempdir().expect("a directory");
        let identity = identity(dir.path(), (2027, 1, 31));
        let limits = HttpTlsConfig::default();
        for (now, severity, says) in [
            ("2026-10-31T23:59:59Z", Some(Severity::Critical), "valid from 2026-11-01T00:00:00.000Z"),
            ("2026-12-31T23:59:59Z", None, ""),
            ("2027-01-01T00:00:00Z", Some(Severity::Warning), "expires at 2027-01-31T00:00:00.000Z"),
            ("2027-01-23T23:59:59Z", Some(Severity::Warning), "expires at"),
            ("2027-01-24T00:00:00Z", Some(Severity::Critical), "expires at"),
            (END, Some(Severity::Critical), "expires at"),
            ("2027-01-31T00:00:01Z", Some(Severity::Critical), "has expired at"),
        ] {
            let found = expiry(&identity, &limits, at(now));
            assert_eq!(found.as_ref().map(|(severity, _)| *severity), severity, "{now}");
            assert!(found.is_none_or(|(_, text)| text.contains(says) && text.contains("certificate.pem")), "{now}");
        }
    }

    #[tokio::test]
    async fn it_is_raised_once_made_worse_and_cleared_by_another_certificate() {
        let dir = tempfile::tempdir().expect("a directory");
        let tls = Tls::new(identity(dir.path(), (2027, 1, 31)));
        let clock = Arc::new(ManualClock::at(at("2026-12-01T00:00:00Z")));
        let node_db = db::node::open(dir.path()).await.expect("a node database");
        let ids = Arc::new(CountingIds::default());
        let alarms = NodeAlarms::new(node_db, "node1", Vec::new(), ids);
        let detector = CertificateDetector {
            authority: Arc::new(alarms.clone()),
            tls: Some(tls.clone()),
            limits: HttpTlsConfig::default(),
            node_name: "node1".into(),
            clock: clock.clone(),
        };
        let seen = async |now: &str| {
            clock.set_utc(at(now));
            detector.look().await.expect("it looks");
            let active = alarms.active().await.expect("it can be read");
            let shown = active.iter().map(|alarm| (alarm.id, alarm.resource.clone(), alarm.severity, alarm.count));
            shown.collect::<Vec<_>>()
        };
        assert_eq!(seen("2026-12-01T00:00:00Z").await, []);
        let resource = || "certificate:node1/http".to_owned();
        assert_eq!(seen("2027-01-02T00:00:00Z").await, [(1, resource(), Severity::Warning, 1)]);
        assert_eq!(seen("2027-01-03T00:00:00Z").await, [(1, resource(), Severity::Warning, 2)]);
        assert_eq!(seen("2027-01-25T00:00:00Z").await, [(1, resource(), Severity::Critical, 3)]);
        tls.replace(identity(dir.path(), (2027, 4, 30)));
        assert_eq!(seen("2027-01-25T00:00:01Z").await, []);
    }
}
