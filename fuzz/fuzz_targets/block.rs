//! A driver that sends anything at all to a disk, whose storage fails as it likes.
//!
//! The input is a list of requests: a header that may be one, data, ranges, descriptors cut
//! anywhere, in memory that other requests use as well; and what the host makes of the calls.
//!
//! Besides not crashing: each request that has room for a status gets one, the length in the used
//! ring is within the writable part, the storage is asked for nothing outside of it, and without
//! faults, what is read is what a model of the disk says.

#![no_main]

use hype_fuzz::{Input, memory};
use libfuzzer_sys::fuzz_target;
use std::io;
use std::sync::{Arc, LazyLock};
use virtio::block::{Block, BlockStorage, Properties};
use virtio::testing::Interrupts;
use virtio::testing::faulty::{Call, Fault, Faults, Faulty};
use virtio::testing::ring::{Ring, ram};
use virtio::{Device, Event, GuestMemory, Io, Queue};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, VolatileSlice};

const SECTORS: u64 = 24;
const SIZE: usize = SECTORS as usize * 512;

/// The guest's memory: two regions, with the border of them in what buffers have.
const RAM: [(u64, usize); 2] = [(0, 0x3000), (0x3000, 0x2_7000)];
/// How many requests a run has at most: more of the largest would fill the memory.
const REQUESTS: usize = 16;
/// Where the ring and the buffers are.
const RING: std::ops::Range<u64> = 0x1000..0x2_a000;

static MEMORY: LazyLock<Arc<GuestMemory>> = LazyLock::new(|| ram(&RAM));
static DISK: LazyLock<Arc<GuestMemory>> = LazyLock::new(|| ram(&[(0, SIZE)]));

/// FLUSH, CONFIG_WCE, DISCARD and WRITE_ZEROES.
const FEATURES: [u64; 4] = [1 << 9, 1 << 11, 1 << 13, 1 << 14];
const STATUSES: std::ops::RangeInclusive<u8> = 0..=2;

/// Mostly a place on the disk or just behind it; sometimes anything.
fn sector(input: &mut Input<'_>) -> u64 {
    match input.byte() {
        byte @ 0..240 => u64::from(byte) % (SECTORS + 4),
        _ => input.number(8),
    }
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let choices = input.byte();
    let mut features = 1 << 32;
    for (bit, feature) in FEATURES.iter().enumerate() {
        features |= if choices >> bit & 1 == 0 { *feature } else { 0 };
    }
    let (storage, faults) = Faulty::new(Disk {
        read_only: choices >> 6 == 3,
    });
    let with_faults = choices & 16 != 0;
    let mut device = Block::new(storage);
    let memory = &*MEMORY;
    memory::clear(memory);
    memory::clear(&DISK);
    let mut ring = Ring::split(memory, RING, 64, 0);
    let queue = Queue::new(&ring.config(), Arc::clone(memory), features).expect("queue");
    let config = Arc::clone(&device.spec().config);
    let irq = Arc::new(Interrupts::default());
    let mut io = Io::new(Arc::clone(memory), features, config, irq, vec![Some(queue)]);
    device.activate(&mut io).expect("activation");
    let mut model = [0; SIZE];

    for _ in 0..REQUESTS {
        if input.is_empty() {
            break;
        }
        if with_faults {
            faults.plan([fault(&mut input), fault(&mut input)]);
        }
        if input.number(1) == 255 {
            device.spec().config.write(32, &[input.byte()]);
        }
        let request = Request::new(&mut input);
        let (readable, writable) = request.cut(&mut input);
        let readable: Vec<&[u8]> = readable.iter().map(|part| &**part).collect();
        let id = ring.add(&readable, &writable);
        let room: usize = writable.iter().sum();
        let served = device.handle(Event::Queue(0), &mut io);
        check_calls(&faults);
        if room == 0 {
            assert!(served.is_err(), "an answer without a place for it");
            return;
        }
        served.expect("a request that can be answered");
        let (used, len) = ring.used().expect("an answer");
        assert_eq!(used, id);
        assert!(len as usize <= room);
        let answer = ring.written(id, room);
        let status = answer[room - 1];
        assert!(STATUSES.contains(&status), "status {status}");
        if !with_faults {
            request.check(&answer[..room - 1], status, &mut model);
        }
        scribble(memory, &mut input);
    }
});

struct Request {
    readable: Vec<u8>,
    room: usize,
}

impl Request {
    fn new(input: &mut Input<'_>) -> Self {
        const KINDS: [u32; 10] = [0, 1, 4, 8, 11, 13, 0, 1, 2, 0x8000_0000];
        let kind = match input.number(1) {
            byte @ 0..250 => KINDS[byte as usize % KINDS.len()],
            _ => input.number(4) as u32,
        };
        let mut readable = kind.to_le_bytes().to_vec();
        readable.extend([0; 4]);
        readable.extend(sector(input).to_le_bytes());
        match kind {
            1 => {
                let byte = input.byte();
                readable.extend(vec![byte; input.number(1) as usize % 9 * 512]);
            }
            11 | 13 => {
                for _ in 0..input.number(1) % 4 {
                    readable.extend(sector(input).to_le_bytes());
                    readable.extend((input.number(1) as u32 % 48).to_le_bytes());
                    readable.extend((input.number(1) as u32 % 3).to_le_bytes());
                }
            }
            _ => {}
        }
        let mut room = match kind {
            0 => input.number(1) as usize % 9 * 512 + 1,
            8 => 21,
            _ => 1,
        };
        // Sometimes it is another length altogether.
        match input.number(1) {
            0 => readable.truncate(input.number(1) as usize),
            1 => readable.extend(input.bytes(7)),
            2 => room = input.number(2) as usize % 4000,
            _ => {}
        }
        Request { readable, room }
    }

