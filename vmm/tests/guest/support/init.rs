//! The guest half's tools: what an init has to do.

use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, reboot};
use std::panic::{UnwindSafe, catch_unwind};

/// Whether this process is a guest's init.
pub fn is_guest() -> bool {
    std::env::var_os("HYPE_GUEST").is_some() && std::process::id() == 1
}

/// Runs the guest half and powers off; a half that panics resets the machine instead.
pub fn run(half: impl FnOnce() + UnwindSafe) -> ! {
    for (kind, place) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        match mount(kind, place, kind, MountFlags::empty(), None) {
            // On a root file system of a disk, the kernel has done it itself.
            Ok(()) | Err(Errno::BUSY) => {}
            Err(error) => panic!("{place}: {error}"),
        }
    }
    let result = catch_unwind(half);
    println!(
        "guest half {}",
        if result.is_ok() { "passed" } else { "failed" }
    );
    end(if result.is_ok() {
        RebootCommand::PowerOff
    } else {
        RebootCommand::Restart
    })
}

/// Runs the guest half of a test that boots several machines, or that has more than two halves.
pub fn if_guest(half: impl FnOnce() + UnwindSafe) {
    if is_guest() {
        run(half);
    }
}

/// Ends the machine from inside.
pub fn end(how: RebootCommand) -> ! {
    reboot(how).unwrap();
    unreachable!("the machine goes on after {how:?}");
}
