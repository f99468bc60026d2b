//! A wire between two cards of one host, or between a card and a program: a pair of connected sockets
//! that keep packets whole.
//!
//! ```no_run
//! use virtio::net::{Mac, Net, Wire};
//!
//! let (left, right) = Wire::pair()?;
//! let one = Net::new(left, Mac::of_name("one"))?;
//! let other = Net::new(right, Mac::of_name("other"))?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A frame is one packet, without a header: there is no place to say what is left to do, so guests
//! make checksums and segments themselves. The kernel keeps some frames for an end that is slow.
//! When one end is closed, the link at the other one is down for good.

use super::backend::{NetBackend, Properties, Refusal};
use super::header::Header;
use crate::sys;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use vm_memory::VolatileSlice;

/// One end of a wire.
#[derive(Debug)]
pub struct Wire {
    socket: OwnedFd,
    mtu: u16,
}

impl Wire {
    /// Two ends of a new wire.
    pub fn pair() -> io::Result<(Wire, Wire)> {
        let (one, other) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )?;
        Ok((Wire::on(one), Wire::on(other)))
    }

    /// An end whose other one somebody else has: a socket that keeps packets whole.
    pub fn on(socket: OwnedFd) -> Wire {
        Wire { socket, mtu: 1500 }
    }

    /// Sets the MTU that guests are told; 1500 is the default.
    #[must_use]
    pub fn mtu(mut self, mtu: u16) -> Wire {
        self.mtu = mtu;
        self
    }

    /// The socket, for a program that wants to be the other end: each packet is a frame.
    pub fn into_socket(self) -> OwnedFd {
        self.socket
    }
}

impl NetBackend for Wire {
    fn properties(&self) -> Properties {
        Properties::new().mtu(self.mtu)
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn send(&mut self, _header: &Header, frame: &[VolatileSlice<'_>]) -> Result<(), Refusal> {
        match sys::send(self.socket.as_fd(), &[], frame) {
            Ok(_) => Ok(()),
            Err(error) => Err(refusal(error)),
        }
    }

    fn receive(
        &mut self,
        _header: &mut Header,
        room: &[VolatileSlice<'_>],
    ) -> Result<usize, Refusal> {
        match sys::receive_packet(self.socket.as_fd(), room) {
            // A frame has at least its header.
            Ok(0) => Err(Refusal::Gone(ErrorKind::UnexpectedEof.into())),
            Ok(len) => Ok(len),
            Err(error) => Err(refusal(error)),
        }
    }
}

/// What an error of a socket means.
fn refusal(error: io::Error) -> Refusal {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::Interrupted => Refusal::Busy,
        ErrorKind::BrokenPipe
        | ErrorKind::ConnectionReset
        | ErrorKind::ConnectionRefused
        | ErrorKind::NotConnected => Refusal::Gone(error),
        _ => Refusal::Lost(error),
    }
}
