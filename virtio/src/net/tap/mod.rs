//! A tap: an interface of the host whose other end is the guest.
//!
//! It takes and gives headers, so checksums and segments are left to whoever needs them at last:
//! between two guests of one host that is nobody. With several lanes, each is a descriptor of the same
//! interface; one that the driver does not use is detached, so that no frame gets lost there.
//!
//! Linux tells that a tap is down by failing writes with `EIO`, and that it is up again by making
//! it writable; that it was deleted by `EBADFD`, for good: a tap that is made under the same name is
//! another one, which takes another card. The guest sees in both cases that its link is down.

pub mod error;
mod sys;
#[cfg(test)]
mod tests;

pub use error::TapError;

use super::backend::{NetBackend, Properties, Refusal};
use super::header::{HEADER_LEN, Header, Offloads};
use crate::sys as packets;
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use sys::{Command, Request, Setting};
use vm_memory::VolatileSlice;

/// Where taps are made.
const TUN: &str = "/dev/net/tun";

/// How interfaces are called that are made for a bridge; the kernel puts a number in.
const ON_BRIDGE: &str = "hype%d";

/// A descriptor of a tap.
#[derive(Debug)]
pub struct Tap {
    fd: OwnedFd,
    name: String,
    mtu: u16,
    offloads: Offloads,
    has_headers: bool,
    /// Whether frames may come, where several lanes share the tap.
    attached: Option<bool>,
}

impl Tap {
    /// The tap of this name. If there is none it is made, and goes with its last descriptor.
    pub fn open(name: &str) -> Result<Tap, TapError> {
        let lanes = Self::open_lanes(name, 1)?;
        lanes.into_iter().next().ok_or(TapError::Lanes(0))
    }

    /// Several lanes of the tap of this name, which has to be a multi-queue one if it exists.
    pub fn open_lanes(name: &str, count: usize) -> Result<Vec<Tap>, TapError> {
        check_name(name)?;
        if !(1..=super::MAX_PAIRS).contains(&count) {
            return Err(TapError::Lanes(count));
        }
        let interface = Interface::named(name);
        let existed = interface.index().is_ok();
        let lanes = Self::attach_all(name, count)?;
        if !existed {
            // Nobody else knows of it yet.
            interface.set_up()?;
        }
        Ok(lanes)
    }

    /// A new tap that is joined to a bridge, with several lanes. It goes with its last descriptor.
    pub fn open_on_bridge(bridge: &str, count: usize) -> Result<Vec<Tap>, TapError> {
        check_name(bridge)?;
        if !(1..=super::MAX_PAIRS).contains(&count) {
            return Err(TapError::Lanes(count));
        }
        // Before anything is made: a bridge that is not there is the likeliest mistake.
        Interface::named(bridge)
            .index()
            .map_err(|source| TapError::NoBridge {
                bridge: bridge.to_owned(),
                source,
            })?;
        let mut lanes = Self::attach_all(ON_BRIDGE, 1.max(count))?;
        if let Some(tap) = lanes.first() {
            let interface = Interface::named(&tap.name);
            interface.join(bridge)?;
            interface.set_up()?;
        }
        // It has the bridge's by now.
        for tap in &mut lanes {
            tap.mtu = Interface::named(&tap.name).mtu()?;
        }
        Ok(lanes)
    }

    /// A tap that somebody else has opened: in the way that frames have no other prefix than
    /// (perhaps) a header.
    pub fn from_fd(fd: OwnedFd) -> Result<Tap, TapError> {
        let mut request = Request::default();
        sys::request(fd.as_fd(), Command::TunGetIff, &mut request).map_err(TapError::NotATap)?;
        let flags = request.flags();
        if flags & sys::IFF_TUN != 0 || flags & sys::IFF_TAP == 0 || flags & sys::IFF_NO_PI == 0 {
            let name = request.name();
            return Err(TapError::Flags { name, flags });
        }
        // Frames are never waited for.
        rustix::io::ioctl_fionbio(&fd, true).map_err(|error| TapError::NotATap(error.into()))?;
        Self::set_up(fd, request.name(), flags, false)
    }

