//! What went wrong, for a person: a sentence, all the details, what to do next; and the exit code for a script.

use std::fmt::Write as _;
use std::io;
use std::process::ExitCode;

use cube_api::client::ClientError;
use cube_api::error::{ApiError, ErrorCode, chain};

/// What a script can tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// 1: refused, or tried and failed.
    Failed,
    /// 2: the command line or the configuration is wrong.
    Usage,
    /// 3: the leader can't be reached.
    Unreachable,
    /// 124, as of `timeout`: a limit that the user set has passed.
    TimedOut,
    /// 0 and silent: the reader of our output has gone (`cube logs pod/x | head`).
    ReaderGone,
}

/// Why a command ends badly.
#[derive(Debug)]
pub struct CliError {
    kind: Kind,
    message: String,
    details: Vec<String>,
    hint: Option<String>,
}

/// What every command answers.
pub type Result<T> = std::result::Result<T, CliError>;

impl CliError {
    fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), details: Vec::new(), hint: None }
    }

    /// It was refused or failed.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Kind::Failed, message)
    }

    /// What was typed or configured makes no sense.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// A limit that the user set has passed.
    pub fn timed_out(message: impl Into<String>) -> Self {
        Self::new(Kind::TimedOut, message)
    }

    /// A file, a pipe or a terminal made trouble. A broken pipe is no trouble: nobody reads any more.
    pub fn io(doing: impl Into<String>, error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::new(Kind::ReaderGone, ""),
            _ => Self::failed(format!("{}: {error}", doing.into())),
        }
    }

    /// Adds what to do next.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds lines below the sentence.
    pub fn details(mut self, details: impl IntoIterator<Item = String>) -> Self {
        self.details.extend(details);
        self
    }

    /// What a script sees.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self.kind {
            Kind::ReaderGone => 0,
            Kind::Failed => 1,
            Kind::Usage => 2,
            Kind::Unreachable => 3,
            Kind::TimedOut => 124,
        })
    }

    /// Says it on standard error.
    pub fn print(&self) {
        if self.kind != Kind::ReaderGone {
            eprint!("{}", self.text());
        }
    }

    fn text(&self) -> String {
        let mut text = format!("error: {}\n", self.message);
        for line in self.details.iter().flat_map(|detail| detail.lines()) {
            writeln!(text, "  {line}").expect("a String takes everything");
        }
        if let Some(hint) = &self.hint {
            writeln!(text, "hint: {hint}").expect("a String takes everything");
        }
        text
    }
}

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> Self {
        let kind = match &error {
            ClientError::Unreachable { .. } | ClientError::TimedOut { .. } => Kind::Unreachable,
            ClientError::Lost { .. } | ClientError::Protocol { .. } => Kind::Failed,
            ClientError::Api(refusal) => return refused(refusal),
        };
        let hint = error.hint();
        Self { hint, ..Self::new(kind, chain(&error)) }
    }
}

fn refused(refusal: &ApiError) -> CliError {
    let hint = refusal.hint.clone().or_else(|| match refusal.code {
        ErrorCode::Unauthenticated | ErrorCode::CredentialExpired => {
            Some("the password must be the cluster's token; cube config shows where it comes from".to_owned())
        }
        ErrorCode::Internal if !refusal.request_id.is_empty() => {
            Some(format!("the leader's log says more: request {}", refusal.request_id))
        }
        ErrorCode::Busy | ErrorCode::Unavailable => Some("try again in a moment".to_owned()),
        ErrorCode::NodeUnavailable => Some("cube nodes shows which nodes answer".to_owned()),
        ErrorCode::NoRoute | ErrorCode::WrongMethod => Some("cube version compares this client with the leader".to_owned()),
        ErrorCode::BadRequest
        | ErrorCode::Invalid
        | ErrorCode::Forbidden
        | ErrorCode::NotFound
        | ErrorCode::Conflict
        | ErrorCode::Expired
        | ErrorCode::TooLarge
        | ErrorCode::NoSpace
        | ErrorCode::Internal => None,
    });
    CliError { hint, ..CliError::failed(&refusal.message) }.details(refusal.details.iter().map(ToString::to_string))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_a_sentence_then_details_then_a_hint() {
        let error = CliError::failed("the manifest is refused").details(["a:1:2: x".to_owned(), "two\nlines".to_owned()]).hint("fix it");
        assert_eq!(error.text(), "error: the manifest is refused\n  a:1:2: x\n  two\n  lines\nhint: fix it\n");
    }

    #[test]
    fn a_reader_that_went_away_is_no_error() {
        let error = CliError::io("can't write", io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(error.kind, Kind::ReaderGone);
    }
}
