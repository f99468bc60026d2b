//! The disk behind a transport, with a thread, and a host that does not answer.

use super::*;
use crate::testing::driver::Machine;
use crate::testing::ring::{Descriptor, NEXT, WRITE};
use crate::testing::{Driver, Transport};
use crate::transport::mmio::Mmio;
use crate::transport::status::NEEDS_RESET;
use crate::worker::{Mode, STOP_PATIENCE};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use vm_memory::VolatileSlice;

fn driver() -> (Driver<Mmio>, Faults, Arc<MemoryDisk>) {
    driver_with(1)
}

fn driver_with(queues: u16) -> (Driver<Mmio>, Faults, Arc<MemoryDisk>) {
    let disk = Arc::new(MemoryDisk::new(1 << 20).unwrap());
    let (storage, faults) = Faulty::new(Shared(Arc::clone(&disk), false));
    let device = Block::new(storage).name("disk7").queues(queues).unwrap();
    let mut driver = Driver::mmio(Box::new(device));
    driver.start(ALL);
    faults.take_calls();
    (driver, faults, disk)
}

fn read(driver: &mut Driver<Mmio>) -> u16 {
    driver.send(0, &[&header(IN, 0)], &[512, 1])
}

#[test]
fn a_pause_while_the_host_does_not_answer_is_refused_and_the_disk_goes_on() {
    let (mut driver, faults, _) = driver();
    faults.plan([Fault::Wait]);
    let first = read(&mut driver);
    let second = read(&mut driver);
    faults.until_waiting();

    let error = driver.transport.pause().unwrap_err();

    assert!(error.to_string().contains("to be idle"), "{error}");
    faults.release();
    let answered = [driver.receive(0), driver.receive(0)].map(|(id, bytes)| (id, bytes[512]));
    assert_eq!(answered, [(first, OK), (second, OK)]);
    driver.transport.pause().unwrap();
    driver.transport.resume().unwrap();
    let third = read(&mut driver);
    assert_eq!(driver.receive(0).0, third);
    assert_eq!(driver.machine.failures(), []);
}

#[test]
fn the_end_of_the_machine_does_not_wait_for_the_host_for_long() {
    let (mut driver, faults, _) = driver();
    faults.plan([Fault::Wait]);
    read(&mut driver);
    faults.until_waiting();

    let before = Instant::now();
    driver.transport.stop();

    let took = before.elapsed();
    assert!(took < STOP_PATIENCE + Duration::from_secs(1), "{took:?}");
    assert_eq!(driver.machine.failures(), []);
    drop(driver);
    // The thread that was left behind goes on with memory that is still there.
    faults.release();
}

#[test]
fn a_reset_while_the_host_does_not_answer_costs_the_machine() {
    let (mut driver, faults, _) = driver();
    faults.plan([Fault::Wait]);
    read(&mut driver);
    faults.until_waiting();

    driver.reset();

    let said = "waits for the host, and can't be reset".to_owned();
    assert_eq!(driver.machine.failures(), [("disk7".to_owned(), said)]);
    faults.release();
}

#[test]
fn a_stop_does_not_wait_for_what_is_in_the_ring() {
    let (mut driver, faults, _) = driver();
    faults.plan([Fault::Wait]);
    for _ in 0..60 {
        read(&mut driver);
    }
    faults.until_waiting();
    driver.transport.life().ask_to_stop();
    faults.release();

    driver.transport.stop();

    assert_eq!(driver.rings[0].as_split().used_idx(), 1);
    assert_eq!(faults.take_calls().len(), 1);
}

#[test]
fn a_write_after_the_cache_was_switched_off_is_flushed_though_the_disk_was_busy() {
    let (mut driver, faults, _) = driver();
    faults.plan([Fault::Wait]);
    read(&mut driver);
    faults.until_waiting();
    // The worker is in the middle of a drain, and will find the write in its ring.
    driver.transport.write_config(32, &[0]);
    driver.send(0, &[&header(OUT, 0), &[1; 512]], &[1]);
    faults.release();

    driver.receive(0);
    driver.receive(0);

    let calls = faults.take_calls();
    assert_eq!(calls[0], Call::Read(0, 512));
    assert_eq!(calls[1], Call::Flush, "of the switch");
    assert_eq!(calls[2..], [Call::Write(0, 512), Call::Flush]);
}

#[test]
fn a_flush_in_flight_is_over_when_a_reset_is() {
    for _ in 0..50 {
        let (mut driver, faults, _) = driver();
        for sector in 0..20 {
            driver.send(0, &[&header(OUT, sector), &[1; 512]], &[1]);
            driver.send(0, &[&header(FLUSH, 0)], &[1]);
        }
        driver.transport.set_status(0);
        let calls = faults.take_calls();
        driver.notify(0);
        assert_eq!(driver.transport.status() & NEEDS_RESET, 0);
        assert_eq!(faults.take_calls(), [], "after {calls:?}");
    }
}