    /// The request in descriptors of any length.
    fn cut(&self, input: &mut Input<'_>) -> (Vec<Vec<u8>>, Vec<usize>) {
        let mut readable = Vec::new();
        let mut rest = &self.readable[..];
        while !rest.is_empty() {
            let end = match readable.len() < 20 {
                true => (input.number(1) as usize * 7 + 1).min(rest.len()),
                false => rest.len(),
            };
            readable.push(rest[..end].to_vec());
            rest = &rest[end..];
        }
        let mut writable = Vec::new();
        let mut rest = self.room;
        while rest > 0 {
            let end = match writable.len() < 20 {
                true => (input.number(1) as usize * 13).min(rest),
                false => rest,
            };
            writable.push(end);
            rest -= end;
        }
        (readable, writable)
    }

    /// Does to the model what was done to the disk, and compares what was read.
    fn check(&self, answer: &[u8], status: u8, model: &mut [u8; SIZE]) {
        if status != 0 {
            return;
        }
        let word = |at: usize| u64::from_le_bytes(self.readable[at..at + 8].try_into().expect("8"));
        let place = |sector: u64| sector as usize * 512;
        let data = &self.readable[16..];
        match self.readable[0] {
            0 => assert_eq!(answer, &model[place(word(8))..][..answer.len()]),
            1 => model[place(word(8))..][..data.len()].copy_from_slice(data),
            11 | 13 => {
                for at in (16..self.readable.len()).step_by(16) {
                    let len = (word(at + 8) as u32) as usize * 512;
                    model[place(word(at))..][..len].fill(0);
                }
            }
            _ => {}
        }
    }
}

fn fault(input: &mut Input<'_>) -> Fault {
    match input.number(1) % 8 {
        0 => Fault::Error(5),
        1 => Fault::Error(4),
        2 => Fault::Error(11),
        3 => Fault::Error(28),
        4 => Fault::Short(input.number(2) as usize),
        _ => Fault::None,
    }
}

/// The storage was asked for what it has.
fn check_calls(faults: &Faults) {
    for call in faults.take_calls() {
        let (offset, len) = match call {
            Call::Read(offset, len) | Call::Write(offset, len) => (offset, len as u64),
            Call::Discard(offset, len) | Call::WriteZeroes(offset, len, _) => (offset, len),
            Call::Flush => continue,
        };
        assert!(len > 0, "{call:?}");
        assert!(
            offset
                .checked_add(len)
                .is_some_and(|end| end <= SIZE as u64),
            "{call:?}"
        );
    }
}

/// Changes what other requests have in memory, but for the ring.
fn scribble(memory: &GuestMemory, input: &mut Input<'_>) {
    let place = 0x2000 + input.number(2) % 0x1000;
    let count = input.number(1) as usize % 8;
    memory
        .write_slice(input.bytes(count), GuestAddress(place))
        .expect("RAM");
}

/// A disk in memory, that of all runs.
struct Disk {
    read_only: bool,
}

impl Disk {
    fn place(&self, offset: u64, len: usize) -> VolatileSlice<'static> {
        let place = DISK.get_slice(GuestAddress(offset), len);
        place.expect("the storage is asked for what it has")
    }

    fn clear(&self, offset: u64, len: u64) {
        assert!(!self.read_only);
        self.place(offset, len as usize)
            .copy_from(&[0; SIZE][..len as usize]);
    }
}

impl BlockStorage for Disk {
    fn properties(&self) -> Properties {
        Properties {
            read_only: self.read_only,
            discard: Some(4096),
            ..Properties::new(SIZE as u64)
        }
    }

    fn read_vectored_at(&self, buffers: &[VolatileSlice<'_>], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        for buffer in buffers {
            let place = self.place(offset + done as u64, buffer.len());
            place.copy_to_volatile_slice(*buffer);
            done += buffer.len();
        }
        Ok(done)
    }

    fn write_vectored_at(&self, buffers: &[VolatileSlice<'_>], offset: u64) -> io::Result<usize> {
        assert!(!self.read_only);
        let mut done = 0;
        for buffer in buffers {
            let place = self.place(offset + done as u64, buffer.len());
            buffer.copy_to_volatile_slice(place);
            done += buffer.len();
        }
        Ok(done)
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.clear(offset, len);
        Ok(())
    }

    fn write_zeroes(&self, offset: u64, len: u64, _may_unmap: bool) -> io::Result<()> {
        self.clear(offset, len);
        Ok(())
    }
}
