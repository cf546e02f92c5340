//! What somebody tries who has a valid token, a public key, or an app's key.

mod common;

use common::*;
use tidelog_access::{Key, Keys, OWN_ISSUER, Role, TokenError, Verifier};

#[test]
fn a_token_without_a_signature_is_refused() {
    for alg in ["none", "None", "NONE", "nOnE", ""] {
        let header = encode(format!(r#"{{"alg":"{alg}"}}"#));
        let unsigned = format!("{header}.{}.", encode(PAYLOAD));
        let signed = APP.sign(format!(r#"{{"alg":"{alg}"}}"#), PAYLOAD);
        for (_, key) in each_kind() {
            for token in [&unsigned, &signed] {
                let refused = verifier([key.clone()]).verify(token, NOW_S);
                assert_eq!(refused, Err(TokenError::Algorithm), "{alg}");
            }
        }
    }
    assert_eq!(
        verifier([secret_key()]).verify(&APP.sign(r#"{"typ":"JWT"}"#, PAYLOAD), NOW_S),
        malformed("header"),
    );
}

#[test]
fn a_signature_that_was_cut_off_is_refused() {
    for (signer, key) in each_kind() {
        let verifier = verifier([key]);
        let token = signer.token(PAYLOAD);
        let (signed, signature) = token.rsplit_once('.').expect("three parts");
        let bytes = decode(signature);
        for size in 0..bytes.len() {
            let cut = format!("{signed}.{}", encode(&bytes[..size]));
            assert_eq!(verifier.verify(&cut, NOW_S), Err(TokenError::Signature), "{size}");
        }
        for end in 0..token.len() {
            assert!(verifier.verify(&token[..end], NOW_S).is_err(), "{end}");
        }
        let longer = format!("{signed}.{}", encode([bytes, vec![0]].concat()));
        assert_eq!(verifier.verify(&longer, NOW_S), Err(TokenError::Signature));
    }
}

#[test]
fn every_bit_of_a_token_counts() {
    for (signer, key) in each_kind() {
        let verifier = verifier([key]);
        let token = signer.token(PAYLOAD);
        for index in 0..token.len() {
            for bit in 0..8 {
                let mut bytes = token.clone().into_bytes();
                bytes[index] ^= 1 << bit;
                // What is no text is no token either.
                if let Ok(flipped) = std::str::from_utf8(&bytes) {
                    assert!(verifier.verify(flipped, NOW_S).is_err(), "byte {index} bit {bit}");
                }
            }
        }
    }
}

#[test]
fn every_byte_of_a_signature_counts() {
    for (signer, key) in each_kind() {
        let verifier = verifier([key]);
        let token = signer.token(PAYLOAD);
        let (signed, signature) = token.rsplit_once('.').expect("three parts");
        for index in 0..decode(signature).len() {
            let mut bytes = decode(signature);
            bytes[index] ^= 1;
            let flipped = format!("{signed}.{}", encode(bytes));
            assert_eq!(verifier.verify(&flipped, NOW_S), Err(TokenError::Signature), "{index}");
        }
    }
}

#[test]
fn a_public_key_is_never_taken_for_a_secret() {
    let publics = [
        (RSA_PUBLIC, Key::from_pem(RSA_PUBLIC)),
        (RSA_PUBLIC_PKCS1, Key::from_pem(RSA_PUBLIC_PKCS1)),
        (P256_PUBLIC, Key::from_pem(P256_PUBLIC)),
        (ED25519_PUBLIC, Key::from_pem(ED25519_PUBLIC)),
    ];
    for (pem, key) in publics {
        let key = key.expect("a key");
        let contents = der(pem);
        // The raw key is the end of the DER: 32 bytes of Ed25519, 65 of P-256.
        let secrets: [&[u8]; 5] = [
            pem.as_bytes(),
            pem.trim_end().as_bytes(),
            &contents,
            &contents[contents.len() - 32..],
            &contents[contents.len().saturating_sub(65)..],
        ];
        for secret in secrets {
            let forger = Signer::Secret(secret);
            for header in [r#"{"alg":"HS256"}"#, r#"{"alg":"HS256","kid":"k"}"#] {
                let token = forger.sign(header, PAYLOAD);
                let alone = verifier([key.clone().with_id("k")]);
                assert_eq!(alone.verify(&token, NOW_S), Err(TokenError::Algorithm));
                let beside = verifier([key.clone().with_id("k"), secret_key()]);
                assert_eq!(beside.verify(&token, NOW_S), Err(TokenError::Signature));
            }
            let own_alg = format!(r#"{{"alg":"{}"}}"#, key.algorithm());
            let token = forger.sign(own_alg, PAYLOAD);
            let refused = verifier([key.clone()]).verify(&token, NOW_S);
            assert_eq!(refused, Err(TokenError::Signature));
        }
    }
}

#[test]
fn a_signature_is_verified_by_the_keys_algorithm_whatever_the_header_says() {
    for (signer, key) in each_kind() {
        for alg in ["HS256", "EdDSA", "ES256", "RS256"] {
            let token = signer.sign(format!(r#"{{"alg":"{alg}"}}"#), PAYLOAD);
            let is_right = alg == key.algorithm().name();
            let alone = verifier([key.clone()]).verify(&token, NOW_S);
            assert_eq!(alone.is_ok(), is_right, "{alg}");
            let beside = verifier(each_kind().map(|(_, key)| key)).verify(&token, NOW_S);
            assert_eq!(beside.is_ok(), is_right, "{alg} beside keys of every algorithm");
        }
    }
    for alg in ["HS384", "HS512", "RS384", "RS512", "PS256", "ES384", "hs256", "Ed25519"] {
        for (signer, key) in each_kind() {
            let token = signer.sign(format!(r#"{{"alg":"{alg}"}}"#), PAYLOAD);
            assert_eq!(verifier([key]).verify(&token, NOW_S), Err(TokenError::Algorithm));
        }
    }
}

#[test]
fn a_key_id_of_another_algorithms_key_is_refused() {
    let rsa = Key::from_pem(RSA_PUBLIC).expect("a key").with_id("rsa");
    let verifier = verifier([rsa, secret_key().with_id("hmac")]);
    let by_secret = APP.sign(r#"{"alg":"HS256","kid":"rsa"}"#, PAYLOAD);
    assert_eq!(verifier.verify(&by_secret, NOW_S), Err(TokenError::Algorithm));
    let by_rsa = Signer::Rsa.sign(r#"{"alg":"RS256","kid":"hmac"}"#, PAYLOAD);
    assert_eq!(verifier.verify(&by_rsa, NOW_S), Err(TokenError::Algorithm));
    let as_rsa = APP.sign(r#"{"alg":"RS256","kid":"rsa"}"#, PAYLOAD);
    assert_eq!(verifier.verify(&as_rsa, NOW_S), Err(TokenError::Signature));
}

#[test]
fn a_token_with_critical_extensions_is_refused() {
    for crit in [r#"["exp"]"#, "[]", "null", "false", r#"["b64"]"#] {
        let header = format!(r#"{{"alg":"HS256","b64":true,"crit":{crit}}}"#);
        let refused = verifier([secret_key()]).verify(&APP.sign(header, PAYLOAD), NOW_S);
        assert_eq!(refused, Err(TokenError::Critical), "{crit}");
    }
}

#[test]
fn a_token_by_another_key_is_refused() {
    let own = Key::from_pem(ED25519_PUBLIC).expect("a key");
    let token = Signer::Ed25519(OTHER_ED25519).token(PAYLOAD);
    assert_eq!(verifier([own]).verify(&token, NOW_S), Err(TokenError::Signature));
    let token = Signer::Secret(&[b'x'; 32]).token(PAYLOAD);
    assert_eq!(verifier([secret_key()]).verify(&token, NOW_S), Err(TokenError::Signature));
}

#[test]
fn a_key_that_the_token_brings_along_does_not_count() {
    let x = encode(&der(ED25519_PUBLIC)[12..]);
    let jwk = format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}"}}"#);
    let header = format!(r#"{{"alg":"EdDSA","jwk":{jwk},"jku":"https://x","x5u":"https://x"}}"#);
    let token = Signer::Ed25519(ED25519).sign(header, PAYLOAD);
    let (keys, _) = Keys::from_jwks(&format!(r#"{{"keys":[{jwk}]}}"#)).expect("the key is right");
    assert!(verifier(keys.as_slice().to_vec()).verify(&token, NOW_S).is_ok());
    assert_eq!(verifier([]).verify(&token, NOW_S), Err(TokenError::UnknownKey));
    let other = Key::from_secret(&[1; 32]).expect("a key");
    assert_eq!(verifier([other]).verify(&token, NOW_S), Err(TokenError::Algorithm));
}

#[test]
fn parts_in_another_order_are_refused() {
    let verifier = verifier([secret_key()]);
    let token = APP.token(PAYLOAD);
    let [header, payload, signature] = token.split('.').collect::<Vec<_>>()[..] else {
        panic!("three parts");
    };
    let headless = [
        format!("{payload}.{header}.{signature}"),
        format!("{signature}.{payload}.{header}"),
        APP.sign(PAYLOAD, r#"{"alg":"HS256"}"#),
    ];
    for token in headless {
        assert_eq!(verifier.verify(&token, NOW_S), malformed("header"), "{token}");
    }
    let unsigned = format!("{header}.{signature}.{payload}");
    assert_eq!(verifier.verify(&unsigned, NOW_S), Err(TokenError::Signature));
}

#[test]
fn a_token_has_three_parts() {
    let verifier = verifier([secret_key()]);
    let token = APP.token(PAYLOAD);
    for text in ["", ".", "a", "a.b"] {
        assert_eq!(verifier.verify(text, NOW_S), malformed("parts"), "{text}");
    }
    for text in ["a.b.c.d".to_owned(), format!("{token}.{token}"), format!("{token}.")] {
        assert_eq!(verifier.verify(&text, NOW_S), malformed("parts"), "{text}");
    }
    for text in ["..", "...", "a.b.c", ". .", "\u{e4}.b.c"] {
        assert!(verifier.verify(text, NOW_S).is_err(), "{text}");
    }
}

#[test]
fn only_base64url_without_padding_is_read() {
    let verifier = verifier([secret_key()]);
    let token = APP.token(PAYLOAD);
    assert!(verifier.verify(&token, NOW_S).is_ok());
    let (signed, signature) = token.rsplit_once('.').expect("three parts");
    assert_eq!(verifier.verify(&format!("{token}="), NOW_S), malformed("signature"));
    assert_eq!(verifier.verify(&format!("{token}\n"), NOW_S), malformed("signature"));
    assert_eq!(verifier.verify(&format!(" {token}"), NOW_S), malformed("header"));
    // 32 bytes take 43 letters, of which the last has two bits that mean nothing.
    let last = signature.bytes().last().expect("a letter");
    let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let place = letters.iter().position(|it| *it == last).expect("a letter");
    let same = char::from(letters[place | 1]);
    let twin = format!("{signed}.{}{same}", &signature[..signature.len() - 1]);
    assert_eq!(verifier.verify(&twin, NOW_S), malformed("signature"));
    // Letters of the other base64 alphabet.
    let standard = format!("{signed}.{}", "+/".repeat(20));
    assert_eq!(verifier.verify(&standard, NOW_S), malformed("signature"));
}

#[test]
fn a_token_that_is_too_long_is_refused() {
    let verifier = verifier([secret_key()]);
    let of = |size: usize| {
        APP.token(&format!(r#"{{"sub":"ada","exp":1800000600,"x":"{}"}}"#, "x".repeat(size)))
    };
    let longest = (5_000..7_000).map(of).take_while(|it| it.len() <= 8192).last().expect("some");
    assert!(longest.len() > 8188 && verifier.verify(&longest, NOW_S).is_ok());
    let longer = of(7_000);
    assert_eq!(verifier.verify(&longer, NOW_S), Err(TokenError::TooLarge));
    assert_eq!(verifier.verify(&"a".repeat(8193), NOW_S), Err(TokenError::TooLarge));
    assert_eq!(verifier.verify(&"a".repeat(8192), NOW_S), malformed("parts"));
}

#[test]
fn json_that_is_deep_is_refused_or_passed_over() {
    for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
        let depth = 5_000 / (open.len() + close.len());
        let deep = format!("{}1{}", open.repeat(depth), close.repeat(depth));
        for (claim, code) in [
            ("nbf", "malformed"),
            ("iat", "malformed"),
            ("jti", "malformed"),
            ("tidelog", "grants"),
        ] {
            let refused = verify_with(&format!(r#""{claim}":{deep}"#)).expect_err(claim);
            assert_eq!(refused.code(), code);
        }
        assert_eq!(verify(&format!(r#"{{"sub":"ada","exp":{deep}}}"#)), malformed("exp"));
        let subject = verify(&format!(r#"{{"exp":1800000600,"sub":{deep}}}"#));
        assert_eq!(subject, Err(TokenError::Subject));
        for (claim, policy, error) in [
            ("iss", policy(Some("app"), None, &[]), TokenError::Issuer),
            ("aud", policy(None, Some("here"), &[]), TokenError::Audience),
        ] {
            let verifier = Verifier::new(keys([secret_key()]), policy, None).expect("usable");
            let token = APP.token(&format!(r#"{{"sub":"ada","exp":1800000600,"{claim}":{deep}}}"#));
            assert_eq!(verifier.verify(&token, NOW_S), Err(error));
        }
        assert!(verify_with(&format!(r#""x":{deep}"#)).is_ok(), "nobody reads it");
        let unclosed = open.repeat(5_000 / open.len());
        assert_eq!(verify(&unclosed), malformed("payload"));
        let verifier = verifier([secret_key()]);
        assert_eq!(verifier.verify(&APP.sign(&unclosed, "{}"), NOW_S), malformed("header"));
    }
}

#[test]
fn what_is_not_utf_8_is_refused() {
    let verifier = verifier([secret_key()]);
    let header = r#"{"alg":"HS256"}"#;
    let payloads: [&[u8]; 4] = [
        b"\xff\xfe",
        b"{\"sub\":\"a\xff\",\"exp\":1800000600}",
        b"{\"sub\":\"a\",\"exp\":1800000600,\"x\":\"\xc3\x28\"}",
        b"\xef\xbb\xbf{\"sub\":\"a\",\"exp\":1800000600}",
    ];
    for payload in payloads {
        assert_eq!(verifier.verify(&APP.sign(header, payload), NOW_S), malformed("payload"));
    }
    let header = b"{\"alg\":\"HS256\",\"x\":\"\xff\"}";
    assert_eq!(verifier.verify(&APP.sign(header, PAYLOAD), NOW_S), malformed("header"));
    let lone = verify(r#"{"sub":"\ud800","exp":1800000600}"#);
    assert_eq!(lone, Err(TokenError::Subject));
}

#[test]
fn json_that_is_no_object_is_refused() {
    for payload in ["", "null", "1", "[]", "\"a\"", "{", "{}{}", "{\"sub\":}", "{'sub':'a'}"] {
        assert!(verify(payload).is_err(), "{payload}");
        let refused = verifier([secret_key()]).verify(&APP.sign(payload, PAYLOAD), NOW_S);
        assert_eq!(refused, malformed("header"), "{payload}");
    }
}

/// A list of a claim's values in the order of our own fields is no object, though it is read as one
/// where nobody looks.
#[test]
fn a_list_in_the_place_of_an_object_is_refused() {
    let list = r#"[null,null,"ada",1800000600]"#;
    assert_eq!(verify(list), malformed("payload"));
    let header = verifier([secret_key()]).verify(&APP.sign(r#"["HS256"]"#, PAYLOAD), NOW_S);
    assert_eq!(header, malformed("header"));
    for grants in [r#"[["*","admin",true]]"#, r#"[["a","read"]]"#, r#"{"document":"a"}"#] {
        assert_eq!(verify_with(&format!(r#""tidelog":{grants}"#)), Err(TokenError::Grants));
    }
    let spaced = " \n{\"sub\":\"ada\",\"exp\":1800000600}";
    assert!(verify(spaced).is_ok(), "space before an object is JSON");
}

/// Of several keys of one algorithm any verifies, while an app changes from one to the next, and
/// `kid` says which.
#[test]
fn keys_of_one_algorithm_stand_beside_each_other_and_an_id_chooses() {
    let (first, second) =
        (b"the first secret, of 32 bytes...", b"another secret, of 32 bytes.....");
    let key = |secret: &[u8], id: &str| Key::from_secret(secret).expect("a key").with_id(id);
    let verifier = verifier([key(first, "a"), key(second, "b")]);
    for secret in [first, second] {
        assert!(verifier.verify(&Signer::Secret(secret).token(PAYLOAD), NOW_S).is_ok());
    }
    let of = |secret, id| {
        let header = format!(r#"{{"alg":"HS256","kid":"{id}"}}"#);
        verifier.verify(&Signer::Secret(secret).sign(header, PAYLOAD), NOW_S)
    };
    assert!(of(first, "a").is_ok() && of(second, "b").is_ok());
    for (secret, id) in [(first, "b"), (second, "a")] {
        assert_eq!(of(secret, id), Err(TokenError::Signature), "{id}");
    }
}

#[test]
fn a_claim_that_stands_twice_is_refused() {
    for claim in [
        r#""exp":1800000600"#,
        r#""\u0065xp":1"#,
        r#""sub":"admin""#,
        r#""tidelog":[],"tidelog":[]"#,
        r#""iat":1,"iat":2"#,
        r#""nbf":1,"nbf":1"#,
        r#""iss":"a","iss":"b""#,
        r#""aud":"a","aud":"b""#,
        r#""jti":"a","jti":"b""#,
        r#""gen":"a","gen":"b""#,
        r#""pwv":"a","pwv":"b""#,
    ] {
        assert_eq!(verify_with(claim), malformed("payload"), "{claim}");
    }
    for header in [
        r#"{"alg":"none","alg":"HS256"}"#,
        r#"{"alg":"HS256","alg":"none"}"#,
        r#"{"alg":"HS256","kid":"a","kid":"b"}"#,
    ] {
        let refused = verifier([secret_key()]).verify(&APP.sign(header, PAYLOAD), NOW_S);
        assert_eq!(refused, malformed("header"), "{header}");
    }
}

#[test]
fn an_apps_key_makes_no_token_of_the_servers() {
    let server = server();
    let claims = r#""exp":1800000600,"iat":1800000000,"jti":"t1","gen":"g1","pwv":"v1",
        "tidelog":[{"document":"*","role":"admin"}]"#;
    let verify = |claims: String| server.verify(&APP.token(&claims), NOW_S);
    let forged = verify(format!(r#"{{"iss":"{OWN_ISSUER}","sub":"admin",{claims}}}"#));
    assert_eq!(forged, Err(TokenError::Issuer));
    let other = verify(format!(r#"{{"iss":"{OWN_ISSUER}","sub":"ada",{claims}}}"#));
    assert_eq!(other, Err(TokenError::Issuer));
    let named = verify(format!(r#"{{"sub":"admin",{claims}}}"#));
    assert_eq!(named, Err(TokenError::Reserved));
    let honest = verify(format!(r#"{{"sub":"ada",{claims}}}"#)).expect("an app may grant all");
    assert!(!honest.is_own);
    assert_eq!(honest.grants.everywhere(), Some(Role::Admin));
}
