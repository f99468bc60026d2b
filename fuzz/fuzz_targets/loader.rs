//! Kernel images nobody would build.
//!
//! An input is a recipe: which image to start from (none, a valid bzImage, a valid ELF kernel), how much RAM, how long an
//! initrd; then either the image's bytes themselves, or patches to lay over the valid one. So the fuzzer starts behind
//! all the checks instead of in front of the first magic number.
//!
//! Besides not crashing, a load that succeeds must have put everything in RAM, apart from everything else.

#![no_main]

#[path = "../../loader/src/testing/images.rs"]
mod images;

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use loader::{Boot, Payload, Platform};
use rustix::fs::{MemfdFlags, memfd_create};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

const MIB: u64 = 1 << 20;
/// The most that an image may be: as much as a small kernel, so that runs stay fast.
const MAX_IMAGE: usize = 64 << 10;
const RESERVED: Range<u64> = 20 * MIB..20 * MIB + 0x1000;

/// Made once: mapping memory costs more than a load.
static MEMORIES: LazyLock<[(GuestMemoryMmap, Vec<Range<u64>>); 4]> = LazyLock::new(|| {
    #[expect(clippy::single_range_in_vec_init, reason = "RAM is a list of ranges")]
    let layouts = [
        vec![0..64 * MIB],
        vec![0..18 * MIB],
        vec![0..33 * MIB, 34 * MIB..40 * MIB],
        vec![0..24 * MIB, 4096 * MIB..4128 * MIB],
    ];
    layouts.map(|ranges| {
        let regions: Vec<_> = ranges
            .iter()
            .map(|r| (GuestAddress(r.start), (r.end - r.start) as usize))
            .collect();
        (
            GuestMemoryMmap::from_ranges(&regions).expect("guest memory"),
            ranges,
        )
    })
});

/// Valid ones.
static IMAGES: LazyLock<[Vec<u8>; 2]> = LazyLock::new(|| [images::bzimage(), images::elf()]);

static FILES: LazyLock<[Arc<File>; 2]> = LazyLock::new(|| {
    let file = |name| memfd_create(name, MemfdFlags::CLOEXEC).expect("memfd");
    [
        Arc::new(file("kernel").into()),
        Arc::new(file("initrd").into()),
    ]
});

fuzz_target!(|data: &[u8]| {
    let Some(([base, memory, reserved, initrd @ ..], rest)) = data.split_first_chunk::<6>() else {
        return;
    };
    let image = image(base % 3, rest);
    let (memory, ram) = &MEMORIES[usize::from(memory % 4)];
    // Up to 128 KiB, all of it sparse.
    let initrd = u64::from_le_bytes([initrd[0], initrd[1], initrd[2] & 1, 0, 0, 0, 0, 0]);
    let [kernel_file, initrd_file] = &*FILES;
    kernel_file
        .write_all_at(&image, 0)
        .expect("write the kernel");
    // The rest of a longer one goes, and the pages of the file stay.
    let len = image.len() as u64;
    kernel_file.set_len(len).expect("length of the kernel");
    initrd_file.set_len(initrd).expect("length of the initrd");

    let mut payload = Payload::linux(kernel_file.clone()).cmdline("console=hvc0");
    if initrd > 0 {
        payload = payload.initrd(initrd_file.clone());
    }
    let reserved = if reserved & 1 == 1 {
        &[RESERVED][..]
    } else {
        &[]
    };
    let platform = Platform {
        rsdp: Some(GuestAddress(0xe0000)),
        reserved,
        cmdline_extra: "a=1",
    };

    let problems = loader::check(&payload);
    let loaded = loader::load(&payload, memory, &platform);
    if let Ok(boot) = loaded {
        assert!(problems.is_empty(), "loaded in spite of {problems:?}");
        check_boot(&boot, memory, ram, reserved);
    }
});

/// The bytes as they are, or patches over a valid image: offset (16 bits), length (8 bits), bytes.
fn image(base: u8, mut rest: &[u8]) -> Vec<u8> {
    let mut image = match base {
        0 => return rest[..rest.len().min(MAX_IMAGE)].to_vec(),
        1 => IMAGES[0].clone(),
        _ => IMAGES[1].clone(),
    };
    while let Some(([low, high, length], tail)) = rest.split_first_chunk::<3>() {
        let (bytes, tail) = tail.split_at(tail.len().min(usize::from(length % 32)));
        // Most patches belong into the headers.
        let offset = usize::from(u16::from_le_bytes([*low, *high]));
        let offset = if length & 0x80 == 0 {
            offset % 0x290
        } else {
            offset
        };
        images::put(&mut image, offset, bytes);
        rest = tail;
    }
    image
}

fn check_boot(boot: &Boot, memory: &GuestMemoryMmap, ram: &[Range<u64>], reserved: &[Range<u64>]) {
    let apart = |a: &Range<u64>, b: &Range<u64>| a.end <= b.start || b.end <= a.start;
    let within = |outer: &[Range<u64>], r: &Range<u64>| {
        outer.iter().any(|o| o.start <= r.start && r.end <= o.end)
    };
    assert!(boot.kernel.contains(&boot.registers.rip), "{boot:?}");
    assert!(boot.kernel.start >= MIB, "{boot:?}");
    let long_mode = boot.registers.rsi != 0;
    if long_mode {
        assert!(within(ram, &boot.kernel), "{boot:?}");
        assert!(reserved.iter().all(|r| apart(r, &boot.kernel)), "{boot:?}");
    }
    if let Some(initrd) = &boot.initrd {
        assert!(within(ram, initrd), "{boot:?}");
        assert!(reserved.iter().all(|r| apart(r, initrd)), "{boot:?}");
        assert_eq!(initrd.start % 4096, 0, "{boot:?}");
        assert!(!long_mode || apart(initrd, &boot.kernel), "{boot:?}");
    }
    let info = boot.registers.rsi.max(boot.registers.rbx);
    let magic: u32 = memory
        .read_obj(GuestAddress(info))
        .expect("boot data in RAM");
    assert_eq!(magic, if long_mode { 0 } else { 0x336e_c578 });
}
