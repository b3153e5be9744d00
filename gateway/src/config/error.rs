//! What is wrong with a configuration: where it was written, which key, what was found, what to write instead.

use std::fmt;
use std::path::PathBuf;

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the file; line and column from 1, columns in characters.
    File {
        /// The file as named by the operator.
        path: PathBuf,
        /// Line.
        line: usize,
        /// Column.
        column: usize,
    },
    /// In this environment variable.
    Env(String),
    /// As this flag.
    Flag(&'static str),
    /// Nowhere: a default, or a [`Config`](super::Config) built by a program.
    Unwritten,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line, column } => write!(f, "{}:{line}:{column}", path.display()),
            Self::Env(name) => f.write_str(name),
            Self::Flag(name) => f.write_str(name),
            Self::Unwritten => f.write_str("configuration"),
        }
    }
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The file cannot be read.
    #[error("cannot read the file: {cause}")]
    Unreadable {
        /// The system's words.
        cause: String,
    },
    /// The file is not TOML.
    #[error("not TOML: {cause}")]
    Syntax {
        /// The parser's words.
        cause: String,
    },
    /// No such key.
    #[error("unknown key `{key}`{}", suggest(.suggestion.as_deref()))]
    Unknown {
        /// The key as written.
        key: String,
        /// The key that was probably meant.
        suggestion: Option<String>,
    },
    /// A value of the wrong type or out of range.
    #[error("`{key}` is {found}; write {wanted}")]
    Value {
        /// The key.
        key: String,
        /// The value as written.
        found: String,
        /// What is allowed.
        wanted: String,
    },
    /// A key that must be given is not.
    #[error("`{key}` is missing; write {wanted}")]
    Missing {
        /// The key.
        key: String,
        /// What is allowed.
        wanted: String,
    },
}

fn suggest(suggestion: Option<&str>) -> String {
    suggestion.map_or_else(String::new, |key| format!("; did you mean `{key}`?"))
}

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct ConfigError {
    /// Where it was written.
    pub place: Place,
    /// What is wrong.
    pub problem: Problem,
}

/// Everything wrong with a configuration, one line each; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    /// The first of them, at most [`ConfigErrors::KEPT`].
    pub errors: Vec<ConfigError>,
    /// How many there are beyond those.
    pub more: usize,
}

impl ConfigErrors {
    /// Errors reported one by one; more are only counted.
    pub const KEPT: usize = 20;

    pub(super) fn one(place: Place, problem: Problem) -> Self {
        Self { errors: vec![ConfigError { place, problem }], more: 0 }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.errors.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        if self.more > 0 {
            write!(f, "\nand {} more", self.more)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
