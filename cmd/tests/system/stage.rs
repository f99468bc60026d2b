//! A host for one test: a network of its own, which leads nowhere, and an ordinary user, whose
//! everything is theirs alone, so that what is left of them can be told.
//!
//! The thread of the test leaves the machine's network and mounts for its own; what it starts is there,
//! too. That takes root, which tests have in the emulated host.

use super::terminal::Terminal;
use nix::sched::{CloneFlags, unshare};
use std::fs::{self, Permissions};
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The user, and their group.
const USER: u32 = 65_501;
/// The host's addresses. Guests of user networking get the same.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
pub const ADDRESS6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
/// Where the host's network would go on. To guests of user networking it is the host itself.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

/// How long what has to go has for it.
const PATIENCE: Duration = Duration::from_secs(20);

/// An interface that swallows everything, and a name server on the host itself.
const NETWORK: &str = "
    mount --make-rprivate /
    ip link set lo up
    ip link add up0 type dummy
    ip link set up0 up
    ip address add 192.0.2.2/24 dev up0
    ip address add 2001:db8::2/64 dev up0 nodad
    ip route add default via 192.0.2.1
    ip -6 route add default via 2001:db8::1
    names=$(realpath -m /etc/resolv.conf)
    [ -e \"$names\" ] || { mkdir -p \"${names%/*}\"; : >\"$names\"; }
    echo nameserver 127.0.0.1 >resolv.conf
    mount --bind resolv.conf \"$names\"
";

/// What the test has of the host.
pub struct Stage {
    folder: TempDir,
}

/// Runs a test on a stage of its own, unless it has to be skipped, which is said.
pub fn on_stage(test: &str, play: impl FnOnce(&Stage) + Send) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: {test}: needs root, for a network of its own");
        return;
    }
    let ended = thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
            play(&Stage::set());
        });
        thread.join()
    });
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

impl Stage {
    fn set() -> Stage {
        let folder = TempDir::new().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let mut shell = Command::new("sh");
        shell.args(["-euc", NETWORK]).current_dir(folder.path());
        let output = shell.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        Stage { folder }
    }

    /// A place for files that the user may read.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Puts a copy of a file there, and gives its name.
    pub fn copy(&self, file: &Path) -> String {
        let place = self.path(file.file_name().unwrap().to_str().unwrap());
        fs::copy(file, &place).unwrap();
        let mode = fs::metadata(&place).unwrap().mode() | 0o444;
        fs::set_permissions(&place, Permissions::from_mode(mode)).unwrap();
        place.to_str().unwrap().to_owned()
    }

    /// A command that the user has typed: no capabilities, and one group more, which has KVM. The
    /// process that this starts becomes the command.
    pub fn as_user(&self, command: &[&str]) -> Terminal {
        let kvm = fs::metadata("/dev/kvm").unwrap();
        assert!(kvm.mode() & 0o60 == 0o60, "/dev/kvm is for root alone");
        let (user, group) = (USER.to_string(), kvm.gid().to_string());
        let mut words = vec!["--reuid", &user, "--regid", &user, "--groups", &group];
        words.push("--inh-caps=-all");
        words.extend(command);
        Terminal::spawn("setpriv", &words)
    }

    /// What runs for the user: process ids and command lines.
    pub fn processes(&self) -> Vec<(u32, String)> {
        let ids = fs::read_dir("/proc").unwrap().flatten();
        let ids = ids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let theirs = ids.filter_map(|id: u32| {
            let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
            let user = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
            let user: u32 = user.split_whitespace().next()?.parse().ok()?;
            let command = fs::read(format!("/proc/{id}/cmdline")).ok()?;
            // One that has ended and was not asked for yet has none.
            let is_theirs = user == USER && !command.is_empty();
            is_theirs.then(|| (id, String::from_utf8_lossy(&command).replace('\0', " ")))
        });
        theirs.collect()
    }

    /// Waits until nothing runs that is the user's. Then nothing of theirs may lie about, no socket may have
    /// a name, and the port is free.
    #[track_caller]
    pub fn expect_nothing_left(&self, port: u16) {
        let deadline = Instant::now() + PATIENCE;
        while !self.processes().is_empty() {
            let left = self.processes();
            assert!(Instant::now() < deadline, "still there: {left:?}");
            // Nobody tells us when what others have started ends.
            thread::sleep(Duration::from_millis(10));
        }
        let mut left = Vec::new();
        for folder in ["/tmp", "/var/tmp", "/run", "/dev/shm"] {
            if let Ok(metadata) = fs::metadata(folder) {
                files(Path::new(folder), metadata.dev(), &mut left);
            }
        }
        assert!(left.is_empty(), "left behind: {left:?}");
        let sockets = fs::read_to_string("/proc/thread-self/net/unix").unwrap();
        let named = sockets.lines().find(|line| line.contains(['/', '@']));
        assert_eq!(named, None, "left behind");
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
        TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).unwrap();
    }
}

/// The user's files in a folder and below, on one file system.
fn files(folder: &Path, device: u64, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        if metadata.uid() == USER {
            found.push(entry.path());
        }
        if metadata.is_dir() && metadata.dev() == device {
            files(&entry.path(), device, found);
        }
    }
}
