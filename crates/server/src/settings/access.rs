//! Settings of who may come in: keys, passwords and origins.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;
use clap::builder::BoolishValueParser;
use ipnet::IpNet;
use tidelog_access::{Keys, PasswordError, PasswordHash, Policy, Role};
use tidelog_types::limits::PASSWORD_SIZE_MAX;

use super::SettingsError;
use super::key_files::{KeyFiles, without_line_break};

/// The built-in users and their roles.
pub(crate) const USERS: [(&str, Role); 3] =
    [("admin", Role::Admin), ("writer", Role::Write), ("reader", Role::Read)];

/// How a variable is looked up.
pub(super) type Variables<'v> = dyn Fn(&str) -> Option<OsString> + 'v;

/// Flags that say who may come in to a server without --dev.
#[derive(Args, Clone, Debug, Default)]
pub struct AccessFlags {
    /// File with the secret, of 32 bytes or more, that the app signs its tokens with (HS256). A
    /// line break at its end does not count
    #[arg(long, env = "TIDELOG_TOKEN_SECRET_FILE", value_name = "FILE")]
    pub token_secret_file: Option<PathBuf>,

    /// PEM with a public key that verifies the app's tokens: Ed25519, P-256 or RSA. Can be given
    /// several times; in the environment, with commas between the files
    #[arg(
        long = "token-key",
        env = "TIDELOG_TOKEN_KEYS",
        value_name = "FILE",
        value_delimiter = ','
    )]
    pub token_keys: Vec<PathBuf>,

    /// File with a JWKS whose keys verify the app's tokens
    #[arg(long, env = "TIDELOG_TOKEN_JWKS_FILE", value_name = "FILE")]
    pub token_jwks_file: Option<PathBuf>,

    /// The `iss` that the app's tokens need to have [default: any]
    #[arg(long, env = "TIDELOG_TOKEN_ISSUER", value_name = "TEXT")]
    pub token_issuer: Option<String>,

    /// The `aud` that the app's tokens need to have [default: any]
    #[arg(long, env = "TIDELOG_TOKEN_AUDIENCE", value_name = "TEXT")]
    pub token_audience: Option<String>,

    /// Origin of pages that may use this server, as `https://app.example.org`, beside those that
    /// come from its own host. Can be given several times; in the environment, with commas between
    #[arg(
        long = "allow-origin",
        env = "TIDELOG_ALLOW_ORIGINS",
        value_name = "ORIGIN",
        value_delimiter = ','
    )]
    pub allow_origins: Vec<String>,

    /// Address or network of a proxy before this server, as 10.0.0.7 or 10.0.0.0/8: what it says
    /// by X-Forwarded-For of whoever asks is believed, and nobody else's word. Can be given several
    /// times; in the environment, with commas between
    #[arg(
        long = "trusted-proxy",
        env = "TIDELOG_TRUSTED_PROXIES",
        value_name = "ADDRESS",
        value_delimiter = ','
    )]
    pub trusted_proxies: Vec<String>,

    /// Answer /metrics to everybody, and not to this machine and to admins alone
    #[arg(
        long,
        env = "TIDELOG_METRICS_OPEN",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_parser = BoolishValueParser::new(),
        value_name = "BOOL"
    )]
    pub metrics_open: Option<bool>,
}

/// Who may come in, with everything read and checked.
#[derive(Clone, Debug, Default)]
pub struct AccessSettings {
    /// What the app's tokens are verified with.
    pub keys: Keys,
    /// Where these keys stand: they are read again when they change.
    pub key_files: KeyFiles,
    /// What is asked of the app's tokens beside a signature.
    pub policy: Policy,
    /// The passwords of the built-in users, by their roles. A user without one cannot log in.
    pub passwords: BTreeMap<Role, Password>,
    /// Origins of pages that are served, in lower case.
    pub allow_origins: Vec<String>,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether everybody may have the metrics.
    pub metrics_open: bool,
}

/// How a user's password is known.
#[derive(Clone)]
pub enum Password {
    /// Itself.
    Plain(String),
    /// By its hash.
    Hash(Box<PasswordHash>),
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password")
    }
}

impl AccessSettings {
    /// Whether anybody could have a token.
    #[must_use]
    pub fn lets_somebody_in(&self) -> bool {
        !self.passwords.is_empty() || !self.keys.as_slice().is_empty()
    }
}

