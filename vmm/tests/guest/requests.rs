//! So many requests that each index of a ring wraps, on each ring and transport at once.
//!
//! An interrupt or a notify that is lost leaves a thread of the guest waiting for good, and the
//! test does not end.

use super::*;
use crate::support::disk::{self, MIB, WAYS, called, check_part, pattern};
use crate::support::{amount, read_to_string};
use rustix::fs::fdatasync;
use std::collections::{BTreeSet, HashSet};
use std::io::Read;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::thread;
use tempfile::TempDir;
use vmm::virtio::block::Block;
use vmm::virtio::rng::Rng;

/// How many threads make one request after the other of a disk.
const LANES: u64 = 2;
/// Each of them has so many sectors of its own, all of which are in the first MiB.
const SECTORS: u64 = 500;
const SECTOR: usize = 512;
/// The MiB that another thread writes in the meantime, many pages at once.
const FLOODED: Range<usize> = 1..9;

/// A sector that is aligned for direct I/O.
#[derive(Clone)]
#[repr(align(512))]
struct Sector([u8; SECTOR]);

impl Sector {
    fn of(lane: u64, number: u64) -> Sector {
        let word = (lane << 56 | number).to_le_bytes();
        Sector(std::array::from_fn(|at| word[at % word.len()]))
    }
}

fn place(lane: u64, number: u64) -> u64 {
    (lane * SECTORS + number % SECTORS) * SECTOR as u64
}

/// How many requests each disk has to have had in the end: its ring's 16-bit indices have wrapped.
fn requests_wanted() -> u64 {
    amount("HYPE_TEST_REQUESTS", 70_000)
}

/// How many sectors a thread writes; it reads each of them once.
fn turns() -> u64 {
    requests_wanted() / 160
}

/// Writes a sector, and reads what was written some time ago, and so on.
fn hammer(disk: &str, lane: u64) {
    const BACK: u64 = SECTORS / 2;
    let disk = disk::disk(disk, true);
    let mut now = Sector([0; SECTOR]);
    for number in 0..turns() {
        let sector = Sector::of(lane, number);
        disk.write_all_at(&sector.0, place(lane, number)).unwrap();
        let earlier = number.saturating_sub(BACK);
        disk.read_exact_at(&mut now.0, place(lane, earlier))
            .unwrap();
        assert!(
            now.0 == Sector::of(lane, earlier).0,
            "sector {earlier} of lane {lane}"
        );
    }
}

/// Writes all of its part through the page cache, by requests of a page each, of which the kernel
/// hands over dozens at once; again and again. Tells what is there in the end.
fn flood(disk: &str) -> u64 {
    std::fs::write(format!("/sys/block/{disk}/queue/nomerges"), "2").unwrap();
    let file = disk::disk(disk, false);
    let mut round = 0;
    while requests(disk) < requests_wanted() {
        round += 1;
        for mebibyte in FLOODED {
            let place = (mebibyte * MIB) as u64;
            file.write_all_at(&pattern(round, mebibyte), place).unwrap();
        }
        fdatasync(&file).unwrap();
    }
    round
}

/// How many requests the kernel has made of a disk.
fn requests(disk: &str) -> u64 {
    let stat = read_to_string(&format!("/sys/block/{disk}/stat"));
    let numbers: Vec<u64> = stat
        .split_whitespace()
        .map(|word| word.parse().unwrap())
        .collect();
    numbers[0] + numbers[4]
}

/// Whether a virtio device and its driver agreed on a feature.
fn has_feature(device: &str, bit: usize) -> bool {
    let features = read_to_string(&format!("{device}/features"));
    features.as_bytes()[bit] == b'1'
}

const EVENT_IDX: usize = 29;
const RING_PACKED: usize = 34;

fn use_all_disks() {
    let disks = WAYS.map(|way| (way.name, called(way.name)));
    for (name, disk) in &disks {
        let device = format!("/sys/block/{disk}/device");
        assert!(has_feature(&device, EVENT_IDX), "{name}");
        assert_eq!(
            has_feature(&device, RING_PACKED),
            name.starts_with("packed")
        );
        let device = std::fs::canonicalize(device).unwrap();
        let on_pci = device.starts_with("/sys/devices/pci0000:00");
        assert_eq!(on_pci, name.ends_with("pci"), "{name}");
    }
    thread::scope(|scope| {
        for (name, disk) in &disks {
            (0..LANES).for_each(|lane| drop(scope.spawn(move || hammer(disk, lane))));
            scope.spawn(move || println!("\n{name} {}", flood(disk)));
        }
    });
    let requests = disks.map(|(name, disk)| format!("{name}: {}", requests(&disk)));
    println!("\nrequests: {requests:?}");
}

