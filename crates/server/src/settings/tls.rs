//! The certificate that the server shows, which may change while it runs.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, Error, RootCertStore, ServerConfig};

use super::{SettingsError, key_files};

/// What is spoken within TLS: a WebSocket begins as HTTP/1.1.
const ALPN: &[u8] = b"http/1.1";

/// Flags that have the server speak TLS.
#[derive(Args, Clone, Debug, Default)]
pub struct TlsFlags {
    /// PEM with the server's certificate, and behind it those that lead to one that browsers
    /// trust: with it the server speaks TLS, by https and wss. SIGHUP has it read again
    #[arg(long, env = "TIDELOG_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,

    /// PEM with the private key of that certificate, without a passphrase
    #[arg(long, env = "TIDELOG_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
}

/// A certificate and its key, read and found to belong together.
#[derive(Clone)]
pub struct TlsSettings {
    /// What a connection is begun with.
    pub config: Arc<ServerConfig>,
    /// The second since 1970 at which the first of the certificates that are shown ends, as far as
    /// that can be read.
    pub ends_at_s: Option<u64>,
}

impl fmt::Debug for TlsSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsSettings")
    }
}

/// What is wrong with a certificate or its key. Nothing of either is repeated.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file is no PEM.
    #[error("it is no PEM")]
    Pem,
    /// It has no certificate.
    #[error("it has no certificate, as PEM")]
    NoCertificate,
    /// It has no private key.
    #[error("it has no private key, as PEM without a passphrase")]
    NoKey,
    /// One of both cannot be used, or both not together.
    #[error("it cannot be used, or is not that of the certificate")]
    Unusable(#[source] rustls::Error),
}

impl TlsFlags {
    /// These, and those of the file where there are none.
    pub(super) fn or(self, file: Self) -> Self {
        Self { tls_cert: self.tls_cert.or(file.tls_cert), tls_key: self.tls_key.or(file.tls_key) }
    }

