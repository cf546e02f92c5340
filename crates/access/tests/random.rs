//! Tokens that chance made: none is valid, and none ends the process.

mod common;

use common::*;
use proptest::prelude::*;
use tidelog_access::{Key, Keys, PasswordHash, Verifier};

fn all() -> Verifier {
    let keys = keys(each_kind().map(|(_, key)| key));
    Verifier::new(keys, policy(None, None, &[]), Some(own_issuer())).expect("usable")
}

fn valid_tokens() -> Vec<String> {
    let apps = each_kind().into_iter().map(|(signer, _)| signer.token(PAYLOAD));
    apps.chain([own_token("admin")]).collect()
}

/// JSON of the kind that tokens have, mostly odd.
fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<i64>().prop_map(|it| it.to_string()),
        any::<f64>().prop_map(|it| it.to_string()),
        prop::sample::select(vec!["1800000600", "1e999", "-0", "\"*\"", "\"ada\"", "\"admin\""])
            .prop_map(str::to_owned),
        ".{0,8}".prop_map(|it| format!("{it:?}")),
    ];
    leaf.prop_recursive(4, 32, 8, |inner| {
        let names = vec!["document", "role", "create", "sub", "exp"];
        let member = (prop::sample::select(names), inner.clone());
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(|all| format!("[{}]", all.join(","))),
            prop::collection::vec(member, 0..4).prop_map(|all| {
                let all: Vec<_> = all.iter().map(|(key, it)| format!("\"{key}\":{it}")).collect();
                format!("{{{}}}", all.join(","))
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn what_is_random_is_never_valid(text in ".{0,200}", now_s: u64) {
        prop_assert!(all().verify(&text, now_s).is_err());
    }

    #[test]
    fn random_parts_are_never_valid(
        header: Vec<u8>, payload: Vec<u8>, signature: Vec<u8>, now_s: u64,
    ) {
        let token = format!("{}.{}.{}", encode(header), encode(payload), encode(signature));
        prop_assert!(all().verify(&token, now_s).is_err());
    }

    #[test]
    fn a_valid_token_that_was_changed_is_never_valid(
        which in 0..5_usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let token = valid_tokens().swap_remove(which);
        let mut bytes = token.clone().into_bytes();
        for (index, byte) in changes {
            let place = index.index(bytes.len());
            bytes[place] = byte;
        }
        let changed = String::from_utf8_lossy(&bytes).into_owned();
        prop_assert_eq!(all().verify(&changed, NOW_S).is_ok(), changed == token);
    }

    #[test]
    fn parts_of_two_valid_tokens_make_none(
        first in 0..5_usize, second in 0..5_usize, cut in 0..4_usize,
    ) {
        let tokens = valid_tokens();
        let parts = |which: usize| tokens[which].split('.').collect::<Vec<_>>();
        let mixed = [&parts(first)[..cut.min(3)], &parts(second)[cut.min(3)..]].concat().join(".");
        let is_one = tokens.contains(&mixed);
        prop_assert_eq!(all().verify(&mixed, NOW_S).is_ok(), is_one);
    }

    #[test]
    fn whatever_was_signed_is_read_without_harm(
        claims in prop::collection::vec(
            (prop::sample::select(vec![
                "iss", "aud", "sub", "exp", "nbf", "iat", "jti", "tidelog", "gen", "pwv",
            ]), json()),
            0..8,
        ),
        now_s: u64,
    ) {
        let members: Vec<_> = claims.iter().map(|(key, it)| format!("\"{key}\":{it}")).collect();
        let token = APP.token(&format!("{{{}}}", members.join(",")));
        if let Ok(access) = all().verify(&token, now_s) {
            prop_assert!(!access.is_own);
            prop_assert!(access.subject != "admin");
            prop_assert!(!access.is_expired(now_s));
        }
    }

    #[test]
    fn random_keys_are_refused_or_taken_without_harm(text in ".{0,200}", member in json()) {
        let _ = Key::from_pem(&text);
        let _ = Keys::from_jwks(&text);
        let _ = PasswordHash::from_phc(&text);
        for kind in ["oct", "RSA", "EC", "OKP"] {
            let curve = if kind == "EC" { "P-256" } else { "Ed25519" };
            let _ = Keys::from_jwks(&format!(
                r#"{{"keys":[{{"kty":"{kind}","crv":"{curve}","n":{member},"e":{member},
                    "x":{member},"y":{member},"k":{member}}}]}}"#
            ));
        }
    }
}
