//! The host side of a network card, for this library's own and for an embedder's.
//!
//! A [`NetBackend`] is one lane: the host's end of one pair of queues. A card with several pairs has
//! one for each, as a multi-queue tap has a descriptor for each.

use super::{Header, Offloads};
use std::io;
use std::os::fd::BorrowedFd;
use vm_memory::VolatileSlice;

/// What is fixed about a host side.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Properties {
    /// What frames may leave to be done, in both directions. None, if the host side has no place
    /// for a [`Header`].
    pub offloads: Offloads,
    /// The largest packet that passes, without the 14 bytes of Ethernet's header, if that is known.
    pub mtu: Option<u16>,
}

impl Properties {
    /// Those of a host side that knows nothing but whole frames.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets what frames may leave to be done.
    #[must_use]
    pub fn offloads(mut self, offloads: Offloads) -> Self {
        self.offloads = offloads;
        self
    }

    /// Sets the largest packet that passes.
    #[must_use]
    pub fn mtu(mut self, mtu: u16) -> Self {
        self.mtu = Some(mtu);
        self
    }
}

/// Why a frame did not pass.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// There is none to receive, or no room to send one. The descriptor tells when there is.
    #[error("the host side is busy")]
    Busy,
    /// This frame is lost. The next one may pass.
    #[error("the frame is lost")]
    Lost(#[source] io::Error),
    /// The link is down. The descriptor becomes writable when it is up again.
    #[error("the link is down")]
    Down,
    /// The host side has ended and does not come back.
    #[error("the host side is gone")]
    Gone(#[source] io::Error),
}

/// Where frames go to and come from.
///
/// It is called by one thread at a time, each lane by its own, and must not wait. The memory of
/// frames is guest memory, which may change at any time: what has to be looked at is copied first.
pub trait NetBackend: Send + 'static {
    /// What is fixed about it. The same at each call.
    fn properties(&self) -> Properties;

    /// From now on a received frame may leave this to be done, a part of what
    /// [`properties`](Self::properties) has. Called for lanes in use, when they come into use and
    /// whenever the driver changes its mind.
    fn set_offloads(&mut self, accepted: Offloads) -> io::Result<()> {
        let _ = accepted;
        Ok(())
    }

    /// Whether frames may come this way: of several lanes the driver may use only the first ones.
    /// Called when the driver is ready, and when a lane comes into use or goes out of it. Without a
    /// call a lane is in use.
    fn enable(&mut self, enabled: bool) -> io::Result<()> {
        let _ = enabled;
        Ok(())
    }

    /// What becomes readable when there is a frame to receive, and writable when one can be sent
    /// after [`Refusal::Busy`] or [`Refusal::Down`]. The same at each call.
    fn descriptor(&self) -> BorrowedFd<'_>;

    /// Sends a frame, as a whole or not at all. The header was checked: it asks for nothing that
    /// [`properties`](Self::properties) does not have.
    fn send(&mut self, header: &Header, frame: &[VolatileSlice<'_>]) -> Result<(), Refusal>;

    /// Goes on with a frame that was taken and is not out as a whole; [`Refusal::Busy`] while there
    /// is no room for the rest.
    fn flush(&mut self) -> Result<(), Refusal> {
        Ok(())
    }

    /// Whether [`receive`](Self::receive) has a frame although the descriptor may not be readable.
    fn is_pending(&self) -> bool {
        false
    }

    /// Receives a frame, of which as much is written as there is room for. Tells how long it is; one
    /// that is longer than the room is dropped by the caller. Leaves the header alone if it has
    /// nothing to say.
    fn receive(
        &mut self,
        header: &mut Header,
        room: &[VolatileSlice<'_>],
    ) -> Result<usize, Refusal>;
}
