//! TLS of a listener: 1.2 (RFC 5246) and 1.3 (RFC 8446), with certificate and key from PEM files (RFC 7468), which
//! are replaced while it serves. A connection keeps the certificate with which it began.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::time::Timestamp;
use rustls::ServerConfig;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use x509_cert::certificate::{CertificateInner, Raw};
use x509_cert::der::Decode as _;

/// Octets of a PEM file that are read: a chain has a few certificates of 2 KiB each.
const FILE_MAX: u64 = 256 * 1_024;
/// Certificates of a chain: more than any public authority has.
const CHAIN_MAX: usize = 16;

/// Why certificate and key cannot be used. Keys are never shown.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{field}: {} cannot be read; check path, owner and mode", path.display())]
    Read {
        /// The key of the configuration.
        field: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is too long to be what it should.
    #[error("{field}: {} is longer than {FILE_MAX} octets; name the PEM file of this server alone", path.display())]
    Length {
        /// The key of the configuration.
        field: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// A file is no PEM. The error of the library is not kept: it shows octets of the file, which may be the key.
    #[error("{field}: {} is no PEM file: {reason}", path.display())]
    Pem {
        /// The key of the configuration.
        field: &'static str,
        /// The file.
        path: PathBuf,
        /// Why, without anything of the file.
        reason: &'static str,
    },
    /// No certificate is in the file of the certificate, or too many are.
    #[error(
        "http.tls.certificate: {} holds {found} certificates; it must hold 1 to {CHAIN_MAX} blocks BEGIN CERTIFICATE, \
         that of this server first, then those of its issuers", path.display()
    )]
    Chain {
        /// The file.
        path: PathBuf,
        /// How many it holds.
        found: usize,
    },
    /// No key is in the file of the key.
    #[error(
        "http.tls.key: {} holds no private key in clear; it must hold one block BEGIN PRIVATE KEY, BEGIN RSA PRIVATE \
         KEY or BEGIN EC PRIVATE KEY (decrypt an encrypted one with openssl pkey)", path.display()
    )]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// The certificate of the server cannot be read.
    #[error("http.tls.certificate: the first certificate of {} cannot be read", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// Why.
        source: x509_cert::der::Error,
    },
    /// The key is that of another certificate.
    #[error(
        "http.tls.key: the key in {} is not that of the first certificate in {}; install both from the same issue",
        key.display(), certificate.display()
    )]
    Mismatch {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
    /// The library refuses the pair.
    #[error(
        "http.tls: {} and {} cannot be used; certificates of RSA (2048 bits and more), ECDSA (P-256, P-384) and \
         Ed25519 can", certificate.display(), key.display()
    )]
    Refused {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// Why.
        source: rustls::Error,
    },
}

/// A certificate and its key, checked against each other.
#[derive(Clone)]
pub struct TlsIdentity {
    config: Arc<ServerConfig>,
    file: Arc<Path>,
    not_before: Timestamp,
    not_after: Timestamp,
}

/// The key stays inside.
impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsIdentity")
            .field("file", &self.file)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

impl TlsIdentity {
    /// Reads the chain of certificates (that of the server first) and the private key. Whether the certificate is valid
    /// now is not asked: an expired one still serves whoever accepts it, and is an alarm.
    ///
    /// # Errors
    /// [`TlsError`], which names key and file of the configuration and the remedy.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let chain = chain(certificate)?;
        let private_key = private_key(key)?;
        let leaf = chain.first().ok_or_else(|| TlsError::Chain { path: certificate.to_owned(), found: 0 })?;
        let (not_before, not_after) =
            validity(leaf).map_err(|source| TlsError::Certificate { path: certificate.to_owned(), source })?;
        let refused = |source| match source {
            rustls::Error::InconsistentKeys(_) => {
                TlsError::Mismatch { certificate: certificate.to_owned(), key: key.to_owned() }
            }
            source => TlsError::Refused { certificate: certificate.to_owned(), key: key.to_owned(), source },
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(refused)?
            .with_no_client_auth()
            .with_single_cert(chain, private_key)
            .map_err(refused)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { config: Arc::new(config), file: certificate.into(), not_before, not_after })
    }

    /// The file that the certificate was read from.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The begin of the validity of the server's certificate.
    #[must_use]
    pub const fn not_before(&self) -> Timestamp {
        self.not_before
    }

    /// The end of the validity of the server's certificate.
    #[must_use]
    pub const fn not_after(&self) -> Timestamp {
        self.not_after
    }
}

