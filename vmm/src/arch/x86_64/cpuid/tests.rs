use super::*;

const INTEL: [&[u8; 4]; 3] = [b"Genu", b"ineI", b"ntel"];
const AMD: [&[u8; 4]; 3] = [b"Auth", b"enti", b"cAMD"];

fn leaf(function: u32, index: u32, registers: [u32; 4]) -> kvm_cpuid_entry2 {
    let [eax, ebx, ecx, edx] = registers;
    kvm_cpuid_entry2 {
        function,
        index,
        eax,
        ebx,
        ecx,
        edx,
        ..Default::default()
    }
}

/// A list such as KVM's, with all ones wherever this module is to decide.
fn supported(vendor: [&[u8; 4]; 3]) -> CpuId {
    let [ebx, edx, ecx] = vendor.map(|part| u32::from_le_bytes(*part));
    CpuId::from_entries(&[
        leaf(0, 0, [0x1f, ebx, ecx, edx]),
        leaf(1, 0, [0x806f8, u32::MAX, 0x7fff_ffff, u32::MAX]),
        // Data cache of level 1, unified caches of levels 2 and 3, end of list.
        leaf(4, 0, [0xffff_c021, 1, 2, 3]),
        leaf(4, 1, [0xffff_c043, 1, 2, 3]),
        leaf(4, 2, [0xffff_c063, 1, 2, 3]),
        leaf(4, 3, [0, 0, 0, 0]),
        leaf(7, 0, [1, u32::MAX, u32::MAX, u32::MAX]),
        leaf(7, 1, [0, u32::MAX, u32::MAX, u32::MAX]),
        leaf(0xb, 0, [1, 2, 0x100, 7]),
        leaf(0xb, 1, [5, 48, 0x201, 7]),
        leaf(0xd, 0, [7, 0, 0, 0]),
        leaf(0x12, 0, [1, 0, 0, 0]),
        leaf(0x15, 0, [0, 0, 0, 0]),
        leaf(0x1f, 0, [0, 0, 0, 7]),
        leaf(HYPERVISOR, 0, [0x4000_0001, 0x4b4d_564b, 0x564b_4d56, 0x4d]),
        leaf(0x4000_0001, 0, [0x0100_7efb, 0, 0, 0]),
        leaf(0x8000_0001, 0, [0, 0, u32::MAX, u32::MAX]),
        leaf(0x8000_0008, 0, [0x0030_3934, 0, 0x7fff, 0]),
        leaf(0x8000_000a, 0, [1, 8, 0, 1]),
        leaf(0x8000_001d, 0, [0xffff_c021, 1, 2, 3]),
        leaf(0x8000_001d, 1, [0xffff_c063, 1, 2, 3]),
        leaf(0x8000_001e, 0, [9, 0x109, 0x301, 0]),
    ])
    .unwrap()
}

fn topology(cpus: u32) -> Topology {
    Topology {
        cpus,
        tsc_khz: Some(2_400_000),
        tsc_deadline: true,
    }
}

fn of(vendor: [&[u8; 4]; 3], cpus: u32, index: u32) -> Leaves {
    let list = setup(&supported(vendor), &topology(cpus), index).unwrap();
    Leaves(list.as_slice().to_vec())
}

fn registers(leaves: &Leaves, function: u32, index: u32) -> [u32; 4] {
    let leaf = leaves.find(function, index).expect("leaf");
    [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx]
}

#[test]
fn leaf_1_has_the_apic_id_the_count_and_the_hypervisor_bit() {
    for (cpus, index, count, htt) in [
        (1, 0, 1, false),
        (2, 1, 2, true),
        (3, 2, 4, true),
        (300, 299, 255, true),
    ] {
        let leaves = of(INTEL, cpus, index);
        let [_, ebx, ecx, edx] = registers(&leaves, 1, 0);
        assert_eq!(ebx, (index & 0xff) << 24 | count << 16 | 0xffff, "{cpus}");
        assert_eq!(edx & EDX1_HTT != 0, htt, "{cpus}");
        assert_eq!(ecx & ECX1_HYPERVISOR, ECX1_HYPERVISOR);
    }
}

