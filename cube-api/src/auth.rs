//! Credentials: short-lived JWTs minted from the cluster's token, so that the token itself never travels.
//!
//! It knows no HTTP and no clock: the caller cuts the credential out of its header and says what time it is.

use std::fmt;

use hmac::{Hmac, Mac};
use jiff::Timestamp;
use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use signature::{Signer, Verifier};

use crate::meta::Name;

/// The cluster's shared secret: the `password` of `~/.cube/config`. Never shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Trims white space (a file's last newline); `None` if nothing is left.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty()).then(|| Self(text.to_owned()))
    }

    /// The secret itself: for a file that only its owner reads, and for comparing.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// What a credential allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// Everything a person does.
    Admin,
    /// What doesn't change anything and shows no secret: no exec.
    Read,
    /// Being this node: its session and its reports, nothing else.
    Node(Name),
}

/// Why a credential is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// Not made from this cluster's token, or not a credential at all.
    #[error("the credential is not this cluster's")]
    Wrong,
    /// Made from the token, but expired or not yet valid by the verifier's clock.
    #[error("the credential is out of its time")]
    OutOfTime,
}

/// What mints and verifies, derived from the token.
#[derive(Clone)]
pub struct Keys {
    encoding: EncodingKey,
    decoding: DecodingKey,
    /// How a JWT is read: HS256, this cluster's audience, and no clock but the caller's.
    validation: Validation,
    /// Names the cluster's token without telling it.
    audience: String,
    /// Keyed with the signing key: a raw token is compared by its MAC, which takes the same time wherever it differs.
    raw_token: HmacSha256,
    raw_token_mac: Vec<u8>,
}

/// The most bytes of a credential. Ours have about 300; anything longer is refused before it is looked at.
pub const MAX_CREDENTIAL_BYTES: usize = 8 * 1024;

/// How long a JWT is valid from the moment it is minted, in seconds.
const LIFETIME_SECONDS: i64 = 60;

/// How far a JWT is valid before the moment it is minted, in seconds: for a verifier whose clock is behind.
const BACKDATED_SECONDS: i64 = 30;

impl Keys {
    /// Derives the keys.
    pub fn new(token: &Token) -> Self {
        // Refused when it is installed already, by an earlier call: then nothing is left to do.
        let _ = HS256_ONLY.install_default();
        let signing = mac_of(token.expose().as_bytes(), b"cube jwt key v1");
        let audience = hex(&mac_of(token.expose().as_bytes(), b"cube audience v1")[..8]);
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_audience(&[&audience]);
        validation.set_required_spec_claims(&["aud"]);
        validation.validate_exp = false;
        Self {
            encoding: EncodingKey::from_secret(&signing),
            decoding: DecodingKey::from_secret(&signing),
            validation,
            audience,
            raw_token: keyed(&signing),
            raw_token_mac: mac_of(&signing, token.expose().as_bytes()),
        }
    }

    /// A JWT for a role, valid for 60 s from `now` (and, for clocks that differ a little, 30 s before).
    pub fn mint(&self, role: &Role, now: Timestamp) -> String {
        let (role, sub) = match role {
            Role::Admin => (RoleWord::Admin, None),
            Role::Read => (RoleWord::Read, None),
            Role::Node(name) => (RoleWord::Node, Some(name.clone())),
        };
        let now = now.as_second();
        let claims = Claims { aud: self.audience.clone(), role, sub, iat: now, nbf: now - BACKDATED_SECONDS, exp: now + LIFETIME_SECONDS };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.encoding)
            .expect("plain claims and an HMAC key: nothing can fail")
    }

    /// The role of a Bearer credential: a JWT, or the raw token (for curl), which is Admin.
    ///
    /// # Errors
    /// [`CredentialError::OutOfTime`] only if everything else about a JWT is right; [`CredentialError::Wrong`] otherwise.
    pub fn verify(&self, credential: &str, now: Timestamp) -> Result<Role, CredentialError> {
        if credential.len() > MAX_CREDENTIAL_BYTES {
            return Err(CredentialError::Wrong);
        }
        if self.raw_token.clone().chain_update(credential).verify_slice(&self.raw_token_mac).is_ok() {
            return Ok(Role::Admin);
        }
        let read = jsonwebtoken::decode::<Claims>(credential, &self.decoding, &self.validation);
        let claims = read.map_err(|_| CredentialError::Wrong)?.claims;
        let role = match (claims.role, claims.sub) {
            (RoleWord::Admin, None) => Role::Admin,
            (RoleWord::Read, None) => Role::Read,
            (RoleWord::Node, Some(name)) => Role::Node(name),
            (RoleWord::Admin | RoleWord::Read, Some(_)) | (RoleWord::Node, None) => return Err(CredentialError::Wrong),
        };
        if (claims.nbf..claims.exp).contains(&now.as_second()) { Ok(role) } else { Err(CredentialError::OutOfTime) }
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(..)")
    }
}

