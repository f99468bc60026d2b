//! The user's terminal: raw while the guest has it, and as it was afterwards, however it ends.
//!
//! What the terminal was is kept in one place of the process, so that the panic hook and the
//! signal thread can restore it as well as the guard that took it.
//!
//! What it does not do: `SIGKILL` can't be caught, and a handler for a crash of the process itself
//! (`SIGSEGV`, `SIGABRT`) can't be installed without unsafe code, which this crate does without:
//! a panic that ends in an abort has been through the panic hook, and all else would be a bug in
//! one of the few unsafe blocks below. Most shells repair the terminal then, and `reset` does.

use rustix::fd::{AsFd, OwnedFd};
use rustix::io::fcntl_dupfd_cloexec;
use rustix::stdio;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The terminal and its attributes before it was made raw.
struct Saved {
    terminal: OwnedFd,
    attributes: Termios,
}

static SAVED: Mutex<Option<Saved>> = Mutex::new(None);

fn saved() -> MutexGuard<'static, Option<Saved>> {
    SAVED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The terminal is raw while this lives.
pub struct Raw(());

impl Raw {
    /// Makes the terminal raw.
    pub fn enter(terminal: impl AsFd) -> io::Result<Raw> {
        let terminal = fcntl_dupfd_cloexec(terminal, 3)?;
        let attributes = tcgetattr(&terminal)?;
        *saved() = Some(Saved {
            terminal,
            attributes,
        });
        let raw = Raw(());
        make_raw()?;
        Ok(raw)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
        *saved() = None;
    }
}

/// Makes the terminal raw again, after a [`restore`] that was not the end.
pub fn make_raw() -> io::Result<()> {
    let saved = saved();
    let Some(Saved {
        terminal,
        attributes,
    }) = saved.as_ref()
    else {
        return Ok(());
    };
    let mut raw = attributes.clone();
    raw.make_raw();
    Ok(tcsetattr(terminal, OptionalActions::Now, &raw)?)
}

/// Gives the terminal its attributes back, if it is raw. Nothing can be done where that fails.
pub fn restore() {
    if let Some(Saved {
        terminal,
        attributes,
    }) = saved().as_ref()
    {
        let _ = tcsetattr(terminal, OptionalActions::Now, attributes);
    }
}

/// Whether the terminal is raw now, so that a line break must carry its own carriage return.
pub fn is_raw() -> bool {
    saved().is_some()
}

/// The window's columns and rows, where standard output is a terminal that knows them.
pub fn window_size() -> Option<(u16, u16)> {
    let size = tcgetwinsize(stdio::stdout()).ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then_some((size.ws_col, size.ws_row))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pty::{OpenptFlags, openpt};
    use rustix::termios::LocalModes;

    fn is_cooked(terminal: impl AsFd) -> bool {
        let attributes = tcgetattr(terminal).unwrap();
        attributes.local_modes.contains(LocalModes::ICANON)
    }

    /// One test for all: there is one terminal in a process.
    #[test]
    fn the_terminal_is_restored_by_the_guard_and_by_a_panic() {
        // The master's attributes are the pair's.
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        assert!(is_cooked(&terminal));

        let raw = Raw::enter(&terminal).unwrap();
        assert!(!is_cooked(&terminal) && is_raw());
        restore();
        assert!(is_cooked(&terminal));
        make_raw().unwrap();
        assert!(!is_cooked(&terminal));
        drop(raw);
        assert!(is_cooked(&terminal) && !is_raw());

        let raw = Raw::enter(&terminal).unwrap();
        crate::say::start_panic_hook();
        let panicked = std::thread::spawn(|| panic!("on purpose")).join();
        assert!(panicked.is_err() && is_cooked(&terminal));
        drop(raw);
    }
}
