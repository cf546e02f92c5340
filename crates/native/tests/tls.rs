//! A server with a certificate that the system trusts, which each process looks up once.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tidelog_native::{Doctype, Engine, OpenOptions};
use tidelog_testing::server::{PATIENCE, ServeSettings, TlsSettings, settings, start_when_free};

const CERT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../server/tests/tls/one.pem");
const KEY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../server/tests/tls/one.key");

fn config() -> ServerConfig {
    let certs = CertificateDer::pem_file_iter(CERT).expect("a file");
    let certs = certs.collect::<Result<Vec<_>, _>>().expect("certificates");
    let key = PrivateKeyDer::from_pem_file(KEY).expect("a key");
    ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(certs, key)
        .expect("a configuration")
}

/// Goal: a server is reached whose certificate the system trusts. Method: this test again in a
/// process of its own, which is told what that is.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_system_trusts_is_trusted() {
    if std::env::var_os("SSL_CERT_FILE").is_none_or(|file| file != CERT) {
        let this = std::env::current_exe().expect("a path");
        let mut again = std::process::Command::new(this);
        let again = again.args(["--exact", "what_the_system_trusts_is_trusted"]);
        let ran = again.env("SSL_CERT_FILE", CERT).output().expect("it runs");
        let said = String::from_utf8_lossy(&ran.stdout);
        assert!(ran.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    let data = tempfile::tempdir().expect("a folder");
    let tls = Some(TlsSettings { config: Arc::new(config()), ends_at_s: None });
    let server = start_when_free(&ServeSettings { tls, ..settings(data.path()) }).await;
    let address = format!("wss://localhost:{}", server.address().port());
    let engine = Engine::in_memory().expect("an engine");
    let doctype = Doctype { name: "empty".to_owned(), ..Doctype::default() };
    let opened = engine.open(&doctype, OpenOptions::new("team/notes").server(address)).await;
    let db = opened.expect("a document");
    tokio::time::timeout(PATIENCE, db.sync()).await.expect("a server").expect("synced");
    assert!(db.status().borrow().synced);
}
