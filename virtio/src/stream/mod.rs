//! The host's side of a console or serial port: bytes in, bytes out.
//!
//! # The problem
//!
//! What a guest prints goes to a terminal, a pipe, a socket, a file or an object of the
//! embedder's, any of which may be slow, stuck, full or gone. None of that may reach the guest:
//! a virtual CPU that writes to the serial port must not wait, and the thread that serves a
//! virtio console must be stoppable at any time. And `O_NONBLOCK`, the plain answer, is a
//! property of the *open file description*: set on descriptor 1 it outlives this process in the
//! shell that started it.
//!
//! # The design
//!
//! * [`Output`] is a bounded buffer and a writer thread, which starts with the first byte.
//!   [`Output::push`] copies into the buffer and returns; what does not fit is dropped and
//!   counted. The writer gathers bytes and writes once per line or pause.
//! * [`Input`] is a descriptor to poll and to read from. It has neither buffer nor thread, so
//!   that what the guest does not take stays with the host.
//! * Both work on a descriptor in a manner that cannot get stuck, and that leaves the
//!   flags of a shared file description alone: pipes and terminals are opened once more through
//!   `/proc/self/fd`, which gives a description of our own; sockets are told with each call;
//!   what is left is polled first, and then given only as much as it surely takes.
//! * An embedder's `Write` is called by the writer thread. An embedder's `Read` is read by a
//!   thread that feeds a pipe, because only descriptors can be polled.
//!
//! # What remains
//!
//! A thread inside an embedder's `read` or `write` cannot be interrupted: it ends when that call
//! returns, and nobody waits for it. The same holds for a write to a file on a dead network
//! mount, and for a pipe that can't be opened once more, if another process fills it between
//! the poll and the write.
//!
//! `SIGPIPE` is blocked in these threads alone, so a reader that went away is an error here even
//! in a process that leaves the signal at its default. No handler is installed.

mod descriptor;
mod input;
mod output;
mod sink;
#[cfg(test)]
mod tests;
mod writer;

pub use input::Input;
pub use output::{Captured, Output};

/// Blocks `SIGPIPE` in the calling thread, one of this module's own.
///
/// The kernel sends it to the thread that wrote, where it stays pending until the thread ends.
/// If it can't be blocked, the process's own setting applies, which Rust programs have at
/// "ignore".
fn block_sigpipe() {
    if let Err(error) = vmm_sys_util::signal::block_signal(libc::SIGPIPE) {
        log::debug!("cannot block SIGPIPE: {error}");
    }
}
