//! Tests of guest memory.

use super::*;
use vm_memory::Bytes;

const PAGE: usize = 4096;

fn anonymous(start: u64, len: usize) -> io::Result<Region> {
    Region::anonymous(GuestAddress(start), len)
}

/// A file of `len` bytes without a name.
#[cfg(not(miri))]
fn file(len: u64) -> Arc<File> {
    let file = tempfile::tempfile().unwrap();
    file.set_len(len).unwrap();
    Arc::new(file)
}

/// Whether a single mapping of this process holds all of these addresses.
#[cfg(not(miri))]
fn is_mapped(addresses: std::ops::Range<usize>) -> bool {
    let bound = |text| usize::from_str_radix(text, 16).unwrap();
    std::fs::read_to_string("/proc/self/maps")
        .unwrap()
        .lines()
        .any(|line| {
            let (start, rest) = line.split_once('-').unwrap();
            let (end, _) = rest.split_once(' ').unwrap();
            bound(start) <= addresses.start && addresses.end <= bound(end)
        })
}

#[test]
fn new_memory_is_zeroed_and_keeps_what_is_written() {
    let region = anonymous(0x1000, 4 * PAGE).unwrap();
    let mut bytes = [1; 32];
    region
        .read_slice(&mut bytes, MemoryRegionAddress(4 * PAGE as u64 - 32))
        .unwrap();
    assert_eq!(bytes, [0; 32]);
    region
        .write_slice(b"kept", MemoryRegionAddress(PAGE as u64 - 2))
        .unwrap();
    assert_eq!(
        region
            .read_obj::<[u8; 4]>(MemoryRegionAddress(PAGE as u64 - 2))
            .unwrap(),
        *b"kept"
    );
    assert_eq!(
        (region.start_addr(), region.len()),
        (GuestAddress(0x1000), 4 * PAGE as u64)
    );
}

#[test]
#[cfg(not(miri))]
fn large_regions_agree_with_the_guest_modulo_2_mib() {
    for start in [0, 0x1_0000_0000, 0x10_0000] {
        // Several at once, so that none is well placed by chance.
        let regions = [HUGE, HUGE + PAGE, 5 * HUGE].map(|len| anonymous(start, len).unwrap());
        for region in regions {
            assert_eq!(region.host_address() as usize % HUGE, start as usize % HUGE);
        }
    }
}

#[test]
#[cfg(not(miri))]
fn the_memory_around_a_region_is_given_back() {
    let region = anonymous(0, HUGE).unwrap();
    let whole = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let start = format!("{:x}-", region.host_address() as usize);
    let entry = whole
        .split_once(&start)
        .expect("the region starts its own mapping")
        .1;
    let flags = entry
        .lines()
        .find(|line| line.starts_with("VmFlags:"))
        .unwrap();
    assert!(flags.contains(" dd"), "left out of core dumps: {flags}");
    assert!(flags.contains(" nr"), "not reserved: {flags}");
}

#[test]
#[cfg(not(miri))]
fn dropped_regions_are_unmapped() {
    // So large that nothing else of this process takes its place.
    let len = 512 * HUGE;
    let region = anonymous(0, len).unwrap();
    let start = region.host_address() as usize;
    assert!(is_mapped(start..start + len));
    drop(region);
    assert!(!is_mapped(start..start + len));
}

#[test]
fn lengths_that_are_no_whole_pages_are_refused() {
    for len in [0, 1, PAGE - 1, PAGE + 1] {
        assert_eq!(
            anonymous(0, len).unwrap_err().kind(),
            ErrorKind::InvalidInput
        );
    }
}