/// What a JWT says. Times are seconds since 1970.
#[derive(Serialize, Deserialize)]
struct Claims {
    aud: String,
    role: RoleWord,
    /// The node's name, with role `node` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sub: Option<Name>,
    iat: i64,
    nbf: i64,
    exp: i64,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RoleWord {
    Admin,
    Read,
    Node,
}

type HmacSha256 = Hmac<Sha256>;

fn keyed(key: &[u8]) -> HmacSha256 {
    HmacSha256::new_from_slice(key).expect("HMAC takes a key of any length")
}

fn mac_of(key: &[u8], message: &[u8]) -> Vec<u8> {
    keyed(key).chain_update(message).finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The only cryptography that `jsonwebtoken` is given: its own providers bring RSA or a C build for algorithms that cube refuses anyway.
static HS256_ONLY: CryptoProvider = CryptoProvider {
    signer_factory: |algorithm, key| match algorithm {
        Algorithm::HS256 => Ok(Box::new(Hs256(keyed(key.as_bytes())))),
        _ => Err(ErrorKind::InvalidAlgorithm.into()),
    },
    verifier_factory: |algorithm, key| match algorithm {
        Algorithm::HS256 => Ok(Box::new(Hs256(keyed(key.try_get_as_bytes()?)))),
        _ => Err(ErrorKind::InvalidAlgorithm.into()),
    },
    key_utils: KeyUtils::new_unimplemented(),
};

struct Hs256(HmacSha256);

impl Signer<Vec<u8>> for Hs256 {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, signature::Error> {
        Ok(self.0.clone().chain_update(message).finalize().into_bytes().to_vec())
    }
}

impl Verifier<Vec<u8>> for Hs256 {
    fn verify(&self, message: &[u8], mac: &Vec<u8>) -> Result<(), signature::Error> {
        self.0.clone().chain_update(message).verify_slice(mac).map_err(|_| signature::Error::new())
    }
}

impl JwtSigner for Hs256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS256
    }
}

