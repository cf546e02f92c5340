//! A key, and the one algorithm that it is for.

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey, RsaPublicKeyComponents, RsaSubjectPublicKey,
    VerificationAlgorithm,
};
use jsonwebtoken::DecodingKey;
use jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER;
use tidelog_types::limits::{RSA_KEY_BITS_MAX, RSA_KEY_BITS_MIN, TOKEN_SECRET_SIZE_MIN};

use crate::jws::Jws;
use crate::{Algorithm, KeyError, KeyPrint};

/// A key, and the one algorithm that it is for.
///
/// A token is verified by the key's algorithm, never by the one in its header: so the bytes of a
/// public key are never taken for a secret.
#[derive(Clone, Debug)]
pub struct Key {
    algorithm: Algorithm,
    id: Option<String>,
    /// A secret, or a public key that was parsed once and written again as DER.
    bytes: DecodingKey,
    print: KeyPrint,
}

/// As long as they are of one id, two are the same that verify the same tokens.
impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        (&self.id, self.print) == (&other.id, other.print)
    }
}

impl Eq for Key {}

impl Key {
    /// A secret that the app shares with the server, for HS256.
    ///
    /// # Errors
    ///
    /// [`KeyError::SecretTooShort`] below [`TOKEN_SECRET_SIZE_MIN`] bytes;
    /// [`KeyError::SecretIsPublic`] for what a public key might be in, which is no secret: a PEM, a
    /// JWK or a DER.
    pub fn from_secret(secret: &[u8]) -> Result<Self, KeyError> {
        if secret.len() < TOKEN_SECRET_SIZE_MIN {
            return Err(KeyError::SecretTooShort { size: secret.len() });
        }
        if is_public(secret) {
            return Err(KeyError::SecretIsPublic);
        }
        let print = KeyPrint::of(Algorithm::Hs256, secret);
        Ok(Self::new(Algorithm::Hs256, DecodingKey::from_secret(secret), print))
    }

