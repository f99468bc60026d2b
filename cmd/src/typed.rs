//! What is typed on the terminal, on its way to the guest.
//!
//! A thread reads the terminal, takes out the keys that are hype's own and passes the rest on
//! through a pipe. A guest that does not read must not take the user's Ctrl-A x away: the thread
//! goes on reading when the pipe and a small buffer are full, and drops what is meant for the
//! guest. (Input that is no terminal has no such keys; it goes to the console as it is, and a
//! guest that does not read holds its writer back.)

use crate::keys::{Command, Key, Keys};
use crate::term::Raw;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::OwnedFd;
use rustix::io::{Errno, read, write};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::stdio;
use rustix::termios::isatty;
use std::io;
use std::thread::{self, JoinHandle};

/// What waits for the guest at most, besides what the pipe holds.
const PENDING: usize = 64 << 10;

/// The terminal on standard input, before it is the guest's.
pub struct Keyboard {
    to_guest: OwnedFd,
}

impl Keyboard {
    /// The keyboard, and the descriptor from which the guest's console reads what is typed.
    /// None where standard input is no terminal.
    pub fn new() -> io::Result<Option<(Self, OwnedFd)>> {
        if !isatty(stdio::stdin()) {
            return Ok(None);
        }
        let (guest, to_guest) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        Ok(Some((Keyboard { to_guest }, guest)))
    }

    /// Makes the terminal raw and starts to read it. Each of hype's keys goes to `on_command`.
    pub fn start(self, on_command: impl FnMut(Command) + Send + 'static) -> io::Result<Typed> {
        let raw = Raw::enter(stdio::stdin())?;
        let (stopped, stop) = pipe_with(PipeFlags::CLOEXEC)?;
        let mut pump = Pump {
            to_guest: Some(self.to_guest),
            stopped,
            keys: Keys::default(),
            pending: Vec::new(),
            on_command,
        };
        let thread = thread::Builder::new()
            .name("terminal".into())
            .spawn(move || {
                if let Err(error) = pump.run() {
                    log::warn!("cannot read the terminal any more: {error}");
                }
            })?;
        Ok(Typed {
            stop: Some(stop),
            thread: Some(thread),
            _raw: raw,
        })
    }
}

/// The thread that reads the raw terminal; dropping it ends it and restores the terminal.
pub struct Typed {
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
    _raw: Raw,
}

impl Drop for Typed {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // Its panic has been told by the panic hook.
            let _ = thread.join();
        }
    }
}

struct Pump<F> {
    /// None once the console is gone; commands are still taken then.
    to_guest: Option<OwnedFd>,
    /// Hangs up when the thread is to end.
    stopped: OwnedFd,
    keys: Keys,
    pending: Vec<u8>,
    on_command: F,
}

impl<F: FnMut(Command)> Pump<F> {
    fn run(&mut self) -> io::Result<()> {
        loop {
            let (typed, stopped, guest) = self.wait()?;
            if !stopped.is_empty() {
                return Ok(());
            }
            if guest.intersects(PollFlags::ERR | PollFlags::HUP) {
                self.to_guest = None;
            }
            if !typed.is_empty() && self.take()? == 0 {
                return Ok(());
            }
            self.pass_on()?;
        }
    }

    /// Waits until something is typed, the thread is to end, or the guest's pipe has room for
    /// what is pending.
    fn wait(&self) -> io::Result<(PollFlags, PollFlags, PollFlags)> {
        let wanted = if self.pending.is_empty() {
            PollFlags::empty()
        } else {
            PollFlags::OUT
        };
        let terminal = PollFd::from_borrowed_fd(stdio::stdin(), PollFlags::IN);
        let mut fds = vec![terminal, PollFd::new(&self.stopped, PollFlags::IN)];
        fds.extend(
            self.to_guest
                .as_ref()
                .map(|guest| PollFd::new(guest, wanted)),
        );
        while let Err(error) = poll(&mut fds, None) {
            if error != Errno::INTR {
                return Err(error.into());
            }
        }
        let ready = |index: usize| fds.get(index).map_or(PollFlags::empty(), PollFd::revents);
        Ok((ready(0), ready(1), ready(2)))
    }

    /// Reads once, and returns how many bytes there were: none at the end of the input.
    fn take(&mut self) -> io::Result<usize> {
        let mut buffer = [0; 4096];
        let count = match read(stdio::stdin(), &mut buffer) {
            Err(Errno::INTR | Errno::AGAIN) => return Ok(1),
            result => result?,
        };
        for byte in buffer.iter().take(count) {
            match self.keys.next(*byte) {
                Key::Guest(byte) if self.pending.len() < PENDING => self.pending.push(byte),
                Key::Hype(command) => (self.on_command)(command),
                Key::Guest(_) | Key::Nothing => {}
            }
        }
        Ok(count)
    }

    fn pass_on(&mut self) -> io::Result<()> {
        let Some(guest) = &self.to_guest else {
            self.pending.clear();
            return Ok(());
        };
        if self.pending.is_empty() {
            return Ok(());
        }
        match write(guest, &self.pending) {
            Ok(count) => drop(self.pending.drain(..count)),
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(Errno::PIPE) => self.to_guest = None,
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}
