//! What a guest can lay its hands on: devices, taken from the kernel's drivers, and memory that the
//! kernel leaves alone, so that its addresses are known.
//!
//! All is mapped through /dev/mem. A kernel with `STRICT_DEVMEM` gives out no RAM that it uses;
//! what `memmap` takes from it is none of that.

use crate::support::read_to_string;
use rustix::fs::OFlags;
use rustix::mm::{MapFlags, ProtFlags, mmap};
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::Arc;
use vm_memory::GuestAddress;
use vmm::virtio::GuestMemory;
use vmm::virtio::memory::Region;

/// Keeps [`MEMORY`] free. Behind the kernel, below the initrd.
pub const CMDLINE: &str = "memmap=16M$128M";
/// Where the memory for rings and buffers starts.
pub const MEMORY: u64 = 128 << 20;
pub const MEMORY_LEN: usize = 16 << 20;

const PAGE: u64 = 4096;

/// A virtio device that the kernel has found.
pub struct Found {
    /// Its number: the kernel counts them as it finds them.
    number: usize,
    /// The device type.
    pub kind: u32,
    /// Itself, in sysfs. In the folder of what it was found as: a platform device or a function.
    path: PathBuf,
}

impl Found {
    /// All virtio devices, in the order in which they were found.
    pub fn all() -> Vec<Found> {
        let entries = std::fs::read_dir("/sys/bus/virtio/devices").unwrap();
        let mut all: Vec<Found> = entries
            .map(|entry| {
                let path = entry.unwrap().path().canonicalize().unwrap();
                let kind = read_to_string(path.join("device").to_str().unwrap());
                let kind = kind.trim().trim_start_matches("0x");
                Found {
                    number: name(&path)["virtio".len()..].parse().unwrap(),
                    kind: u32::from_str_radix(kind, 16).unwrap(),
                    path,
                }
            })
            .collect();
        all.sort_by_key(|found| found.number);
        all
    }

    /// Whether it has the disk of this name.
    pub fn has_disk(&self, disk: &str) -> bool {
        self.path.join("block").join(disk).exists()
    }

    /// Whether it has the card of this name.
    pub fn has_card(&self, card: &str) -> bool {
        self.path.join("net").join(card).exists()
    }

    /// What the transport calls it.
    pub fn bus_name(&self) -> &str {
        name(self.path.parent().unwrap())
    }

    /// Takes it from its driver. From then on nobody in the kernel touches it.
    pub fn take(&self) {
        let driver = self.path.parent().unwrap().join("driver/unbind");
        std::fs::write(driver, self.bus_name()).unwrap();
    }
}

fn name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

/// Physical addresses, for accesses of all widths.
pub struct Window {
    base: NonNull<u8>,
    address: u64,
    len: u64,
}

// SAFETY: a window is memory that lasts as long as the process, and is only accessed by volatile
// accesses of devices' registers, which any number of processors may make.
unsafe impl Send for Window {}
// SAFETY: as above.
unsafe impl Sync for Window {}

impl Window {
    /// Maps what is at an address, for as long as the process lasts.
    pub fn map(address: u64, len: u64) -> Window {
        let start = address / PAGE * PAGE;
        let inside = address - start;
        let mem = mem();
        // SAFETY: the kernel chooses the place, so that no existing mapping is touched.
        let base = unsafe {
            mmap(
                std::ptr::null_mut(),
                (inside + len).next_multiple_of(PAGE) as usize,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                &mem,
                start,
            )
        };
        let base = NonNull::new(base.unwrap().cast::<u8>()).unwrap();
        Window {
            // SAFETY: within the first page of the mapping.
            base: unsafe { base.add(inside as usize) },
            address,
            len,
        }
    }

    /// Its first address.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// How many bytes it has.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Reads as many bytes as `T` has, in one access at any offset.
    pub fn read<T: Copy>(&self, offset: u64) -> T {
        // SAFETY: `place` is within the mapping, which lasts as long as the process. A packed
        // structure has no alignment, and registers hold any bits, as do the integers that this
        // is used for.
        unsafe { self.place::<Unaligned<T>>(offset).read_volatile() }.0
    }

    /// Writes as many bytes as `T` has, in one access at any offset.
    pub fn write<T: Copy>(&self, offset: u64, value: T) {
        // SAFETY: as above. What a device does with it is what is tested here.
        unsafe {
            self.place::<Unaligned<T>>(offset)
                .write_volatile(Unaligned(value));
        }
    }

    pub fn get(&self, register: u64) -> u32 {
        self.read(register)
    }

    pub fn set(&self, register: u64, value: u32) {
        self.write(register, value);
    }

    /// Writes the halves of an address to a register and the next one.
    pub fn set_wide(&self, register: u64, value: u64) {
        self.set(register, value as u32);
        self.set(register + 4, (value >> 32) as u32);
    }

    fn place<T>(&self, offset: u64) -> *mut T {
        assert!(offset + size_of::<T>() as u64 <= self.len);
        // SAFETY: within the mapping, as was just seen.
        unsafe { self.base.as_ptr().add(offset as usize) }.cast()
    }
}

#[repr(C, packed)]
#[derive(Clone, Copy)]
struct Unaligned<T: Copy>(T);

/// The memory that `CMDLINE` keeps free, under its physical addresses.
pub fn memory() -> Arc<GuestMemory> {
    let region = Region::anonymous(GuestAddress(MEMORY), MEMORY_LEN).unwrap();
    let mem = mem();
    // SAFETY: this replaces exactly the memory that the region owns, and that nobody has a pointer
    // into yet.
    unsafe {
        mmap(
            region.host_address().cast(),
            MEMORY_LEN,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::SHARED | MapFlags::FIXED,
            &mem,
            MEMORY,
        )
    }
    .unwrap();
    Arc::new(GuestMemory::from_regions(vec![region]).unwrap())
}

fn mem() -> File {
    File::options()
        .read(true)
        .write(true)
        .custom_flags(OFlags::SYNC.bits() as i32)
        .open("/dev/mem")
        .unwrap()
}

/// Where the kernel has something of this name in its map of addresses: start and length.
pub fn whereabouts(wanted: &str) -> (u64, u64) {
    let iomem = read_to_string("/proc/iomem");
    let found = iomem.lines().find_map(|line| {
        let (range, name) = line.trim().split_once(" : ")?;
        let rest = name.strip_prefix(wanted)?;
        let (start, end) = range.split_once('-')?;
        let number = |digits| u64::from_str_radix(digits, 16).ok();
        let (start, end) = (number(start)?, number(end)?);
        (rest.is_empty() || rest.starts_with(' ')).then_some((start, end + 1 - start))
    });
    found.unwrap_or_else(|| panic!("no {wanted} in\n{iomem}"))
}
