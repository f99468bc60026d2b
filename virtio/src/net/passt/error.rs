//! Why there is no network without privileges, and what to do.

use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::process::ExitStatus;

/// Why passt does not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PasstError {
    /// There is no socket to talk to it.
    #[error("making a socket for passt")]
    Socket(#[source] io::Error),
    /// It could not be started.
    #[error("starting {program:?}")]
    Start {
        /// What was to be started.
        program: OsString,
        /// Why.
        source: io::Error,
    },
    /// It has given up.
    #[error("passt gave up ({status}) and said: {said}")]
    Refused {
        /// How it ended.
        status: ExitStatus,
        /// The last line that it printed.
        said: String,
    },
}

impl PasstError {
    /// What the user can do.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            PasstError::Start { source, .. } if source.kind() == ErrorKind::NotFound => Some(
                "user networking is done by passt: sudo apt install passt (or see https://passt.top)",
            ),
            PasstError::Refused { said, .. } if said.contains("bind") => {
                Some("a published port is in use, or below 1024 and for root alone")
            }
            _ => None,
        }
    }
}
