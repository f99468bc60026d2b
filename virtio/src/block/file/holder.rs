//! Who has a file that is locked.
//!
//! The kernel does not tell: a lock of an open file belongs to no process. So the open files of
//! all processes that we may look at are compared with it. Only for an error message.

use std::fmt;
use std::fs;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;

/// Who has a file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Holder {
    /// This process, by another descriptor.
    Ourselves,
    /// Another process, and the name of its program.
    Process(u32, String),
    /// Somebody whose files we can't see.
    Unknown,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Holder::Ourselves => f.write_str("another disk of this very process"),
            Holder::Process(pid, name) => write!(f, "process {pid} ({name})"),
            Holder::Unknown => f.write_str("another process"),
        }
    }
}

impl Holder {
    /// Finds who has the file of this device and inode open, besides by `our` descriptor.
    pub(super) fn find(identity: (u64, u64), our: BorrowedFd<'_>) -> Holder {
        let us = std::process::id();
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let mut holders = pids.filter(|pid| {
            let except = (*pid == us).then_some(our.as_raw_fd());
            has_open(*pid, identity, except)
        });
        match holders.next() {
            Some(pid) if pid == us => Holder::Ourselves,
            Some(pid) => {
                let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
                Holder::Process(pid, name.trim().to_owned())
            }
            None => Holder::Unknown,
        }
    }
}

fn has_open(pid: u32, identity: (u64, u64), except: Option<i32>) -> bool {
    let except = except.map(|fd| fd.to_string());
    let fds = fs::read_dir(format!("/proc/{pid}/fd"));
    fds.into_iter().flatten().flatten().any(|entry| {
        let skipped = except.as_deref().is_some_and(|fd| entry.file_name() == fd);
        let found = fs::metadata(entry.path());
        !skipped && found.is_ok_and(|found| (found.dev(), found.ino()) == identity)
    })
}