    /// Reads both files, if they are named.
    pub(crate) fn resolve(self) -> Result<Option<TlsSettings>, SettingsError> {
        let (cert, key) = match (self.tls_cert, self.tls_key) {
            (None, None) => return Ok(None),
            (Some(cert), Some(key)) => (cert, key),
            (cert, _) => {
                let (set, missing) = match cert {
                    Some(_) => ("--tls-cert", "--tls-key"),
                    None => ("--tls-key", "--tls-cert"),
                };
                return Err(SettingsError::HalfTls { set, missing });
            }
        };
        let certificates = certificates(&read(&cert)?);
        let certificates = certificates.map_err(|source| wrong(&cert, source))?;
        let ends_at_s = certificates.iter().filter_map(ends_at_s).min();
        let private_key = private_key(&read(&key)?);
        let config = private_key.and_then(|it| config(certificates, it));
        let config = config.map_err(|source| match source {
            TlsError::Unusable(rustls::Error::InvalidCertificate(_)) => wrong(&cert, source),
            _ => wrong(&key, source),
        })?;
        Ok(Some(TlsSettings { config: Arc::new(config), ends_at_s }))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, SettingsError> {
    let failed = |source| SettingsError::Read { path: path.to_owned(), source };
    key_files::read(path).map_err(failed)
}

fn wrong(path: &Path, source: TlsError) -> SettingsError {
    SettingsError::Tls { path: path.to_owned(), source }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    match found {
        Ok(found) if found.is_empty() => Err(TlsError::NoCertificate),
        Ok(found) => Ok(found),
        // It may quote what it has found.
        Err(_) => Err(TlsError::Pem),
    }
}

/// The second since 1970 at which the certificate ends. Whoever verifies one is told that, at a
/// time that is behind it; nothing else of it is looked at before.
fn ends_at_s(certificate: &CertificateDer<'_>) -> Option<u64> {
    let parsed = ParsedCertificate::try_from(certificate).ok()?;
    let never = UnixTime::since_unix_epoch(Duration::from_secs(u64::MAX));
    let nobody = RootCertStore::empty();
    match verify_server_cert_signed_by_trust_anchor(&parsed, &nobody, &[], never, &[]) {
        Err(Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => {
            Some(not_after.as_secs())
        }
        _ => None,
    }
}

fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    use rustls::pki_types::pem::Error;

    PrivateKeyDer::from_pem_slice(pem).map_err(|error| match error {
        Error::NoItemsFound => TlsError::NoKey,
        _ => TlsError::Pem,
    })
}

fn config(
    certificates: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, TlsError> {
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("BUG: the provider has their ciphers");
    let config = builder.with_no_client_auth().with_single_cert(certificates, key);
    let mut config = config.map_err(TlsError::Unusable)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: whoever watches the server sees a certificate end before browsers do. Method: one of
    /// tests, and one behind it that has ended: 2126-11-04 and 2021-01-01.
    #[test]
    fn a_chain_ends_with_the_first_of_its_certificates() {
        let folder = tempfile::tempdir().expect("a folder");
        let pem = |name: &str| std::fs::read_to_string(file(name)).expect("a text");
        let chain = folder.path().join("chain.pem");
        std::fs::write(&chain, pem("one.pem") + &pem("expired.pem")).expect("written");
        let ends_at = |cert: PathBuf| {
            let flags = TlsFlags { tls_cert: Some(cert), tls_key: Some(file("one.key")) };
            flags.resolve().expect("usable").expect("a certificate").ends_at_s
        };
        assert_eq!(ends_at(file("one.pem")), Some(4_949_437_516));
        assert_eq!(ends_at(chain), Some(1_609_459_200));
    }

    /// Certificates of tests, with their keys: they hold until 2126, but for `expired`.
    fn file(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls").join(name)
    }

    fn resolve(cert: Option<PathBuf>, key: Option<PathBuf>) -> Result<bool, SettingsError> {
        let flags = TlsFlags { tls_cert: cert, tls_key: key };
        flags.resolve().map(|tls| tls.is_some())
    }

    #[test]
    fn a_certificate_and_its_key_come_together() {
        let [cert, key] = ["one.pem", "one.key"].map(|name| Some(file(name)));
        assert!(resolve(cert.clone(), key.clone()).expect("a pair"));
        assert!(!resolve(None, None).expect("none"));
        for (cert, key) in [(cert, None), (None, key)] {
            let half = resolve(cert, key);
            assert!(matches!(half, Err(SettingsError::HalfTls { .. })), "{half:?}");
        }
    }

    #[test]
    fn what_is_wrong_with_either_is_told_and_not_quoted() {
        let folder = tempfile::tempdir().expect("a folder");
        let whole = std::fs::read_to_string(file("one.key")).expect("a text");
        let torn = folder.path().join("torn.key");
        std::fs::write(&torn, &whole[..whole.len() / 2]).expect("written");
        let broken = folder.path().join("broken.key");
        std::fs::write(&broken, whole.replace("\nM", "\n(sesame)M")).expect("written");
        let absent = folder.path().join("absent");
        let of = |cert: &Path, key: &Path| {
            let error = resolve(Some(cert.to_owned()), Some(key.to_owned())).expect_err("refused");
            let source = std::error::Error::source(&error).expect("why").to_string();
            let named = [&error.to_string(), &source].map(String::as_str).join(": ");
            assert!(!named.contains("sesame") && !named.contains("MIG"), "{named}");
            named
        };
        let (cert, key, other) = (file("one.pem"), file("one.key"), file("two.key"));
        for (cert, key, named, why) in [
            (&cert, &other, &other, "is not that of the certificate"),
            (&cert, &cert, &cert, "no private key"),
            (&key, &key, &key, "no certificate"),
            (&cert, &torn, &torn, "no PEM"),
            (&cert, &broken, &broken, "no PEM"),
            (&cert, &absent, &absent, "No such file"),
            (&absent, &key, &absent, "No such file"),
        ] {
            let said = of(cert, key);
            assert!(said.contains(why) && said.contains(named.to_str().expect("a text")), "{said}");
        }
    }
}
