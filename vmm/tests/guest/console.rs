//! The consoles: bytes both ways, and the window's size.

use super::*;
use crate::support::{Port, read_to_string};
use rustix::fs::{Mode, OFlags};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcgetwinsize, tcsetattr};
use std::io::{Read, Write, stdin, stdout};
use std::time::{Duration, Instant};
use vmm::Transport;
use vmm::virtio::transport::Rings;

/// Bytes that are different at each place, as far as that goes.
fn pattern(len: usize) -> Vec<u8> {
    (0..len)
        .map(|index| b'!' + (index.wrapping_mul(31) % 90) as u8)
        .collect()
}

/// Reads `len` bytes from the console as they come, and sends them back.
fn echo(len: usize) {
    let mut attributes = tcgetattr(stdin()).unwrap();
    attributes.make_raw();
    attributes.local_modes.remove(LocalModes::ECHO);
    tcsetattr(stdin(), OptionalActions::Now, &attributes).unwrap();
    print!("ready");
    stdout().flush().unwrap();
    let mut bytes = vec![0; len];
    stdin().read_exact(&mut bytes).unwrap();
    stdout().write_all(&bytes).unwrap();
    stdout().flush().unwrap();
}

fn send_and_expect(host: &mut Host, len: usize) {
    host.expect("ready");
    host.type_bytes(&pattern(len));
    host.expect(&String::from_utf8(pattern(len)).unwrap());
}

