//! The host half's tools: a machine with the test binary as its init, and what it prints.

pub mod disk;
pub mod init;
pub mod link;
pub mod process;
pub mod tcp;
pub mod tools;

use crate::screen::Screen;
use rustix::pipe::{PipeFlags, pipe_with};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;
use vmm::loader::Payload;
use vmm::virtio::console::{Console, Resizer};
use vmm::virtio::stream::{Input, Output};
use vmm::virtio::transport::Rings;
use vmm::{Config, Handle, Outcome, Report, SerialPort, VirtioDevice, Vm};

/// How much a test does may be said by these variables, for what takes too long to be done each
/// time. Both halves of a test read them. With more work, a test needs more than the usual time.
const AMOUNTS: [&str; 6] = [
    DEADLINE,
    "HYPE_TEST_MIB",
    "HYPE_TEST_REQUESTS",
    "HYPE_TEST_ROUNDS",
    "HYPE_TEST_KILLS",
    "HYPE_TEST_SECONDS",
];
const DEADLINE: &str = "HYPE_TEST_DEADLINE";

/// What one of these variables says, or what is usual.
pub fn amount(name: &str, usual: u64) -> u64 {
    assert!(AMOUNTS.contains(&name), "the guest does not know {name}");
    crate::dice::number(name).unwrap_or(usual)
}

/// A guest that has not ended by then is stopped, and its test fails. Emulated hosts are slow.
pub fn deadline() -> Duration {
    Duration::from_secs(amount(DEADLINE, 100))
}

/// How a machine ended, and what its guest had printed.
pub struct Ended {
    pub outcome: Outcome,
    pub text: String,
    pub report: Report,
}

/// Where the guest's kernel and init print.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Port {
    Hvc0,
    TtyS0,
}

/// What a test may change about its machine before it boots.
pub struct Plan {
    pub config: Config,
    pub cmdline: String,
    pub port: Port,
    /// The ring layouts that the console offers.
    pub rings: Rings,
    /// Devices that the guest finds behind the console.
    pub behind_console: Vec<VirtioDevice>,
    /// Files that the guest has beside its init: where it finds them, and where they are.
    pub files: Vec<(String, PathBuf)>,
    /// Whether the test binary is in an initrd. If it is not, `/init` of the root file system is it.
    pub initrd: bool,
    /// When the guest is taken for one that has fallen silent.
    pub deadline: Duration,
    /// Show on our standard output what the guest prints, at once.
    pub echo: bool,
}

/// The host's view of the running machine.
pub struct Host {
    pub handle: Handle,
    pub resizer: Option<Resizer>,
    keyboard: File,
    printed: Arc<Printed>,
    seen: usize,
}

impl Plan {
    fn usual() -> Plan {
        Plan {
            config: Config {
                memory: 256 << 20,
                ..Config::default()
            },
            cmdline: "reboot=t quiet panic=-1".into(),
            port: Port::Hvc0,
            rings: Rings::default(),
            behind_console: Vec::new(),
            files: Vec::new(),
            initrd: true,
            deadline: deadline(),
            echo: false,
        }
    }
}

/// Boots the machine, runs the host half beside it and waits for its end. None if that had to be
/// skipped.
pub fn run(
    test: &str,
    plan: impl FnOnce(&mut Plan),
    host: impl FnOnce(&mut Host),
) -> Option<Ended> {
    let kernel = kernel(test)?;
    let (_, name) = test.split_once("::").expect("a test lives in a crate");
    let mut plan_to_be = Plan::usual();
    plan(&mut plan_to_be);
    let Plan {
        mut config,
        mut cmdline,
        port,
        rings,
        behind_console,
        files,
        initrd,
        deadline,
        echo,
    } = plan_to_be;
    for name in AMOUNTS {
        if let Ok(amount) = std::env::var(name) {
            cmdline += &format!(" {name}={amount}");
        }
    }

    let console = match port {
        Port::Hvc0 => "hvc0",
        Port::TtyS0 => "ttyS0",
    };
    let init = format!(
        "HYPE_GUEST=1 RUST_BACKTRACE=1 -- --exact {name} --include-ignored --nocapture --test-threads=1"
    );
    let cmdline = format!("console={console} {cmdline} {init}");
    let mut payload = Payload::linux(kernel).cmdline(cmdline);
    if initrd {
        payload = payload.initrd(self::initrd(&files));
    }
    config.payload = Some(payload);

    let guest = Arc::new(Printed::default());
    let (keys, keyboard) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let input = Some(Input::fd(keys).unwrap());
    let output = Output::writer(Writer(Arc::clone(&guest), echo));
    // Kept, so that the machine's end does not give up on it: a busy host may take its time.
    let printed = output.clone();
    let output = Some(output);
    let mut resizer = None;
    match port {
        Port::Hvc0 => {
            let console = Console::new(input, output);
            resizer = Some(console.resizer());
            let console = VirtioDevice::from(console).rings(rings);
            config.devices.push(console);
        }
        Port::TtyS0 => config.serial = Some(SerialPort { input, output }),
    }
    config.devices.extend(behind_console);
    let vm = Vm::new(config).unwrap();
    let handle = vm.handle();
    let mut view = Host {
        handle: handle.clone(),
        resizer,
        keyboard: keyboard.into(),
        printed: Arc::clone(&guest),
        seen: 0,
    };
    let watchdog = Watchdog::start(handle.clone(), deadline);
    let machine = thread::spawn(move || vm.run());
    host(&mut view);
    let outcome = machine.join().unwrap();
    drop(watchdog);
    assert!(printed.finish(deadline), "{printed:?}");
    let text = guest.screen.text();
    let outcome = outcome.unwrap_or_else(|error| panic!("{error:?}; the guest printed:\n{text}"));
    Some(Ended {
        outcome,
        text,
        report: handle.report(),
    })
}