/// The identity that a listener shows, replaced at will. Cheap to clone; all clones show the same.
#[derive(Clone, Debug)]
pub struct Tls(watch::Sender<TlsIdentity>);

impl Tls {
    /// Begins with `identity`.
    #[must_use]
    pub fn new(identity: TlsIdentity) -> Self {
        expires(&identity);
        Self(watch::Sender::new(identity))
    }

    /// Shows `identity` from the next handshake on.
    pub fn replace(&self, identity: TlsIdentity) {
        expires(&identity);
        self.0.send_replace(identity);
    }

    /// What is shown now.
    #[must_use]
    pub fn identity(&self) -> TlsIdentity {
        self.0.borrow().clone()
    }

    /// Tells when another one is shown.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<TlsIdentity> {
        self.0.subscribe()
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.0.borrow().config))
    }
}

/// Tells the metrics when the certificate expires, seconds since 1970.
fn expires(identity: &TlsIdentity) {
    #[expect(clippy::cast_precision_loss, reason = "seconds of any year that a certificate can name are exact in f64")]
    metrics::gauge!("tandem_http_certificate_expires_timestamp_seconds").set((identity.not_after.0 / 1_000) as f64);
}

fn read(field: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |source| TlsError::Read { field, path: path.to_owned(), source };
    let mut octets = Vec::new();
    let length = File::open(path).and_then(|file| file.take(FILE_MAX + 1).read_to_end(&mut octets)).map_err(failed)?;
    match u64::try_from(length) {
        Ok(..=FILE_MAX) => Ok(octets),
        _ => Err(TlsError::Length { field, path: path.to_owned() }),
    }
}

/// What is wrong with a PEM file, in words that hold nothing of it: a key whose line ends were lost is one line, which
/// the library shows whole.
const fn pem_reason(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::MissingSectionEnd { .. } => {
            "a block has no END line; check that it is whole and that BEGIN and END have lines of their own"
        }
        pem::Error::IllegalSectionStart { .. } => {
            "a BEGIN line does not end with five hyphens; check that it is a line of its own"
        }
        pem::Error::Base64Decode(_) => "a block holds what is not base64",
        pem::Error::SectionTooLarge => "a block is too long",
        pem::Error::Io(_) => "it cannot be read",
        pem::Error::NoItemsFound => "it holds no such block",
        _ => "it cannot be decoded",
    }
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let field = "http.tls.certificate";
    let octets = read(field, path)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&octets).collect();
    let chain = chain.map_err(|error| TlsError::Pem { field, path: path.to_owned(), reason: pem_reason(&error) })?;
    match chain.len() {
        1..=CHAIN_MAX => Ok(chain),
        found => Err(TlsError::Chain { path: path.to_owned(), found }),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let field = "http.tls.key";
    let octets = read(field, path)?;
    PrivateKeyDer::from_pem_slice(&octets).map_err(|error| match error {
        pem::Error::NoItemsFound => TlsError::NoKey { path: path.to_owned() },
        error => TlsError::Pem { field, path: path.to_owned(), reason: pem_reason(&error) },
    })
}