#[test]
fn starts_within_a_page_are_refused() {
    assert_eq!(
        anonymous(1, PAGE).unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
}

#[test]
fn regions_beyond_the_address_space_are_refused() {
    let last = u64::MAX - (PAGE as u64 - 1);
    for (start, len) in [
        (last, PAGE),
        (last, 2 * PAGE),
        (PAGE as u64, usize::MAX - PAGE + 1),
    ] {
        assert_eq!(
            anonymous(start, len).unwrap_err().kind(),
            ErrorKind::InvalidInput
        );
    }
}

#[test]
#[cfg(not(miri))]
fn more_memory_than_there_are_addresses_is_an_error() {
    let too_large = [
        1 << 48,
        1 << 62,
        isize::MAX as usize - (PAGE - 1),
        (1 << 63),
        usize::MAX << 12,
    ];
    for len in too_large {
        assert_eq!(
            anonymous(0, len).unwrap_err().kind(),
            ErrorKind::OutOfMemory,
            "{len:#x}"
        );
    }
}

#[test]
fn slices_end_with_the_region() {
    let region = anonymous(0, PAGE).unwrap();
    let slice = |offset, count| {
        region
            .get_slice(MemoryRegionAddress(offset), count)
            .map(|s| s.len())
    };
    assert_eq!(slice(0, PAGE).unwrap(), PAGE);
    assert_eq!(slice(PAGE as u64, 0).unwrap(), 0);
    assert!(slice(1, PAGE).is_err());
    assert!(slice(u64::MAX, 2).is_err());
    assert!(slice(2, usize::MAX).is_err());
    assert!(
        region
            .get_host_address(MemoryRegionAddress(PAGE as u64))
            .is_err()
    );
    let last = region
        .get_host_address(MemoryRegionAddress(PAGE as u64 - 1))
        .unwrap();
    assert_eq!(last as usize, region.host_address() as usize + PAGE - 1);
}

#[test]
fn windows_lie_within_one_region() {
    let regions = [
        (0, 2 * PAGE),
        (2 * PAGE as u64, PAGE),
        (8 * PAGE as u64, PAGE),
    ];
    let regions = regions.map(|(start, len)| anonymous(start, len).unwrap());
    let memory = Arc::new(GuestMemory::from_regions(regions.into()).unwrap());
    let window = |address, len| Window::new(&memory, GuestAddress(address), len);
    assert!(window(0, 2 * PAGE).is_some());
    assert!(window(8 * PAGE as u64, PAGE).is_some());
    assert!(window(1, 2 * PAGE).is_none(), "crosses two regions");
    assert!(window(3 * PAGE as u64, 1).is_none(), "in a hole");
    assert!(window(u64::MAX, 2).is_none());
}

#[test]
fn windows_keep_their_memory() {
    let memory = Arc::new(GuestMemory::from_regions(vec![anonymous(0, PAGE).unwrap()]).unwrap());
    memory.write_slice(b"here", GuestAddress(16)).unwrap();
    let window = Window::new(&memory, GuestAddress(16), 4).unwrap();
    drop(memory);
    assert_eq!(window.slice().read_obj::<[u8; 4]>(0).unwrap(), *b"here");
}

#[test]
#[cfg(not(miri))]
fn shared_memory_is_the_file() {
    use std::os::unix::fs::FileExt;
    let file = file(4 * HUGE as u64);
    let region = Region::shared(GuestAddress(0), 2 * HUGE, Arc::clone(&file), HUGE as u64).unwrap();
    assert_eq!(region.host_address() as usize % HUGE, 0);
    region
        .write_slice(b"shared", MemoryRegionAddress(5))
        .unwrap();
    let mut bytes = [0; 6];
    file.read_exact_at(&mut bytes, HUGE as u64 + 5).unwrap();
    assert_eq!(&bytes, b"shared");
    assert_eq!(region.file_offset().unwrap().start(), HUGE as u64);
}

#[test]
#[cfg(not(miri))]
fn shared_memory_beyond_the_end_of_its_file_is_refused() {
    for (len, offset) in [(2 * PAGE, 0), (PAGE, PAGE as u64), (PAGE, u64::MAX)] {
        let refused = Region::shared(GuestAddress(0), len, file(PAGE as u64), offset);
        assert_eq!(
            refused.map(drop).unwrap_err().kind(),
            ErrorKind::InvalidInput
        );
    }
}

#[test]
#[cfg(not(miri))]
fn shared_memory_at_an_offset_within_a_page_is_an_error() {
    let refused = Region::shared(GuestAddress(0), PAGE, file(2 * PAGE as u64), 1);
    assert!(refused.is_err());
}
