//! Alpine on its consoles: what is shown and typed, how it ends, and a distribution's kernels under it.

use super::terminal::Terminal;
use super::{FAILURE, Guest, PANICKED, POWER_OFF, QUIET, REBOOT, guest};
use std::path::PathBuf;
use std::time::Duration;

#[test]
fn alpine_on_the_virtio_console_follows_the_window_and_powers_off() {
    let Some(guest) = guest("alpine_on_the_virtio_console") else {
        return;
    };

    let mut terminal = guest.boot(&["-cmdline", QUIET, "-cpus", "4"]);
    terminal.type_line("cat /etc/os-release");
    terminal.expect("NAME=\"Alpine Linux\"");
    terminal.type_line("echo cpus=$(nproc)");
    terminal.expect("cpus=4");
    terminal.type_line("stty size | tr ' ' x");
    terminal.expect("24x80");
    terminal.resize(50, 132);
    terminal.type_line("until stty size | grep 132; do :; done");
    terminal.expect("50 132");
    terminal.type_line("poweroff");

    assert_eq!(terminal.wait(), POWER_OFF, "{}", terminal.text());
    assert!(terminal.is_as_it_was(), "the terminal is not restored");
}

#[test]
fn alpine_on_the_serial_port_reboots() {
    let Some(guest) = guest("alpine_on_the_serial_port") else {
        return;
    };

    let mut terminal = guest.boot(&[
        "-serial",
        "stdio",
        "-cmdline",
        "console=ttyS0 reboot=t quiet",
    ]);
    terminal.type_line("echo a$((6*7))z");
    terminal.expect("a42z");
    terminal.type_line("reboot");

    assert_eq!(terminal.wait(), REBOOT, "{}", terminal.text());
    assert!(terminal.is_as_it_was(), "the terminal is not restored");
}

#[test]
fn a_guest_panic_is_told() {
    let Some(guest) = guest("a_guest_panic_is_told") else {
        return;
    };

    let mut terminal = guest.boot(&["-cmdline", QUIET]);
    terminal.type_line("echo c > /proc/sysrq-trigger");

    assert_eq!(terminal.wait(), PANICKED, "{}", terminal.text());
    assert!(terminal.text().contains("panic"), "{}", terminal.text());
    assert!(terminal.is_as_it_was(), "the terminal is not restored");
}

#[test]
fn control_a_x_quits_and_control_a_h_helps() {
    let Some(guest) = guest("control_a_x_quits") else {
        return;
    };

    let mut terminal = guest.boot(&["-cmdline", QUIET]);
    terminal.type_bytes(b"\x01h");
    terminal.expect("Ctrl-A x");
    terminal.type_bytes(b"\x01x");

    assert_eq!(terminal.wait(), POWER_OFF, "{}", terminal.text());
    assert!(terminal.is_as_it_was(), "the terminal is not restored");
}

#[test]
fn sigterm_presses_the_power_button() {
    let Some(guest) = guest("sigterm_presses_the_power_button") else {
        return;
    };

    let mut terminal = guest.boot(&["-cmdline", QUIET]);
    terminal.signal("TERM");

    assert_eq!(terminal.wait(), POWER_OFF, "{}", terminal.text());
    assert!(terminal.is_as_it_was(), "the terminal is not restored");
}

#[test]
fn a_guest_that_does_not_power_off_is_stopped_after_its_grace() {
    let Some(guest) = guest("a_guest_that_does_not_power_off") else {
        return;
    };

    let cmdline = "console=hvc0 rdinit=/bin/sleep -- 1000";
    let mut terminal = guest.start(&["-grace", "2", "-cmdline", cmdline]);
    terminal.expect("Run /bin/sleep as init");
    terminal.signal("TERM");

    let status = terminal.wait_for(Duration::from_secs(20));
    assert_eq!(status, Some(FAILURE), "{}", terminal.text());
    let line = "the guest did not power off when asked, and was stopped";
    assert!(terminal.text().contains(line), "{}", terminal.text());
    assert!(terminal.is_as_it_was(), "the terminal is not restored");
}

/// The distribution's unmodified kernel, with the plain initrd or the one that has its modules.
/// `HYPE_DISTRO_KERNEL` and `HYPE_DISTRO_INITRD` name them.
fn distribution_guest(test: &str, with_modules: bool) -> Option<Guest> {
    let plain = guest(test)?;
    let path = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let both = path("HYPE_DISTRO_KERNEL").zip(path("HYPE_DISTRO_INITRD"));
    let Some((kernel, initrd)) = both else {
        eprintln!("skipped: {test}: HYPE_DISTRO_KERNEL and HYPE_DISTRO_INITRD are not set");
        return None;
    };
    Some(Guest {
        kernel,
        initrd: if with_modules { initrd } else { plain.initrd },
    })
}

/// Asks which kernel that is, and switches off.
fn tell_and_leave(guest: &Guest, mut terminal: Terminal) {
    // Distributions call the file vmlinuz and what `uname -r` says.
    let file = guest.kernel.canonicalize().unwrap();
    let version = file.file_name().unwrap().to_str().unwrap();
    terminal.type_line("echo vmlinuz-$(uname -r)");
    terminal.expect(version);
    terminal.type_line("poweroff");

    assert_eq!(terminal.wait(), POWER_OFF, "{}", terminal.text());
    assert!(terminal.is_as_it_was(), "the terminal is not restored");
}

#[test]
fn a_distribution_kernel_boots_to_its_init_on_the_serial_port() {
    let name = "a_distribution_kernel_boots_to_its_init_on_the_serial_port";
    let Some(guest) = distribution_guest(name, false) else {
        return;
    };

    let cmdline = "console=ttyS0 reboot=t quiet";
    let terminal = guest.boot(&["-serial", "stdio", "-cmdline", cmdline]);
    tell_and_leave(&guest, terminal);
}

#[test]
fn a_distribution_kernel_with_its_modules_has_the_virtio_console() {
    let name = "a_distribution_kernel_with_its_modules_has_the_virtio_console";
    let Some(guest) = distribution_guest(name, true) else {
        return;
    };

    let terminal = guest.boot(&["-cmdline", QUIET]);
    tell_and_leave(&guest, terminal);
}