fn wait_for_a_resized_window() {
    println!("ready");
    let deadline = Instant::now() + Duration::from_secs(30);
    let size = || {
        tcgetwinsize(stdin())
            .map(|size| (size.ws_col, size.ws_row))
            .unwrap()
    };
    while size() != (123, 45) {
        assert!(Instant::now() < deadline, "the window is {:?}", size());
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn resize_the_window(host: &mut Host) {
    host.expect("ready");
    host.resizer.as_ref().unwrap().resize(123, 45);
}

/// Whether driver and console agreed on packed rings.
fn has_packed_rings() -> bool {
    let features = read_to_string("/sys/bus/virtio/devices/virtio0/features");
    // One digit for each bit, the lowest first.
    features.as_bytes()[34] == b'1'
}

guest_test! {
    the_virtio_console_carries_bytes_both_ways_in_packed_rings,
    config: |_| {},
    guest: || {
        assert!(has_packed_rings(), "Linux takes what it is offered");
        echo(40_000);
    },
    host: |host| send_and_expect(host, 40_000),
    ends: Outcome::Shutdown,
}

guest_test! {
    the_virtio_console_carries_bytes_both_ways_in_split_rings,
    config: |plan| plan.rings = Rings::Split,
    guest: || {
        assert!(!has_packed_rings());
        echo(40_000);
    },
    host: |host| send_and_expect(host, 40_000),
    ends: Outcome::Shutdown,
}

guest_test! {
    the_virtio_console_carries_bytes_both_ways_on_pci,
    config: |plan| plan.config.transport = Some(Transport::Pci),
    guest: || {
        let device = std::fs::canonicalize("/sys/bus/virtio/devices/virtio0").unwrap();
        assert_eq!(device.to_str(), Some("/sys/devices/pci0000:00/0000:00:01.0/virtio0"));
        let interrupts = read_to_string("/proc/interrupts");
        assert!(interrupts.contains("MSI"), "{interrupts}");
        echo(40_000);
    },
    host: |host| send_and_expect(host, 40_000),
    ends: Outcome::Shutdown,
}

guest_test! {
    the_window_has_the_size_that_the_host_gives_it_on_pci,
    config: |plan| plan.config.transport = Some(Transport::Pci),
    guest: wait_for_a_resized_window,
    host: resize_the_window,
    ends: Outcome::Shutdown,
}

guest_test! {
    the_serial_port_carries_bytes_both_ways,
    config: |plan| plan.port = Port::TtyS0,
    guest: || echo(2_000),
    host: |host| send_and_expect(host, 2_000),
    ends: Outcome::Shutdown,
}

guest_test! {
    the_window_has_the_size_that_the_host_gives_it,
    config: |_| {},
    guest: wait_for_a_resized_window,
    host: resize_the_window,
    ends: Outcome::Shutdown,
}

/// The kernel's log, as the console has to show it.
fn kernel_log() -> Vec<String> {
    let options = OFlags::RDONLY | OFlags::NONBLOCK;
    let log = rustix::fs::open("/dev/kmsg", options, Mode::empty()).unwrap();
    let mut record = vec![0; 8192];
    let mut lines = Vec::new();
    // A read gives one record; none is left when it would block.
    while let Ok(size) = rustix::io::read(&log, &mut record) {
        let text = String::from_utf8_lossy(&record[..size]);
        let (prefix, text) = text.split_once(';').unwrap();
        let prefix: Vec<u64> = prefix
            .split(',')
            .filter_map(|part| part.parse().ok())
            .collect();
        // Debug messages (7) are not for the console.
        if let [priority, _, micros, ..] = prefix[..]
            && priority & 7 < 7
        {
            let (seconds, micros) = (micros / 1_000_000, micros % 1_000_000);
            let text = text.lines().next().unwrap().replace("\\x09", "\t");
            lines.push(format!("[{seconds:5}.{micros:06}] {text}"));
        }
    }
    lines
}

/// What nobody but the kernel has printed.
fn messages_before_init<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    lines
        .take_while(|line| !line.ends_with("Run /init as init process"))
        .collect()
}

/// Exits per hundred bytes: one for each to see that it may be sent, and some four a message to
/// save and restore the interrupts.
const EXITS_PER_HUNDRED: usize = 115;
/// The same when a program prints on the port: some three for each FIFO of 16 bytes, and a few for
/// each line.
const EXITS_PER_HUNDRED_OF_A_TERMINAL: usize = 50;
/// The exits of a quiet boot.
const QUIET: u64 = 200;

guest_test! {
    a_verbose_serial_boot_makes_an_exit_per_byte_a_write_per_line_and_loses_nothing,
    config: |plan| {
        plan.port = Port::TtyS0;
        plan.cmdline = "reboot=t panic=-1".into();
    },
    guest: || {
        // From here on no message gets in between of what this prints.
        std::fs::write("/proc/sys/kernel/printk", "1").unwrap();
        println!("booted");
        kernel_log().iter().for_each(|line| println!("log {line}"));
        println!("end of log");
    },
    host: |host| {
        host.expect("booted");
        let exits = host.handle.report().total_exits();
        let text = host.shown();
        let boot = &text[..text.find("booted").unwrap()];
        let (lines, writes) = (boot.lines().count(), host.writes());
        eprintln!("{} bytes, {lines} lines, {writes} writes: {exits}", boot.len());
        // One for a line; a host that is held up sees pauses as well.
        assert!(writes <= 2 * lines, "{writes} writes of {lines} lines");
        let budget = (boot.len() * EXITS_PER_HUNDRED / 100) as u64 + QUIET;
        assert!(exits.guest() <= budget, "{} bytes, {exits}", boot.len());

        host.expect("end of log");
        let text = host.shown();
        let log = &text[text.find("booted").unwrap()..];
        let before = exits;
        let exits = host.handle.report().total_exits();
        eprintln!("{} bytes: {exits}", log.len());
        let left = exits.guest() - before.guest();
        let budget = (log.len() * EXITS_PER_HUNDRED_OF_A_TERMINAL / 100) as u64 + QUIET;
        assert!(left <= budget, "{} bytes, {left} exits", log.len());

        let logged = text.lines().filter_map(|line| line.strip_prefix("log "));
        let printed = messages_before_init(boot.lines());
        assert!(printed.len() > 50, "{printed:#?}");
        assert_eq!(printed, messages_before_init(logged));
    },
    ends: Outcome::Shutdown,
}