#[test]
fn indices_of_disks_wrap_and_no_request_is_lost() {
    init::if_guest(use_all_disks);
    let folder = TempDir::new().unwrap();
    let image = |name| folder.path().join(name);
    let name = test_name!(indices_of_disks_wrap_and_no_request_is_lost);
    let disks = |plan: &mut support::Plan| {
        plan.deadline *= 3;
        for way in WAYS {
            let file = std::fs::File::create_new(image(way.name)).unwrap();
            file.set_len((FLOODED.end * MIB) as u64).unwrap();
            let disk = Block::open(image(way.name)).unwrap();
            plan.config.devices.push(way.disk(disk));
        }
    };

    let Some(ended) = support::run(name, disks, |_| {}) else {
        return;
    };

    assert_ends!(ended, Outcome::Shutdown);
    for way in WAYS {
        let rounds = |line: &str| line.strip_prefix(way.name)?.trim().parse().ok();
        let rounds = ended.text.lines().find_map(rounds).unwrap();
        let file = std::fs::File::open(image(way.name)).unwrap();
        check_part(&file, rounds, FLOODED);
        let mut bytes = vec![0; MIB];
        file.read_exact_at(&mut bytes, 0).unwrap();
        for lane in 0..LANES {
            for number in turns().saturating_sub(SECTORS)..turns() {
                let found = &bytes[place(lane, number) as usize..][..SECTOR];
                assert!(
                    found == Sector::of(lane, number).0,
                    "{}: sector {number}",
                    way.name
                );
            }
        }
    }
    let requests = ended
        .text
        .lines()
        .find(|line| line.starts_with("requests: "));
    println!("{}", requests.unwrap());
    println!("{}", ended.report.total_exits());
}

/// Reads from one entropy device after the other.
fn use_all_entropy() {
    const HW_RANDOM: &str = "/sys/class/misc/hw_random";
    let bus = std::fs::read_dir("/sys/bus/virtio/devices").unwrap();
    let devices = bus.map(|entry| std::fs::canonicalize(entry.unwrap().path()).unwrap());
    let devices = devices.filter(|device| is_entropy(device));
    let kinds: BTreeSet<_> = devices
        .map(|device| {
            let on_pci = device.starts_with("/sys/devices/pci0000:00");
            (on_pci, has_feature(device.to_str().unwrap(), RING_PACKED))
        })
        .collect();
    assert_eq!(kinds.len(), WAYS.len(), "{kinds:?}");

    let available = read_to_string(&format!("{HW_RANDOM}/rng_available"));
    let names: Vec<_> = available
        .split_whitespace()
        .filter(|name| *name != "none")
        .collect();
    assert_eq!(names.len(), WAYS.len(), "{available}");
    let mut seen = HashSet::new();
    let mut reads = 0;
    for name in names {
        std::fs::write(format!("{HW_RANDOM}/rng_current"), name).unwrap();
        assert_eq!(
            read_to_string(&format!("{HW_RANDOM}/rng_current")).trim(),
            name
        );
        let mut source = std::fs::File::open("/dev/hwrng").unwrap();
        for _ in 0..requests_wanted() / 50 {
            let mut bytes = [0; 64];
            source.read_exact(&mut bytes).unwrap();
            reads += 1;
            let word: [u8; 16] = bytes[..16].try_into().unwrap();
            assert!(seen.insert(word), "{name}: twice the same");
        }
    }
    println!("{reads} reads");
}

/// Whether this is an entropy device (virtio 1.2, 5.4: device 4).
fn is_entropy(device: &std::path::Path) -> bool {
    read_to_string(device.join("device").to_str().unwrap()).trim() == "0x0004"
}

guest_test! {
    entropy_comes_on_each_ring_and_transport,
    config: |plan| plan.config.devices.extend(WAYS.map(|way| way.device(Rng::new()))),
    guest: use_all_entropy,
    host: |_| {},
    ends: Outcome::Shutdown,
}
