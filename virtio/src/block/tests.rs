//! Requests as a driver makes them, without a thread: over memory, and over a storage with faults.

mod faults;
mod requests;
mod worker;

use super::*;
use crate::features::VERSION_1;
use crate::testing::faulty::{Call, Fault, Faults, Faulty};
use crate::testing::{Interrupts, Ring};
use crate::{Io, Queue};
use std::io;

const ALL: u64 = F_FLUSH | F_CONFIG_WCE | F_DISCARD | F_WRITE_ZEROES | VERSION_1;

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;

const OK: u8 = 0;
const IOERR: u8 = 1;
const UNSUPP: u8 = 2;

/// The size of the disks here: 64 sectors.
const SIZE: u64 = 32 << 10;

/// A byte for each place of a disk.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at / 512 + at * 7 + 1) as u8).collect()
}

/// A request's header.
fn header(kind: u32, sector: u64) -> Vec<u8> {
    let mut bytes = kind.to_le_bytes().to_vec();
    bytes.extend([0; 4]);
    bytes.extend(sector.to_le_bytes());
    bytes
}

/// A range of a discard.
fn range(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    let mut bytes = sector.to_le_bytes().to_vec();
    bytes.extend(sectors.to_le_bytes());
    bytes.extend(flags.to_le_bytes());
    bytes
}

/// A storage that a test can look into after the device has it.
#[derive(Debug, Clone)]
struct Shared(Arc<MemoryDisk>, bool);

impl BlockStorage for Shared {
    fn properties(&self) -> Properties {
        Properties {
            read_only: self.1,
            identity: "a memory disk".to_owned(),
            ..self.0.properties()
        }
    }

