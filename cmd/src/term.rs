//! The user's terminal: raw while the guest has it, and as it was afterwards, however it ends.
//!
//! What the terminal was is kept in one place of the process, so that the panic hook and the
//! signal thread can restore it as well as the guard that took it. `SIGKILL` and crashes of the
//! process itself cannot be caught: most shells repair the terminal then, and `reset` does.

use rustix::fd::OwnedFd;
use rustix::io::dup;
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
    /// Makes the terminal on standard input raw.
    pub fn enter() -> io::Result<Raw> {
        let terminal = dup(stdio::stdin())?;
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

/// The window's columns and rows, where standard output is a terminal.
pub fn window_size() -> Option<(u16, u16)> {
    let size = tcgetwinsize(stdio::stdout()).ok()?;
    Some((size.ws_col, size.ws_row))
}
