//! A server with a certificate that the system trusts. Alone in its process, since what is trusted
//! is looked up once.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tidelog_native::{Doctype, Engine, OpenOptions};
use tidelog_server::{ServeSettings, TlsSettings};
use tidelog_testing::server::{PATIENCE, settings, start_when_free};

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

#[test]
fn what_the_system_trusts_is_trusted() {
    // SAFETY: there is no other thread yet, and nothing else runs in this process.
    unsafe { std::env::set_var("SSL_CERT_FILE", CERT) };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
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
    });
}