impl AccessFlags {
    /// These, and those where there are none.
    pub(super) fn or(self, file: Self) -> Self {
        let or = |own: Vec<_>, file| if own.is_empty() { file } else { own };
        Self {
            token_secret_file: self.token_secret_file.or(file.token_secret_file),
            token_keys: or(self.token_keys, file.token_keys),
            token_jwks_file: self.token_jwks_file.or(file.token_jwks_file),
            token_issuer: self.token_issuer.or(file.token_issuer),
            token_audience: self.token_audience.or(file.token_audience),
            allow_origins: match self.allow_origins.is_empty() {
                true => file.allow_origins,
                false => self.allow_origins,
            },
            trusted_proxies: match self.trusted_proxies.is_empty() {
                true => file.trusted_proxies,
                false => self.trusted_proxies,
            },
            metrics_open: self.metrics_open.or(file.metrics_open),
        }
    }

    /// Whoever says whom to let in believes that others are kept out.
    pub(super) fn check_unset(&self, variable: &Variables<'_>) -> Result<(), SettingsError> {
        let set = [
            ("--token-secret-file", self.token_secret_file.is_some()),
            ("--token-key", !self.token_keys.is_empty()),
            ("--token-jwks-file", self.token_jwks_file.is_some()),
            ("--token-issuer", self.token_issuer.is_some()),
            ("--token-audience", self.token_audience.is_some()),
            ("--allow-origin", !self.allow_origins.is_empty()),
            ("--trusted-proxy", !self.trusted_proxies.is_empty()),
        ];
        if let Some((setting, _)) = set.into_iter().find(|(_, is_set)| *is_set) {
            return Err(SettingsError::DevWithAccess { setting });
        }
        let has_password = |user: &str| {
            let mut names = password_variables(user).into_iter();
            names.any(|name| variable(&name).is_some())
        };
        match USERS.into_iter().any(|(user, _)| has_password(user)) {
            true => Err(SettingsError::DevWithAccess { setting: "TIDELOG_..._PASSWORD" }),
            false => Ok(()),
        }
    }

    pub(super) fn resolve(self, variable: &Variables<'_>) -> Result<AccessSettings, SettingsError> {
        let key_files = self.key_files();
        let keys = key_files.read()?.keys()?;
        let policy = Policy {
            issuer: self.token_issuer,
            audience: self.token_audience,
            ..Policy::default()
        };
        let mut passwords = BTreeMap::new();
        for (user, role) in USERS {
            passwords.extend(password(user, variable)?.map(|password| (role, password)));
        }
        for origin in &self.allow_origins {
            if !is_origin(origin) {
                return Err(SettingsError::Origin { origin: origin.clone() });
            }
        }
        let allow_origins = self.allow_origins.iter().map(|it| it.to_ascii_lowercase()).collect();
        let proxies = self
            .trusted_proxies
            .iter()
            .map(|text| network(text).ok_or_else(|| SettingsError::Proxy { text: text.clone() }));
        let trusted_proxies = proxies.collect::<Result<_, _>>()?;
        let metrics_open = self.metrics_open.unwrap_or(false);
        Ok(AccessSettings {
            keys,
            key_files,
            policy,
            passwords,
            allow_origins,
            trusted_proxies,
            metrics_open,
        })
    }

    fn key_files(&self) -> KeyFiles {
        KeyFiles {
            secret: self.token_secret_file.clone(),
            keys: self.token_keys.clone(),
            jwks: self.token_jwks_file.clone(),
        }
    }
}

/// The variables that may say a user's password: itself, its file, its hash.
pub(crate) fn password_variables(user: &str) -> [String; 3] {
    let user = user.to_ascii_uppercase();
    ["", "_FILE", "_HASH"].map(|kind| format!("TIDELOG_{user}_PASSWORD{kind}"))
}

fn password(
    user: &'static str,
    variable: &Variables<'_>,
) -> Result<Option<Password>, SettingsError> {
    let names = password_variables(user);
    let is_set = |name: &&String| variable(name).is_some();
    let mut set = names.iter().filter(is_set);
    let Some(name) = set.next() else { return Ok(None) };
    if let Some(other) = set.next() {
        let (one, other) = (name.clone(), other.clone());
        return Err(SettingsError::TwoPasswords { user, one, other });
    }
    let value = variable(name).unwrap_or_default();
    let text = |value: OsString| {
        value.into_string().map_err(|_| SettingsError::NotText { variable: name.clone() })
    };
    let wrong = |origin: String| move |source| SettingsError::Password { user, origin, source };
    let plain = |text: String| match text.is_empty() || text.len() > PASSWORD_SIZE_MAX {
        true => Err(PasswordError::Size),
        false => Ok(Password::Plain(text)),
    };
    let [_, file, hash] = &names;
    let password = if name == hash {
        PasswordHash::from_phc(&text(value)?)
            .map(|hash| Password::Hash(Box::new(hash)))
            .map_err(wrong(name.clone()))?
    } else if name == file {
        let path = PathBuf::from(value);
        let bytes = std::fs::read(&path)
            .map_err(|source| SettingsError::Read { path: path.clone(), source })?;
        let origin = path.display().to_string();
        let text = String::from_utf8(without_line_break(&bytes).to_vec());
        let text = text.map_err(|_| SettingsError::NotText { variable: origin.clone() })?;
        plain(text).map_err(wrong(origin))?
    } else {
        plain(text(value)?).map_err(wrong(name.clone()))?
    };
    Ok(Some(password))
}

