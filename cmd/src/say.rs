//! What hype itself tells the user: on standard error, never on the guest's console.

use crate::term;
use log::{LevelFilter, Log, Metadata, Record};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::AsFd;
use rustix::stdio;
use std::error::Error;
use std::fmt::Display;
use std::io::Write;

/// Says a line, or several. On a raw terminal each needs its own carriage return.
pub fn line(text: impl Display) {
    let mut text = format!("{text}\n");
    if term::is_raw() {
        text = text.replace('\n', "\r\n");
    }
    // Nobody is left to be told that standard error is gone.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// Says what went wrong, with its causes, in one line: `hype: outer: inner: innermost`.
pub fn error(error: &dyn Error) {
    line(format_args!("hype: {}", chain(error)));
}

/// An error and its causes, a colon between them.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Whether a line can be written without waiting, or fails at once.
fn has_room(fd: impl AsFd) -> bool {
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let mut fds = [PollFd::new(&fd, PollFlags::OUT)];
    poll(&mut fds, Some(&at_once)).is_ok_and(|ready| ready > 0)
}

struct Logger;

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    /// It may be a vCPU that says it, which must not wait for whoever reads standard error. But
    /// who has asked for details wants all of them.
    fn log(&self, record: &Record<'_>) {
        let patient = log::max_level() >= LevelFilter::Debug;
        if self.enabled(record.metadata()) && (patient || has_room(stdio::stderr())) {
            line(format_args!(
                "hype: {}: {}",
                record.level().as_str().to_lowercase(),
                record.args()
            ));
        }
    }

    fn flush(&self) {}
}

/// Sends the library's log here, as verbose as `HYPE_LOG` says.
pub fn start_log() {
    // The only other logger there could be is one that was set here before.
    let _ = log::set_logger(&Logger);
    log::set_max_level(LevelFilter::Warn);
    match std::env::var("HYPE_LOG").map(|level| level.parse()) {
        Ok(Ok(level)) => log::set_max_level(level),
        Ok(Err(_)) => log::warn!("HYPE_LOG: known are off, error, warn, info, debug and trace"),
        Err(_) => {}
    }
}

/// A panic is a bug of ours: leave the terminal usable, and say so in words before the details.
pub fn start_panic_hook() {
    let details = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        term::restore();
        line("hype: internal error; please report it with what follows");
        details(info);
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn a_full_pipe_has_no_room_and_one_that_nobody_reads_fails_at_once() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        assert!(has_room(&writer));
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        while writer.write(&[0; 4096]).is_ok() {}
        assert!(!has_room(&writer));
        drop(reader);
        assert!(has_room(&writer));
    }

    #[test]
    fn causes_follow_the_error() {
        let error = Outer(std::io::Error::other("inner"));
        assert_eq!(chain(&error), "outer: inner");
    }
}
