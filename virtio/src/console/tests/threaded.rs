//! The console behind its registers and on its thread, as in a machine.

use super::{LONG, pipe};
use crate::console::{Console, EMERG_WR, RECEIVEQ, TRANSMITQ};
use crate::features::RING_PACKED;
use crate::stream::{Captured, Input, Output};
use crate::testing::{Driver, Transport};
use crate::transport::mmio::Mmio;
use crate::worker::Mode;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::time::{Duration, Instant};

fn start(console: Console) -> Driver<Mmio> {
    let mut driver = Driver::mmio(Box::new(console));
    driver.start(u64::MAX);
    driver
}

/// The processor time that the thread of this name has used.
fn cpu_time(thread: &str) -> Duration {
    for task in fs::read_dir("/proc/self/task").unwrap() {
        let task = task.unwrap().path();
        let name = fs::read_to_string(task.join("comm")).unwrap_or_default();
        if name.trim_end() == thread {
            let times = fs::read_to_string(task.join("schedstat")).unwrap();
            let nanoseconds = times.split_whitespace().next().unwrap().parse().unwrap();
            return Duration::from_nanos(nanoseconds);
        }
    }
    panic!("there is no thread {thread}");
}

/// Whether a console that has nothing to do does nothing. It is asked for a round trip first, so
/// that whatever came before is done.
fn assert_idle(driver: &mut Driver<Mmio>, thread: &str) {
    driver.send(TRANSMITQ, &[b"."], &[]);
    driver.receive(TRANSMITQ);
    let before = cpu_time(thread);
    std::thread::sleep(Duration::from_millis(100));
    let used = cpu_time(thread) - before;
    assert!(used < Duration::from_millis(20), "{used:?} in 100 ms");
}

#[test]
fn bytes_go_both_ways() {
    let (reader, writer) = pipe();
    let (output, captured) = Output::capture();
    let mut driver = start(Console::new(
        Some(Input::fd(reader).unwrap()),
        Some(output.clone()),
    ));
    driver.send(RECEIVEQ, &[], &[4096]);
    File::from(writer).write_all(b"id\n").unwrap();
    assert_eq!(driver.receive(RECEIVEQ).1, b"id\n");
    driver.send(TRANSMITQ, &[b"root\n"], &[]);
    driver.receive(TRANSMITQ);
    driver.transport.stop();
    assert!(output.finish(LONG));
    assert_eq!(captured.bytes(), b"root\n");
}

#[test]
fn the_end_of_the_input_costs_no_processor_time() {
    let null = File::open("/dev/null").unwrap();
    let console = Console::new(Some(Input::fd(null.into()).unwrap()), None).name("con-null");
    let mut driver = start(console);
    driver.send(RECEIVEQ, &[], &[4096]);
    assert_idle(&mut driver, "con-null");
    let (reader, _) = pipe();
    let console = Console::new(Some(Input::fd(reader).unwrap()), None).name("con-closed");
    let mut driver = start(console);
    driver.send(RECEIVEQ, &[], &[4096]);
    assert_idle(&mut driver, "con-closed");
}

#[test]
fn input_that_the_driver_does_not_take_costs_no_processor_time_and_stays_with_the_host() {
    let (reader, writer) = pipe();
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    let console = Console::new(Some(Input::fd(reader).unwrap()), None).name("con-full");
    let mut driver = start(console);
    driver.send(RECEIVEQ, &[], &[16]);
    let mut writer = File::from(writer);
    let mut written = 0;
    while let Ok(size) = writer.write(&[b'x'; 4096]) {
        written += size;
        assert!(written <= 1 << 20);
    }
    assert_idle(&mut driver, "con-full");
}

#[test]
fn a_console_whose_host_is_stuck_stops_at_once_and_is_dropped_soon() {
    let (_reader, writer) = pipe();
    let output = Output::fd(writer).unwrap();
    let mut driver = start(Console::new(None, Some(output.clone())));
    while output.dropped() == 0 {
        driver.send(TRANSMITQ, &[&[b'x'; 32_768]], &[]);
        driver.receive(TRANSMITQ);
    }
    let before = Instant::now();
    driver.transport.stop();
    assert!(before.elapsed() < Duration::from_secs(1));
    drop(output);
    assert!(before.elapsed() < LONG);
}

#[test]
fn a_chain_that_waits_for_room_survives_a_pause() {
    let (reader, writer) = pipe();
    let output = Output::fd(writer).unwrap();
    let mut driver = start(Console::new(None, Some(output.clone())));
    // All at once and more than the buffer takes, so that some chains are left in the ring.
    let mut sent = 0;
    for _ in 0..10 {
        driver.send(TRANSMITQ, &[&[b'x'; 32_768]], &[]);
        sent += 32_768;
    }
    driver.transport.pause().unwrap();
    let mut reader = File::from(reader);
    let reading = std::thread::spawn(move || {
        let mut all = Vec::new();
        reader.read_to_end(&mut all).unwrap();
        all.len()
    });
    driver.transport.resume().unwrap();
    for _ in 0..10 {
        driver.receive(TRANSMITQ);
    }
    driver.transport.stop();
    assert!(output.finish(LONG));
    assert_eq!(reading.join().unwrap() as u64 + output.dropped(), sent);
}

