//! Disks: what the guest writes the host finds, and the other way round.

use super::*;
use crate::support::disk::{MIB, check, disk, drop_caches, fill, pattern};
use crate::support::{Plan, amount, read_to_string};
use rustix::fs::fdatasync;
use rustix::ioctl::{Setter, ioctl, opcode};
use rustix::thread::{CpuSet, sched_setaffinity};
use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Mutex;
use vm_memory::VolatileSlice;
use vmm::virtio::block::{Block, BlockStorage, MemoryDisk, Properties, RawFile};
use vmm::virtio::transport::Rings;
use vmm::{Transport, VirtioDevice};

/// How much is copied in the large test.
fn large() -> usize {
    amount("HYPE_TEST_MIB", 64) as usize * MIB
}

fn queue(disk: &str, what: &str) -> String {
    read_to_string(&format!("/sys/block/{disk}/queue/{what}"))
        .trim()
        .to_owned()
}

/// Where this test's disk is on the host. Its two ends are in one process, so that the path is known.
fn path(test: &str) -> PathBuf {
    std::env::temp_dir().join(format!("hype-{}-{test}.img", std::process::id()))
}

/// A new disk on the host that goes with the test.
struct Image(PathBuf);

impl Image {
    fn new(test: &str, len: usize) -> Self {
        let image = Image(path(test));
        image.file().set_len(len as u64).unwrap();
        image
    }

