//! The queries of logs and exec as text: the leader's API and a node's router read the same text, and the leader writes it to the node.

use cube_api::routes::{ExecQuery, LogQuery};
use cube_api::{ApiError, ErrorCode};

/// Reads an exec's query. `serde_urlencoded` can't repeat `command`, so it is done by hand; an unknown parameter is refused all the same.
pub fn read_exec(text: &str) -> Result<ExecQuery, ApiError> {
    let mut query = ExecQuery::default();
    for (key, value) in form_urlencoded::parse(text.as_bytes()) {
        match key.as_ref() {
            "container" => query.container = Some(value.parse().map_err(|e| bad(&format!("container: {e}")))?),
            "command" => query.command.push(value.into_owned()),
            "tty" => query.tty = read_bool("tty", &value)?,
            "stdin" => query.stdin = read_bool("stdin", &value)?,
            unknown => return Err(bad(&format!("unknown parameter '{unknown}': container, command, tty and stdin are known"))),
        }
    }
    Ok(query)
}

/// Writes an exec's query.
pub fn write_exec(query: &ExecQuery) -> String {
    let mut pairs = form_urlencoded::Serializer::new(String::new());
    if let Some(container) = &query.container {
        pairs.append_pair("container", container.as_str());
    }
    for word in &query.command {
        pairs.append_pair("command", word);
    }
    for (key, set) in [("tty", query.tty), ("stdin", query.stdin)] {
        if set {
            pairs.append_pair(key, "true");
        }
    }
    pairs.finish()
}

/// Reads a query of logs.
pub fn read_log(text: &str) -> Result<LogQuery, ApiError> {
    serde_urlencoded::from_str(text).map_err(|e| bad(&e.to_string()))
}

/// Writes a query of logs.
pub fn write_log(query: &LogQuery) -> String {
    serde_urlencoded::to_string(query).expect("a flat struct of plain values")
}

fn read_bool(key: &str, value: &str) -> Result<bool, ApiError> {
    match value {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        other => Err(bad(&format!("{key}: '{other}' is neither true nor false"))),
    }
}

fn bad(problem: &str) -> ApiError {
    ApiError::new(ErrorCode::BadRequest, format!("the query can't be read: {problem}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_exec_query_survives_the_wire(command in proptest::collection::vec(".*", 0..5), tty: bool, stdin: bool, named: bool) {
            let container = named.then(|| "app".parse().expect("a name"));
            let query = ExecQuery { container, command, tty, stdin };
            prop_assert_eq!(read_exec(&write_exec(&query)), Ok(query));
        }
    }

    #[test]
    fn a_log_query_survives_the_wire() {
        let query = LogQuery {
            container: Some("app".parse().expect("a name")),
            follow: true,
            tail: Some(7),
            since: Some("2026-11-21T01:02:03.000000004Z".parse().expect("a time")),
            timestamps: true,
            previous: true,
        };
        assert_eq!(read_log(&write_log(&query)), Ok(query));
        assert_eq!(read_log(""), Ok(LogQuery::default()));
    }

    #[test]
    fn unknown_parameters_and_bad_values_are_refused() {
        for text in ["comand=sh", "command=sh&tty=yes", "container=No"] {
            assert_eq!(read_exec(text).expect_err(text).code, ErrorCode::BadRequest);
        }
        for text in ["folow=true", "tail=many", "container=No"] {
            assert_eq!(read_log(text).expect_err(text).code, ErrorCode::BadRequest);
        }
    }
}
