//! What a valid token comes to, and one rule after another that a token does not meet.

mod common;

use common::*;
use tidelog_access::{Access, Algorithm, Allowed, Grants, Key, Role, TokenError, Verifier};

#[test]
fn a_token_of_each_algorithm_is_verified_by_its_key() {
    let algorithms = [Algorithm::Hs256, Algorithm::EdDsa, Algorithm::Es256, Algorithm::Rs256];
    for ((signer, key), algorithm) in each_kind().into_iter().zip(algorithms) {
        assert_eq!(key.algorithm(), algorithm);
        let access = verifier([key]).verify(&signer.token(PAYLOAD), NOW_S).expect("valid");
        assert_eq!(access.subject, "ada");
        assert_eq!(access.expires_at_s, NOW_S + 600);
        assert_eq!(access.issued_at_s, Some(NOW_S));
        assert_eq!(access.token_id, None);
        assert!(!access.is_own);
        let allowed = Allowed { role: Role::Write, create: false, handle: false };
        assert_eq!(access.grants.for_document("lists/a"), Some(allowed));
        assert_eq!(access.grants.for_document("lists"), None);
    }
}

#[test]
fn a_token_that_has_expired_is_refused() {
    let verifier = verifier([secret_key()]);
    let token = APP.token(PAYLOAD);
    let end_s = NOW_S + 600 + 60;
    assert!(verifier.verify(&token, end_s - 1).is_ok(), "the clocks may differ");
    assert_eq!(verifier.verify(&token, end_s), Err(TokenError::Expired));
    assert_eq!(verifier.verify(&token, u64::MAX), Err(TokenError::Expired));
}