/// A disk of a GiB that counts what it is asked for, and has nothing.
struct Vast(Arc<AtomicUsize>);

impl BlockStorage for Vast {
    fn properties(&self) -> Properties {
        Properties::new(1 << 30)
    }

    fn read_vectored_at(&self, buffers: &[VolatileSlice<'_>], offset: u64) -> io::Result<usize> {
        let len = buffers.iter().map(VolatileSlice::len).sum();
        let before = self.0.fetch_add(len, Ordering::Relaxed);
        assert_eq!(offset, before as u64, "one after the other");
        Ok(len)
    }

    fn write_vectored_at(&self, _: &[VolatileSlice<'_>], _: u64) -> io::Result<usize> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_gibibyte_is_read_by_one_request() {
    const PIECES: u16 = 128;
    const PIECE: usize = (1 << 30) / PIECES as usize;
    let bytes = Arc::default();
    let disk = Vast(Arc::clone(&bytes));
    let machine = Machine::with_queue_memory(2 * PIECE as u64);
    let mut driver = Driver::mmio_of(machine, Box::new(Block::new(disk)), Mode::Thread);
    driver.start(VERSION_1);
    let ring = &mut driver.rings[0];
    let status = ring.alloc_bytes(&[0xff]);
    let data = ring.alloc(PIECE);
    let mut chain = vec![(ring.alloc_bytes(&header(IN, 0)), 16, NEXT)];
    // Each piece of the disk goes to the same place.
    chain.extend([(data, PIECE as u32, NEXT | WRITE); PIECES as usize]);
    chain.push((status, 1, WRITE));
    for (index, (address, len, flags)) in (0..).zip(chain) {
        let next = index + 1;
        let descriptor = Descriptor {
            address,
            len,
            flags,
            next,
        };
        ring.as_split().set_descriptor(index, descriptor);
    }
    ring.as_split().push_avail(0);
    driver.notify(0);

    let used = driver.until("the answer", |driver| driver.rings[0].used());

    assert_eq!(used, (0, (1 << 30) + 1));
    assert_eq!(driver.rings[0].read(status, 1), [OK]);
    assert_eq!(
        bytes.load(Ordering::Relaxed),
        1 << 30,
        "straight into the driver's memory"
    );
}

#[test]
fn a_request_that_cannot_be_answered_costs_the_device_until_it_is_reset() {
    let (mut driver, _, disk) = driver();
    driver.send(0, &[&header(OUT, 0), &[1; 512]], &[]);
    driver.wait_for_needs_reset();
    assert_eq!(disk.contents(0, 512), [0; 512]);
    driver.start(ALL);
    let id = read(&mut driver);
    assert_eq!(driver.receive(0).0, id);
}

#[test]
fn each_queue_reads_and_writes_while_another_one_waits_for_the_host() {
    let (mut driver, faults, disk) = driver_with(4);
    assert_ne!(driver.transport.device_features() & F_MQ, 0);
    faults.plan([Fault::Wait]);
    let waiting = driver.send(3, &[&header(IN, 0)], &[512, 1]);
    faults.until_waiting();
    for queue in 0..3 {
        let byte = queue as u8 + 1;
        let sector = u64::from(queue) * 8;
        driver.send(queue, &[&header(OUT, sector), &[byte; 512]], &[1]);
        assert_eq!(driver.receive(queue).1, [OK]);
        driver.send(queue, &[&header(IN, sector)], &[512, 1]);
        assert_eq!(driver.receive(queue).1[..512], [byte; 512]);
        assert_eq!(disk.contents(sector * 512, 512), [byte; 512]);
    }
    faults.release();
    assert_eq!(driver.receive(3).0, waiting);
}

#[test]
fn after_the_cache_was_switched_off_a_write_to_any_queue_is_flushed() {
    let (mut driver, faults, _) = driver_with(4);
    for queue in 0..4 {
        driver.send(queue, &[&header(OUT, 0), &[1; 512]], &[1]);
        driver.receive(queue);
    }
    assert_eq!(faults.take_calls(), [Call::Write(0, 512); 4]);
    driver.transport.write_config(32, &[0]);
    for queue in 0..4 {
        driver.send(queue, &[&header(OUT, 0), &[1; 512]], &[1]);
        driver.receive(queue);
    }
    driver.transport.pause().unwrap();
    let calls = faults.take_calls();
    let flushes = calls.iter().filter(|call| **call == Call::Flush).count();
    assert_eq!(flushes, 8, "of the switch and of the write: {calls:?}");
    assert_ne!(calls.last(), Some(&Call::Write(0, 512)));
}
