//! `tidelog token`: a token as the app would sign it, to try things with.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tidelog_access::{
    AppToken, Grant, Grants, Key, KeyError, Keys, Pattern, Policy, Role, TokenError, Verifier,
};
use tidelog_types::limits::TOKEN_LEEWAY_S;

use super::{CommandError, read, say};
use crate::access::now_s;
use crate::settings::{USERS, without_line_break};

/// Bytes of a file with a secret.
const SECRET_SIZE_MAX: usize = 64 * 1024;

/// Flags of `tidelog token`.
#[derive(Args, Clone, Debug)]
pub struct Token {
    /// Whose token it is
    #[arg(long, value_name = "TEXT")]
    pub subject: String,

    /// A role on a document, or on those whose names begin so: `lists/*:write`. Can be given
    /// several times; without any, the token allows nothing
    #[arg(long = "grant", value_name = "DOCUMENT:ROLE", value_parser = grant)]
    pub grants: Vec<Grant>,

    /// Documents may be begun, too, where the role is write or admin
    #[arg(long)]
    pub create: bool,

    /// Commands may be sent to the documents, and runs started and cancelled, where the role is
    /// read; write and admin include that
    #[arg(long)]
    pub send: bool,

    /// Commands of the documents may be handled, too, whatever the role
    #[arg(long)]
    pub handle: bool,

    /// For how long it is valid: 90s, 15m, 12h or 30d
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub expires: Duration,

    /// The file with the secret that the server is given as --token-secret-file
    #[arg(long, env = "TIDELOG_TOKEN_SECRET_FILE", value_name = "FILE")]
    pub secret_file: PathBuf,

    /// The `iss` that the server asks for
    #[arg(long, env = "TIDELOG_TOKEN_ISSUER", value_name = "TEXT")]
    pub issuer: Option<String>,

    /// The `aud` that the server asks for
    #[arg(long, env = "TIDELOG_TOKEN_AUDIENCE", value_name = "TEXT")]
    pub audience: Option<String>,

    /// Print one line of JSON, with the second at which it ends
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, thiserror::Error)]
enum MintError {
    #[error("cannot use the secret in {path}")]
    Secret {
        path: PathBuf,
        #[source]
        source: KeyError,
    },
    #[error("--create needs a grant of the role write or admin")]
    Create,
    #[error("--send needs a grant of the role read: write and admin include it")]
    Send,
    #[error("no server would take this token")]
    Refused(#[source] TokenError),
}

impl Token {
    /// Prints a token that says all this.
    ///
    /// # Errors
    ///
    /// [`CommandError::Usage`] if no server would take it.
    pub fn run(&self) -> Result<(), CommandError> {
        let (token, expires_at_s) = self.mint(now_s())?;
        match self.json {
            true => say(json!({ "token": token, "expires_at": expires_at_s })),
            false => say(token),
        }
    }

    fn mint(&self, now_s: u64) -> Result<(String, u64), CommandError> {
        let bytes = read(&self.secret_file, SECRET_SIZE_MAX)?;
        let secret = without_line_break(&bytes);
        let useless = |source| {
            let path = self.secret_file.clone();
            CommandError::usage(MintError::Secret { path, source })
        };
        let may_begin = |grant: &Grant| self.create && grant.role >= Role::Write;
        if self.create && !self.grants.iter().any(may_begin) {
            return Err(CommandError::usage(MintError::Create));
        }
        if self.send && !self.grants.iter().any(|grant| grant.role < Role::Send) {
            return Err(CommandError::usage(MintError::Send));
        }
        let grants = self.grants.iter().map(|grant| {
            let create = may_begin(grant);
            let send = self.send && grant.role < Role::Send;
            Grant { create, send, handle: self.handle, ..grant.clone() }
        });
        let grants = Grants::new(grants.collect()).map_err(CommandError::usage)?;
        let expires_at_s = now_s.saturating_add(self.expires.as_secs());
        let claims = AppToken {
            issuer: self.issuer.as_deref(),
            audience: self.audience.as_deref(),
            subject: &self.subject,
            issued_at_s: now_s,
            expires_at_s,
            grants: &grants,
        };
        let token = claims.sign(secret).map_err(useless)?;
        self.check(&token, secret, now_s).map_err(CommandError::usage)?;
        Ok((token, expires_at_s))
    }

    /// What a server would say of it that has the secret.
    fn check(&self, token: &str, secret: &[u8], now_s: u64) -> Result<(), MintError> {
        let path = || self.secret_file.clone();
        let wrong = |source| MintError::Secret { path: path(), source };
        let policy = Policy {
            issuer: self.issuer.clone(),
            audience: self.audience.clone(),
            reserved_subjects: USERS.map(|(name, _)| name.to_owned()).into(),
        };
        let key = Key::from_secret(secret).map_err(wrong)?;
        let keys = Keys::new([key]).map_err(wrong)?;
        let verifier = Verifier::new(keys, policy, None).map_err(wrong)?;
        // Without what a clock may be late.
        verifier.verify(token, now_s + TOKEN_LEEWAY_S).map(drop).map_err(MintError::Refused)
    }
}

/// `lists/*:write`. A document's name may have colons.
fn grant(text: &str) -> Result<Grant, String> {
    let wrong = || "write a document, or a prefix that ends in *, and its role: lists/*:write";
    let (document, role) = text.rsplit_once(':').ok_or_else(wrong)?;
    let document = Pattern::new(document).map_err(|error| error.to_string())?;
    let role = role.parse::<Role>().map_err(|error| error.to_string())?;
    Ok(Grant { document, role, create: false, send: false, handle: false })
}

/// `90s`, `15m`, `12h`, `30d`: not nothing.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong =
        || "write a number of seconds, minutes, hours or days: 90s, 15m, 12h, 30d".to_owned();
    let unit_s = match text.chars().last() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 60 * 60,
        Some('d') => 24 * 60 * 60,
        _ => return Err(wrong()),
    };
    let count: u64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    let seconds = count.checked_mul(unit_s).filter(|it| *it > 0).ok_or_else(wrong)?;
    Ok(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_is_a_document_and_a_role() {
        let of = |text: &str| grant(text).map(|it| (it.document.as_str().to_owned(), it.role));
        assert_eq!(of("lists/*:write"), Ok(("lists/*".to_owned(), Role::Write)));
        assert_eq!(of("a:b:admin"), Ok(("a:b".to_owned(), Role::Admin)));
        for text in ["lists", "lists:owner", ":read", "a*b:read", ""] {
            assert!(of(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_time_has_a_unit() {
        let of = |text: &str| duration(text).map(|it| it.as_secs());
        assert_eq!(of("90s"), Ok(90));
        assert_eq!(of("15m"), Ok(900));
        assert_eq!(of("12h"), Ok(43_200));
        assert_eq!(of("30d"), Ok(2_592_000));
        for text in ["", "1", "h", "0s", "-1h", "1.5h", "1w", "1é", "99999999999999999999d"] {
            assert!(of(text).is_err(), "{text}");
        }
    }
}