    fn read_vectored_at(
        &self,
        buffers: &[vm_memory::VolatileSlice<'_>],
        offset: u64,
    ) -> io::Result<usize> {
        self.0.read_vectored_at(buffers, offset)
    }

    fn write_vectored_at(
        &self,
        buffers: &[vm_memory::VolatileSlice<'_>],
        offset: u64,
    ) -> io::Result<usize> {
        self.0.write_vectored_at(buffers, offset)
    }

    fn flush(&self) -> io::Result<()> {
        self.0.flush()
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.0.discard(offset, len)
    }

    fn write_zeroes(&self, offset: u64, len: u64, may_unmap: bool) -> io::Result<()> {
        self.0.write_zeroes(offset, len, may_unmap)
    }
}

/// A disk, its driver, and what is behind it.
struct Bench {
    device: Block,
    io: Io,
    ring: Ring,
    disk: Arc<MemoryDisk>,
    faults: Faults,
}

impl Bench {
    fn new() -> Self {
        Self::with(ALL, false)
    }

    fn with(features: u64, read_only: bool) -> Self {
        let disk = MemoryDisk::with_contents(&pattern(SIZE as usize)).unwrap();
        let disk = Arc::new(disk);
        let (storage, faults) = Faulty::new(Shared(Arc::clone(&disk), read_only));
        let mut device = Block::new(storage);
        let memory = crate::testing::ring::ram(&[(0, 0x20_0000), (0x20_0000, 0x20_0000)]);
        let ring = Ring::split(&memory, 0x1000..0x40_0000, 512, 0);
        let queue = Queue::new(&ring.config(), Arc::clone(&memory), features).unwrap();
        let irq: Arc<Interrupts> = Arc::default();
        let config = Arc::clone(&device.spec().config);
        let mut io = Io::new(memory, features, config, irq, vec![Some(queue)]);
        device.activate(&mut io).unwrap();
        faults.take_calls();
        Bench {
            device,
            io,
            ring,
            disk,
            faults,
        }
    }

    /// Makes a request and has it served: the length in the used ring, and all that is writable.
    fn chain(&mut self, readable: &[&[u8]], writable: &[usize]) -> (u32, Vec<u8>) {
        let id = self.ring.add(readable, writable);
        self.device
            .handle(Event::Queue(0), &mut self.io)
            .expect("a request that is answered");
        let (used, len) = self.ring.used().expect("an answer");
        assert_eq!(used, id);
        let room = writable.iter().sum();
        (len, self.ring.written(id, room))
    }

    /// Makes a request that only gets a status.
    fn status(&mut self, readable: &[&[u8]]) -> u8 {
        let (len, bytes) = self.chain(readable, &[1]);
        assert_eq!(len, 1);
        bytes[0]
    }

    /// Reads sectors: the status, and the data.
    fn read(&mut self, sector: u64, len: usize) -> (u8, Vec<u8>) {
        let (_, mut bytes) = self.chain(&[&header(IN, sector)], &[len, 1]);
        let status = bytes.pop().unwrap();
        (status, bytes)
    }

    fn write(&mut self, sector: u64, data: &[u8]) -> u8 {
        self.status(&[&header(OUT, sector), data])
    }

    fn contents(&self) -> Vec<u8> {
        self.disk.contents(0, SIZE as usize)
    }

    /// The next good request works.
    fn works(&mut self) {
        let expected = self.disk.contents(512, 1024);
        assert_eq!(self.read(1, 1024), (OK, expected));
    }
}

#[test]
fn the_configuration_space_tells_the_shape_of_the_disk() {
    let bench = Bench::new();
    let mut bytes = [0; 64];
    bench.device.spec().config.read(0, &mut bytes);
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    assert_eq!(bytes[..8], (SIZE / 512).to_le_bytes());
    assert_eq!(word(12), 510, "seg_max");
    assert_eq!(word(20), 512, "blk_size");
    assert_eq!(bytes[24..28], [3, 0, 8, 0], "8 blocks are a physical one");
    assert_eq!(bytes[32], 1, "writeback");
    assert_eq!(bytes[34..36], [1, 0], "num_queues");
    assert_eq!((word(36), word(40), word(44)), (1 << 21, 32, 8), "discard");
    assert_eq!((word(48), word(52), bytes[56]), (1 << 15, 1, 1), "zeroes");
}

#[test]
fn a_read_only_disk_offers_nothing_that_writes() {
    let bench = Bench::with(VERSION_1, true);
    let writing = F_FLUSH | F_CONFIG_WCE | F_DISCARD | F_WRITE_ZEROES;
    assert_eq!(bench.device.spec().features & (writing | F_RO), F_RO);
}

#[test]
fn a_larger_block_leaves_the_end_out_that_does_not_fill_one() {
    let disk = MemoryDisk::new((8 << 10) + 512).unwrap();
    let device = Block::new(disk).block_size(4096).unwrap();
    assert_eq!(device.capacity(), 8 << 10);
    let mut bytes = [0; 28];
    device.spec().config.read(0, &mut bytes);
    assert_eq!(bytes[..8], 16u64.to_le_bytes());
    assert_eq!(bytes[20..28], [0, 16, 0, 0, 0, 0, 1, 0]);
}

#[test]
fn a_disk_has_as_many_queues_as_it_is_told_to_within_limits() {
    let device = || Block::new(MemoryDisk::new(512).unwrap());
    for queues in [1, 4, MAX_QUEUES] {
        let device = device().queues(queues).unwrap();
        let spec = device.spec();
        let mut told = [0; 2];
        spec.config.read(34, &mut told);
        assert_eq!(told, queues.to_le_bytes());
        assert_eq!(spec.queues, vec![QUEUE_SIZE; queues.into()]);
        assert_eq!(spec.features & F_MQ != 0, queues > 1);
        assert_eq!(device.lanes(spec.features).len() + 1, usize::from(queues));
    }
    for queues in [0, MAX_QUEUES + 1, u16::MAX] {
        let error = device().queues(queues).map(|_| ()).unwrap_err().to_string();
        assert_eq!(error, format!("{queues} queues: a disk has 1 to 16"));
    }
}

#[test]
fn sizes_of_blocks_and_serial_numbers_are_checked() {
    let device = || Block::new(MemoryDisk::new(512).unwrap());
    for size in [0, 1, 511, 513, 1024, 8192, u32::MAX] {
        assert!(device().block_size(size).is_err(), "{size}");
    }
    for serial in ["", "123456789012345678901", "a b", "tab\t", "ä", "nul\0"] {
        assert!(device().serial(serial).is_err(), "{serial:?}");
    }
    assert!(device().serial("12345678901234567890").is_ok());
}

#[test]
fn a_memory_disk_has_a_size_of_whole_sectors() {
    for size in [0, 1, 511, 513, u64::MAX, u64::MAX - 511, 1 << 63] {
        assert!(MemoryDisk::new(size).is_err(), "{size}");
    }
    assert_eq!(MemoryDisk::new(512).unwrap().properties().size, 512);
}