/// A network, or one address.
fn network(text: &str) -> Option<IpNet> {
    match text.parse::<IpAddr>() {
        Ok(address) => Some(address.to_canonical().into()),
        Err(_) => text.parse().ok().map(canonical),
    }
}

/// A network as addresses are looked for in it: one of version 4 that is written in version 6 holds
/// none otherwise.
fn canonical(network: IpNet) -> IpNet {
    let (address, bits) = (network.addr().to_canonical(), network.prefix_len());
    match (network, bits.checked_sub(96)) {
        (IpNet::V6(_), Some(bits)) if address.is_ipv4() => {
            IpNet::new(address, bits).expect("BUG: 32 bits at most")
        }
        _ => network,
    }
}

/// Whether browsers write an origin so: a scheme, a host, a port if it is not the scheme's.
fn is_origin(text: &str) -> bool {
    let Some((scheme, host)) = text.split_once("://") else { return false };
    let is_scheme = |it: char| it.is_ascii_alphanumeric() || "+-.".contains(it);
    let is_host = |it: char| it.is_ascii_alphanumeric() || "-._:[]".contains(it);
    let is_plain = !scheme.is_empty() && scheme.chars().all(is_scheme);
    let own_port = match scheme.to_ascii_lowercase().as_str() {
        "https" => ":443",
        "http" => ":80",
        _ => "",
    };
    let has_own_port = !own_port.is_empty() && host.ends_with(own_port);
    is_plain && !host.is_empty() && host.chars().all(is_host) && !has_own_port
}

#[cfg(test)]
mod tests {
    use super::super::Serve;
    use super::*;

