//! The server's own tokens: what they say, and what ends them.

mod common;

use common::*;
use tidelog_access::{
    Grant, Grants, Key, KeyError, Login, MintError, OwnKey, PasswordHash, Pattern, Policy,
    Revocations, Role, TokenError, Users, Verifier,
};

#[test]
fn a_login_gives_a_token_that_the_server_takes() {
    let access = server().verify(&own_token("admin"), NOW_S).expect("valid");
    assert!(access.is_own);
    assert_eq!(access.subject, "admin");
    assert_eq!(access.issued_at_s, Some(NOW_S));
    assert_eq!(access.expires_at_s, NOW_S + 600);
    assert_eq!(access.token_id.as_deref(), Some("t1"));
    assert_eq!(access.grants, Grants::on_everything(Role::Admin));
}

#[test]
fn the_servers_own_token_expires_like_any_other() {
    let server = server();
    let token = own_token("admin");
    assert_eq!(server.verify(&token, NOW_S + 660), Err(TokenError::Expired));
    assert_eq!(server.verify(&token, NOW_S - 61), Err(TokenError::NotYetValid));
}

#[test]
fn the_policy_for_apps_is_not_for_the_servers_own_tokens() {
    let policy = policy(Some("app"), Some("here"), &["admin"]);
    let server = Verifier::new(keys([]), policy, Some(own_issuer())).expect("usable");
    assert!(server.verify(&own_token("admin"), NOW_S).is_ok());
}

#[test]
fn without_its_own_key_the_server_takes_none_of_its_tokens() {
    let refused = verifier([secret_key()]).verify(&own_token("admin"), NOW_S);
    assert_eq!(refused, Err(TokenError::Signature));
}

#[test]
fn a_restore_ends_every_earlier_token() {
    let mut issuer = own_issuer();
    issuer.generation = "g2".to_owned();
    let server = Verifier::new(keys([]), Policy::default(), Some(issuer)).expect("usable");
    assert_eq!(server.verify(&own_token("admin"), NOW_S), Err(TokenError::Void));
}

#[test]
fn a_new_password_ends_its_users_tokens_and_nobody_elses() {
    let mut issuer = own_issuer();
    issuer.users.insert("admin".to_owned(), "v9".to_owned());
    let server = Verifier::new(keys([]), Policy::default(), Some(issuer)).expect("usable");
    assert_eq!(server.verify(&own_token("admin"), NOW_S), Err(TokenError::Void));
    assert!(server.verify(&own_token("reader"), NOW_S).is_ok());
}

#[test]
fn a_user_that_is_gone_has_no_token() {
    let mut issuer = own_issuer();
    issuer.users.remove("admin");
    let server = Verifier::new(keys([]), Policy::default(), Some(issuer)).expect("usable");
    assert_eq!(server.verify(&own_token("admin"), NOW_S), Err(TokenError::Void));
}

