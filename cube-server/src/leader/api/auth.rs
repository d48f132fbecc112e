//! Who may do what: actions, roles, and the check that runs before a body is read.

use cube_api::auth::{CredentialError, Role};
use cube_api::meta::Name;
use cube_api::{ApiError, ErrorCode};
use http::HeaderMap;
use jiff::Timestamp;

/// What a request is, whatever its method: an exec over a websocket is a GET.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Looks, logs included.
    Read,
    /// Changes what is wanted.
    Change,
    /// Runs a command in a container.
    Exec,
    /// Speaks as this node.
    BeNode(Name),
}

/// The whole table of rights.
pub fn authorise(role: &Role, action: &Action) -> Result<(), ApiError> {
    let allowed = match (role, action) {
        (Role::Admin, Action::Read | Action::Change | Action::Exec | Action::BeNode(_)) | (Role::Read, Action::Read) => true,
        (Role::Read, Action::Change | Action::Exec | Action::BeNode(_)) | (Role::Node(_), Action::Read | Action::Change | Action::Exec) => {
            false
        }
        (Role::Node(own), Action::BeNode(node)) => own == node,
    };
    if allowed {
        Ok(())
    } else {
        Err(ApiError::new(ErrorCode::Forbidden, "this credential does not allow that").hint("use the cluster's token"))
    }
}

/// The role of a request's Bearer credential.
pub fn role_of(
    headers: &HeaderMap,
    now: Timestamp,
    verify: impl FnOnce(&str, Timestamp) -> Result<Role, CredentialError>,
) -> Result<Role, ApiError> {
    let hint = "the password in ~/.cube/config is the token that the leader printed when it started";
    let header = headers.get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let credential = header.and_then(|text| text.strip_prefix("Bearer "));
    let credential = credential.ok_or_else(|| ApiError::new(ErrorCode::Unauthenticated, "no credential was sent").hint(hint))?;
    verify(credential, now).map_err(|error| match error {
        CredentialError::Wrong => ApiError::new(ErrorCode::Unauthenticated, "the credential is not this cluster's").hint(hint),
        CredentialError::OutOfTime => ApiError {
            server_time: Some(now),
            ..ApiError::new(ErrorCode::CredentialExpired, "the credential is out of its time")
                .hint("compare this machine's clock with the leader's")
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).expect("a valid name")
    }

    #[test]
    fn a_node_speaks_for_itself_only_and_a_reader_never_execs() {
        let node = Role::Node(name("n1"));
        assert!(authorise(&node, &Action::BeNode(name("n1"))).is_ok());
        for action in [Action::BeNode(name("n2")), Action::Read, Action::Change, Action::Exec] {
            assert!(authorise(&node, &action).is_err(), "{action:?}");
        }
        assert!(authorise(&Role::Read, &Action::Read).is_ok());
        for action in [Action::Change, Action::Exec, Action::BeNode(name("n1"))] {
            assert!(authorise(&Role::Read, &action).is_err(), "{action:?}");
        }
    }

    #[test]
    fn a_credential_out_of_its_time_is_told_the_leaders_clock() {
        let mut headers = HeaderMap::new();
        let now = Timestamp::UNIX_EPOCH;
        let missing = role_of(&headers, now, |_, _| Ok(Role::Admin)).expect_err("none was sent");
        assert_eq!(missing.code, ErrorCode::Unauthenticated);
        headers.insert("authorization", "Bearer x".parse().expect("a header"));
        let old = role_of(&headers, now, |_, _| Err(CredentialError::OutOfTime)).expect_err("too old");
        assert_eq!((old.code, old.server_time), (ErrorCode::CredentialExpired, Some(now)));
    }
}
