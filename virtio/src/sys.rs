//! The system calls that move bytes between guest memory and a descriptor, for which no crate has a
//! safe form: vectored reads and writes, at a place of a file or as a packet. The unsafe code for
//! this is all here.
//!
//! What they have in common is an array of `struct iovec` on the stack, so that a call allocates
//! nothing. A read or write of a file may be short, and the caller goes on with the rest; a packet
//! is moved by one call or not at all.

use std::io::{self, ErrorKind};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use vm_memory::VolatileSlice;

/// How many buffers one call takes: those of a chain, some more where regions of memory border on
/// each other, and what goes before and behind.
pub(crate) const MAX_BUFFERS: usize = 520;

/// Buffers as the kernel wants to have them named.
struct Vectors<'b> {
    list: [MaybeUninit<libc::iovec>; MAX_BUFFERS],
    count: usize,
    /// The memory is lent for as long as this lives.
    lent: PhantomData<&'b mut [u8]>,
}

impl<'b> Vectors<'b> {
    fn new() -> Self {
        Vectors {
            list: [const { MaybeUninit::uninit() }; MAX_BUFFERS],
            count: 0,
            lent: PhantomData,
        }
    }

    /// Adds a buffer that the kernel may write. Tells whether there was room.
    fn add_mut(&mut self, bytes: &'b mut [u8]) -> bool {
        self.add_raw(bytes.as_mut_ptr(), bytes.len())
    }

    /// Adds a buffer for a call in which the kernel only reads.
    fn add_const(&mut self, bytes: &'b [u8]) -> bool {
        self.add_raw(bytes.as_ptr().cast_mut(), bytes.len())
    }

    /// Adds guest memory, as much of it as there is room for. Tells whether that was all.
    fn add_slices(&mut self, slices: &'b [VolatileSlice<'_>]) -> bool {
        slices
            .iter()
            .all(|slice| self.add_raw(slice.ptr_guard_mut().as_ptr(), slice.len()))
    }

    fn add_raw(&mut self, base: *mut u8, len: usize) -> bool {
        let Some(vector) = self.list.get_mut(self.count) else {
            return false;
        };
        vector.write(libc::iovec {
            iov_base: base.cast(),
            iov_len: len,
        });
        self.count += 1;
        true
    }

    /// Where the vectors are. [`len`](Self::len) of them were written.
    fn as_ptr(&self) -> *const libc::iovec {
        self.list.as_ptr().cast()
    }

    fn len(&self) -> libc::c_int {
        // At most `MAX_BUFFERS`.
        self.count as libc::c_int
    }

    /// The header of a message that consists of these buffers.
    fn message(&mut self) -> libc::msghdr {
        // SAFETY: a `msghdr` of zeroes is a valid one: no name, no buffers, no ancillary data.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = self.list.as_mut_ptr().cast();
        // Its type differs from libc to libc; it is at most `MAX_BUFFERS`.
        message.msg_iovlen = self.count as _;
        message
    }
}

/// Reads from `offset` of a file into memory, as `preadv(2)`.
pub(crate) fn preadv(
    file: BorrowedFd<'_>,
    buffers: &[VolatileSlice<'_>],
    offset: u64,
) -> io::Result<usize> {
    let offset = file_offset(offset)?;
    let mut vectors = Vectors::new();
    vectors.add_slices(buffers);
    // SAFETY: the vectors name memory that is lent for the time of this call and may be written:
    // it is guest memory, or the caller's own as a volatile slice. The kernel writes it as any
    // other vCPU might, which is what volatile slices are for.
    count(unsafe { libc::preadv(file.as_raw_fd(), vectors.as_ptr(), vectors.len(), offset) })
}

/// Writes memory to `offset` of a file, as `pwritev(2)`.
pub(crate) fn pwritev(
    file: BorrowedFd<'_>,
    buffers: &[VolatileSlice<'_>],
    offset: u64,
) -> io::Result<usize> {
    let offset = file_offset(offset)?;
    let mut vectors = Vectors::new();
    vectors.add_slices(buffers);
    // SAFETY: as above, and here the kernel only reads.
    count(unsafe { libc::pwritev(file.as_raw_fd(), vectors.as_ptr(), vectors.len(), offset) })
}

/// Reads a packet, as `readv(2)`: its first bytes into `header`, the others into `buffers`, and what
/// is left into `rest`.
pub(crate) fn read_packet(
    fd: BorrowedFd<'_>,
    header: &mut [u8],
    buffers: &[VolatileSlice<'_>],
    rest: &mut [u8],
) -> io::Result<usize> {
    let mut vectors = Vectors::new();
    if !(vectors.add_mut(header) && vectors.add_slices(buffers) && vectors.add_mut(rest)) {
        return Err(ErrorKind::InvalidInput.into());
    }
    // SAFETY: as for `preadv`; `header` and `rest` are lent as mutable.
    count(unsafe { libc::readv(fd.as_raw_fd(), vectors.as_ptr(), vectors.len()) })
}

/// Writes a packet, as `writev(2)`.
pub(crate) fn write_packet(
    fd: BorrowedFd<'_>,
    header: &[u8],
    buffers: &[VolatileSlice<'_>],
) -> io::Result<usize> {
    let mut vectors = Vectors::new();
    if !(vectors.add_const(header) && vectors.add_slices(buffers)) {
        return Err(ErrorKind::InvalidInput.into());
    }
    // SAFETY: as for `preadv`, and here the kernel only reads.
    count(unsafe { libc::writev(fd.as_raw_fd(), vectors.as_ptr(), vectors.len()) })
}

/// Receives a packet from a socket, without waiting. Tells how long the packet is, which may be more
/// than there was room for.
pub(crate) fn receive_packet(
    socket: BorrowedFd<'_>,
    buffers: &[VolatileSlice<'_>],
) -> io::Result<usize> {
    let mut vectors = Vectors::new();
    if !vectors.add_slices(buffers) {
        return Err(ErrorKind::InvalidInput.into());
    }
    let mut message = vectors.message();
    let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: as for `preadv`; the message has neither name nor ancillary data, and lives until
    // the call returns, as do the vectors that it names.
    count(unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) })
}

/// Sends to a socket, without waiting and without `SIGPIPE`. On a socket of packets that is all or
/// nothing; on a stream it may be a part.
pub(crate) fn send(
    socket: BorrowedFd<'_>,
    header: &[u8],
    buffers: &[VolatileSlice<'_>],
) -> io::Result<usize> {
    let mut vectors = Vectors::new();
    if !(vectors.add_const(header) && vectors.add_slices(buffers)) {
        return Err(ErrorKind::InvalidInput.into());
    }
    let message = vectors.message();
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: as above, and here the kernel only reads.
    count(unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, flags) })
}

fn file_offset(offset: u64) -> io::Result<libc::off_t> {
    libc::off_t::try_from(offset).map_err(|_| ErrorKind::InvalidInput.into())
}

/// What a call returned: a number of bytes, or an error.
fn count(moved: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(moved).map_err(|_| io::Error::last_os_error())
}