    /// The interface's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Opens that many descriptors of one tap.
    fn attach_all(name: &str, count: usize) -> Result<Vec<Tap>, TapError> {
        let shared = count > 1;
        let first = match Self::attach(name, shared) {
            // One lane of a tap that can have more.
            Err(TapError::Attach { source, .. })
                if !shared && source.raw_os_error() == Some(libc::EINVAL) =>
            {
                Self::attach(name, true)
            }
            first => first,
        }?;
        let name = first.name.clone();
        let mut lanes = vec![first];
        while lanes.len() < count {
            lanes.push(Self::attach(&name, true)?);
        }
        Ok(lanes)
    }

    fn attach(name: &str, multi_queue: bool) -> Result<Tap, TapError> {
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = rustix::fs::open(TUN, flags, Mode::empty())
            .map_err(|error| TapError::NoTun(error.into()))?;
        let mut flags = sys::IFF_TAP | sys::IFF_NO_PI | sys::IFF_VNET_HDR;
        if multi_queue {
            flags |= sys::IFF_MULTI_QUEUE;
        }
        let mut request = Request::new(name).with_flags(flags);
        sys::request(fd.as_fd(), Command::TunSetIff, &mut request).map_err(|source| {
            TapError::Attach {
                name: name.to_owned(),
                multi_queue,
                source,
            }
        })?;
        Self::set_up(fd, request.name(), flags, multi_queue)
    }

    /// Agrees on the form of headers, and finds out what the kernel can do.
    fn set_up(fd: OwnedFd, name: String, flags: u16, shared: bool) -> Result<Tap, TapError> {
        let failed = |what| {
            let name = name.clone();
            move |source| TapError::SetUp { name, what, source }
        };
        let has_headers = flags & sys::IFF_VNET_HDR != 0;
        let mut offloads = Offloads::empty();
        if has_headers {
            sys::set(fd.as_fd(), Setting::HeaderSize, HEADER_LEN as u32)
                .map_err(failed("setting the size of its headers"))?;
            sys::set(fd.as_fd(), Setting::LittleEndian, 1)
                .map_err(failed("setting the byte order of its headers"))?;
            // None, until the driver has said what it takes.
            sys::set(fd.as_fd(), Setting::Offload, 0).map_err(failed("setting its offloads"))?;
            offloads = Offloads::all();
        }
        let mtu = Interface::named(&name).mtu()?;
        Ok(Tap {
            fd,
            name,
            mtu,
            offloads,
            has_headers,
            attached: shared.then_some(true),
        })
    }

    fn header<'h>(&self, bytes: &'h [u8; HEADER_LEN]) -> &'h [u8] {
        if self.has_headers { bytes } else { &[] }
    }
}

impl NetBackend for Tap {
    fn properties(&self) -> Properties {
        Properties::new().offloads(self.offloads).mtu(self.mtu)
    }

    fn set_offloads(&mut self, accepted: Offloads) -> io::Result<()> {
        if !self.has_headers {
            return Ok(());
        }
        let segments = accepted.intersects(Offloads::TSO4 | Offloads::TSO6);
        let flags = [
            (Offloads::CHECKSUM, sys::TUN_F_CSUM),
            (Offloads::TSO4, sys::TUN_F_TSO4),
            (Offloads::TSO6, sys::TUN_F_TSO6),
            // Refused where there is nothing to segment.
            (Offloads::ECN, if segments { sys::TUN_F_TSO_ECN } else { 0 }),
        ];
        let value = flags
            .iter()
            .filter(|(one, _)| accepted.contains(*one))
            .fold(0, |value, (_, flag)| value | flag);
        sys::set(self.fd.as_fd(), Setting::Offload, value)
    }

