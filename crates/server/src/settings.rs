//! Settings: flags before environment before file.

mod access;
mod key_files;
mod tls;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::builder::BoolishValueParser;
use clap::{Args, ValueEnum};
use serde::Deserialize;
use tidelog_access::{KeyError, PasswordError};
use tidelog_types::limits::{CONNECTIONS_MAX, Limits};

pub use access::{AccessFlags, AccessSettings, Password};
pub(crate) use access::{USERS, password_variables};
pub use key_files::KeyFiles;
pub(crate) use key_files::without_line_break;
pub use tls::{TlsError, TlsFlags, TlsSettings};

/// Flags of `tidelog serve`. Each can be set in the environment too, as TIDELOG_ and its name, and
/// in the file that --config names; flags win over the environment, and that over the file.
#[derive(Args, Clone, Debug, Default)]
pub struct Serve {
    /// Folder of the store; made if it is not there [default: tidelog-data]
    #[arg(long, env = "TIDELOG_DATA", value_name = "DIR")]
    pub data: Option<PathBuf>,

    /// Address to listen on; port 0 takes any free one [default: 127.0.0.1:8787]
    #[arg(long, env = "TIDELOG_LISTEN", value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,

    /// Development server: no token is needed and clients bring their doctypes along. Listens on
    /// this machine only, and serves pages of this machine only. Without --dev whoever comes needs
    /// a token: of a built-in user, whose password is set by TIDELOG_ADMIN_PASSWORD,
    /// TIDELOG_WRITER_PASSWORD or TIDELOG_READER_PASSWORD (or ..._PASSWORD_FILE, or as a PHC string
    /// of argon2id ..._PASSWORD_HASH) in the environment, or signed by a key of the app's, below.
    #[arg(
        long,
        env = "TIDELOG_DEV",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_parser = BoolishValueParser::new(),
        value_name = "BOOL"
    )]
    pub dev: Option<bool>,

    /// Documents that there may be; who would begin another one is refused [default: 100000]
    #[arg(long, env = "TIDELOG_DOCUMENTS_MAX", value_name = "COUNT")]
    pub documents_max: Option<usize>,

    /// Connections that there may be at once [default: 100000]
    #[arg(long, env = "TIDELOG_CONNECTIONS_MAX", value_name = "COUNT")]
    pub connections_max: Option<usize>,

    /// Who may come in.
    #[command(flatten)]
    pub access: AccessFlags,

    /// Whether it speaks TLS.
    #[command(flatten)]
    pub tls: TlsFlags,

    /// Also serve the built examples of this folder: DIR/NAME/dist as /NAME/
    #[arg(long, env = "TIDELOG_SERVE", value_name = "DIR")]
    pub serve: Option<PathBuf>,

    /// How the log is written, to standard error [default: text]
    #[arg(long, env = "TIDELOG_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,

    /// TOML file with any of these settings, by their names: data = "...", dev = true
    #[arg(long, env = "TIDELOG_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// A line for people.
    #[default]
    Text,
    /// A JSON object on each line.
    Json,
}

/// What the file may say.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct SettingsFile {
    data: Option<PathBuf>,
    listen: Option<SocketAddr>,
    dev: Option<bool>,
    serve: Option<PathBuf>,
    documents_max: Option<usize>,
    connections_max: Option<usize>,
    token_secret_file: Option<PathBuf>,
    #[serde(default)]
    token_keys: Vec<PathBuf>,
    token_jwks_file: Option<PathBuf>,
    token_issuer: Option<String>,
    token_audience: Option<String>,
    #[serde(default)]
    allow_origins: Vec<String>,
    #[serde(default)]
    trusted_proxies: Vec<String>,
    metrics_open: Option<bool>,
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    log_format: Option<LogFormat>,
}

/// The settings in force.
#[derive(Clone, Debug)]
pub struct ServeSettings {
    /// Folder of the store.
    pub data: PathBuf,
    /// Address to listen on.
    pub listen: SocketAddr,
    /// Whether this is a development server.
    pub dev: bool,
    /// Folder of the examples to serve.
    pub serve: Option<PathBuf>,
    /// Documents that there may be.
    pub documents_max: usize,
    /// Connections that there may be at once.
    pub connections_max: usize,
    /// Who may come in; not looked at on a development server.
    pub access: AccessSettings,
    /// The certificate that it shows, if it speaks TLS.
    pub tls: Option<TlsSettings>,
}

