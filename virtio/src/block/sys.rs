//! The system calls of disks that no safe wrapper has: locks of open files, and a signal mask.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

pub(super) use crate::sys::{preadv, pwritev};

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