#[test]
fn what_the_servers_key_signed_is_no_login_without_all_of_its_claims() {
    let server = server();
    let verify = |payload: &str| {
        server.verify(&Signer::Secret(OWN_SECRET).token(payload), NOW_S).map(|it| it.is_own)
    };
    let with = |claims: &str| verify(&format!(r#"{{"sub":"admin","exp":1800000600{claims}}}"#));
    assert_eq!(with(r#","iss":"tidelog","gen":"g1","pwv":"v1""#), Ok(true));
    assert_eq!(with(r#","gen":"g1","pwv":"v1""#), Err(TokenError::Issuer));
    assert_eq!(with(r#","iss":"app","gen":"g1","pwv":"v1""#), Err(TokenError::Issuer));
    assert_eq!(with(r#","iss":"tidelog","pwv":"v1""#), Err(TokenError::Void));
    assert_eq!(with(r#","iss":"tidelog","gen":"g1""#), Err(TokenError::Void));
    assert_eq!(with(r#","iss":"tidelog","gen":"g1","pwv":"v2""#), Err(TokenError::Void));
    assert_eq!(with(r#","iss":"tidelog","gen":1,"pwv":null"#), Err(TokenError::Void));
}

#[test]
fn a_token_of_the_servers_names_no_key() {
    let payload = r#"{"iss":"tidelog","sub":"admin","exp":1800000600,"gen":"g1","pwv":"v1"}"#;
    let token = Signer::Secret(OWN_SECRET).sign(r#"{"alg":"HS256","kid":"own"}"#, payload);
    assert_eq!(server().verify(&token, NOW_S), Err(TokenError::Signature));
    let alone = Verifier::new(keys([]), Policy::default(), Some(own_issuer())).expect("usable");
    assert_eq!(alone.verify(&token, NOW_S), Err(TokenError::UnknownKey));
}

#[test]
fn a_token_of_the_servers_that_was_changed_is_refused() {
    let server = server();
    let token = own_token("reader");
    for index in 0..token.len() {
        let mut bytes = token.clone().into_bytes();
        bytes[index] ^= 1;
        let flipped = String::from_utf8(bytes).expect("still text");
        assert!(server.verify(&flipped, NOW_S).is_err(), "{index}");
    }
    let alone = Verifier::new(keys([]), Policy::default(), Some(own_issuer())).expect("usable");
    let other = Signer::Secret(SECRET).token(PAYLOAD);
    assert_eq!(alone.verify(&other, NOW_S), Err(TokenError::Signature));
}

#[test]
fn an_app_with_the_servers_secret_is_refused() {
    let shared = Key::from_secret(OWN_SECRET).expect("a key").with_id("app");
    let refused =
        Verifier::new(keys([secret_key(), shared]), Policy::default(), Some(own_issuer()));
    assert_eq!(refused.err(), Some(KeyError::OwnSecret));
    assert_eq!(OwnKey::new(&[0; 31]).err(), Some(KeyError::SecretTooShort { size: 31 }));
}

#[test]
fn no_token_is_made_that_would_be_refused() {
    let issuer = own_issuer();
    let grants = Grants::on_everything(Role::Read);
    let login = Login { subject: "admin", grants: &grants, token_id: "t1", lifetime_s: 600 };
    assert!(issuer.mint(&login, NOW_S).is_ok());
    let mint = |login: Login<'_>| issuer.mint(&login, NOW_S);
    assert_eq!(mint(Login { subject: "ada", ..login }), Err(MintError::UnknownUser));
    assert_eq!(mint(Login { token_id: "", ..login }), Err(MintError::TokenId));
    assert_eq!(mint(Login { token_id: "a\n", ..login }), Err(MintError::TokenId));
    assert_eq!(mint(Login { lifetime_s: u64::MAX, ..login }), Err(MintError::Lifetime));
    let document = Pattern::new(&"a".repeat(500)).expect("a pattern");
    let long =
        vec![Grant { document, role: Role::Read, create: false, send: false, handle: false }; 20];
    let long = Grants::new(long).expect("few");
    assert_eq!(mint(Login { grants: &long, ..login }), Err(MintError::TooLarge));
    let mut odd = own_issuer();
    odd.users.insert("a\n".to_owned(), "v1".to_owned());
    let refused = odd.mint(&Login { subject: "a\n", ..login }, NOW_S);
    assert_eq!(refused, Err(MintError::UnknownUser));
}

#[test]
fn a_password_leads_to_a_token_and_a_logout_ends_it() {
    let hash = |salt| PasswordHash::new("secret", [salt; 16]).expect("hashed");
    let users = Users::new([("admin".to_owned(), Role::Admin, hash(1))]);
    let mut issuer = own_issuer();
    issuer.users = users.versions();
    let role = users.check("admin", "secret").expect("right");
    let grants = Grants::on_everything(role);
    let login = Login { subject: "admin", grants: &grants, token_id: "t7", lifetime_s: 600 };
    let token = issuer.mint(&login, NOW_S).expect("minted");
    let server = Verifier::new(keys([]), Policy::default(), Some(issuer.clone())).expect("usable");
    let access = server.verify(&token, NOW_S).expect("valid");

    let mut revoked = Revocations::default();
    assert_eq!(revoked.check(&access), Ok(()));
    revoked.revoke(&access, 1).expect("revoked");
    assert_eq!(revoked.check(&access), Err(TokenError::Revoked));

    issuer.users = Users::new([("admin".to_owned(), Role::Admin, hash(2))]).versions();
    let server = Verifier::new(keys([]), Policy::default(), Some(issuer)).expect("usable");
    assert_eq!(server.verify(&token, NOW_S), Err(TokenError::Void), "another salt");
}

#[test]
fn what_is_printed_of_keys_does_not_tell_them() {
    let text = format!("{:?}", server());
    for secret in [SECRET, OWN_SECRET] {
        assert!(!text.contains(std::str::from_utf8(secret).expect("text")));
        assert!(!text.contains(&format!("{:?}", &secret[..4]).replace(['[', ']'], "")));
    }
}
