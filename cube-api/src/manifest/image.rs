//! Image references, by the grammar of the distribution project (`[domain[:port]/]path[:tag][@digest]`).

/// The longest repository name (domain and path), in characters.
const MAX_NAME: usize = 255;

/// The longest tag, in characters.
const MAX_TAG: usize = 128;

/// Checks a reference. The error says which part is wrong and what it may be.
pub(super) fn check(reference: &str) -> Result<(), String> {
    let (rest, digest) = match reference.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (reference, None),
    };
    // A colon after the last slash begins a tag; one before it, a port.
    let (name, tag) = match rest.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        Some(_) | None => (rest, None),
    };
    let (domain, path) = match name.split_once('/') {
        Some((first, path)) if first.contains(['.', ':']) || first == "localhost" => (Some(first), path),
        Some(_) | None => (None, name),
    };
    if name.len() > MAX_NAME {
        return Err(format!("its name has {} characters, at most {MAX_NAME} are allowed", name.len()));
    }
    if let Some(domain) = domain.filter(|domain| !is_domain(domain)) {
        return Err(format!("`{domain}` is not a registry's HOST or HOST:PORT"));
    }
    if path.is_empty() {
        return Err("it names no repository, such as nginx or team/app".to_owned());
    }
    if let Some(part) = path.split('/').find(|part| !is_path_component(part)) {
        return Err(format!("`{part}` is not lower-case letters and digits, separated by single '.', one or two '_', or '-'"));
    }
    if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
        return Err(format!(
            "the tag `{tag}` is not 1 to {MAX_TAG} letters, digits, '_', '.' and '-', beginning with a letter, a digit or '_'"
        ));
    }
    if let Some(digest) = digest.filter(|digest| !is_digest(digest)) {
        return Err(format!("the digest `{digest}` is not `sha256:` and 64 hexadecimal digits in lower case"));
    }
    if domain.is_none() && digest.is_none() && tag.is_none() && path.len() == 64 && path.bytes().all(is_hex) {
        return Err("64 hexadecimal digits are an image's id, which only one node knows: name the image".to_owned());
    }
    Ok(())
}

fn is_domain(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        Some(_) | None => (text, None),
    };
    let port_is_right = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    let ipv6 = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    port_is_right && ipv6.map_or_else(|| host.split('.').all(is_host_label), |address| address.parse::<std::net::Ipv6Addr>().is_ok())
}

fn is_host_label(text: &str) -> bool {
    !text.is_empty() && !text.starts_with('-') && !text.ends_with('-') && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// Runs of lower-case letters and digits between separators: `.`, `_`, `__` or any number of `-`.
fn is_path_component(text: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let ends_are_right = text.starts_with(alphanumeric) && text.ends_with(alphanumeric);
    let separators_are_right =
        text.split(alphanumeric).all(|separator| matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-'));
    ends_are_right && separators_are_right
}

fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=MAX_TAG).contains(&text.len()) && text.bytes().next().is_some_and(word) && text.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

/// Docker's engines check no other algorithm than SHA-256.
fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| hex.len() == 64 && hex.bytes().all(is_hex))
}

fn is_hex(byte: u8) -> bool {
    byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn references_as_docker_takes_them_are_accepted() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        for right in [
            "nginx",
            "nginx:latest",
            "team/app:1.0",
            "localhost/app",
            "localhost:5000/app",
            "registry.example.com/team/app__x:v1.2-rc.3_b",
            "Registry.Example/app",
            "127.0.0.1:5000/a/b/c:_x",
            "[::1]:5000/app",
            "a-b--c/d.e_f",
            "sha256:abc",
            &format!("nginx@{digest}"),
            &format!("nginx:1@{digest}"),
        ] {
            assert_eq!(check(right), Ok(()), "{right}");
        }
    }

    #[test]
    fn references_that_docker_would_refuse_are_refused() {
        let (long_tag, long_name, id) = ("t".repeat(129), "n".repeat(256), "0".repeat(64));
        for wrong in [
            "",
            ":latest",
            "nginx:",
            "Nginx",
            "team/App",
            "nginx latest",
            " nginx",
            "nginx\n",
            "-nginx",
            "nginx-",
            "a..b",
            "a___b",
            "a/",
            "/a",
            "a//b",
            "https://example.com/app",
            "example.com:0/app",
            "example.com:99999/app",
            "ex_ample.com/app",
            "example.com/",
            "nginx:-x",
            "nginx:a b",
            "nginx@sha256:abc",
            "nginx@md5:d41d8cd98f00b204e9800998ecf8427e",
            "ngi\u{e4}nx",
            &format!("nginx:{long_tag}"),
            &long_name,
            &id,
        ] {
            assert!(check(wrong).is_err(), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC*|[a-zA-Z0-9./:@_\\[\\]-]{0,80}") {
            let accepted = check(&text).is_ok();
            prop_assert!(!accepted || text.is_ascii());
        }
    }
}
