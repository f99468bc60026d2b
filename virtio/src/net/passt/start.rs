//! How passt is started.
//!
//! passt opens the ports that it was told to and goes into the background, so its start has worked
//! when the process that was started has ended well, and what it says else is the reason. What never
//! ends is no passt, and is given up.

use super::Passt;
use super::error::PasstError;
use super::publish::{Protocol, Publish};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long passt has to open its ports. It takes some milliseconds; where all is emulated, a second.
const PATIENCE: Duration = Duration::from_secs(10);
/// How much of what it says is looked at.
const SAID: u64 = 16 << 10;

/// How passt is started.
#[derive(Debug, Clone)]
pub struct Options {
    program: OsString,
    address: Option<IpAddr>,
    publish: Vec<Publish>,
    patience: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            program: "passt".into(),
            address: None,
            publish: Vec::new(),
            patience: PATIENCE,
        }
    }
}

impl Options {
    /// Starts another program than the `passt` of the search path.
    #[must_use]
    pub fn program(mut self, program: impl Into<OsString>) -> Self {
        self.program = program.into();
        self
    }

    /// Gives the guest this address, instead of that of the host.
    #[must_use]
    pub fn address(mut self, address: IpAddr) -> Self {
        self.address = Some(address);
        self
    }

    /// Lets a port of the host lead to one of the guest.
    #[must_use]
    pub fn publish(mut self, publish: Publish) -> Self {
        self.publish.push(publish);
        self
    }

    /// Gives it this long to get ready, instead of 10 seconds.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Starts it. Returns when it has opened its ports.
    pub fn start(&self) -> Result<Passt, PasstError> {
        self.publish.iter().try_for_each(Publish::check)?;
        // Only ours is closed when another program is started: there is no other way to name a
        // descriptor to a child without code between fork and exec.
        let pair = |flags| socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None);
        let (ours, theirs) =
            pair(SocketFlags::CLOEXEC).map_err(|error| PasstError::Socket(error.into()))?;
        fcntl_setfd(&theirs, FdFlags::empty()).map_err(|error| PasstError::Socket(error.into()))?;
        let failed = |source| PasstError::Start {
            program: self.program.clone(),
            source,
        };
        let said = scrap().map_err(failed)?;
        let stderr = said.try_clone().map_err(failed)?;
        let child = self.command(&theirs).stderr(stderr).spawn();
        drop(theirs);
        let mut child = child.map_err(failed)?;
        match wait(&mut child, self.patience) {
            Ok(Some(status)) if status.success() => Ok(Passt::on(ours)),
            Ok(Some(status)) => Err(PasstError::Refused {
                status,
                said: last_words(&said),
            }),
            late => {
                // It may have ended by now.
                let _ = child.kill();
                let _ = child.wait();
                Err(late.map_or_else(failed, |_| PasstError::Slow(self.patience)))
            }
        }
    }

    fn command(&self, socket: &OwnedFd) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg("--quiet")
            .arg("--fd")
            .arg(socket.as_raw_fd().to_string());
        if let Some(address) = self.address {
            command.arg("--address").arg(address.to_string());
        }
        for publish in &self.publish {
            let flag = match publish.protocol {
                Protocol::Tcp => "--tcp-ports",
                Protocol::Udp => "--udp-ports",
            };
            command.arg(flag).arg(publish.to_string());
        }
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }
}

/// Paper to write a little on: nobody has to read while it is written, and it does not grow.
fn scrap() -> io::Result<File> {
    let scrap = memfd_create("passt", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&scrap, SAID)?;
    fcntl_add_seals(&scrap, SealFlags::GROW)?;
    Ok(scrap.into())
}

/// How the process has ended, or None if it takes longer. Others that it has started may live on.
fn wait(child: &mut Child, patience: Duration) -> io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + patience;
    let ended = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = left.try_into().map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&ended, PollFlags::IN)], Some(&left)) {
            Ok(0) => return Ok(None),
            Ok(_) => return child.wait().map(Some),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// What passt says when it gives up. It has no log to write to, and says that, too.
fn last_words(said: &File) -> String {
    let mut bytes = vec![0; SAID as usize];
    let count = said.read_at(&mut bytes, 0).unwrap_or_default();
    let said = String::from_utf8_lossy(bytes.get(..count).unwrap_or_default()).into_owned();
    // Behind what was written are zeroes.
    let lines = said.trim_end_matches('\0').lines().map(str::trim);
    let mut lines = lines.filter(|line| {
        !line.is_empty() && !line.contains("to syslog") && !line.starts_with("Don't run as root")
    });
    // The last one is why, and may be of any length.
    let line = lines.next_back().unwrap_or("nothing");
    line.chars().filter(|c| !c.is_control()).take(200).collect()
}
