//! Every register with every value and width, on a bus as the machine has it.

use super::*;
use crate::bus::BusDevice;
use crate::control::PowerButton;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

fn machine() -> (Bus, Arc<pm::Pm>, Arc<AtomicUsize>) {
    let raised = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&raised);
    let pm = Arc::new(pm::Pm::new(move || {
        counter.fetch_add(1, Ordering::SeqCst);
    }));
    let mut bus = Bus::new("ports");
    attach(&mut bus, &pm).unwrap();
    (bus, pm, raised)
}

fn inb(bus: &Bus, port: u64) -> u8 {
    let mut data = [0x55];
    bus.read(port, &mut data);
    data[0]
}

#[test]
fn exactly_the_documented_values_end_the_machine() {
    let (bus, ..) = machine();
    let mut reset = BTreeSet::new();
    let mut shutdown = BTreeSet::new();
    let mut panicked = BTreeSet::new();
    for port in 0..=0xffff_u64 {
        for value in 0..=255_u8 {
            match bus.write(port, &[value]) {
                Action::None => true,
                Action::Reset => reset.insert((port, value)),
                Action::Shutdown => shutdown.insert((port, value)),
                Action::Panicked => panicked.insert((port, value)),
            };
        }
    }
    let all = |port, rule: fn(u8) -> bool| {
        (0..=255)
            .filter(move |value| rule(*value))
            .map(move |value| (port, value))
    };
    let expected_reset: BTreeSet<(u64, u8)> = all(0x64, |v| v >= 0xf0 && v % 2 == 0)
        .chain(all(0x92, |v| v % 2 == 1))
        .chain(all(0xcf9, |v| v & 4 != 0))
        .collect();
    assert_eq!(reset, expected_reset);
    assert_eq!(shutdown, all(0x600, |v| v & 0x3c == 0x34).collect());
    assert_eq!(panicked, all(0x505, |v| v % 2 == 1).collect());
    assert!(
        reset.contains(&(i8042::COMMAND_PORT, i8042::RESET)),
        "as ACPI says"
    );
}

#[test]
fn all_ports_take_all_widths_and_read_ones_past_the_device() {
    let (bus, ..) = machine();
    for port in 0..=0xffff_u64 {
        for length in [0, 1, 2, 3, 4, 5, 8, 64] {
            let mut data = vec![0x55; length];
            bus.read(port, &mut data);
            // No device is wider than 5 registers.
            assert!(data.iter().skip(5).all(|byte| *byte == 0xff), "{port:#x}");
            // Zeros ask for nothing anywhere.
            assert_eq!(bus.write(port, &vec![0; length]), Action::None, "{port:#x}");
        }
    }
}

#[test]
fn the_largest_offset_does_not_overflow() {
    let (_, pm, _) = machine();
    let mut data = [0; 8];
    pm.read(u64::MAX, &mut data);
    assert_eq!(pm.write(u64::MAX, &data), Action::None);
}

#[test]
fn ports_without_a_device_float() {
    let (bus, ..) = machine();
    for port in [
        0x2f8, 0x3e8, 0x2e8, 0x3f8, 0xcf8, 0xcfc, 0x1f0, 0x3c0, 0xffff,
    ] {
        assert_eq!(inb(&bus, port), 0xff, "{port:#x}");
    }
}

#[test]
fn registers_read_as_documented() {
    let (bus, ..) = machine();
    for (port, value) in [
        (0x60, 0),
        (0x64, 0x15),
        (0x92, 2),
        (0xcf9, 0),
        (0x505, 3),
        (0x600, 0),
        (0x601, 0),
        (0x602, 0),
    ] {
        assert_eq!(inb(&bus, port), value, "{port:#x}");
    }
}

#[test]
fn the_keyboard_controller_always_takes_commands_and_never_runs_dry() {
    let (bus, ..) = machine();
    for command in (0..=0xef).chain((0xf1..=0xff).step_by(2)) {
        assert_eq!(bus.write(0x64, &[command]), Action::None);
        assert_eq!(inb(&bus, 0x64) & 0b11, 0b01, "{command:#x}");
    }
}

#[test]
fn a_wide_write_over_a_device_does_what_its_bytes_would() {
    let (bus, ..) = machine();
    assert_eq!(bus.write(0x60, &[0, 0, 0, 0, 0xfe]), Action::Reset);
    assert_eq!(bus.write(0x600, &[0x34, 0, 0, 0]), Action::Shutdown);
    assert_eq!(bus.write(0x601, &[0x34, 0x34, 0x34]), Action::None);
}

#[test]
fn a_sleep_state_that_does_not_exist_is_over_at_once() {
    let (bus, ..) = machine();
    assert_eq!(bus.write(0x600, &[3 << 2 | 1 << 5]), Action::None);
    assert_eq!(inb(&bus, 0x601), 0x80);
    assert_eq!(bus.write(0x601, &[0x7f]), Action::None);
    assert_eq!(inb(&bus, 0x601), 0x80);
    assert_eq!(bus.write(0x601, &[0x80]), Action::None);
    assert_eq!(inb(&bus, 0x601), 0);
}

#[test]
fn a_pressed_button_interrupts_and_is_seen_once() {
    let (bus, pm, raised) = machine();
    pm.press();
    pm.press();
    assert_eq!(raised.load(Ordering::SeqCst), 2);
    assert!(!pm.taken());
    assert_eq!(inb(&bus, 0x602), pm::EVENT_POWER_BUTTON);
    assert_eq!(inb(&bus, 0x602), 0);
    assert!(pm.taken());
}

#[test]
fn a_crash_kernel_that_takes_over_is_left_to_work() {
    let (bus, ..) = machine();
    assert_eq!(bus.write(0x505, &[2]), Action::None);
    assert_eq!(bus.write(0x505, &[3]), Action::Panicked);
}
