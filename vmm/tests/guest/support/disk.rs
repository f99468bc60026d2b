//! What tests of disks share: bytes that tell where they are from, and disks on each ring and
//! transport.

use super::read_to_string;
use rustix::fs::OFlags;
use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use vmm::virtio::Device;
use vmm::virtio::block::Block;
use vmm::virtio::transport::Rings;
use vmm::{Transport, VirtioDevice};

pub const MIB: usize = 1 << 20;

/// A ring layout and a transport.
#[derive(Clone, Copy)]
pub struct Way {
    pub name: &'static str,
    rings: Rings,
    transport: Transport,
}

/// All that there are.
pub const WAYS: [Way; 4] = [
    Way {
        name: "split-mmio",
        rings: Rings::Split,
        transport: Transport::Mmio,
    },
    Way {
        name: "packed-mmio",
        rings: Rings::Packed,
        transport: Transport::Mmio,
    },
    Way {
        name: "split-pci",
        rings: Rings::Split,
        transport: Transport::Pci,
    },
    Way {
        name: "packed-pci",
        rings: Rings::Packed,
        transport: Transport::Pci,
    },
];

impl Way {
    /// A device that is reached this way.
    pub fn device(self, device: impl Device) -> VirtioDevice {
        VirtioDevice::from(device)
            .rings(self.rings)
            .transport(self.transport)
    }

    /// A disk that is reached this way, and has its name.
    pub fn disk(self, disk: Block) -> VirtioDevice {
        self.device(disk.serial(self.name).unwrap())
    }
}

/// The serial numbers of the guest's disks, and how the guest calls each.
pub fn serials() -> HashMap<String, String> {
    let disks = std::fs::read_dir("/sys/block").unwrap();
    let names = disks.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let virtio = names.filter(|name| name.starts_with("vd"));
    let pair = |name| {
        let serial = read_to_string(&format!("/sys/block/{name}/serial"));
        (serial.trim().to_owned(), name)
    };
    virtio.map(pair).collect()
}

/// How the guest calls the disk with a serial number.
pub fn called(serial: &str) -> String {
    let name = serials().remove(serial);
    name.unwrap_or_else(|| panic!("there is no disk {serial}"))
}

/// A MiB of a disk: noise, with its own number at the start of each page, so that a page in the
/// wrong place is found. Emulated hosts are slow, so most of it is the same in each MiB.
pub fn pattern(seed: u64, mebibyte: usize) -> Vec<u8> {
    let mut state = seed;
    let mut noise = [0; 4096];
    for word in noise.chunks_mut(8) {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        word.copy_from_slice(&state.to_be_bytes());
    }
    let mut bytes = noise.repeat(MIB / noise.len());
    for (number, page) in bytes.chunks_mut(noise.len()).enumerate() {
        page[..8].copy_from_slice(&((mebibyte << 32 | number) as u64).to_le_bytes());
    }
    bytes
}

pub fn fill(file: &File, seed: u64, len: usize) {
    for mebibyte in 0..len / MIB {
        let place = (mebibyte * MIB) as u64;
        file.write_all_at(&pattern(seed, mebibyte), place).unwrap();
    }
}

pub fn check(file: &File, seed: u64, len: usize) {
    check_part(file, seed, 0..len / MIB);
}

pub fn check_part(file: &File, seed: u64, part: Range<usize>) {
    let mut bytes = vec![0; MIB];
    for mebibyte in part {
        file.read_exact_at(&mut bytes, (mebibyte * MIB) as u64)
            .unwrap();
        assert!(
            bytes == pattern(seed, mebibyte),
            "MiB {mebibyte} of pattern {seed}"
        );
    }
}

/// A disk as the guest has it, past its page cache or not.
pub fn disk(name: &str, direct: bool) -> File {
    let flags = if direct {
        OFlags::DIRECT
    } else {
        OFlags::empty()
    };
    File::options()
        .read(true)
        .write(true)
        .custom_flags(flags.bits() as i32)
        .open(Path::new("/dev").join(name))
        .unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Has the guest read from its disks again.
pub fn drop_caches() {
    std::fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
}
