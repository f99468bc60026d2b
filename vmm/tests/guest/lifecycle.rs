//! How machines end, and how they hold still.

use super::*;
use crate::support::read_to_string;
use rustix::system::RebootCommand;
use std::time::{Duration, Instant};
use vmm::{State, Transport};

guest_test! {
    a_power_off_is_a_shutdown,
    config: |_| {},
    guest: || init::end(RebootCommand::PowerOff),
    host: |_| {},
    ends: Outcome::Shutdown,
}

guest_test! {
    a_reset_by_triple_fault_is_a_reboot,
    config: |_| {},
    guest: || init::end(RebootCommand::Restart),
    host: |_| {},
    ends: Outcome::Reboot,
}

guest_test! {
    a_reset_by_the_keyboard_controller_is_a_reboot,
    config: |plan| plan.cmdline = "reboot=k panic=-1".into(),
    guest: || init::end(RebootCommand::Restart),
    host: |_| {},
    ends: Outcome::Reboot,
}

guest_test! {
    a_reset_by_acpi_is_a_reboot,
    config: |plan| plan.cmdline = "reboot=a panic=-1".into(),
    guest: || init::end(RebootCommand::Restart),
    host: |_| {},
    ends: Outcome::Reboot,
}

guest_test! {
    a_reset_as_the_kernel_likes_it_is_a_reboot,
    config: |plan| plan.cmdline = "panic=-1".into(),
    guest: || init::end(RebootCommand::Restart),
    host: |_| {},
    ends: Outcome::Reboot,
}

guest_test! {
    a_reset_as_the_kernel_likes_it_is_a_reboot_with_pci_too,
    config: |plan| {
        plan.cmdline = "panic=-1".into();
        plan.config.transport = Some(Transport::Pci);
    },
    guest: || init::end(RebootCommand::Restart),
    host: |_| {},
    ends: Outcome::Reboot,
}

guest_test! {
    a_reset_by_acpi_is_a_reboot_with_pci_too,
    config: |plan| {
        plan.cmdline = "reboot=a panic=-1".into();
        plan.config.transport = Some(Transport::Pci);
    },
    guest: || init::end(RebootCommand::Restart),
    host: |_| {},
    ends: Outcome::Reboot,
}

guest_test! {
    a_kernel_panic_is_told_apart,
    config: |_| {},
    guest: || {
        std::fs::write("/proc/sysrq-trigger", "c").unwrap();
    },
    host: |_| {},
    ends: Outcome::Panicked,
}

guest_test! {
    the_guest_hears_the_power_button,
    config: |_| {},
    guest: || {
        let mut events = std::fs::File::open("/dev/input/event0").unwrap();
        println!("ready");
        let mut event = [0; 24];
        std::io::Read::read_exact(&mut events, &mut event).unwrap();
        // struct input_event: 16 bytes of time, then type EV_KEY (1) and code KEY_POWER (116).
        assert_eq!(event[16..20], [1, 0, 116, 0]);
    },
    host: |host| {
        host.expect("ready");
        host.handle.power_button().unwrap();
    },
    ends: Outcome::Shutdown,
}

guest_test! {
    a_guest_that_never_ends_is_stopped_soon,
    config: |plan| plan.config.cpus = 2,
    guest: || {
        std::thread::spawn(|| loop { std::hint::spin_loop() });
        println!("ready");
        loop { std::hint::spin_loop() }
    },
    host: |host| {
        host.expect("ready");
        let asked = Instant::now();
        host.handle.stop();
        assert_eq!(host.handle.wait_for(State::Stopped), State::Stopped);
        assert!(asked.elapsed() < Duration::from_secs(2), "stopped after {:?}", asked.elapsed());
    },
    ends: Outcome::Stopped,
}

/// Prints a line for each that is typed, and never rests.
fn be_busy() {
    std::thread::spawn(|| {
        loop {
            std::hint::spin_loop();
        }
    });
    println!("ready");
    let mut line = String::new();
    while line != "end\n" {
        println!("busy {}", read_to_string("/proc/uptime").trim());
        line.clear();
        std::io::stdin().read_line(&mut line).unwrap();
    }
}

fn pause_a_hundred_times(host: &mut Host) {
    host.expect("ready");
    for _ in 0..100 {
        host.type_bytes(b"go on\n");
        host.handle.pause().unwrap();
        assert_eq!(host.handle.state(), State::Paused);
        host.handle.resume().unwrap();
        host.expect("busy ");
    }
    host.type_bytes(b"end\n");
}

guest_test! {
    a_busy_guest_survives_a_hundred_pauses,
    config: |plan| plan.config.cpus = 2,
    guest: be_busy,
    host: pause_a_hundred_times,
    ends: Outcome::Shutdown,
}

guest_test! {
    a_busy_guest_with_pci_survives_a_hundred_pauses,
    config: |plan| {
        plan.config.cpus = 2;
        plan.config.transport = Some(Transport::Pci);
    },
    guest: be_busy,
    host: pause_a_hundred_times,
    ends: Outcome::Shutdown,
}