    fn resolve(
        access: AccessFlags,
        dev: bool,
        variables: &[(&str, &str)],
    ) -> Result<AccessSettings, SettingsError> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| OsString::from(value))
        };
        let flags = Serve { access, dev: Some(dev), ..Serve::default() };
        flags.resolve_in(&variable).map(|settings| settings.access)
    }

    fn passwords(variables: &[(&str, &str)]) -> Result<BTreeMap<Role, Password>, SettingsError> {
        resolve(AccessFlags::default(), false, variables).map(|settings| settings.passwords)
    }

    const HASH: &str = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$\
        nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";

    #[test]
    fn a_password_comes_by_its_variable_its_file_or_its_hash() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("password");
        std::fs::write(&file, "from a file\r\n").expect("written");
        let file = file.to_str().expect("a text");
        let passwords = passwords(&[
            ("TIDELOG_ADMIN_PASSWORD", "itself"),
            ("TIDELOG_WRITER_PASSWORD_FILE", file),
            ("TIDELOG_READER_PASSWORD_HASH", HASH),
        ]);
        let passwords = passwords.expect("usable");
        let is = |role, text: &str| matches!(&passwords[&role], Password::Plain(it) if it == text);
        assert!(is(Role::Admin, "itself"));
        assert!(is(Role::Write, "from a file"));
        assert!(matches!(passwords[&Role::Read], Password::Hash(_)));
        assert!(!format!("{passwords:?}").contains("itself"));
    }

    #[test]
    fn a_user_without_a_password_has_none() {
        assert!(passwords(&[]).expect("usable").is_empty());
    }

    #[test]
    fn a_password_that_cannot_be_one_is_refused_without_repeating_it() {
        let long = "x".repeat(PASSWORD_SIZE_MAX + 1);
        for (name, value) in [
            ("TIDELOG_ADMIN_PASSWORD", ""),
            ("TIDELOG_ADMIN_PASSWORD", long.as_str()),
            ("TIDELOG_ADMIN_PASSWORD_HASH", "secret, and no hash"),
        ] {
            let error = passwords(&[(name, value)]).expect_err("refused");
            assert!(matches!(error, SettingsError::Password { .. }), "{error}");
            assert!(error.to_string().contains(name), "{error}");
            assert!(!format!("{error:?}").contains("secret"), "{error:?}");
        }
        let absent = passwords(&[("TIDELOG_ADMIN_PASSWORD_FILE", "no/such/file")]);
        assert!(matches!(absent, Err(SettingsError::Read { .. })));
        let two = [("TIDELOG_READER_PASSWORD", "a"), ("TIDELOG_READER_PASSWORD_HASH", HASH)];
        assert!(matches!(passwords(&two), Err(SettingsError::TwoPasswords { .. })));
    }

    #[test]
    fn keys_are_read_and_a_bad_one_is_named_and_not_repeated() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).expect("written");
            path
        };
        let secret = |text: &str| AccessFlags {
            token_secret_file: Some(write("secret", text)),
            ..AccessFlags::default()
        };
        let settings = resolve(secret(&"s".repeat(32)), false, &[]).expect("usable");
        assert_eq!(settings.keys.as_slice().len(), 1);
        // The line break is no part of it.
        let bad = [
            secret(&format!("{}\n", "s".repeat(31))),
            AccessFlags { token_keys: vec![write("key", "sesame")], ..AccessFlags::default() },
            AccessFlags {
                token_jwks_file: Some(write("jwks", "{\"keys\":\"sesame\"}")),
                ..AccessFlags::default()
            },
        ];
        for flags in bad {
            let error = resolve(flags, false, &[]).expect_err("refused");
            assert!(matches!(error, SettingsError::Key { .. }), "{error}");
            assert!(error.to_string().contains(folder.path().to_str().expect("a text")));
            assert!(!format!("{error:?}").contains("sesame"), "{error:?}");
        }
    }

    #[test]
    fn origins_are_written_as_browsers_do() {
        for origin in
            ["https://a.example.org", "http://[::1]:8080", "http://a:443", "capacitor://localhost"]
        {
            assert!(is_origin(origin), "{origin}");
        }
        for origin in [
            "*",
            "null",
            "",
            "app.example.org",
            "https://",
            "https://a/",
            "https://*.a",
            "https://a:443",
            "HTTP://a:80",
        ] {
            assert!(!is_origin(origin), "{origin}");
        }
        let origins = |origin: &str| AccessFlags {
            allow_origins: vec![origin.to_owned()],
            ..AccessFlags::default()
        };
        let settings = resolve(origins("https://App.example.org"), false, &[]).expect("usable");
        assert_eq!(settings.allow_origins, ["https://app.example.org"]);
        let slash = resolve(origins("https://a/"), false, &[]);
        assert!(matches!(slash, Err(SettingsError::Origin { .. })));
    }

    #[test]
    fn a_proxy_is_an_address_or_a_network() {
        let proxies = |text: &str| AccessFlags {
            trusted_proxies: vec![text.to_owned()],
            ..AccessFlags::default()
        };
        for (text, known) in [
            ("10.0.0.7", "10.0.0.7/32"),
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("::1", "::1/128"),
            ("fd00::/8", "fd00::/8"),
            ("::ffff:10.0.0.7", "10.0.0.7/32"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
            ("::/0", "::/0"),
        ] {
            let settings = resolve(proxies(text), false, &[]).expect("usable");
            assert_eq!(settings.trusted_proxies, [known.parse().expect("a network")], "{text}");
        }
        for text in ["", "proxy.example.org", "10.0.0.0/33", "10.0.0.7:80", "10.0.0"] {
            let refused = resolve(proxies(text), false, &[]);
            assert!(matches!(refused, Err(SettingsError::Proxy { .. })), "{text}");
        }
    }

    #[test]
    fn a_development_server_that_is_told_whom_to_let_in_is_refused() {
        let dev = |flags, variables: &[_]| resolve(flags, true, variables);
        assert!(dev(AccessFlags::default(), &[]).is_ok());
        let path = || Some(PathBuf::from("file"));
        let text = || Some("text".to_owned());
        let none = AccessFlags::default;
        for flags in [
            AccessFlags { token_secret_file: path(), ..none() },
            AccessFlags { token_keys: path().into_iter().collect(), ..none() },
            AccessFlags { token_jwks_file: path(), ..none() },
            AccessFlags { token_issuer: text(), ..none() },
            AccessFlags { token_audience: text(), ..none() },
            AccessFlags { allow_origins: vec!["https://a".to_owned()], ..none() },
            AccessFlags { trusted_proxies: vec!["10.0.0.1".to_owned()], ..none() },
        ] {
            let refused = dev(flags, &[]);
            assert!(matches!(refused, Err(SettingsError::DevWithAccess { .. })), "{refused:?}");
        }
        let refused = dev(none(), &[("TIDELOG_WRITER_PASSWORD_FILE", "file")]);
        assert!(matches!(refused, Err(SettingsError::DevWithAccess { .. })), "{refused:?}");
    }
}