    fn file(&self) -> File {
        File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&self.0)
            .unwrap()
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The test's disk file, found again by the half that did not make it. It is removed with it.
fn image(test: &str) -> Image {
    Image(path(test))
}

fn add(plan: &mut Plan, block: Block) {
    plan.config.devices.push(block.into());
}

guest_test! {
    what_the_guest_writes_the_host_finds_and_the_other_way_round,
    config: |plan| {
        let image = Image::new("large", 2 * large());
        fill(&image.file(), 1, large());
        add(plan, Block::open(&image.0).unwrap());
        std::mem::forget(image);
    },
    guest: || {
        let size: usize = read_to_string("/sys/block/vda/size").trim().parse().unwrap();
        assert_eq!(size * 512, 2 * large());
        let disk = disk("vda", false);
        check(&disk, 1, large());
        for mebibyte in 0..large() / MIB {
            disk.write_all_at(&pattern(2, mebibyte), (large() + mebibyte * MIB) as u64).unwrap();
        }
        fdatasync(&disk).unwrap();
        println!("written");
        // What a driver reads past its own cache is what the host has.
        let mut bytes = vec![0; MIB + 4096];
        let aligned = bytes.as_ptr().align_offset(4096);
        let bytes = &mut bytes[aligned..aligned + MIB];
        crate::support::disk::disk("vda", true).read_exact_at(bytes, large() as u64).unwrap();
        assert!(*bytes == pattern(2, 0));
    },
    host: |host| {
        host.expect("written");
        let image = image("large");
        let file = image.file();
        check(&file, 1, large());
        let mut bytes = vec![0; MIB];
        for mebibyte in 0..large() / MIB {
            file.read_exact_at(&mut bytes, (large() + mebibyte * MIB) as u64).unwrap();
            assert!(bytes == pattern(2, mebibyte), "MiB {mebibyte}");
        }
    },
    ends: Outcome::Shutdown,
}

guest_test! {
    the_guest_sees_what_kind_of_disk_it_has,
    config: |plan| {
        let disk = MemoryDisk::new(4 << 20).unwrap();
        add(plan, Block::new(disk).serial("first-of-two").unwrap().block_size(4096).unwrap());
        add(plan, Block::new(MemoryDisk::new(1 << 20).unwrap()));
    },
    guest: || {
        assert_eq!(read_to_string("/sys/block/vda/serial").trim(), "first-of-two");
        assert_eq!(read_to_string("/sys/block/vda/size").trim(), "8192");
        assert_eq!(read_to_string("/sys/block/vdb/size").trim(), "2048");
        assert_eq!(read_to_string("/sys/block/vda/ro").trim(), "0");
        assert_eq!(queue("vda", "logical_block_size"), "4096");
        assert_eq!(queue("vdb", "logical_block_size"), "512");
        assert_eq!(queue("vdb", "physical_block_size"), "4096");
        assert_eq!(queue("vda", "max_segments"), "510");
        assert_eq!(queue("vda", "write_cache"), "write back");
        assert_eq!(queue("vda", "discard_max_bytes"), (1 << 30).to_string());
        assert_eq!(queue("vda", "write_zeroes_max_bytes"), (16 << 20).to_string());

        // One is not the other, and the cache can be switched off.
        fill(&disk("vda", false), 3, 4 * MIB);
        fill(&disk("vdb", false), 4, MIB);
        std::fs::write("/sys/block/vda/cache_type", "write through").unwrap();
        assert_eq!(queue("vda", "write_cache"), "write through");
        let vda = disk("vda", false);
        fill(&vda, 5, 4 * MIB);
        fdatasync(&vda).unwrap();
        drop_caches();
        check(&vda, 5, 4 * MIB);
        check(&disk("vdb", false), 4, MIB);
    },
    host: |_| {},
    ends: Outcome::Shutdown,
}

guest_test! {
    a_read_only_disk_stays_as_it_is,
    config: |plan| {
        let image = Image::new("ro", 2 * MIB);
        fill(&image.file(), 6, 2 * MIB);
        let disk = RawFile::options().read_only(true).open(&image.0).unwrap();
        add(plan, Block::new(disk));
        std::mem::forget(image);
    },
    guest: || {
        assert_eq!(read_to_string("/sys/block/vda/ro").trim(), "1");
        check(&File::open("/dev/vda").unwrap(), 6, 2 * MIB);
        let refused = File::options().write(true).open("/dev/vda").and_then(|file| {
            file.write_all_at(&[0; 512], 0)?;
            file.sync_all()
        });
        assert!(refused.is_err());
        println!("refused");
    },
    host: |host| {
        host.expect("refused");
        check(&image("ro").file(), 6, 2 * MIB);
    },
    ends: Outcome::Shutdown,
}

/// `BLKDISCARD` and `BLKZEROOUT`, whose numbers are older than the convention.
const BLKDISCARD: rustix::ioctl::Opcode = opcode::none(0x12, 119);
const BLKZEROOUT: rustix::ioctl::Opcode = opcode::none(0x12, 127);

guest_test! {
    discards_give_space_back_and_zeroes_are_zero,
    config: |plan| {
        let image = Image::new("discard", 8 * MIB);
        fill(&image.file(), 7, 8 * MIB);
        add(plan, Block::open(&image.0).unwrap());
        std::mem::forget(image);
    },
    guest: || {
        let disk = disk("vda", false);
        // SAFETY: both take a pointer to two 64-bit numbers, and keep nothing.
        unsafe {
            ioctl(&disk, Setter::<BLKDISCARD, [u64; 2]>::new([MIB as u64, 4 * MIB as u64])).unwrap();
            ioctl(&disk, Setter::<BLKZEROOUT, [u64; 2]>::new([6 * MIB as u64, 512])).unwrap();
        }
        fdatasync(&disk).unwrap();
        println!("discarded");
    },
    host: |host| {
        use std::os::unix::fs::MetadataExt;
        host.expect("discarded");
        let image = image("discard");
        let bytes = std::fs::read(&image.0).unwrap();
        assert!(bytes[..MIB] == pattern(7, 0));
        assert!(bytes[MIB..5 * MIB].iter().all(|byte| *byte == 0));
        assert!(bytes[5 * MIB..6 * MIB] == pattern(7, 5));
        assert!(bytes[6 * MIB..6 * MIB + 512].iter().all(|byte| *byte == 0));
        assert!(bytes[6 * MIB + 512..7 * MIB] == pattern(7, 6)[512..]);
        assert!(bytes[7 * MIB..] == pattern(7, 7));
        let blocks = image.file().metadata().unwrap().blocks();
        assert!(blocks * 512 <= 5 * MIB as u64, "{blocks} sectors are taken");
    },
    ends: Outcome::Shutdown,
}

/// The threads that have written to disks with several queues.
static WRITERS: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// A disk in memory that remembers who writes.
struct Witness(MemoryDisk);

impl BlockStorage for Witness {
    fn properties(&self) -> Properties {
        self.0.properties()
    }