/// Begin and end (RFC 5280, section 4.1.2.5). The rules of RFC 5280 for everything else are the client's to judge.
fn validity(certificate: &CertificateDer<'_>) -> Result<(Timestamp, Timestamp), x509_cert::der::Error> {
    let certificate = CertificateInner::<Raw>::from_der(certificate)?;
    let validity = certificate.tbs_certificate().validity();
    let at =
        |time: x509_cert::time::Time| Timestamp(i64::try_from(time.to_unix_duration().as_millis()).unwrap_or(i64::MAX));
    Ok((at(validity.not_before), at(validity.not_after)))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P384_SHA384, date_time_ymd};
    use tempfile::TempDir;

    use super::*;

    fn pair() -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        params.not_before = date_time_ymd(2026, 11, 1);
        params.not_after = date_time_ymd(2027, 2, 3);
        (params.self_signed(&key).expect("a certificate").pem(), key.serialize_pem())
    }

    fn load(certificate: &str, key: &str) -> Result<TlsIdentity, TlsError> {
        let dir = TempDir::new().expect("a directory");
        let (certificate_file, key_file) = (dir.path().join("certificate.pem"), dir.path().join("key.pem"));
        std::fs::write(&certificate_file, certificate).expect("it can be written");
        std::fs::write(&key_file, key).expect("it can be written");
        TlsIdentity::load(&certificate_file, &key_file)
    }

    #[test]
    fn a_pair_is_read_with_its_validity() {
        let (certificate, key) = pair();
        // what other programs leave around the blocks is passed over, and so are issuers, which expire on their own
        let identity = load(&format!("of this server\n{certificate}{}", pair().0), &key).expect("a pair");
        let day = |text: &str| text.parse::<Timestamp>().expect("an instant");
        assert_eq!(identity.not_before(), day("2026-11-01T00:00:00Z"));
        assert_eq!(identity.not_after(), day("2027-02-03T00:00:00Z"));
        assert!(!format!("{identity:?}").contains("PRIVATE"));
    }

    #[test]
    fn what_cannot_be_used_is_named_with_its_remedy() {
        let ((certificate, key), (_, other_key)) = (pair(), pair());
        let other_curve = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).expect("a key").serialize_pem();
        let damaged = certificate.replacen("MII", "AAA", 1);
        let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        let cases = [
            (certificate.as_str(), other_key.as_str(), "http.tls.key", "same issue"),
            (&certificate, &other_curve, "http.tls.key", "same issue"),
            (&certificate, &certificate, "http.tls.key", "private key"),
            (&certificate, encrypted, "http.tls.key", "decrypt"),
            (&key, &key, "http.tls.certificate", "0 certificates"),
            (&certificate.repeat(CHAIN_MAX + 1), &key, "http.tls.certificate", "17 certificates"),
            ("", &key, "http.tls.certificate", "0 certificates"),
            (&damaged, &key, "http.tls.certificate", "cannot be read"),
            ("-----BEGIN CERTIFICATE-----\nMAAA", &key, "http.tls.certificate", "no PEM"),
            (&certificate, &"x".repeat(300_000), "http.tls.key", "longer"),
        ];
        for (certificate, key, field, remedy) in cases {
            let error = load(certificate, key).expect_err(remedy).to_string();
            assert!(error.starts_with(field) && error.contains(remedy), "{remedy}: {error}");
        }
        let nowhere = Path::new("nowhere.pem");
        let error = TlsIdentity::load(nowhere, nowhere).expect_err("no file").to_string();
        assert!(error.starts_with("http.tls.certificate") && error.contains("nowhere.pem"), "{error}");
    }

    #[test]
    fn a_key_whose_line_ends_were_lost_is_shown_nowhere() {
        let (certificate, key) = pair();
        let secret: String = key.lines().filter(|line| !line.starts_with('-')).collect();
        let one_line = |between: &str| key.lines().collect::<Vec<_>>().join(between);
        let cut = |text: &str| text.trim_end_matches('-').to_owned();
        let cases = [
            one_line(""),
            one_line(" "),
            one_line("\\n"),
            cut(&one_line("")),
            cut(&one_line(" ")),
            format!("-----BEGIN PRIVATE KEY-----\n{secret}"),
            format!("-----BEGIN PRIVATE KEY-----\n{secret}*\n-----END PRIVATE KEY-----\n"),
        ];
        for case in &cases {
            // either file may be the one that is wrong
            for (certificate, key) in [(certificate.as_str(), case.as_str()), (case, &key)] {
                let error = load(certificate, key).expect_err("no pair");
                let sources = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
                let text: String = sources.map(|error| format!("{error} {error:?}\n")).collect();
                assert!(text.starts_with("http.tls."), "the field is named");
                // no eight characters of the key in a row, neither as text nor as the numbers of their octets
                for part in secret.as_bytes().windows(8) {
                    let octets = format!("{part:?}");
                    let octets = octets.trim_matches(['[', ']']);
                    assert!(!text.contains(std::str::from_utf8(part).expect("base64")) && !text.contains(octets));
                }
            }
        }
    }
}