impl JwtVerifier for Hs256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS256
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
    use proptest::prelude::*;

    use super::*;

    fn keys(token: &str) -> Keys {
        Keys::new(&Token::new(token).expect("not blank"))
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    /// A JWT with any header and claims, signed as the cluster `token` would sign it.
    fn forged(token: &str, header: &str, claims: &str) -> String {
        let message = format!("{}.{}", BASE64.encode(header), BASE64.encode(claims));
        let mac = mac_of(&mac_of(token.as_bytes(), b"cube jwt key v1"), message.as_bytes());
        format!("{message}.{}", BASE64.encode(mac))
    }

    const HS256: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

    fn claims_of(keys: &Keys, rest: &str) -> String {
        format!(r#"{{"aud":"{}","iat":1000,"nbf":970,"exp":1060,{rest}}}"#, keys.audience)
    }

    #[test]
    fn each_role_comes_back_and_a_node_keeps_its_name() {
        let keys = keys("secret");
        for role in [Role::Admin, Role::Read, Role::Node(Name::new("node-1").expect("a name"))] {
            assert_eq!(keys.verify(&keys.mint(&role, at(1_000)), at(1_000)), Ok(role));
        }
    }

    #[test]
    fn a_credential_is_valid_from_30_s_before_to_60_s_after_its_minting() {
        let keys = keys("secret");
        let credential = keys.mint(&Role::Admin, at(1_000));
        for (second, valid) in [(969, false), (970, true), (1_059, true), (1_060, false)] {
            let expected = if valid { Ok(Role::Admin) } else { Err(CredentialError::OutOfTime) };
            assert_eq!(keys.verify(&credential, at(second)), expected, "at {second}");
        }
    }

    #[test]
    fn the_raw_token_is_admin_and_a_part_of_it_is_nothing() {
        let keys = keys("secret");
        assert_eq!(keys.verify("secret", at(0)), Ok(Role::Admin));
        for wrong in ["", "secre", "secrets", "Secret", "secret ", "secret\0"] {
            assert_eq!(keys.verify(wrong, at(0)), Err(CredentialError::Wrong), "{wrong:?}");
        }
    }

    #[test]
    fn another_clusters_credential_is_wrong_even_out_of_its_time() {
        let credential = keys("another").mint(&Role::Admin, at(1_000));
        assert_eq!(keys("secret").verify(&credential, at(1_000)), Err(CredentialError::Wrong));
        assert_eq!(keys("secret").verify(&credential, at(9_000)), Err(CredentialError::Wrong));
    }

    #[test]
    fn only_hs256_is_taken_whatever_the_header_says() {
        let keys = keys("secret");
        let claims = claims_of(&keys, r#""role":"admin""#);
        assert_eq!(keys.verify(&forged("secret", HS256, &claims), at(1_000)), Ok(Role::Admin), "the forging itself is right");
        for algorithm in ["none", "None", "HS384", "HS512", "RS256", "ES256", "EdDSA", "hs256", ""] {
            let header = format!(r#"{{"alg":"{algorithm}","typ":"JWT"}}"#);
            let signed = forged("secret", &header, &claims);
            assert_eq!(keys.verify(&signed, at(1_000)), Err(CredentialError::Wrong), "{algorithm}");
            let unsigned = format!("{}.{}.", BASE64.encode(&header), BASE64.encode(&claims));
            assert_eq!(keys.verify(&unsigned, at(1_000)), Err(CredentialError::Wrong), "{algorithm}, unsigned");
        }
    }

    #[test]
    fn tampered_claims_are_wrong() {
        let keys = keys("secret");
        let credential = keys.mint(&Role::Read, at(1_000));
        let mut parts: Vec<&str> = credential.split('.').collect();
        let admin = BASE64.encode(claims_of(&keys, r#""role":"admin""#));
        parts[1] = &admin;
        assert_eq!(keys.verify(&parts.join("."), at(1_000)), Err(CredentialError::Wrong));
    }

    #[test]
    fn signed_claims_that_make_no_sense_are_wrong() {
        let keys = keys("secret");
        let other_audience = claims_of(&keys, r#""role":"admin""#).replace(&keys.audience, "0123456789abcdef");
        let no_audience = r#"{"iat":1000,"nbf":970,"exp":1060,"role":"admin"}"#.to_owned();
        let no_end = format!(r#"{{"aud":"{}","iat":1000,"nbf":970,"role":"admin"}}"#, keys.audience);
        let nameless = claims_of(&keys, r#""role":"node""#);
        let bad_name = claims_of(&keys, r#""role":"node","sub":"No Name""#);
        let named_admin = claims_of(&keys, r#""role":"admin","sub":"node-1""#);
        let no_role = claims_of(&keys, r#""role":"root""#);
        for claims in [other_audience, no_audience, no_end, nameless, bad_name, named_admin, no_role] {
            assert_eq!(keys.verify(&forged("secret", HS256, &claims), at(1_000)), Err(CredentialError::Wrong), "{claims}");
        }
    }

    #[test]
    fn a_credential_over_the_limit_is_refused_unread() {
        let token = "t".repeat(MAX_CREDENTIAL_BYTES + 1);
        assert_eq!(keys(&token).verify(&token, at(0)), Err(CredentialError::Wrong));
    }

    #[test]
    fn debug_and_the_credential_tell_nothing_of_the_token() {
        let token = Token::new("hunter2\n").expect("not blank");
        let keys = Keys::new(&token);
        let credential = keys.mint(&Role::Admin, at(1_000));
        let claims = BASE64.decode(credential.split('.').nth(1).expect("three parts")).expect("base64");
        for shown in [format!("{token:?} {keys:?}"), credential, String::from_utf8_lossy(&claims).into_owned()] {
            assert!(!shown.contains("hunter2"), "{shown}");
        }
        assert_eq!(format!("{keys:?}"), "Keys(..)");
    }

    proptest! {
        #[test]
        fn garbage_is_wrong_and_never_panics(text in "\\PC*|[A-Za-z0-9_=.-]{0,300}|([A-Za-z0-9_-]{0,40}\\.){0,4}") {
            prop_assert_eq!(keys("secret").verify(&text, at(1_000)), Err(CredentialError::Wrong));
        }

        #[test]
        fn one_changed_byte_is_never_another_role(index in 0usize..400, byte in 0u8..128) {
            let keys = keys("secret");
            let mut credential = keys.mint(&Role::Read, at(1_000)).into_bytes();
            let index = index % credential.len();
            prop_assume!(credential[index] != byte);
            credential[index] = byte;
            let text = String::from_utf8(credential).expect("ASCII");
            prop_assert_eq!(keys.verify(&text, at(1_000)), Err(CredentialError::Wrong));
        }
    }
}