    fn enable(&mut self, enabled: bool) -> io::Result<()> {
        if self.attached.is_none_or(|attached| attached == enabled) {
            return Ok(());
        }
        let flag = if enabled {
            sys::IFF_ATTACH_QUEUE
        } else {
            sys::IFF_DETACH_QUEUE
        };
        let mut request = Request::default().with_flags(flag);
        sys::request(self.fd.as_fd(), Command::TunSetQueue, &mut request)?;
        self.attached = Some(enabled);
        Ok(())
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn send(&mut self, header: &Header, frame: &[VolatileSlice<'_>]) -> Result<(), Refusal> {
        let bytes = header.to_bytes();
        match packets::write_packet(self.fd.as_fd(), self.header(&bytes), frame) {
            Ok(_) => Ok(()),
            Err(error) if is_busy(&error) => Err(Refusal::Busy),
            Err(error) => Err(match error.raw_os_error() {
                Some(libc::EIO) => Refusal::Down,
                Some(libc::EBADFD | libc::EBADF | libc::ENODEV) => Refusal::Gone(error),
                _ => Refusal::Lost(error),
            }),
        }
    }

    fn receive(
        &mut self,
        header: &mut Header,
        room: &[VolatileSlice<'_>],
    ) -> Result<usize, Refusal> {
        let mut bytes = [0; HEADER_LEN];
        let len = if self.has_headers { HEADER_LEN } else { 0 };
        let before = bytes.get_mut(..len).unwrap_or_default();
        // A frame that is longer than the room would be cut short without a word.
        let mut beyond = [0];
        match packets::read_packet(self.fd.as_fd(), before, room, &mut beyond) {
            Ok(count) => {
                *header = Header::from_bytes(bytes);
                Ok(count.saturating_sub(len))
            }
            Err(error) if is_busy(&error) => Err(Refusal::Busy),
            Err(error) => Err(Refusal::Gone(error)),
        }
    }
}

fn is_busy(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// An interface of the host by its name.
struct Interface<'n>(&'n str);

impl<'n> Interface<'n> {
    fn named(name: &'n str) -> Self {
        Interface(name)
    }

    fn ask(&self, command: Command, request: Request) -> io::Result<Request> {
        let socket = socket_with(
            AddressFamily::INET,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC,
            None,
        )?;
        let mut request = request;
        sys::request(socket.as_fd(), command, &mut request)?;
        Ok(request)
    }

    fn index(&self) -> io::Result<i32> {
        let answer = self.ask(Command::GetIndex, Request::new(self.0))?;
        Ok(answer.number())
    }

    fn failed(&self, what: &'static str) -> impl Fn(io::Error) -> TapError {
        let name = self.0.to_owned();
        move |source| TapError::SetUp {
            name: name.clone(),
            what,
            source,
        }
    }

    fn mtu(&self) -> Result<u16, TapError> {
        let answer = self.ask(Command::GetMtu, Request::new(self.0));
        let mtu = answer.map_err(self.failed("asking for its MTU"))?.number();
        Ok(u16::try_from(mtu).unwrap_or(u16::MAX))
    }

    fn set_up(&self) -> Result<(), TapError> {
        let failed = self.failed("setting it up");
        let now = self.ask(Command::GetFlags, Request::new(self.0));
        let up = now.map_err(&failed)?.flags() | sys::IFF_UP;
        self.ask(Command::SetFlags, Request::new(self.0).with_flags(up))
            .map_err(&failed)?;
        Ok(())
    }

    fn join(&self, bridge: &str) -> Result<(), TapError> {
        let joined = self.index().and_then(|index| {
            let request = Request::new(bridge).with_number(index);
            self.ask(Command::BridgeAddIf, request)
        });
        match joined {
            Ok(_) => Ok(()),
            Err(source) => Err(TapError::Join {
                bridge: bridge.to_owned(),
                source,
            }),
        }
    }
}

/// What the kernel takes for a name.
fn check_name(name: &str) -> Result<(), TapError> {
    let fits = (1..16).contains(&name.len());
    let allowed = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':' | b'%');
    if !fits || matches!(name, "." | "..") || !name.bytes().all(allowed) {
        let name = name.to_owned();
        return Err(TapError::Name { name });
    }
    Ok(())
}
