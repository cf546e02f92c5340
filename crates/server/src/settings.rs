//! Settings: flags before environment before file.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use clap::builder::BoolishValueParser;
use serde::Deserialize;
use tidelog_types::limits::{CONNECTIONS_MAX, Limits};

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
    /// this machine only, and serves pages of this machine only. Logins come in a later release:
    /// until then, a server without --dev refuses every client.
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

    /// Also serve the built examples of this folder: DIR/NAME/dist as /NAME/
    #[arg(long, env = "TIDELOG_SERVE", value_name = "DIR")]
    pub serve: Option<PathBuf>,

    /// TOML file with any of these settings, by their names: data = "...", dev = true
    #[arg(long, env = "TIDELOG_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
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
}

/// The settings in force.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// The file is no settings file.
    #[error("cannot use {path}")]
    Parse {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<toml::de::Error>,
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
}

impl Serve {
    /// The settings in force: these, then the file's, then the defaults.
    ///
    /// # Errors
    ///
    /// [`SettingsError`] if the file or the whole cannot be used.
    pub fn resolve(self) -> Result<ServeSettings, SettingsError> {
        let file = match &self.config {
            Some(path) => read(path)?,
            None => SettingsFile::default(),
        };
        let settings = ServeSettings {
            data: self.data.or(file.data).unwrap_or_else(|| PathBuf::from("tidelog-data")),
            listen: self
                .listen
                .or(file.listen)
                .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 8787))),
            dev: self.dev.or(file.dev).unwrap_or(false),
            serve: self.serve.or(file.serve),
            documents_max: self
                .documents_max
                .or(file.documents_max)
                .unwrap_or(Limits::DEFAULT.documents_max),
            connections_max: self
                .connections_max
                .or(file.connections_max)
                .unwrap_or(CONNECTIONS_MAX),
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
    toml::from_str(&text)
        .map_err(|source| SettingsError::Parse { path: path.to_owned(), source: source.into() })
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
