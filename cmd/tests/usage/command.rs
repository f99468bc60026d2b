//! The command, run to its end under watch.

use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsStr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// Whatever takes longer hangs: nothing here does, on a machine that is not overloaded, for more
/// than two seconds.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The exit statuses that the manual promises.
pub const POWER_OFF: i32 = 0;
pub const FAILURE: i32 = 1;
pub const REBOOT: i32 = 2;
pub const CRASHED: i32 = 3;
pub const PANICKED: i32 = 34;
pub const USAGE: i32 = 64;

/// The path of the command.
pub const HYPE: &str = env!("CARGO_BIN_EXE_hype");

/// The command, with nothing on standard input and none of the variables that it heeds.
pub fn hype<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    clean(HYPE, args)
}

/// A shell that becomes the command at the end of `script`, where it says `exec "$@"`.
pub fn shell<S: AsRef<OsStr>>(script: &str, args: impl IntoIterator<Item = S>) -> Command {
    let mut command = clean("sh", ["-c", script, "sh", HYPE]);
    command.args(args);
    command
}

fn clean<S: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null());
    for name in [
        "HYPE_LOG",
        "RUST_BACKTRACE",
        "http_proxy",
        "all_proxy",
        "ALL_PROXY",
    ] {
        command.env_remove(name);
    }
    command
}

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }
}

/// Runs it, with both outputs caught. One that hangs is killed, and fails the test.
pub fn finish(command: &mut Command) -> Ended {
    end(command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap())
}

/// The same for one that was started already.
pub fn end(child: Child) -> Ended {
    let pid = Pid::from_child(&child);
    let (done, ended) = channel::<()>();
    let watchdog = thread::spawn(move || {
        let hangs = ended.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout);
        if hangs {
            let _ = kill_process(pid, Signal::KILL);
        }
        hangs
    });
    let output = child.wait_with_output().unwrap();
    drop(done);
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    let ended = Ended {
        status: output.status,
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
    };
    assert!(!watchdog.join().unwrap(), "it hangs: {ended:?}");
    assert!(!ended.stderr.contains("panicked at"), "{ended:?}");
    ended
}

/// The command must end with `status` and one line on standard error that has all of `words`.
#[track_caller]
pub fn refused(command: &mut Command, status: i32, words: &[&str]) {
    let ended = finish(command);

    assert_eq!(ended.code(), Some(status), "{command:?}: {ended:?}");
    assert_eq!(ended.stdout, "", "{command:?}");
    let mut lines = ended
        .stderr
        .lines()
        .filter(|line| !line.starts_with("hint: "));
    let line = lines.next().unwrap_or_default();
    assert_eq!(lines.next(), None, "{command:?}: {ended:?}");
    for word in words {
        assert!(line.contains(word), "{command:?}: no {word:?} in: {line}");
    }
}

/// Waits until something is so that nobody announces. Panics if it never is.
#[track_caller]
pub fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "it never happens: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
