//! Why there is no network without privileges, and what to do.

use super::publish::Protocol;
use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::process::ExitStatus;
use std::time::Duration;

/// Why passt does not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PasstError {
    /// A port that was to be published is not to be had.
    #[error("publishing {protocol} port {port} of {address}")]
    Port {
        /// Which ports are meant.
        protocol: Protocol,
        /// The port of the host.
        port: u16,
        /// Of which address.
        address: IpAddr,
        /// Why.
        source: io::Error,
    },
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
    /// It does not get ready.
    #[error("passt was not ready after {0:?}, and was ended")]
    Slow(Duration),
}

impl PasstError {
    /// What the user can do.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            PasstError::Start { source, .. } if source.kind() == ErrorKind::NotFound => Some(
                "user networking is done by passt: sudo apt install passt (or see https://passt.top)",
            ),
            PasstError::Port { source, .. } => match source.kind() {
                ErrorKind::AddrInUse => Some("another program has the port: ss -lntup tells which"),
                ErrorKind::PermissionDenied => Some("ports below 1024 are for root alone"),
                ErrorKind::AddrNotAvailable => Some("it has to be an address of this host"),
                _ => None,
            },
            _ => None,
        }
    }
}
