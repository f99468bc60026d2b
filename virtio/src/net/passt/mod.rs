//! A network without privileges: passt, a program that ends the guest's connections and makes them
//! again as a user of the host.
//!
//! ```text
//!   Passt <== stream socket, frames with a length ==> passt -- sockets of the user --> the host's network
//! ```
//!
//! passt opens the ports that it was told to and goes into the background, so its start has worked
//! when the process that was started has ended, and what it says else is the reason. It ends when
//! its end of the socket is the only one: when the card is dropped, and also when this process is
//! killed. A passt that dies or talks nonsense costs the link.
//!
//! It takes no headers: guests make checksums themselves, and packets of up to 64 KiB instead of
//! segments, for it tells them an MTU that allows that.

pub mod error;
pub mod framing;
#[cfg(test)]
mod tests;

pub use error::PasstError;

use super::backend::{NetBackend, Properties, Refusal};
use super::header::Header;
use crate::sys;
use framing::Inbox;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair,
};
use std::ffi::OsString;
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::process::{Command, Stdio};
use vm_memory::VolatileSlice;

/// The largest packet: what passt tells the guest by DHCP.
const MTU: u16 = 65_520;

/// A port of the host that leads to one of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Publish {
    /// The address of the host; all of them, if none is said.
    pub address: Option<IpAddr>,
    /// The port of the host.
    pub host: u16,
    /// The port of the guest.
    pub guest: u16,
    /// Which ports are meant.
    pub protocol: Protocol,
}

/// A protocol that has ports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Publish {
    /// As passt wants to have it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(address) = self.address {
            write!(f, "{address}/")?;
        }
        write!(f, "{}:{}", self.host, self.guest)
    }
}

/// How passt is started.
#[derive(Debug, Clone)]
pub struct Options {
    program: OsString,
    address: Option<IpAddr>,
    publish: Vec<Publish>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            program: "passt".into(),
            address: None,
            publish: Vec::new(),
        }
    }
}

impl Options {
    /// Starts another program than the `passt` of the search path.
    #[must_use]
    pub fn program(mut self, program: impl Into<OsString>) -> Self {
        self.program = program.into();
        self
    }

    /// Gives the guest this address, instead of that of the host.
    #[must_use]
    pub fn address(mut self, address: IpAddr) -> Self {
        self.address = Some(address);
        self
    }

    /// Lets a port of the host lead to one of the guest.
    #[must_use]
    pub fn publish(mut self, publish: Publish) -> Self {
        self.publish.push(publish);
        self
    }

    /// Starts it. Returns when it has opened its ports.
    pub fn start(&self) -> Result<Passt, PasstError> {
        // Only ours is closed when another program is started: there is no other way to name a
        // descriptor to a child without code between fork and exec.
        let pair = |flags| socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None);
        let (ours, theirs) =
            pair(SocketFlags::CLOEXEC).map_err(|error| PasstError::Socket(error.into()))?;
        rustix::io::fcntl_setfd(&theirs, rustix::io::FdFlags::empty())
            .map_err(|error| PasstError::Socket(error.into()))?;
        let output = self.command(&theirs).output();
        drop(theirs);
        let output = output.map_err(|source| PasstError::Start {
            program: self.program.clone(),
            source,
        })?;
        if !output.status.success() {
            return Err(PasstError::Refused {
                status: output.status,
                said: last_words(&output.stderr),
            });
        }
        Ok(Passt::on(ours))
    }

    fn command(&self, socket: &OwnedFd) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg("--quiet")
            .arg("--fd")
            .arg(socket.as_raw_fd().to_string());
        if let Some(address) = self.address {
            command.arg("--address").arg(address.to_string());
        }
        for publish in &self.publish {
            let flag = match publish.protocol {
                Protocol::Tcp => "--tcp-ports",
                Protocol::Udp => "--udp-ports",
            };
            command.arg(flag).arg(publish.to_string());
        }
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }
}