    fn read_vectored_at(&self, buffers: &[VolatileSlice<'_>], offset: u64) -> io::Result<usize> {
        self.0.read_vectored_at(buffers, offset)
    }

    fn write_vectored_at(&self, buffers: &[VolatileSlice<'_>], offset: u64) -> io::Result<usize> {
        let name = std::thread::current().name().unwrap_or_default().to_owned();
        WRITERS.lock().unwrap().insert(name);
        self.0.write_vectored_at(buffers, offset)
    }

    fn flush(&self) -> io::Result<()> {
        self.0.flush()
    }
}

const QUEUES: usize = 4;

/// On both transports, with both rings.
const COMBINATIONS: [(&str, Transport, Rings); 4] = [
    ("vda", Transport::Mmio, Rings::Split),
    ("vdb", Transport::Mmio, Rings::Packed),
    ("vdc", Transport::Pci, Rings::Split),
    ("vdd", Transport::Pci, Rings::Packed),
];

/// Writes and reads from one vCPU, past the page cache.
fn write_from(cpu: usize, file: &File) {
    let mut only = CpuSet::new();
    only.set(cpu);
    sched_setaffinity(None, &only).unwrap();
    let mut bytes = vec![0; 3 * 4096];
    let aligned = bytes.as_ptr().align_offset(4096);
    let (there, back) = bytes[aligned..aligned + 2 * 4096].split_at_mut(4096);
    for round in 0..16 {
        there.fill(round * 16 + cpu as u8 + 1);
        let place = ((cpu * 16 + usize::from(round)) * 4096) as u64;
        file.write_all_at(there, place).unwrap();
        file.read_exact_at(back, place).unwrap();
        assert!(there == back);
    }
}

guest_test! {
    each_vcpu_has_a_queue_of_a_disk_and_each_queue_a_thread,
    config: |plan| {
        plan.config.cpus = QUEUES as u32;
        for (name, transport, rings) in COMBINATIONS {
            let disk = Block::new(Witness(MemoryDisk::new(MIB as u64).unwrap())).name(name);
            let disk = VirtioDevice::from(disk.queues(QUEUES as u16).unwrap());
            plan.config.devices.push(disk.transport(transport).rings(rings));
        }
    },
    guest: || {
        for (name, transport, _) in COMBINATIONS {
            let queues = std::fs::read_dir(format!("/sys/block/{name}/mq")).unwrap();
            assert_eq!(queues.count(), QUEUES, "{name} on {transport}");
            let file = disk(name, true);
            (0..QUEUES).for_each(|cpu| write_from(cpu, &file));
        }
        // On PCI each queue has an interrupt of its own.
        let interrupts = read_to_string("/proc/interrupts");
        let counts = interrupts.lines().filter(|line| line.contains("-req.")).map(|line| {
            let columns = line.split_whitespace().skip(1).take(QUEUES);
            columns.map(|column| column.parse::<u32>().unwrap()).sum::<u32>()
        });
        let counts: Vec<u32> = counts.collect();
        assert!(counts.len() == 2 * QUEUES && !counts.contains(&0), "{interrupts}");
        println!("all written");
    },
    host: |host| {
        host.expect("all written");
        let names = COMBINATIONS.map(|(name, ..)| {
            [name.to_owned(), format!("{name}/1"), format!("{name}/2"), format!("{name}/3")]
        });
        assert_eq!(*WRITERS.lock().unwrap(), names.into_iter().flatten().collect());
    },
    ends: Outcome::Shutdown,
}
