//! One error for every backend: what kind it is, which operation failed, and whether a retry can help.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

/// A result with Kip's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, by meaning. Backends map vendor codes to these in one tested function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The thing does not exist (any more). From `terminate` it means: really gone.
    NotFound,
    /// The thing exists already, with other content.
    AlreadyExists,
    /// Somebody else changed it first; read again.
    Conflict,
    /// The request can never be right, whoever sends it.
    InvalidRequest,
    /// The configuration is wrong.
    ConfigInvalid,
    /// The peer does not know who we are.
    Unauthenticated,
    /// The peer knows who we are and refuses.
    PermissionDenied,
    /// An account limit is reached.
    QuotaExceeded,
    /// The cloud has none of this offering now.
    InsufficientCapacity,
    /// Too many requests.
    RateLimited,
    /// The peer cannot be reached or is broken for now.
    Unavailable,
    /// No answer in time: the effect may or may not have happened.
    Timeout,
    /// This implementation cannot do that.
    Unsupported,
    /// Anything else: a bug, or a peer that breaks its contract.
    Unexpected,
}

impl ErrorKind {
    /// The kind as a stable `snake_case` word, for metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::AlreadyExists => "already_exists",
            Self::Conflict => "conflict",
            Self::InvalidRequest => "invalid_request",
            Self::ConfigInvalid => "config_invalid",
            Self::Unauthenticated => "unauthenticated",
            Self::PermissionDenied => "permission_denied",
            Self::QuotaExceeded => "quota_exceeded",
            Self::InsufficientCapacity => "insufficient_capacity",
            Self::RateLimited => "rate_limited",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::Unsupported => "unsupported",
            Self::Unexpected => "unexpected",
        }
    }

    /// What a retry is worth when nothing better is known.
    pub const fn default_retry(self) -> Retry {
        match self {
            Self::Conflict | Self::RateLimited | Self::Unavailable | Self::Timeout => Retry::After(None),
            Self::InsufficientCapacity => Retry::Elsewhere,
            Self::QuotaExceeded => Retry::After(None),
            Self::NotFound
            | Self::AlreadyExists
            | Self::InvalidRequest
            | Self::ConfigInvalid
            | Self::Unauthenticated
            | Self::PermissionDenied
            | Self::Unsupported
            | Self::Unexpected => Retry::Never,
        }
    }
}

/// Whether trying again can help, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Retry {
    /// It will not change by itself.
    Never,
    /// The same call may work later; the peer's own hint, when it gave one.
    After(Option<Duration>),
    /// This offering is dry, others may not be: place again without it.
    Elsewhere,
    /// The whole zone is, whatever is asked for there, as when it has no addresses left: place again in another. A dearer type of the same
    /// zone would not help.
    OtherZone,
    /// It was [`Retry::After`], and the retries are used up.
    Spent,
}

/// An error with its kind, the operation, what a retry is worth, context and source.
///
/// One pointer wide. `Display` is one line and never repeats the source; [`Error::chain`] prints all of it.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    retry: Retry,
    operation: &'static str,
    message: String,
    context: Vec<(&'static str, String)>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of `kind` in `operation` (a short stable name such as `launch`), with the kind's default retry.
    pub fn new(kind: ErrorKind, operation: &'static str, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            retry: kind.default_retry(),
            operation,
            message: message.into(),
            context: Vec::new(),
            source: None,
        }))
    }

    /// Adds the error that caused this one.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Adds a key and value a reader needs: an id, a field, an address. Never a secret.
    #[must_use]
    pub fn with_context(mut self, key: &'static str, value: impl fmt::Display) -> Self {
        self.0.context.push((key, value.to_string()));
        self
    }

    /// Replaces what a retry is worth.
    #[must_use]
    pub fn with_retry(mut self, retry: Retry) -> Self {
        self.0.retry = retry;
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether trying again can help.
    pub fn retry(&self) -> Retry {
        self.0.retry
    }

    /// The operation that failed.
    pub fn operation(&self) -> &'static str {
        self.0.operation
    }

    /// The message alone, without operation and context.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Whether the effect may have happened although the call failed: the caller must look before it acts again.
    pub fn is_ambiguous(&self) -> bool {
        matches!(
            self.kind(),
            ErrorKind::Timeout | ErrorKind::Unavailable | ErrorKind::Unexpected
        )
    }

    /// The whole chain of causes in one line, for logs.
    pub fn chain(&self) -> Chain<'_> {
        Chain(self)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.operation, self.0.message)?;
        for (i, (key, value)) in self.0.context.iter().enumerate() {
            let open = if i == 0 { " (" } else { ", " };
            write!(f, "{open}{key}={value}")?;
        }
        if !self.0.context.is_empty() {
            f.write_str(")")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}/{:?} {}", self.0.kind, self.0.retry, self.chain())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0
            .source
            .as_deref()
            .map(|source| source as &(dyn StdError + 'static))
    }
}

/// Prints an error and all its causes, joined by `: `.
#[derive(Debug)]
pub struct Chain<'a>(&'a (dyn StdError + 'static));

impl<'a> Chain<'a> {
    /// The chain of any error.
    pub fn of(error: &'a (dyn StdError + 'static)) -> Self {
        Self(error)
    }
}

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut next = self.0.source();
        while let Some(cause) = next {
            write!(f, ": {cause}")?;
            next = cause.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_is_one_pointer_wide_so_results_stay_small() {
        assert_eq!(size_of::<Error>(), size_of::<usize>());
    }

    #[test]
    fn display_is_one_line_without_the_source_and_the_chain_has_all_of_it() {
        let error = Error::new(ErrorKind::Unavailable, "launch", "no answer")
            .with_context("offering", "small/z1/on-demand")
            .with_source(std::io::Error::other("connection reset"));
        assert_eq!(
            error.to_string(),
            "launch: no answer (offering=small/z1/on-demand)"
        );
        assert_eq!(
            error.chain().to_string(),
            "launch: no answer (offering=small/z1/on-demand): connection reset"
        );
        assert_eq!(error.retry(), Retry::After(None));
        assert!(error.is_ambiguous());
    }
}