/// Why settings cannot be used. All of them are wrong usage.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file is no settings file. Its lines are not repeated: somebody may have looked for a
    /// place for a password in vain.
    #[error("cannot use {path}, line {line}: {reason}")]
    Parse {
        /// Which file.
        path: PathBuf,
        /// Which of its lines, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A development server beyond this machine.
    #[error(
        "a development server listens on this machine only, and {listen} is beyond it: \
         leave --dev out, or listen on 127.0.0.1"
    )]
    DevBeyondLoopback {
        /// The address.
        listen: SocketAddr,
    },
    /// A development server that is told whom to let in.
    #[error(
        "a development server asks nobody for a token, and {setting} says who may come in: leave \
         --dev out, or {setting}"
    )]
    DevWithAccess {
        /// The setting.
        setting: &'static str,
    },
    /// A file is no key.
    #[error("cannot use the key in {path}")]
    Key {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: KeyError,
    },
    /// A certificate without its key, or a key without its certificate.
    #[error("{set} is set and {missing} is not: a certificate and its key come together")]
    HalfTls {
        /// The one that is set.
        set: &'static str,
        /// The other one.
        missing: &'static str,
    },
    /// A file is no certificate, or not its key.
    #[error("cannot use {path} for TLS")]
    Tls {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: TlsError,
    },
    /// A password or its hash cannot be used.
    #[error("cannot use {origin} as the password of {user}")]
    Password {
        /// The built-in user.
        user: &'static str,
        /// The variable or the file.
        origin: String,
        /// What is wrong with it.
        #[source]
        source: PasswordError,
    },
    /// A user has a password in several ways.
    #[error("{user} has two passwords: set one of {one} and {other}")]
    TwoPasswords {
        /// The built-in user.
        user: &'static str,
        /// A variable.
        one: String,
        /// Another one.
        other: String,
    },
    /// A variable is no text.
    #[error("{variable} is no UTF-8 text")]
    NotText {
        /// Which variable.
        variable: String,
    },
    /// What no browser sends as an origin.
    #[error(
        "{origin} is no origin: write it as browsers do, https://app.example.org, with a port if \
         it is not the scheme's own, and no slash behind it"
    )]
    Origin {
        /// What was given.
        origin: String,
    },
    /// What is neither an address nor a network.
    #[error("{text} is no proxy: give its address, as 10.0.0.7, or its network, as 10.0.0.0/8")]
    Proxy {
        /// What was given.
        text: String,
    },
}

impl Serve {
    /// How the log is written, which has to be known before anything is logged. A file that cannot
    /// be used is told by [`resolve`](Self::resolve).
    #[must_use]
    pub fn log_format(&self) -> LogFormat {
        let from_file = || self.config.as_deref().and_then(|path| read(path).ok()?.log_format);
        self.log_format.or_else(from_file).unwrap_or_default()
    }

    /// The settings in force: these, then the file's, then the defaults.
    ///
    /// # Errors
    ///
    /// [`SettingsError`] if the file or the whole cannot be used.
    pub fn resolve(self) -> Result<ServeSettings, SettingsError> {
        self.resolve_in(&|name| std::env::var_os(name))
    }

    /// The same with these variables in place of the environment's.
    fn resolve_in(self, variable: &access::Variables<'_>) -> Result<ServeSettings, SettingsError> {
        let file = match &self.config {
            Some(path) => read(path)?,
            None => SettingsFile::default(),
        };
        let dev = self.dev.or(file.dev).unwrap_or(false);
        let access = self.access.or(AccessFlags {
            token_secret_file: file.token_secret_file,
            token_keys: file.token_keys,
            token_jwks_file: file.token_jwks_file,
            token_issuer: file.token_issuer,
            token_audience: file.token_audience,
            allow_origins: file.allow_origins,
            trusted_proxies: file.trusted_proxies,
            metrics_open: file.metrics_open,
        });
        let access = if dev {
            access.check_unset(variable)?;
            AccessSettings::default()
        } else {
            access.resolve(variable)?
        };
        let tls = self.tls.or(TlsFlags { tls_cert: file.tls_cert, tls_key: file.tls_key });
        let tls = tls.resolve()?;
        let settings = ServeSettings {
            data: self.data.or(file.data).unwrap_or_else(|| PathBuf::from("tidelog-data")),
            listen: self
                .listen
                .or(file.listen)
                .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 8787))),
            dev,
            serve: self.serve.or(file.serve),
            documents_max: self
                .documents_max
                .or(file.documents_max)
                .unwrap_or(Limits::DEFAULT.documents_max),
            connections_max: self
                .connections_max
                .or(file.connections_max)
                .unwrap_or(CONNECTIONS_MAX),
            access,
            tls,
        };
        if settings.dev && !settings.listen.ip().is_loopback() {
            return Err(SettingsError::DevBeyondLoopback { listen: settings.listen });
        }
        Ok(settings)
    }
}

fn read(path: &Path) -> Result<SettingsFile, SettingsError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| SettingsError::Read { path: path.to_owned(), source })?;
    toml::from_str(&text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start.min(text.len()));
        let line = 1 + text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count();
        SettingsError::Parse { path: path.to_owned(), line, reason: error.message().to_owned() }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("tidelog.toml");
        std::fs::write(&path, "data = \"from-file\"\nlisten = \"127.0.0.1:1\"\ndev = true\n")
            .expect("written");
        let flags = Serve {
            listen: Some(SocketAddr::from(([127, 0, 0, 1], 2))),
            config: Some(path.clone()),
            ..Serve::default()
        };
        let settings = flags.resolve().expect("usable");
        assert_eq!(settings.data, Path::new("from-file"));
        assert_eq!(settings.listen.port(), 2);
        assert!(settings.dev);

        std::fs::write(&path, "dat = \"typo\"\n").expect("written");
        let typo = Serve { config: Some(path), ..Serve::default() };
        assert!(matches!(typo.resolve(), Err(SettingsError::Parse { .. })));
    }

    #[test]
    fn a_development_server_beyond_this_machine_is_refused() {
        let flags = Serve {
            listen: Some(SocketAddr::from(([0, 0, 0, 0], 8787))),
            dev: Some(true),
            ..Serve::default()
        };
        assert!(matches!(flags.resolve(), Err(SettingsError::DevBeyondLoopback { .. })));
    }
}
