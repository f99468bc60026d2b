//! The consoles: bytes both ways, and the window's size.

use super::*;
use crate::support::{Port, read_to_string};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcgetwinsize, tcsetattr};
use std::io::{Read, Write, stdin, stdout};
use std::time::{Duration, Instant};
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
    the_serial_port_carries_bytes_both_ways,
    config: |plan| plan.port = Port::TtyS0,
    guest: || echo(2_000),
    host: |host| send_and_expect(host, 2_000),
    ends: Outcome::Shutdown,
}

guest_test! {
    the_window_has_the_size_that_the_host_gives_it,
    config: |_| {},
    guest: || {
        println!("ready");
        let deadline = Instant::now() + Duration::from_secs(30);
        let size = || tcgetwinsize(stdin()).map(|size| (size.ws_col, size.ws_row)).unwrap();
        while size() != (123, 45) {
            assert!(Instant::now() < deadline, "the window is {:?}", size());
            std::thread::sleep(Duration::from_millis(20));
        }
    },
    host: |host| {
        host.expect("ready");
        host.resizer.as_ref().unwrap().resize(123, 45);
    },
    ends: Outcome::Shutdown,
}