#[test]
fn a_storm_of_sizes_from_several_threads_ends_with_one_of_the_last_ones() {
    let console = Console::new(None, None);
    let resizer = console.resizer();
    let mut driver = start(console);
    let resizing = [1, 2].map(|rows| {
        let resizer = resizer.clone();
        std::thread::spawn(move || (0..=1000).for_each(|columns| resizer.resize(columns, rows)))
    });
    for thread in resizing {
        thread.join().unwrap();
    }
    let size = driver.until("the last size", |driver| {
        let mut size = [0; 4];
        driver.transport.read_config(0, &mut size);
        let interrupted = driver.interrupts().config > 0;
        (interrupted && size[..2] == 1000u16.to_le_bytes()).then_some(size)
    });
    assert!(size[2..] == [1, 0] || size[2..] == [2, 0]);
}

#[test]
fn emergency_writes_before_and_after_the_driver_is_ready_are_printed() {
    let (output, captured) = Output::capture();
    let mut driver = Driver::mmio(Box::new(Console::new(None, Some(output.clone()))));
    let character = |character: u8| u32::from(character).to_le_bytes();
    driver
        .transport
        .write_config(EMERG_WR as u64, &character(b'a'));
    driver.start(u64::MAX);
    driver.send(TRANSMITQ, &[b"b"], &[]);
    driver.receive(TRANSMITQ);
    driver
        .transport
        .write_config(EMERG_WR as u64, &character(b'c'));
    let deadline = Instant::now() + LONG;
    let mut word = [1; 4];
    while word != [0; 4] {
        assert!(Instant::now() < deadline);
        driver.transport.read_config(EMERG_WR as u64, &mut word);
    }
    driver.transport.stop();
    assert!(output.finish(LONG));
    assert_eq!(captured.bytes(), b"abc");
}

/// A console whose device has no turn by itself, so that chains stay in the ring, with both rings.
fn waiting_consoles() -> [(Driver<Mmio>, Output, Captured); 2] {
    [0, RING_PACKED].map(|features| {
        let (output, captured) = Output::capture();
        let console = Console::new(None, Some(output.clone()));
        let mut driver = Driver::mmio_in(Box::new(console), Mode::Inline);
        driver.start(features);
        (driver, output, captured)
    })
}

#[test]
fn what_is_in_the_ring_when_the_machine_ends_is_printed() {
    for (mut driver, output, captured) in waiting_consoles() {
        driver.send(TRANSMITQ, &[b"Kernel panic: "], &[]);
        driver.send(TRANSMITQ, &[b"not ", b"syncing\n"], &[]);
        driver
            .transport
            .write_config(EMERG_WR as u64, &u32::from(b'!').to_le_bytes());

        driver.transport.stop();

        assert!(output.finish(LONG));
        assert_eq!(captured.bytes(), b"Kernel panic: not syncing\n!");
    }
}

#[test]
fn what_is_in_the_ring_when_a_paused_machine_ends_is_printed() {
    for (mut driver, output, captured) in waiting_consoles() {
        driver.transport.pause().unwrap();
        driver.send(TRANSMITQ, &[b"last words\n"], &[]);

        driver.transport.stop();

        assert!(output.finish(LONG));
        assert_eq!(captured.bytes(), b"last words\n");
    }
}

#[test]
fn what_the_output_has_no_room_for_at_the_end_is_dropped_and_counted() {
    let (_reader, writer) = pipe();
    let mut filled = File::from(writer.try_clone().unwrap());
    rustix::io::ioctl_fionbio(&filled, true).unwrap();
    while filled.write(&[b'x'; 4096]).is_ok() {}
    let output = Output::fd(writer).unwrap();
    let console = Console::new(None, Some(output.clone()));
    let mut driver = Driver::mmio_in(Box::new(console), Mode::Inline);
    driver.start(0);
    for _ in 0..10 {
        driver.send(TRANSMITQ, &[&[b'x'; 32_768]], &[]);
    }

    driver.transport.stop();

    // 256 KiB wait for the host.
    assert_eq!(output.dropped(), 64 << 10);
}

#[test]
fn a_console_that_has_failed_takes_nothing_more_at_the_end() {
    let (output, captured) = Output::capture();
    let mut driver = start(Console::new(None, Some(output.clone())));
    driver.rings[usize::from(TRANSMITQ)].corrupt();
    driver.notify(TRANSMITQ);
    driver.wait_for_needs_reset();

    driver.transport.stop();

    assert!(output.finish(LONG));
    assert_eq!(captured.bytes(), b"");
}
