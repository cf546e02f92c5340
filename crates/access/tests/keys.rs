//! Which keys can be used, from a secret, a PEM and a JWKS.

mod common;

use common::*;
use tidelog_access::{Algorithm, Key, KeyError, Keys, SkipReason, SkippedKey, TokenError};

/// `x` of the Ed25519 key, and `x` and `y` of the P-256 key: the ends of their DER.
fn ed25519_x() -> String {
    encode(&der(ED25519_PUBLIC)[12..])
}

fn p256_point() -> (String, String) {
    let der = der(P256_PUBLIC);
    let point = &der[der.len() - 64..];
    (encode(&point[..32]), encode(&point[32..]))
}

/// `n` of the RSA key: what stands in its PKCS #1 before the exponent, five bytes.
fn rsa_n() -> Vec<u8> {
    let der = der(RSA_PUBLIC_PKCS1);
    der[der.len() - 5 - 256..der.len() - 5].to_vec()
}

fn ed25519_jwk(more: &str) -> String {
    format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{}"{more}}}"#, ed25519_x())
}

fn rsa_jwk(n: &[u8], more: &str) -> String {
    format!(r#"{{"kty":"RSA","n":"{}","e":"AQAB"{more}}}"#, encode(n))
}

fn jwks(keys: &[String]) -> Result<(Keys, Vec<SkippedKey>), KeyError> {
    Keys::from_jwks(&format!(r#"{{"keys":[{}]}}"#, keys.join(",")))
}

/// The refusal of the first key of a JWKS.
fn refused(key: &str) -> Option<KeyError> {
    match jwks(&[key.to_owned()]).err()? {
        KeyError::InJwks { index: 0, source } => Some(*source),
        other => Some(other),
    }
}

#[test]
fn a_secret_that_is_short_or_a_public_key_is_refused() {
    assert!(Key::from_secret(&[0; 32]).is_ok());
    assert!(Key::from_secret(&[0x30; 32]).is_ok());
    assert_eq!(Key::from_secret(&[0; 31]).err(), Some(KeyError::SecretTooShort { size: 31 }));
    assert_eq!(Key::from_secret(b"").err(), Some(KeyError::SecretTooShort { size: 0 }));
    let jwks = format!(r#"{{"keys":[{}]}}"#, ed25519_jwk(""));
    for public in [
        RSA_PUBLIC.to_owned().into_bytes(),
        format!("\n {ED25519_PUBLIC}").into_bytes(),
        format!("\u{feff}{ED25519_PUBLIC}").into_bytes(),
        format!("our key:\n{P256_PUBLIC}").into_bytes(),
        jwks.into_bytes(),
        der(RSA_PUBLIC),
        der(P256_PUBLIC),
        der(ED25519_PUBLIC),
    ] {
        assert_eq!(Key::from_secret(&public).err(), Some(KeyError::SecretIsPublic));
    }
}

#[test]
fn the_type_of_a_public_key_says_its_algorithm() {
    for (pem, algorithm) in [
        (ED25519_PUBLIC, Algorithm::EdDsa),
        (P256_PUBLIC, Algorithm::Es256),
        (RSA_PUBLIC, Algorithm::Rs256),
        (RSA_PUBLIC_PKCS1, Algorithm::Rs256),
    ] {
        assert_eq!(Key::from_pem(pem).map(|key| key.algorithm()), Ok(algorithm));
        for said in [Algorithm::Hs256, Algorithm::EdDsa, Algorithm::Es256, Algorithm::Rs256] {
            let key = Key::from_pem_for(pem, said).map(|key| key.algorithm());
            let mismatch = Err(KeyError::Mismatch { algorithm: said });
            assert_eq!(key, if said == algorithm { Ok(said) } else { mismatch });
        }
    }
}

#[test]
fn both_forms_of_an_rsa_key_verify_its_tokens() {
    for pem in [RSA_PUBLIC, RSA_PUBLIC_PKCS1] {
        let verifier = verifier([Key::from_pem(pem).expect("a key")]);
        assert!(verifier.verify(&Signer::Rsa.token(PAYLOAD), NOW_S).is_ok());
    }
}

#[test]
fn a_private_key_is_refused_where_a_public_one_is_needed() {
    for pem in [ED25519, P256, RSA] {
        assert_eq!(Key::from_pem(pem).err(), Some(KeyError::Private));
    }
}

#[test]
fn a_key_of_another_kind_is_refused() {
    for pem in [
        include_str!("keys/p384.pub.pem"),
        include_str!("keys/k256.pub.pem"),
        include_str!("keys/ed448.pub.pem"),
        include_str!("keys/p256.cert.pem"),
    ] {
        assert_eq!(Key::from_pem(pem).err(), Some(KeyError::Unusable), "{pem}");
    }
    let small = Key::from_pem(include_str!("keys/rsa1024.pub.pem"));
    assert_eq!(small.err(), Some(KeyError::RsaSize { bits: 1024 }));
}

#[test]
fn what_is_not_one_pem_is_refused() {
    let two = format!("{ED25519_PUBLIC}{P256_PUBLIC}");
    for text in ["", "secret", &ED25519_PUBLIC[1..60], two.as_str()] {
        assert_eq!(Key::from_pem(text).err(), Some(KeyError::Pem), "{text}");
    }
    let body = "AAAA".repeat(12);
    let noise = format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n");
    assert_eq!(Key::from_pem(&noise).err(), Some(KeyError::Unusable));
}

#[test]
fn there_are_so_many_keys_at_most() {
    let many = |count| Keys::new(std::iter::repeat_n(secret_key(), count));
    assert_eq!(many(64).map(|it| it.as_slice().len()).ok(), Some(64));
    assert_eq!(many(65).err(), Some(KeyError::TooMany));
    let both = many(64).expect("few").with(many(1).expect("few"));
    assert_eq!(both.err(), Some(KeyError::TooMany));
    let key = format!(r#"{{"kty":"oct","k":"{}"}}"#, encode(SECRET));
    assert_eq!(jwks(&vec![key; 65]).err(), Some(KeyError::TooMany));
}

#[test]
fn a_jwks_has_keys_of_all_four_kinds() {
    let (x, y) = p256_point();
    let (keys, skipped) = jwks(&[
        format!(r#"{{"kty":"oct","alg":"HS256","kid":"h","k":"{}"}}"#, encode(SECRET)),
        ed25519_jwk(r#","use":"sig","kid":"d","x5c":["ignored"]"#),
        format!(r#"{{"kty":"EC","crv":"P-256","x":"{x}","y":"{y}","key_ops":["verify"]}}"#),
        rsa_jwk(&rsa_n(), r#","alg":"RS256","kid":"r""#),
    ])
    .expect("usable");
    assert_eq!(skipped, []);
    let of = |key: &Key| (key.algorithm(), key.id().map(str::to_owned));
    let id = |text: &str| Some(text.to_owned());
    assert_eq!(
        keys.as_slice().iter().map(of).collect::<Vec<_>>(),
        [
            (Algorithm::Hs256, id("h")),
            (Algorithm::EdDsa, id("d")),
            (Algorithm::Es256, None),
            (Algorithm::Rs256, id("r")),
        ],
    );
    let verifier = verifier(keys.as_slice().to_vec());
    for (signer, _) in each_kind() {
        assert!(verifier.verify(&signer.token(PAYLOAD), NOW_S).is_ok());
    }
    let id_of_rsa = Signer::Ed25519(ED25519).sign(r#"{"alg":"EdDSA","kid":"r"}"#, PAYLOAD);
    assert_eq!(verifier.verify(&id_of_rsa, NOW_S), Err(TokenError::Algorithm));
}

#[test]
fn keys_for_something_else_are_left_out() {
    let (x, y) = p256_point();
    let (keys, skipped) = jwks(&[
        ed25519_jwk(r#","use":"enc""#),
        ed25519_jwk(r#","key_ops":["encrypt","sign"]"#),
        ed25519_jwk(r#","alg":"ECDH-ES""#),
        r#"{"kty":"OKP","crv":"X25519","x":"AA"}"#.to_owned(),
        format!(r#"{{"kty":"EC","crv":"secp256k1","x":"{x}","y":"{y}"}}"#),
        r#"{"kty":"EC","x":"AA","y":"AA"}"#.to_owned(),
        r#"{"kty":"AKP","pub":"AA"}"#.to_owned(),
        rsa_jwk(&rsa_n(), r#","alg":"PS256""#),
        ed25519_jwk(""),
    ])
    .expect("one is left");
    assert_eq!(keys.as_slice().len(), 1);
    let reasons: Vec<_> = skipped.iter().map(|it| it.reason).collect();
    let (purpose, kind) = (SkipReason::Use, SkipReason::Type);
    let algorithm = SkipReason::Algorithm;
    assert_eq!(reasons, [purpose, purpose, algorithm, kind, kind, kind, kind, algorithm]);
    assert!(skipped.iter().map(|it| it.index).eq(0..8));
    assert_eq!(jwks(&[ed25519_jwk(r#","use":"enc""#)]).err(), Some(KeyError::NoKeys));
    assert_eq!(jwks(&[]).err(), Some(KeyError::NoKeys));
}

#[test]
fn a_jwks_with_private_parts_is_refused() {
    for part in ["d", "p", "q", "dp", "dq", "qi", "oth"] {
        for value in [r#""AA""#, "null", "[]"] {
            let rsa = rsa_jwk(&rsa_n(), &format!(r#","{part}":{value}"#));
            assert_eq!(refused(&rsa), Some(KeyError::Private), "{part}");
        }
    }
    assert_eq!(refused(&ed25519_jwk(r#","use":"enc","d":"AA""#)), Some(KeyError::Private));
}

#[test]
fn a_jwk_with_the_algorithm_of_another_type_is_refused() {
    let mismatch = |algorithm| Some(KeyError::Mismatch { algorithm });
    assert_eq!(refused(&rsa_jwk(&rsa_n(), r#","alg":"HS256""#)), mismatch(Algorithm::Hs256));
    assert_eq!(refused(&ed25519_jwk(r#","alg":"ES256""#)), mismatch(Algorithm::Es256));
    let secret = format!(r#"{{"kty":"oct","alg":"RS256","k":"{}"}}"#, encode(SECRET));
    assert_eq!(refused(&secret), mismatch(Algorithm::Rs256));
}

#[test]
fn a_jwk_that_is_not_safe_is_refused() {
    let secret = |k: &[u8]| format!(r#"{{"kty":"oct","k":"{}"}}"#, encode(k));
    assert_eq!(refused(&secret(&[1; 31])), Some(KeyError::SecretTooShort { size: 31 }));
    assert_eq!(refused(&secret(RSA_PUBLIC.as_bytes())), Some(KeyError::SecretIsPublic));
    let mut half = rsa_n()[..128].to_vec();
    half[127] |= 1;
    assert_eq!(refused(&rsa_jwk(&half, "")), Some(KeyError::RsaSize { bits: 1024 }));
    let mut shorter = rsa_n();
    shorter[0] = 1;
    assert_eq!(refused(&rsa_jwk(&shorter, "")), Some(KeyError::RsaSize { bits: 2041 }));
    let padded = [vec![0], rsa_n()].concat();
    assert!(jwks(&[rsa_jwk(&padded, "")]).is_ok(), "some issuers write a leading zero");
}

#[test]
fn a_jwk_that_is_no_key_is_refused() {
    let (x, y) = p256_point();
    let ec = |x: &str, y: &str| format!(r#"{{"kty":"EC","crv":"P-256","x":"{x}","y":"{y}"}}"#);
    let ed = |x: &str| format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}"}}"#);
    for key in [
        ec(&y, &x),
        ec(&x, &x[..40]),
        ec(&format!("{x}{y}"), ""),
        ed(&encode([1; 31])),
        ed(&encode(der(ED25519_PUBLIC))),
        ed(&format!("{}=", ed25519_x())),
        ed("%"),
        r#"{"kty":"OKP","crv":"Ed25519"}"#.to_owned(),
        r#"{"kty":"RSA","n":"AQAB"}"#.to_owned(),
        rsa_jwk(&[], ""),
        r#"{"kty":"oct"}"#.to_owned(),
    ] {
        assert_eq!(refused(&key), Some(KeyError::Unusable), "{key}");
    }
    for key in [
        "{}",
        "1",
        "null",
        r#"{"kty":1}"#,
        r#"{"kty":"oct","kty":"RSA"}"#,
        r#"{"kty":"oct","kid":1}"#,
    ] {
        assert_eq!(refused(key), Some(KeyError::Jwks), "{key}");
    }
}

#[test]
fn what_is_no_jwks_is_refused() {
    for text in ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":null}"#, "null", ED25519_PUBLIC] {
        assert_eq!(Keys::from_jwks(text).err(), Some(KeyError::Jwks), "{text}");
    }
    assert_eq!(Keys::from_jwks(&"[".repeat(100_000)).err(), Some(KeyError::Jwks));
}

/// A token goes with its key, and with no other one.
#[test]
fn a_token_is_known_by_the_key_that_signed_it() {
    for (signer, key) in each_kind() {
        let access = verifier([key.clone()]).verify(&signer.token(PAYLOAD), NOW_S);
        let access = access.expect("valid");
        let others = each_kind().map(|(_, key)| key).into_iter();
        let others: Vec<_> = others.filter(|it| it.algorithm() != key.algorithm()).collect();
        assert!(verifier([key.clone().with_id("k1")]).knows_key_of(&access), "whatever its id");
        assert!(!verifier(others).knows_key_of(&access), "{:?}", key.algorithm());
    }
    let own = server().verify(&own_token("admin"), NOW_S).expect("valid");
    assert!(verifier([]).knows_key_of(&own));
}

/// Goal: one who ends a token ends all that pass for it. Method: an ECDSA signature of which a
/// second one can be made without the key.
#[test]
fn what_tells_a_token_from_others_does_not_depend_on_its_signature() {
    let key = || Key::from_pem(P256_PUBLIC).expect("a key");
    let [one, other] = [(); 2].map(|()| Signer::P256.token(PAYLOAD));
    assert_ne!(one, other, "signatures differ");
    let signed = |token: &str| verifier([key()]).verify(token, NOW_S).expect("valid").signed;
    assert_eq!(signed(&one), signed(&other));
    let later = Signer::P256.token(&PAYLOAD.replace("1800000600", "1800000601"));
    assert_ne!(signed(&one), signed(&later));
}