#[test]
fn a_token_that_does_not_expire_is_refused() {
    assert_eq!(verify(r#"{"sub":"ada"}"#), malformed("exp"));
    assert_eq!(verify(r#"{"sub":"ada","exp":null}"#), malformed("exp"));
}

#[test]
fn a_token_from_the_future_is_refused() {
    for claim in ["nbf", "iat"] {
        let at = |second: u64| verify_with(&format!(r#""{claim}":{second}"#));
        assert!(at(NOW_S).is_ok());
        assert!(at(NOW_S + 60).is_ok(), "the clocks may differ");
        assert_eq!(at(NOW_S + 61), Err(TokenError::NotYetValid), "{claim}");
    }
}

#[test]
fn a_clock_that_is_an_hour_off_makes_tokens_invalid() {
    let verifier = verifier([secret_key()]);
    let token = APP.token(PAYLOAD);
    assert_eq!(verifier.verify(&token, NOW_S + 3600), Err(TokenError::Expired));
    assert_eq!(verifier.verify(&token, NOW_S - 3600), Err(TokenError::NotYetValid));
    assert_eq!(verifier.verify(&token, 0), Err(TokenError::NotYetValid));
}

#[test]
fn a_time_that_is_no_second_of_this_age_is_refused() {
    let odd = [
        r#""1800000600""#,
        "-1",
        "-1e30",
        "1e30",
        "1e400",
        "18446744073709551615",
        "18446744073709551616",
        "9223372036854775808",
        "1800000600000",
        "253402300800",
        "true",
        "[1800000600]",
        "{}",
        "NaN",
        "0x7fffffff",
    ];
    for time in odd {
        let error = verify(&format!(r#"{{"sub":"ada","exp":{time}}}"#)).expect_err(time);
        assert_eq!(error.code(), "malformed", "{time}");
        for claim in ["nbf", "iat"] {
            let error = verify_with(&format!(r#""{claim}":{time}"#)).expect_err(time);
            assert_eq!(error.code(), "malformed", "{claim} {time}");
        }
    }
    assert_eq!(verify_with(r#""iat":null"#), malformed("iat"));
    assert_eq!(verify_with(r#""nbf":null"#), malformed("nbf"));
}

#[test]
fn a_fraction_of_a_second_is_dropped() {
    for (time, second) in [
        ("1800000600.9", 1_800_000_600),
        ("1.8000006e9", 1_800_000_600),
        ("253402300799", 253_402_300_799),
    ] {
        let access = verify(&format!(r#"{{"sub":"ada","exp":{time}}}"#)).expect(time);
        assert_eq!(access.expires_at_s, second);
    }
    assert_eq!(verify(r#"{"sub":"ada","exp":-0.0}"#), Err(TokenError::Expired));
}

#[test]
fn a_subject_that_is_no_name_is_refused() {
    let subject = |json: &str| verify(&format!(r#"{{"sub":{json},"exp":1800000600}}"#));
    let longest = "a".repeat(256);
    assert!(subject(&format!("\"{longest}\"")).is_ok());
    let longer = format!("\"{longest}a\"");
    let odd = [r#""""#, "1", "null", "[\"ada\"]", r#""a\nb""#, r#""a\u0000""#, r#""\u0085""#];
    for json in odd.into_iter().chain([longer.as_str()]) {
        assert_eq!(subject(json), Err(TokenError::Subject), "{json}");
    }
    assert_eq!(verify(r#"{"exp":1800000600}"#), Err(TokenError::Subject));
}

#[test]
fn a_tokens_id_is_a_name_if_it_is_there() {
    let access = verify_with(r#""jti":"t1""#).expect("valid");
    assert_eq!(access.token_id.as_deref(), Some("t1"));
    let longer = format!("\"{}\"", "a".repeat(257));
    for json in ["1", "null", r#""""#, r#""a\n""#, longer.as_str()] {
        assert_eq!(verify_with(&format!(r#""jti":{json}"#)), malformed("jti"), "{json}");
    }
}

#[test]
fn a_token_without_grants_is_valid_and_allows_nothing() {
    let access = verify(r#"{"sub":"ada","exp":1800000600}"#).expect("valid");
    assert_eq!(access.grants, Grants::default());
    assert_eq!(access.grants.for_document("a"), None);
    assert_eq!(verify_with(r#""tidelog":[]"#).map(|it| it.grants), Ok(Grants::default()));
}

#[test]
fn grants_that_are_not_understood_are_refused() {
    let odd = [
        "null",
        "{}",
        "1",
        r#""*""#,
        r#"["*"]"#,
        "[null]",
        "[{}]",
        r#"[{"document":"a"}]"#,
        r#"[{"role":"read"}]"#,
        r#"[{"document":"a","role":"owner"}]"#,
        r#"[{"document":"a","role":"Admin"}]"#,
        r#"[{"document":"a","role":2}]"#,
        r#"[{"document":"a*b","role":"read"}]"#,
        r#"[{"document":"*a","role":"read"}]"#,
        r#"[{"document":"","role":"read"}]"#,
        r#"[{"document":["a"],"role":"read"}]"#,
        r#"[{"document":"a","role":"read","create":"yes"}]"#,
        r#"[{"document":"a","role":"read","until":5}]"#,
        r#"[{"document":"a","role":"read","role":"admin"}]"#,
        r#"[{"document":"a","role":"read"},{"document":"b","role":"owner"}]"#,
    ];
    for grants in odd {
        let claim = format!(r#""tidelog":{grants}"#);
        assert_eq!(verify_with(&claim), Err(TokenError::Grants), "{grants}");
    }
}

#[test]
fn too_many_grants_are_refused() {
    let grants = |count: usize| {
        let all = vec![r#"{"document":"a","role":"read"}"#; count].join(",");
        verify_with(&format!(r#""tidelog":[{all}]"#))
    };
    assert_eq!(grants(128).map(|it| it.grants.as_slice().len()), Ok(128));
    assert_eq!(grants(129), Err(TokenError::Grants));
}

#[test]
fn the_issuer_has_to_be_the_one_that_is_asked_for() {
    let verifier = |issuer| {
        Verifier::new(keys([secret_key()]), policy(issuer, None, &[]), None).expect("usable")
    };
    let verify = |issuer, claim: &str| {
        let token = APP.token(&format!(r#"{{"sub":"ada","exp":1800000600{claim}}}"#));
        verifier(issuer).verify(&token, NOW_S).map(|_| ())
    };
    assert_eq!(verify(Some("app"), r#","iss":"app""#), Ok(()));
    for claim in ["", r#","iss":"App""#, r#","iss":["app"]"#, r#","iss":null"#, r#","iss":"ap""#] {
        assert_eq!(verify(Some("app"), claim), Err(TokenError::Issuer), "{claim}");
    }
    assert_eq!(verify(None, r#","iss":"anyone""#), Ok(()), "none is asked for");
}

#[test]
fn the_audience_has_to_be_the_one_that_is_asked_for() {
    let verify = |audience, claim: &str| {
        let policy = policy(None, audience, &[]);
        let verifier = Verifier::new(keys([secret_key()]), policy, None).expect("usable");
        let token = APP.token(&format!(r#"{{"sub":"ada","exp":1800000600{claim}}}"#));
        verifier.verify(&token, NOW_S).map(|_| ())
    };
    let here = Some("here");
    for claim in [r#","aud":"here""#, r#","aud":["here"]"#, r#","aud":["there","here"]"#] {
        assert_eq!(verify(here, claim), Ok(()), "{claim}");
    }
    let odd = [
        "",
        r#","aud":"there""#,
        r#","aud":[]"#,
        r#","aud":["there"]"#,
        r#","aud":null"#,
        r#","aud":["here",1]"#,
        r#","aud":{"here":1}"#,
        r#","aud":[["here"]]"#,
        r#","aud":"here there""#,
    ];
    for claim in odd {
        assert_eq!(verify(here, claim), Err(TokenError::Audience), "{claim}");
    }
    assert_eq!(verify(None, r#","aud":"there""#), Ok(()), "none is asked for");
}

#[test]
fn a_reserved_subject_is_refused() {
    let policy = policy(None, None, &["admin"]);
    let verifier = Verifier::new(keys([secret_key()]), policy, None).expect("usable");
    let verify = |subject: &str| {
        let payload = format!(r#"{{"sub":"{subject}","exp":1800000600}}"#);
        verifier.verify(&APP.token(&payload), NOW_S).map(|access| access.subject)
    };
    assert_eq!(verify("admin"), Err(TokenError::Reserved));
    assert_eq!(verify(r"\u0061dmin"), Err(TokenError::Reserved), "the same name");
    assert_eq!(verify("admins"), Ok("admins".to_owned()));
}

#[test]
fn claims_that_do_not_count_are_passed_over() {
    let access = verify_with(r#""name":"Ada","gen":1,"pwv":[],"email":null,"name":2"#);
    assert_eq!(access.map(|it| it.subject), Ok("ada".to_owned()));
}

#[test]
fn a_key_is_chosen_by_its_id() {
    let other = Signer::Ed25519(OTHER_ED25519);
    let verifier = verifier([
        secret_key().with_id("old"),
        Key::from_pem(ED25519_PUBLIC).expect("a key").with_id("new"),
    ]);
    let verify = |signer: &Signer<'_>, header: &str| {
        verifier.verify(&signer.sign(header, PAYLOAD), NOW_S).map(|_| ())
    };
    let ed25519 = Signer::Ed25519(ED25519);
    assert_eq!(verify(&APP, r#"{"alg":"HS256","kid":"old"}"#), Ok(()));
    assert_eq!(verify(&ed25519, r#"{"alg":"EdDSA","kid":"new"}"#), Ok(()));
    assert_eq!(verify(&ed25519, r#"{"alg":"EdDSA"}"#), Ok(()), "any key of the algorithm");
    assert_eq!(verify(&APP, r#"{"alg":"HS256","kid":"x"}"#), Err(TokenError::UnknownKey));
    assert_eq!(verify(&other, r#"{"alg":"EdDSA","kid":"new"}"#), Err(TokenError::Signature));
    assert_eq!(verify(&APP, r#"{"alg":"HS256","kid":"new"}"#), Err(TokenError::Algorithm));
    assert_eq!(verify(&Signer::P256, r#"{"alg":"ES256"}"#), Err(TokenError::Algorithm));
    for kid in ["null", "1", r#"["old"]"#] {
        let header = format!(r#"{{"alg":"HS256","kid":{kid}}}"#);
        assert_eq!(verify(&APP, &header), malformed("header"), "{kid}");
    }
}

#[test]
fn a_key_without_an_id_takes_tokens_with_any() {
    let header = r#"{"alg":"HS256","kid":"whatever"}"#;
    let token = APP.sign(header, PAYLOAD);
    assert!(verifier([secret_key()]).verify(&token, NOW_S).is_ok());
    let two = [secret_key().with_id("other"), secret_key()];
    assert!(verifier(two).verify(&token, NOW_S).is_ok());
}

#[test]
fn two_keys_may_have_the_same_id() {
    let token = Signer::P256.sign(r#"{"alg":"ES256","kid":"k"}"#, PAYLOAD);
    let keys = each_kind().map(|(_, key)| key.with_id("k"));
    assert!(verifier(keys).verify(&token, NOW_S).is_ok());
}

#[test]
fn without_keys_no_token_is_valid() {
    assert_eq!(verifier([]).verify(&APP.token(PAYLOAD), NOW_S), Err(TokenError::UnknownKey));
}

#[test]
fn an_access_ends_when_its_token_would_be_refused() {
    let access: Access = verify(PAYLOAD).expect("valid");
    assert!(!access.is_expired(NOW_S + 659));
    assert!(access.is_expired(NOW_S + 660));
}

#[test]
fn no_refusal_repeats_any_of_the_token() {
    let secret = "hunter2";
    let payloads = [
        format!(r#"{{"sub":"{secret}\n","exp":1}}"#),
        format!(r#"{{"sub":"a","exp":"{secret}"}}"#),
        format!(r#"{{"sub":"a","exp":1800000600,"tidelog":[{{"document":"{secret}*{secret}"}}]}}"#),
        format!(r#"{{"{secret}""#),
    ];
    for payload in payloads {
        let error = verify(&payload).expect_err("refused");
        assert!(!format!("{error} {error:?}").contains(secret), "{error}");
    }
}

#[test]
fn a_role_is_spelt_alike_in_settings_and_in_tokens() {
    for role in [Role::Read, Role::Write, Role::Admin] {
        let json = serde_json::to_string(&role).expect("serialised");
        assert_eq!(json, format!("\"{role}\""));
        assert_eq!(serde_json::from_str::<Role>(&json).expect("parsed"), role);
    }
}
