//! Credentials: short-lived JWTs minted from the cluster's token, so that the token itself never travels.

use std::fmt;

use jiff::Timestamp;

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
    _todo: (),
}

impl Keys {
    /// Derives the keys.
    pub fn new(_token: &Token) -> Self {
        unimplemented!()
    }

    /// A JWT for a role, valid for 60 s from `now` (and, for clocks that differ a little, 30 s before).
    pub fn mint(&self, _role: &Role, _now: Timestamp) -> String {
        unimplemented!()
    }

    /// The role of a Bearer credential: a JWT, or the raw token (for curl), which is Admin.
    pub fn verify(&self, _credential: &str, _now: Timestamp) -> Result<Role, CredentialError> {
        unimplemented!()
    }
}
