//! A login at a registry.

use std::fmt;

/// Who one is at a registry, and what proves it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Login {
    /// The registry's `HOST[:PORT]`.
    pub registry: String,
    /// The proof.
    pub password: Password,
}

/// What proves who one is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Password {
    /// A user and a password.
    Of {
        /// The user.
        user: String,
        /// The password.
        password: String,
    },
    /// A token that the registry gave out at an earlier login (`identitytoken`).
    Token(String),
}

// Logs and panics say `{:?}`.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Login({}, ...)", self.registry)
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(...)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_s_words_for_a_log_have_no_password() {
        let password = Password::Of { user: "robot".to_owned(), password: "hunter2".to_owned() };
        let login = Login { registry: "r.example.com".to_owned(), password };
        assert_eq!(format!("{login:?} {:?}", login.password), "Login(r.example.com, ...) Password(...)");
    }
}