/// What passt says when it gives up. It has no log to write to, and says that, too.
fn last_words(said: &[u8]) -> String {
    let said = String::from_utf8_lossy(said);
    let lines = said.lines().map(str::trim);
    let mut lines = lines.filter(|line| {
        !line.is_empty() && !line.contains("to syslog") && !line.starts_with("Don't run as root")
    });
    // The last one is why, and may be of any length.
    let line = lines.next_back().unwrap_or("nothing");
    line.chars().filter(|c| !c.is_control()).take(200).collect()
}

/// A card's end of a stream of frames, as passt and QEMU's stream sockets have it.
#[derive(Debug)]
pub struct Passt {
    socket: OwnedFd,
    inbox: Inbox,
    /// The rest of a frame that was taken.
    backlog: Vec<u8>,
    /// How much of that is out.
    flushed: usize,
}

impl Passt {
    /// How passt is to be started.
    pub fn options() -> Options {
        Options::default()
    }

    /// A stream whose other end somebody else has.
    pub fn on(socket: OwnedFd) -> Passt {
        Passt {
            socket,
            inbox: Inbox::default(),
            backlog: Vec::with_capacity(super::pair::MAX_FRAME),
            flushed: 0,
        }
    }

    /// Keeps what is left of a frame behind its first `gone` bytes, length included.
    fn keep(&mut self, prefix: &[u8], frame: &[VolatileSlice<'_>], gone: usize) {
        self.flushed = 0;
        self.backlog.clear();
        self.backlog
            .extend_from_slice(prefix.get(gone..).unwrap_or_default());
        let mut skip = gone.saturating_sub(prefix.len());
        for slice in frame {
            let skipped = skip.min(slice.len());
            skip -= skipped;
            if let Ok(rest) = slice.offset(skipped) {
                let start = self.backlog.len();
                self.backlog.resize(start + rest.len(), 0);
                rest.copy_to(self.backlog.get_mut(start..).unwrap_or_default());
            }
        }
    }
}

impl NetBackend for Passt {
    fn properties(&self) -> Properties {
        Properties::new().mtu(MTU)
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn send(&mut self, _header: &Header, frame: &[VolatileSlice<'_>]) -> Result<(), Refusal> {
        self.flush()?;
        let len = frame.iter().map(VolatileSlice::len).sum();
        let prefix = framing::prefix(len);
        match sys::send(self.socket.as_fd(), &prefix, frame) {
            Ok(gone) if gone < prefix.len() + len => self.keep(&prefix, frame, gone),
            Ok(_) => {}
            Err(error) => return Err(refusal(error)),
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Refusal> {
        while let Some(rest) = self.backlog.get(self.flushed..)
            && !rest.is_empty()
        {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            let gone = send(&self.socket, rest, flags).map_err(|error| refusal(error.into()))?;
            self.flushed += gone;
        }
        self.backlog.clear();
        self.flushed = 0;
        Ok(())
    }

    fn is_pending(&self) -> bool {
        self.inbox.is_ready()
    }

    fn receive(
        &mut self,
        _header: &mut Header,
        room: &[VolatileSlice<'_>],
    ) -> Result<usize, Refusal> {
        loop {
            if self.inbox.is_ready() {
                let frame = self.inbox.take().map_err(Refusal::Gone)?;
                let mut rest = frame.unwrap_or_default();
                let len = rest.len();
                for slice in room {
                    slice.copy_from(rest);
                    rest = rest.get(slice.len()..).unwrap_or_default();
                }
                return Ok(len);
            }
            let room = self.inbox.room();
            match recv(&self.socket, room, RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Err(Refusal::Gone(ErrorKind::UnexpectedEof.into())),
                Ok((count, _)) => self.inbox.advance(count),
                Err(error) => {
                    return Err(match refusal(error.into()) {
                        Refusal::Lost(error) => Refusal::Gone(error),
                        other => other,
                    });
                }
            }
        }
    }
}

/// What an error of the socket means.
fn refusal(error: io::Error) -> Refusal {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::Interrupted => Refusal::Busy,
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::NotConnected => {
            Refusal::Gone(error)
        }
        _ => Refusal::Lost(error),
    }
}
