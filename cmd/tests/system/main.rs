//! The real command, a real Alpine, driven through a terminal as a person would.
//!
//! These need a host whose KVM runs unmodified Linux, and a guest to run: `HYPE_GUEST_KERNEL`
//! and `HYPE_GUEST_INITRD` name them (`make test` sets both, and finds such a host). Without
//! them each test says that it was skipped; with `HYPE_REQUIRE_KVM=1` it fails instead.
//! [`docs`] runs the commands of the pages in `docs/`.

// The helpers of a test may panic like the test itself: that is how it fails.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::print_stdout
)]

#[path = "../common/terminal.rs"]
#[allow(dead_code, reason = "another test program uses the rest of it")]
mod terminal;

mod alpine;
mod alpine_disk;
mod docs;
mod silent;
mod stage;
mod user_net;

use std::path::PathBuf;
use terminal::Terminal;

/// A kernel and an initrd to boot.
struct Guest {
    kernel: PathBuf,
    initrd: PathBuf,
}

/// The guest to boot, or None, said loudly, where the test has to be skipped.
fn guest(test: &str) -> Option<Guest> {
    let path = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let guest = path("HYPE_GUEST_KERNEL").zip(path("HYPE_GUEST_INITRD"));
    let Some((kernel, initrd)) = guest else {
        assert!(
            std::env::var_os("HYPE_REQUIRE_KVM").is_none(),
            "{test}: HYPE_GUEST_KERNEL and HYPE_GUEST_INITRD are not set"
        );
        eprintln!("skipped: {test}: HYPE_GUEST_KERNEL and HYPE_GUEST_INITRD are not set");
        return None;
    };
    Some(Guest { kernel, initrd })
}

impl Guest {
    /// `hype` with this guest, on a new terminal.
    fn start(&self, options: &[&str]) -> Terminal {
        let kernel = self.kernel.to_str().unwrap();
        let initrd = self.initrd.to_str().unwrap();
        let mut args = vec!["-kernel", kernel, "-initrd", initrd];
        args.extend(options);
        Terminal::spawn(env!("CARGO_BIN_EXE_hype"), &args)
    }

    /// The same, once its shell's prompt is there.
    fn boot(&self, options: &[&str]) -> Terminal {
        let mut terminal = self.start(options);
        terminal.expect("# ");
        terminal
    }
}

/// The exit statuses that the manual promises.
const POWER_OFF: u32 = 0;
const FAILURE: u32 = 1;
const REBOOT: u32 = 2;
const PANICKED: u32 = 34;

const QUIET: &str = "console=hvc0 reboot=t quiet";
