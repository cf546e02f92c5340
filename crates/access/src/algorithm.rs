//! How tokens are signed.

use std::fmt;
use std::str::FromStr;

use crate::InvalidAlgorithm;

/// How a token is signed. A key is of one algorithm for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// HMAC with SHA-256: who can verify a token can sign one.
    Hs256,
    /// Ed25519.
    EdDsa,
    /// ECDSA with P-256 and SHA-256.
    Es256,
    /// RSA as PKCS #1 v1.5 has it, with SHA-256.
    Rs256,
}

impl Algorithm {
    const ALL: [Self; 4] = [Self::Hs256, Self::EdDsa, Self::Es256, Self::Rs256];

    /// The name in a token's header: `HS256`, `EdDSA`, `ES256` or `RS256`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::EdDsa => "EdDSA",
            Self::Es256 => "ES256",
            Self::Rs256 => "RS256",
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Algorithm {
    type Err = InvalidAlgorithm;

    fn from_str(name: &str) -> Result<Self, InvalidAlgorithm> {
        Self::ALL.into_iter().find(|it| it.name() == name).ok_or(InvalidAlgorithm)
    }
}

impl From<Algorithm> for jsonwebtoken::Algorithm {
    fn from(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Hs256 => Self::HS256,
            Algorithm::EdDsa => Self::EdDSA,
            Algorithm::Es256 => Self::ES256,
            Algorithm::Rs256 => Self::RS256,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_algorithms_are_known_by_their_exact_names() {
        for algorithm in Algorithm::ALL {
            assert_eq!(algorithm.to_string().parse(), Ok(algorithm));
        }
        for name in ["none", "None", "", "hs256", "HS512", "PS256", "ES384", "EDDSA", "HS256 "] {
            assert_eq!(name.parse::<Algorithm>(), Err(InvalidAlgorithm), "{name}");
        }
    }
}
