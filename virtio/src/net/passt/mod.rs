//! A network without privileges: passt, a program that ends the guest's connections and makes them
//! again as a user of the host.
//!
//! ```text
//!   Passt <== stream socket, frames with a length ==> passt -- sockets of the user --> the host's network
//! ```
//!
//! passt ends when its end of the socket is the only one: when the card is dropped, and also when this
//! process is killed. A passt that dies or talks nonsense costs the link. How it is started is told in
//! [`start`].
//!
//! It takes no headers: guests make checksums themselves, and packets of up to 64 KiB instead of
//! segments, for it tells them an MTU that allows that.

pub mod error;
pub mod framing;
pub mod publish;
pub mod start;
#[cfg(test)]
mod tests;

pub use error::PasstError;
pub use publish::{Protocol, Publish};
pub use start::Options;

use super::backend::{NetBackend, Properties, Refusal};
use super::header::Header;
use crate::sys;
use framing::Inbox;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use vm_memory::VolatileSlice;

/// The largest packet: what passt tells the guest by DHCP.
const MTU: u16 = 65_520;

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
