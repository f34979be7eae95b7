//! `tandem doctor`: looks at everything that an installation stands on, and says for each thing how it is and what to
//! do. It changes nothing but for a probe file that it removes again, and may run beside the daemon.

mod finding;
mod probe;

use std::process::ExitCode;

use serde_json::json;

use super::{Failure, Output};
use crate::config::{Config, ConfigError};
use finding::{Finding, Severity};

pub async fn run(config: Result<Config, ConfigError>, output: Output) -> Result<ExitCode, Failure> {
    let findings = match config {
        Ok(config) => examine(&config).await,
        Err(error) => {
            let next = "correct it; `tandem config schema` explains every key; nothing else was looked at";
            vec![Finding::new("configuration", Severity::Broken, error.to_string(), next)]
        }
    };
    let broken = findings.iter().any(|finding| finding.severity == Severity::Broken);
    let rows = findings.iter().map(|finding| {
        let severity = match finding.severity {
            Severity::Ok => "ok",
            Severity::NotChecked => "not checked",
            Severity::Warning => "warning",
            Severity::Broken => "BROKEN",
        };
        vec![severity.to_owned(), finding.check.clone(), finding.text.clone(), finding.next.clone()]
    });
    let json = json!({ "broken": broken, "findings": findings });
    super::output::print(output, &json, &["", "what", "found", "what to do"], rows)?;
    Ok(if broken { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Everything, in the order in which one would repair it.
async fn examine(config: &Config) -> Vec<Finding> {
    let mut findings = vec![Finding::ok("configuration", "can be used")];
    findings.extend(probe::disk(config).await);
    findings.extend(probe::store(config).await);
    findings.extend(probe::node_database(config).await);
    findings.extend(probe::ports(config).await);
    findings.extend(probe::certificate(config));
    findings.push(probe::synchronised().await);
    findings.extend(probe::limits(config));
    findings.extend(probe::mail(config).await);
    findings.extend(probe::snmp(config));
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::local::Local;

    fn severity(findings: &[Finding], check: &str) -> Option<Severity> {
        findings.iter().find(|finding| finding.check == check).map(|finding| finding.severity)
    }

    #[tokio::test]
    async fn a_good_installation_is_told_from_a_broken_one() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut config = crate::demo::installation::configure(dir.path()).expect("free ports");
        let local = Local::create(&config).await.expect("a store");
        let (clock, ids) = (local.clock.clone(), local.ids.clone());
        let currency = "EUR".parse().expect("a currency");
        local.provisioning.bootstrap("P", "UTC", currency, clock, ids).await.expect("a provider");
        local.store.close().await;

        let good = examine(&config).await;
        for check in
            ["configuration", "data directory", "database", "schema", "integrity store.db", "key file", "daemon"]
        {
            assert_eq!(severity(&good, check), Some(Severity::Ok), "{check}: {good:#?}");
        }
        for check in ["port sip.transport.listen", "port http.listen", "port admin.listen"] {
            assert_eq!(severity(&good, check), Some(Severity::Ok), "{check}: {good:#?}");
        }

        // Another program on a port, the key lost, a mail server that does not listen, a damaged page of the store.
        let other = std::net::TcpListener::bind(config.http.listen).expect("it was free");
        std::fs::remove_file(crate::storage::key_file(&config)).expect("it is there");
        let mail = crate::demo::process::free_tcp().expect("a free port");
        config.mail.host = mail.ip().to_string();
        config.mail.port = mail.port();
        assert_eq!(severity(&good, "certificate http.tls"), Some(Severity::Ok));
        (config.http.tls.certificate, config.http.tls.key) = (dir.path().join("no.pem"), dir.path().join("no.key"));
        let broken = examine(&config).await;
        for check in ["port http.listen", "key file", "mail server", "certificate http.tls"] {
            assert_eq!(severity(&broken, check), Some(Severity::Broken), "{check}: {broken:#?}");
        }
        drop(other);
        let store = config.node.data_dir.join("store.db");
        let length = std::fs::metadata(&store).expect("it is there").len();
        let mut octets = std::fs::read(&store).expect("it can be read");
        octets[4_096..].fill(0xa5);
        assert!(length > 8_192);
        std::fs::write(&store, octets).expect("it can be written");
        let damaged = examine(&config).await;
        let store_findings = ["database", "schema", "integrity store.db"];
        let is_broken = |check: &&str| severity(&damaged, check) == Some(Severity::Broken);
        assert!(store_findings.iter().any(is_broken), "{damaged:#?}");

        config.node.data_dir = dir.path().join("nowhere");
        let nowhere = examine(&config).await;
        assert_eq!(severity(&nowhere, "data directory"), Some(Severity::Broken));
        assert_eq!(severity(&nowhere, "database"), Some(Severity::Broken));
        assert!(!config.node.data_dir.exists(), "a doctor makes nothing");
    }
}