    /// A public key from the text of a PEM with one `PUBLIC KEY` or `RSA PUBLIC KEY`. Its type says
    /// the algorithm: Ed25519 EdDSA, P-256 ES256, RSA RS256.
    ///
    /// # Errors
    ///
    /// [`KeyError::Pem`], [`KeyError::Private`], [`KeyError::Unusable`] or [`KeyError::RsaSize`].
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        let blocks = pem::parse_many(pem).map_err(|_| KeyError::Pem)?;
        let [block] = blocks.as_slice() else { return Err(KeyError::Pem) };
        match block.tag() {
            "PUBLIC KEY" => Self::from_der(block.contents()),
            "RSA PUBLIC KEY" => Self::from_rsa_der(block.contents()),
            tag if tag.ends_with("PRIVATE KEY") => Err(KeyError::Private),
            _ => Err(KeyError::Unusable),
        }
    }

    /// [`Key::from_pem`], for whoever says the algorithm.
    ///
    /// # Errors
    ///
    /// As there, and [`KeyError::Mismatch`] if the key is of another algorithm.
    pub fn from_pem_for(pem: &str, algorithm: Algorithm) -> Result<Self, KeyError> {
        Self::from_pem(pem)?.expected_for(algorithm)
    }

    /// The key under this id: `kid` of the tokens that it signs.
    #[must_use]
    pub fn with_id(self, id: &str) -> Self {
        Self { id: Some(id.to_owned()), ..self }
    }

    /// The one algorithm that the key is for.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The key's id, if it has one.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// What tells the key from all others, whatever its id.
    #[must_use]
    pub fn print(&self) -> KeyPrint {
        self.print
    }

    /// A point of P-256 as SEC 1 has it, uncompressed, or a DER with one.
    pub(crate) fn from_p256(bytes: &[u8]) -> Result<Self, KeyError> {
        let der = canonical(&ECDSA_P256_SHA256_FIXED, bytes)?;
        let print = KeyPrint::of(Algorithm::Es256, &der);
        Ok(Self::new(Algorithm::Es256, DecodingKey::from_ec_der(&der), print))
    }

    /// 32 bytes, or a DER with them.
    pub(crate) fn from_ed25519(bytes: &[u8]) -> Result<Self, KeyError> {
        let der = canonical(&ED25519, bytes)?;
        let print = KeyPrint::of(Algorithm::EdDsa, &der);
        Ok(Self::new(Algorithm::EdDsa, DecodingKey::from_ed_der(&der), print))
    }

    /// Modulus and exponent, big-endian.
    pub(crate) fn from_rsa(modulus: &[u8], exponent: &[u8]) -> Result<Self, KeyError> {
        let (n, e) = (trimmed(modulus), trimmed(exponent));
        let der = RsaPublicKeyComponents { n, e }.as_der().map_err(|_| KeyError::Unusable)?;
        Self::from_rsa_der(der.as_ref())
    }

    /// The key, if it is of this algorithm.
    pub(crate) fn expected_for(self, algorithm: Algorithm) -> Result<Self, KeyError> {
        if self.algorithm != algorithm {
            return Err(KeyError::Mismatch { algorithm });
        }
        Ok(self)
    }

    /// Whether this key made the token's signature, by its own algorithm.
    pub(crate) fn verifies(&self, jws: &Jws<'_>) -> bool {
        if jws.algorithm != self.algorithm {
            return false;
        }
        // The provider is named: the default of a process depends on what else is linked.
        (DEFAULT_PROVIDER.verifier_factory)(&self.algorithm.into(), &self.bytes)
            .is_ok_and(|verifier| verifier.verify(jws.signed.as_bytes(), &jws.signature).is_ok())
    }

    /// Whether both are the same secret.
    pub(crate) fn is_same_secret(&self, other: &Self) -> bool {
        let secret = |key: &Self| {
            let is_secret = key.algorithm == Algorithm::Hs256;
            key.bytes.try_get_as_bytes().ok().filter(|_| is_secret).map(<[u8]>::to_vec)
        };
        secret(self).is_some_and(|it| secret(other) == Some(it))
    }

    fn new(algorithm: Algorithm, bytes: DecodingKey, print: KeyPrint) -> Self {
        Self { algorithm, id: None, bytes, print }
    }

    fn from_der(der: &[u8]) -> Result<Self, KeyError> {
        Self::from_ed25519(der)
            .or_else(|_| Self::from_p256(der))
            .or_else(|_| Self::from_rsa_der(der))
    }

    fn from_rsa_der(der: &[u8]) -> Result<Self, KeyError> {
        let key = RsaSubjectPublicKey::from_der(der).map_err(|_| KeyError::Unusable)?;
        let bits = bits(key.modulus().big_endian_without_leading_zero());
        if !(RSA_KEY_BITS_MIN..=RSA_KEY_BITS_MAX).contains(&bits) {
            return Err(KeyError::RsaSize { bits });
        }
        let print = KeyPrint::of(Algorithm::Rs256, key.as_ref());
        Ok(Self::new(Algorithm::Rs256, DecodingKey::from_rsa_der(key.as_ref()), print))
    }
}

/// Whether this is what a public key comes in: a PEM, a JWK, or a DER, which is a list and longer
/// than the 32 bytes that are a key of Ed25519 whatever they are.
fn is_public(secret: &[u8]) -> bool {
    let has = |text: &[u8]| secret.windows(text.len()).any(|part| part == text);
    let is_list = secret.first() == Some(&0x30) && secret.len() > 32;
    has(b"-----BEGIN ") || has(b"\"kty\"") || (is_list && Key::from_der(secret).is_ok())
}

/// The key as DER, if it is one of this algorithm's. What stood behind it is gone.
fn canonical(
    algorithm: &'static dyn VerificationAlgorithm,
    bytes: &[u8],
) -> Result<Vec<u8>, KeyError> {
    let key = ParsedPublicKey::new(algorithm, bytes).map_err(|_| KeyError::Unusable)?;
    let der = key.as_der().map_err(|_| KeyError::Unusable)?;
    Ok(der.as_ref().to_vec())
}

/// A number without its leading zeros, which some issuers of JWKs write.
fn trimmed(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

/// Bits of a number without leading zeros.
fn bits(number: &[u8]) -> usize {
    let first = number.first().map_or(0, |byte| byte.leading_zeros() as usize);
    (number.len() * 8).saturating_sub(first)
}