/// The kernel to boot, or None, said loudly, where guests can't run.
pub fn kernel(test: &str) -> Option<PathBuf> {
    let missing = match std::env::var_os("HYPE_GUEST_KERNEL") {
        Some(kernel) if is_static() => return Some(kernel.into()),
        Some(_) => "this test binary is not static, so it can't be a guest's init",
        None => "HYPE_GUEST_KERNEL is not set",
    };
    assert!(
        std::env::var_os("HYPE_REQUIRE_KVM").is_none(),
        "{test}: {missing}"
    );
    eprintln!("skipped: {test}: {missing}");
    None
}

fn is_static() -> bool {
    cfg!(target_feature = "crt-static")
}

/// An initrd that holds this test binary as `/init`, the console that init is started on, and
/// other files.
pub fn initrd(files: &[(String, PathBuf)]) -> File {
    const FOLDER: u32 = 0o040_755;
    const PROGRAM: u32 = 0o100_755;
    let read = |path: &Path| {
        std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let mut entries = BTreeMap::from([
        ("dev".to_owned(), (FOLDER, Vec::new())),
        ("proc".to_owned(), (FOLDER, Vec::new())),
        ("sys".to_owned(), (FOLDER, Vec::new())),
        ("dev/console".to_owned(), (0o020_600, Vec::new())),
    ]);
    let init = std::env::current_exe().unwrap();
    entries.insert("init".to_owned(), (PROGRAM, read(&init)));
    for (name, path) in files {
        let name = name.trim_start_matches('/');
        for folder in Path::new(name).ancestors().skip(1) {
            let folder = folder.to_str().unwrap();
            if !folder.is_empty() {
                entries
                    .entry(folder.to_owned())
                    .or_insert((FOLDER, Vec::new()));
            }
        }
        entries.insert(name.to_owned(), (PROGRAM, read(path)));
    }

    let mut archive = tempfile::tempfile().unwrap();
    // In the order of their names, so that a folder is there before what is in it.
    for (index, (name, (mode, contents))) in entries.into_iter().enumerate() {
        let entry = cpio::NewcBuilder::new(&name)
            .ino(index as u32 + 1)
            .nlink(1)
            .mode(mode)
            .rdev_major(5)
            .rdev_minor(1);
        let mut writer = entry.write(&mut archive, contents.len() as u32);
        writer.write_all(&contents).unwrap();
        writer.finish().unwrap();
    }
    cpio::newc::trailer(&mut archive).unwrap();
    io::Seek::rewind(&mut archive).unwrap();
    archive
}

/// Stops a machine at its deadline.
pub struct Watchdog(Arc<(Mutex<bool>, Condvar)>);

impl Watchdog {
    pub fn start(handle: Handle, deadline: Duration) -> Self {
        let over = Arc::new((Mutex::new(false), Condvar::new()));
        let watched = Arc::clone(&over);
        thread::spawn(move || {
            let (over, changed) = &*watched;
            let wait = changed.wait_timeout_while(over.lock().unwrap(), deadline, |over| !*over);
            if wait.unwrap().1.timed_out() {
                // How etc/test knows a guest that fell silent from one that said something wrong.
                eprintln!("no answer: the guest is not over after {deadline:?}");
                handle.stop();
            }
        });
        Watchdog(over)
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }
}

/// Everything that the guest has printed.
#[derive(Default)]
struct Printed {
    screen: Screen,
    /// Calls that brought it.
    writes: AtomicUsize,
}

/// Fills a screen, and our standard output if it is to be echoed.
struct Writer(Arc<Printed>, bool);

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.writes.fetch_add(1, Ordering::SeqCst);
        self.0.screen.add(bytes);
        if self.1 {
            io::stdout().write_all(bytes)?;
            io::stdout().flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Host {
    /// Waits until the guest prints `text` behind what was expected before.
    pub fn expect(&mut self, text: &str) {
        let is_over = || self.handle.state() == vmm::State::Stopped;
        let found = (self.printed.screen).find(text, self.seen, deadline(), is_over);
        self.seen = found.unwrap_or_else(|| panic!("no {text:?} in:\n{}", self.shown()));
    }

    /// Everything that the guest has printed so far.
    pub fn shown(&self) -> String {
        self.printed.screen.text()
    }

    /// How many calls have brought that.
    pub fn writes(&self) -> usize {
        self.printed.writes.load(Ordering::SeqCst)
    }

    /// Types on the guest's console.
    pub fn type_bytes(&mut self, bytes: &[u8]) {
        self.keyboard.write_all(bytes).unwrap();
    }
}

/// Reads what `source` gives to its end, for guests.
pub fn read_to_string(path: &str) -> String {
    let mut text = String::new();
    File::open(path)
        .and_then(|mut file| file.read_to_string(&mut text))
        .unwrap_or_else(|error| panic!("{path}: {error}"));
    text
}