#[test]
fn deadline_mode_follows_the_capability_not_the_list() {
    for tsc_deadline in [false, true] {
        let topology = Topology {
            tsc_deadline,
            ..topology(1)
        };
        let list = setup(&supported(INTEL), &topology, 0).unwrap();
        let [_, _, ecx, _] = registers(&Leaves(list.as_slice().to_vec()), 1, 0);
        assert_eq!(ecx & ECX1_TSC_DEADLINE != 0, tsc_deadline);
    }
}

#[test]
fn levels_say_one_thread_a_core_and_all_cores_in_one_socket() {
    for function in [0xb, 0x1f] {
        for (cpus, shift) in [(1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (256, 8), (1024, 10)] {
            let index = cpus - 1;
            let leaves = of(INTEL, cpus, index);
            assert_eq!(registers(&leaves, function, 0), [0, 1, 0x100, index]);
            assert_eq!(registers(&leaves, function, 1), [shift, cpus, 0x201, index]);
            assert_eq!(registers(&leaves, function, 2), [0, 0, 2, index]);
            let all = leaves.0.iter().filter(|leaf| leaf.function == function);
            assert!(
                all.clone()
                    .all(|leaf| leaf.flags == KVM_CPUID_FLAG_SIGNIFCANT_INDEX)
            );
            assert_eq!(all.count(), 3);
        }
    }
}

#[test]
fn apic_ids_of_all_cpus_differ_and_fit_the_shift() {
    for cpus in 1..=70 {
        let ids: Vec<_> = (0..cpus)
            .map(|index| registers(&of(INTEL, cpus, index), 0xb, 1)[3])
            .collect();
        assert_eq!(ids, (0..cpus).collect::<Vec<_>>());
        assert!(cpus <= slots(cpus) && slots(cpus) < 2 * cpus);
    }
}

#[test]
fn only_the_last_cache_is_shared() {
    let leaves = of(INTEL, 6, 0);
    let shared = |index| get(registers(&leaves, 4, index)[0], CACHE_SHARED_BY);
    let cores = |index| get(registers(&leaves, 4, index)[0], CACHE_CORES);
    assert_eq!([shared(0), shared(1), shared(2)], [0, 0, 7]);
    assert_eq!([cores(0), cores(1), cores(2)], [7, 7, 7]);
    assert_eq!(registers(&leaves, 4, 3), [0; 4]);
    let leaves = of(AMD, 6, 0);
    let shared = |index| get(registers(&leaves, 0x8000_001d, index)[0], CACHE_SHARED_BY);
    assert_eq!([shared(0), shared(1)], [0, 7]);
}

#[test]
fn amd_leaves_have_the_same_topology() {
    let leaves = of(AMD, 6, 5);
    assert_eq!(
        registers(&leaves, 0x8000_0008, 0)[2],
        0x3f00 & !0xf000 | 3 << 12 | 5
    );
    assert_eq!(registers(&leaves, 0x8000_001e, 0), [5, 5, 0, 0]);
    assert_ne!(
        registers(&leaves, 0x8000_0001, 0)[2] & ECX8000_0001_CMP_LEGACY,
        0
    );
    let single = of(AMD, 1, 0);
    assert_eq!(
        registers(&single, 0x8000_0001, 0)[2] & ECX8000_0001_CMP_LEGACY,
        0
    );
}

#[test]
fn amd_leaves_of_an_intel_processor_are_left_alone() {
    let leaves = of(INTEL, 6, 5);
    assert_eq!(registers(&leaves, 0x8000_001e, 0), [9, 0x109, 0x301, 0]);
    assert_eq!(registers(&leaves, 0x8000_0008, 0)[2], 0x7fff);
}

#[test]
fn nested_virtualization_enclaves_and_tiles_are_hidden() {
    for vendor in [INTEL, AMD] {
        let leaves = of(vendor, 2, 0);
        assert_eq!(registers(&leaves, 1, 0)[2] & ECX1_VMX, 0);
        assert_eq!(registers(&leaves, 0x8000_0001, 0)[2] & ECX8000_0001_SVM, 0);
        assert_eq!(
            registers(&leaves, 7, 0),
            [1, !EBX7_SGX, !ECX7_SGX_LC, !EDX7_AMX]
        );
        assert_eq!(registers(&leaves, 7, 1), [0, u32::MAX, u32::MAX, u32::MAX]);
        assert!(leaves.find(0x12, 0).is_none());
        assert!(leaves.find(0x8000_000a, 0).is_none());
    }
}

#[test]
fn tiles_stay_when_the_process_has_permission_for_them() {
    let mut list = supported(INTEL);
    for leaf in list
        .as_mut_slice()
        .iter_mut()
        .filter(|leaf| leaf.function == 0xd)
    {
        leaf.eax |= XCR0_TILE;
    }
    let list = setup(&list, &topology(1), 0).unwrap();
    let leaves = Leaves(list.as_slice().to_vec());
    assert_eq!(registers(&leaves, 7, 0)[3], u32::MAX);
}

#[test]
fn the_clock_rate_is_told_twice_and_agrees() {
    let leaves = of(INTEL, 1, 0);
    assert_eq!(registers(&leaves, HYPERVISOR, 0)[0], HYPERVISOR_TIMING);
    assert_eq!(
        registers(&leaves, HYPERVISOR_TIMING, 0),
        [2_400_000, 1_000_000, 0, 0]
    );
    let [denominator, numerator, crystal, _] = registers(&leaves, 0x15, 0).map(u64::from);
    assert_eq!(crystal * numerator / denominator, 2_400_000_000);
    assert_eq!(registers(&of(AMD, 1, 0), 0x15, 0), [0; 4]);
}

#[test]
fn without_a_known_rate_nothing_is_claimed() {
    let topology = Topology {
        tsc_khz: None,
        ..topology(1)
    };
    let list = setup(&supported(INTEL), &topology, 0).unwrap();
    let leaves = Leaves(list.as_slice().to_vec());
    assert_eq!(registers(&leaves, HYPERVISOR, 0)[0], 0x4000_0001);
    assert_eq!(registers(&leaves, 0x15, 0), [0; 4]);
    assert!(leaves.find(HYPERVISOR_TIMING, 0).is_none());
}

#[test]
fn kvms_own_features_stay_as_they_are() {
    assert_eq!(
        registers(&of(INTEL, 1, 0), 0x4000_0001, 0),
        [0x0100_7efb, 0, 0, 0]
    );
}

#[test]
fn an_empty_list_stays_nearly_empty_and_does_not_fail() {
    let empty = CpuId::new(0).unwrap();
    assert_eq!(setup(&empty, &topology(4), 3).unwrap().as_slice().len(), 0);
    assert_eq!(physical_bits(&empty), 36);
}

#[test]
fn a_cpu_beyond_the_count_is_refused() {
    for (cpus, index) in [(0, 0), (1, 1), (4, u32::MAX)] {
        let result = setup(&supported(INTEL), &topology(cpus), index);
        assert!(
            matches!(result, Err(Error::NoSuchCpu { .. })),
            "{cpus} {index}"
        );
    }
}

#[test]
fn the_address_width_is_the_smaller_of_processor_and_nested_paging() {
    let with = |eax| CpuId::from_entries(&[leaf(0x8000_0008, 0, [eax, 0, 0, 0])]).unwrap();
    assert_eq!(physical_bits(&supported(INTEL)), 0x30);
    assert_eq!(physical_bits(&with(0x3934)), 0x34);
    assert_eq!(physical_bits(&with(0x0000_3000)), 36);
}
