use super::*;
use vm_memory::{
    Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap, GuestMemoryRegionBytes,
    GuestRegionCollection, GuestUsize, MemoryRegionAddress, VolatileSlice,
};

fn memory(ranges: &[(u64, usize)]) -> GuestMemoryMmap<()> {
    let ranges: Vec<_> = ranges
        .iter()
        .map(|&(at, len)| (GuestAddress(at), len))
        .collect();
    GuestMemoryMmap::from_ranges(&ranges).unwrap()
}

/// A region that lends out a part of real memory, or nothing.
struct Odd {
    memory: GuestMemoryMmap<()>,
    offset: Option<u64>,
}

impl GuestMemoryRegion for Odd {
    type B = ();

    fn len(&self) -> GuestUsize {
        0x1000
    }

    fn start_addr(&self) -> GuestAddress {
        GuestAddress(0)
    }

    fn bitmap(&self) {}

    fn get_slice(
        &self,
        _: MemoryRegionAddress,
        count: usize,
    ) -> Result<VolatileSlice<'_>, GuestMemoryError> {
        let offset = self
            .offset
            .ok_or(GuestMemoryError::HostAddressNotAvailable)?;
        GuestMemoryBackend::get_slice(&self.memory, GuestAddress(offset), count)
    }
}

impl GuestMemoryRegionBytes for Odd {}

fn odd(offset: Option<u64>) -> GuestRegionCollection<Odd> {
    let memory = memory(&[(0, 0x3000)]);
    memory.write_obj(1_u8, GuestAddress(0)).unwrap();
    GuestRegionCollection::from_regions(vec![Odd { memory, offset }]).unwrap()
}

#[test]
fn slots_of_two_regions_are_numbered_and_point_to_their_memory() {
    let memory = memory(&[(0, 0x3000), (0x1_0000_0000, 0x1000)]);

    let slots = slots(&memory, 0, 0).unwrap();

    let seen: Vec<_> = slots
        .iter()
        .map(|s| (s.slot, s.flags, s.guest_phys_addr, s.memory_size))
        .collect();
    assert_eq!(seen, [(0, 0, 0, 0x3000), (1, 0, 0x1_0000_0000, 0x1000)]);
    for (slot, region) in slots.iter().zip(memory.iter()) {
        let host = region.get_host_address(MemoryRegionAddress(0)).unwrap();
        assert_eq!(slot.userspace_addr, host as u64);
    }
}

#[test]
fn slots_that_are_not_whole_pages_are_refused() {
    for range in [(0x800, 0x1000), (0, 0x1800)] {
        let error = slots(&memory(&[range]), 0, 0).unwrap_err();

        assert!(
            matches!(error, Error::SlotAlignment { .. }),
            "{range:?}: {error:?}"
        );
    }
}

#[test]
fn slots_whose_host_address_is_within_a_page_are_refused() {
    assert!(slots(&odd(Some(0x1000)), 0, 0).is_ok());

    let error = slots(&odd(Some(0x1010)), 0, 0).unwrap_err();

    assert!(matches!(error, Error::SlotAlignment { host, .. } if host % 0x1000 == 0x10));
}

#[test]
fn slots_without_a_host_address_are_refused() {
    let error = slots(&odd(None), 0, 0).unwrap_err();

    assert!(
        matches!(
            error,
            Error::SlotUnmapped {
                start: 0,
                len: 0x1000,
                ..
            }
        ),
        "{error:?}"
    );
}

#[test]
fn slots_over_what_the_platform_needs_are_refused_and_next_to_it_are_not() {
    for at in [0xfec0_0000, 0xfee0_0000, 0xfffb_c000, 0xfffb_f000] {
        let error = slots(&memory(&[(at, 0x1000)]), 0, 0).unwrap_err();

        assert!(
            matches!(error, Error::SlotReserved { .. }),
            "{at:#x}: {error:?}"
        );
    }
    for at in [0xfebf_f000, 0xfffb_b000, 0xfffc_0000] {
        assert!(slots(&memory(&[(at, 0x1000)]), 0, 0).is_ok(), "{at:#x}");
    }
}

#[test]
fn check_count_asks_for_the_limit_only_beyond_what_every_kvm_has() {
    assert!(check_count(32, || panic!("asked")).is_ok());
    assert!(check_count(509, || 509).is_ok());

    let error = check_count(510, || 509).unwrap_err();

    assert!(
        matches!(
            error,
            Error::Slots {
                regions: 510,
                limit: 509
            }
        ),
        "{error:?}"
    );
}
