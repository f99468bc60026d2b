//! What a guest can lay its hands on: the registers of a device, taken from the kernel's driver,
//! and memory that the kernel leaves alone, so that its addresses are known.
//!
//! Both are mapped through /dev/mem. A kernel with `STRICT_DEVMEM` gives out no RAM that it uses;
//! what `memmap` takes from it is none of that.

use crate::support::read_to_string;
use rustix::fs::OFlags;
use rustix::mm::{MapFlags, ProtFlags, mmap};
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
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

/// Where the first register window is, and how large each is.
const WINDOWS: u64 = 0xd000_0000;
pub const WINDOW: u64 = 0x1000;

/// The registers of a device, for accesses of all widths.
pub struct Window {
    base: NonNull<u8>,
}

impl Window {
    /// Takes the device with this number, in the order in which the machine has them, from its
    /// driver.
    pub fn take(number: u64) -> Window {
        let address = WINDOWS + number * WINDOW;
        std::fs::write(
            "/sys/bus/platform/drivers/virtio-mmio/unbind",
            platform_device(address),
        )
        .unwrap();
        let mem = mem();
        // SAFETY: the kernel chooses the place, so that no existing mapping is touched.
        let base = unsafe {
            mmap(
                std::ptr::null_mut(),
                WINDOW as usize,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                &mem,
                address,
            )
        };
        Window {
            base: NonNull::new(base.unwrap().cast()).unwrap(),
        }
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
        assert!(offset + size_of::<T>() as u64 <= WINDOW);
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

/// How the kernel calls the device with registers at this address.
fn platform_device(address: u64) -> String {
    let iomem = read_to_string("/proc/iomem");
    let start = format!("{address:x}-");
    let name = iomem.lines().find_map(|line| {
        let (range, names) = line.trim().split_once(" : ")?;
        range.starts_with(&start).then(|| names.split(' ').next())?
    });
    name.unwrap_or_else(|| panic!("nothing at {address:#x} in\n{iomem}"))
        .to_owned()
}
