//! The system calls that no safe wrapper has: positioned vectored I/O on guest memory, locks of
//! open files, and a signal mask. The unsafe code of the block device is all here.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use vm_memory::VolatileSlice;

/// How many buffers one call takes: those of a chain, mostly. What is left is left to the next.
const BATCH: usize = 512;

/// Reads from `offset` of a file into memory, as `preadv(2)`.
pub(super) fn preadv(
    file: BorrowedFd<'_>,
    buffers: &[VolatileSlice<'_>],
    offset: u64,
) -> io::Result<usize> {
    let offset = file_offset(offset)?;
    with_vectors(buffers, |vectors, count| {
        // SAFETY: the `count` vectors name memory that the slices in `buffers` have borrowed for
        // the time of this call and may be written: it is guest memory, or lent as mutable.
        // The kernel writes it as any other vCPU might, which is what volatile slices are for.
        unsafe { libc::preadv(file.as_raw_fd(), vectors, count, offset) }
    })
}

/// Writes memory to `offset` of a file, as `pwritev(2)`.
pub(super) fn pwritev(
    file: BorrowedFd<'_>,
    buffers: &[VolatileSlice<'_>],
    offset: u64,
) -> io::Result<usize> {
    let offset = file_offset(offset)?;
    with_vectors(buffers, |vectors, count| {
        // SAFETY: as above, and here the kernel only reads.
        unsafe { libc::pwritev(file.as_raw_fd(), vectors, count, offset) }
    })
}

fn file_offset(offset: u64) -> io::Result<libc::off_t> {
    libc::off_t::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// Lends the first buffers as an array of `struct iovec`.
fn with_vectors(
    buffers: &[VolatileSlice<'_>],
    call: impl FnOnce(*const libc::iovec, libc::c_int) -> libc::ssize_t,
) -> io::Result<usize> {
    let mut vectors = [const { MaybeUninit::<libc::iovec>::uninit() }; BATCH];
    let mut count = 0;
    for (vector, buffer) in vectors.iter_mut().zip(buffers) {
        vector.write(libc::iovec {
            iov_base: buffer.ptr_guard_mut().as_ptr().cast(),
            iov_len: buffer.len(),
        });
        count += 1;
    }
    // The pointer is to `count` vectors that were written.
    let moved = call(vectors.as_ptr().cast(), count);
    usize::try_from(moved).map_err(|_| io::Error::last_os_error())
}

/// Locks a whole open file, for this opening of it alone (`shared`: together with others that
/// only read). Tells whether that could be had. The lock goes with the last descriptor.
pub(super) fn try_lock(file: BorrowedFd<'_>, shared: bool) -> io::Result<bool> {
    let lock = libc::flock {
        l_type: if shared { libc::F_RDLCK } else { libc::F_WRLCK } as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        // To the end, wherever that will be.
        l_len: 0,
        // Must be 0 for a lock of this kind.
        l_pid: 0,
    };
    // SAFETY: the call reads `lock`, which lives until it returns, and keeps nothing of it.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
    match result {
        0 => Ok(true),
        _ => match io::Error::last_os_error() {
            error if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
            error => Err(error),
        },
    }
}

/// A write beyond the largest file that the process may have (`RLIMIT_FSIZE`) fails for this
/// thread, as others do, instead of ending the process by `SIGXFSZ`.
pub(super) fn block_sigxfsz() {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigemptyset` initializes the set that the other two use, and all of them touch
    // nothing but that set and this thread's mask. They can't fail with these arguments.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGXFSZ);
        libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
    }
}
