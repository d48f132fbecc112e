//! As whom a container runs: what its pod says, and what its image says where that says nothing.

use cube_api::pod::Security;

/// Whether what the image says plays a part.
pub fn depends_on_image(security: &Security) -> bool {
    security.user.is_none() && (security.group.is_some() || security.non_root)
}

/// The user in Docker's words, `USER` or `USER:GROUP`; none: as the image says. `image` is the image's own, empty for root.
///
/// # Errors
/// Why it must not be started, if it would run as root, or if nobody can tell, and its pod forbids that.
pub fn user(security: &Security, image: &str) -> Result<Option<String>, String> {
    let of_image = image.split(':').next().unwrap_or_default();
    if security.non_root {
        check_non_root(security.user, of_image)?;
    }
    let root_if_empty = if of_image.is_empty() { "0" } else { of_image };
    Ok(match (security.user, security.group) {
        (Some(user), Some(group)) => Some(format!("{user}:{group}")),
        (Some(user), None) => Some(user.to_string()),
        (None, Some(group)) => Some(format!("{root_if_empty}:{group}")),
        (None, None) => None,
    })
}

/// By Kubernetes' rules: a name may be root's in the image's own list of users, which nobody reads before the start.
fn check_non_root(user: Option<u32>, of_image: &str) -> Result<(), String> {
    let remedy = "say which user with securityContext.runAsUser";
    match (user, of_image.parse::<u32>()) {
        (Some(0), _) => Err("it would run as root (runAsUser: 0), and runAsNonRoot is true".to_owned()),
        (Some(_), _) => Ok(()),
        (None, Ok(0)) => Err(format!("its image runs as root, and runAsNonRoot is true: {remedy}")),
        (None, Ok(_)) => Ok(()),
        (None, Err(_)) if of_image.is_empty() || of_image == "root" => {
            Err(format!("its image runs as root, and runAsNonRoot is true: {remedy}"))
        }
        (None, Err(_)) => Err(format!("nobody can tell whether its image's user '{of_image}' is root, and runAsNonRoot is true: {remedy}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pod_s_word_goes_before_the_image_s() {
        let of = |user, group, image: &str| super::user(&Security { user, group, ..Security::default() }, image);
        let text = |text: &str| Ok(Some(text.to_owned()));
        assert_eq!(of(None, None, "app"), Ok(None));
        assert_eq!(of(Some(1000), None, "app:staff"), text("1000"));
        assert_eq!(of(Some(1000), Some(7), "app"), text("1000:7"));
        assert_eq!(of(None, Some(7), "app:staff"), text("app:7"));
        assert_eq!(of(None, Some(7), ""), text("0:7"));
    }

    #[test]
    fn what_would_run_as_root_or_might_is_not_started_where_that_is_forbidden() {
        let of = |user, image: &str| super::user(&Security { user, non_root: true, ..Security::default() }, image);
        for root in ["", "root", "0", "0:0", "root:staff"] {
            assert!(of(None, root).is_err_and(|why| why.starts_with("its image runs as root")), "{root}");
        }
        assert!(of(None, "app").is_err_and(|why| why.contains("whether its image's user 'app' is root")));
        assert!(of(Some(0), "1000").is_err_and(|why| why.contains("runAsUser: 0")));
        for (user, image) in [(None, "1000"), (None, "1000:0"), (Some(1000), "root")] {
            assert!(of(user, image).is_ok(), "{image}");
        }
    }
}
