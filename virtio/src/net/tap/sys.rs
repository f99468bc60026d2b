//! The ioctls of taps and bridges. The unsafe code of taps is all here.
//!
//! Most take a `struct ifreq`, which is a name and a union of 24 bytes: here those are bytes, so that
//! a request is built and read without unions.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

// include/uapi/linux/if_tun.h
pub(super) const IFF_TUN: u16 = 0x0001;
pub(super) const IFF_TAP: u16 = 0x0002;
pub(super) const IFF_MULTI_QUEUE: u16 = 0x0100;
pub(super) const IFF_ATTACH_QUEUE: u16 = 0x0200;
pub(super) const IFF_DETACH_QUEUE: u16 = 0x0400;
pub(super) const IFF_NO_PI: u16 = 0x1000;
pub(super) const IFF_VNET_HDR: u16 = 0x4000;
pub(super) const TUN_F_CSUM: u32 = 0x01;
pub(super) const TUN_F_TSO4: u32 = 0x02;
pub(super) const TUN_F_TSO6: u32 = 0x04;
pub(super) const TUN_F_TSO_ECN: u32 = 0x08;
// include/uapi/linux/if.h
pub(super) const IFF_UP: u16 = 1;

/// An ioctl on a request.
#[derive(Debug, Clone, Copy)]
#[repr(u32)]
pub(super) enum Command {
    TunSetIff = 0x4004_54ca,
    TunGetIff = 0x8004_54d2,
    TunSetQueue = 0x4004_54d9,
    GetFlags = 0x8913,
    SetFlags = 0x8914,
    GetMtu = 0x8921,
    GetIndex = 0x8933,
    BridgeAddIf = 0x89a2,
}

/// An ioctl on a number.
#[derive(Debug, Clone, Copy)]
#[repr(u32)]
pub(super) enum Setting {
    /// By value.
    Offload = 0x4004_54d0,
    /// By reference.
    HeaderSize = 0x4004_54d8,
    /// By reference.
    LittleEndian = 0x4004_54dc,
}

/// `struct ifreq`.
#[repr(C, align(8))]
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Request {
    name: [u8; 16],
    value: [u8; 24],
}

impl Request {
    /// About an interface. Names are shorter than 16 bytes; what is longer is cut.
    pub(super) fn new(name: &str) -> Self {
        let mut request = Request::default();
        for (to, from) in request.name.iter_mut().zip(name.bytes().take(15)) {
            *to = from;
        }
        request
    }

    /// The name that the kernel has put there.
    pub(super) fn name(&self) -> String {
        let name = self.name.split(|byte| *byte == 0).next();
        String::from_utf8_lossy(name.unwrap_or_default()).into_owned()
    }

    pub(super) fn flags(&self) -> u16 {
        let [b0, b1, ..] = self.value;
        u16::from_ne_bytes([b0, b1])
    }

    #[must_use]
    pub(super) fn with_flags(mut self, flags: u16) -> Self {
        let [b0, b1, ..] = &mut self.value;
        [*b0, *b1] = flags.to_ne_bytes();
        self
    }

    pub(super) fn number(&self) -> i32 {
        let [b0, b1, b2, b3, ..] = self.value;
        i32::from_ne_bytes([b0, b1, b2, b3])
    }

    #[must_use]
    pub(super) fn with_number(mut self, number: i32) -> Self {
        let [b0, b1, b2, b3, ..] = &mut self.value;
        [*b0, *b1, *b2, *b3] = number.to_ne_bytes();
        self
    }
}

/// Makes a request, which the kernel may write the answer to.
pub(super) fn request(
    fd: BorrowedFd<'_>,
    command: Command,
    request: &mut Request,
) -> io::Result<()> {
    // The type of the number differs from libc to libc.
    let number = command as u32 as _;
    // SAFETY: each `Command` takes a pointer to a `struct ifreq`, of which `Request` has size and
    // layout. The kernel writes no more than that, and keeps no pointer.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), number, std::ptr::from_mut(request)) };
    done(result)
}

/// Sets something about a tap.
pub(super) fn set(fd: BorrowedFd<'_>, setting: Setting, value: u32) -> io::Result<()> {
    let number = setting as u32 as _;
    let result = match setting {
        // SAFETY: takes its argument by value, and touches no memory of ours.
        Setting::Offload => unsafe {
            libc::ioctl(fd.as_raw_fd(), number, libc::c_ulong::from(value))
        },
        // SAFETY: these read an int from the pointer, which is good until the call returns.
        Setting::HeaderSize | Setting::LittleEndian => unsafe {
            libc::ioctl(fd.as_raw_fd(), number, &raw const value)
        },
    };
    done(result)
}

fn done(result: libc::c_int) -> io::Result<()> {
    match result {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
