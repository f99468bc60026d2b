//! What the guest sees of the processor.
//!
//! KVM lists what it can emulate on this host. Three things change on the way to a vCPU: its place
//! among the others (one socket, N cores, one thread each; the APIC id is the number of the
//! vCPU), how fast its clock is, and features that need help from a VMM that this one does not
//! give. KVM's own leaves at 0x4000_0000 stay: they give the guest its clock without a single
//! exit.
//!
//! Leaf numbers, registers and bits are those of the Intel SDM (volume 2, CPUID) and the AMD APM
//! (volume 3, appendix E).

use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};
use std::ops::RangeInclusive;

/// What the processors of a machine have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Topology {
    /// The number of vCPUs.
    pub cpus: u32,
    /// The rate of the time stamp counter, where KVM knows it (`KVM_GET_TSC_KHZ`).
    pub tsc_khz: Option<u32>,
    /// Whether KVM has the deadline mode of the local APIC's timer. KVM can't say so in its list,
    /// because the mode needs the APIC to be in the kernel; here it always is.
    pub tsc_deadline: bool,
}

/// Why there is no CPUID for a vCPU.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// More leaves than KVM takes.
    #[error("cannot describe vCPU {index}: {entries} CPUID leaves are more than KVM takes")]
    TooManyLeaves {
        /// Which vCPU.
        index: u32,
        /// How many leaves there would be.
        entries: usize,
    },
    /// The vCPU is not one of the machine's.
    #[error("cannot describe vCPU {index}: there are {cpus}")]
    NoSuchCpu {
        /// Which vCPU.
        index: u32,
        /// How many there are.
        cpus: u32,
    },
}

// Leaf 1.
const APIC_ID: RangeInclusive<u32> = 24..=31;
const LOGICAL_PROCESSORS: RangeInclusive<u32> = 16..=23;
const ECX1_VMX: u32 = 1 << 5;
const ECX1_TSC_DEADLINE: u32 = 1 << 24;
const ECX1_HYPERVISOR: u32 = 1 << 31;
const EDX1_HTT: u32 = 1 << 28;

// Leaves 4 and 0x8000_001d: caches.
const CACHE_TYPE: RangeInclusive<u32> = 0..=4;
const CACHE_LEVEL: RangeInclusive<u32> = 5..=7;
const CACHE_SHARED_BY: RangeInclusive<u32> = 14..=25;
const CACHE_CORES: RangeInclusive<u32> = 26..=31;
/// Caches of this level and up belong to the socket, those below to a core.
const SOCKET_CACHE: u32 = 3;

// Leaf 7.
const EBX7_SGX: u32 = 1 << 2;
const ECX7_SGX_LC: u32 = 1 << 30;
const EDX7_AMX: u32 = 1 << 22 | 1 << 24 | 1 << 25;
const XCR0_TILE: u32 = 0b11 << 17;

// Leaves 0xb and 0x1f.
const LEVEL_THREAD: u32 = 1;
const LEVEL_CORE: u32 = 2;

// AMD.
const ECX8000_0001_CMP_LEGACY: u32 = 1 << 1;
const ECX8000_0001_SVM: u32 = 1 << 2;
const CORE_COUNT: RangeInclusive<u32> = 0..=7;
const CORE_ID_BITS: RangeInclusive<u32> = 12..=15;

// Leaves of the hypervisor.
const HYPERVISOR: u32 = 0x4000_0000;
const HYPERVISOR_TIMING: u32 = 0x4000_0010;
/// KVM's local APIC timer counts nanoseconds.
const APIC_BUS_HZ: u32 = 1_000_000_000;

/// The leaves of vCPU `index`, from those that KVM supports.
pub fn setup(supported: &CpuId, topology: &Topology, index: u32) -> Result<CpuId, Error> {
    let Topology { cpus, .. } = *topology;
    if index >= cpus {
        return Err(Error::NoSuchCpu { index, cpus });
    }
    let mut leaves = Leaves(supported.as_slice().to_vec());
    let amd = leaves.is_amd();
    let intel = leaves.is_intel();
    mask(&mut leaves);
    identify(&mut leaves, topology, index);
    share_caches(&mut leaves, if amd { 0x8000_001d } else { 4 }, cpus);
    list_levels(&mut leaves, cpus, index);
    if amd {
        identify_amd(&mut leaves, cpus, index);
    }
    if let Some(khz) = topology.tsc_khz {
        tell_rate(&mut leaves, khz, intel);
    }
    let entries = leaves.0.len();
    CpuId::from_entries(&leaves.0).map_err(|_| Error::TooManyLeaves { index, entries })
}

/// The number of bits of a guest-physical address.
pub fn physical_bits(supported: &CpuId) -> u32 {
    /// What a processor without leaf 0x8000_0008 has, if it has PAE.
    const DEFAULT: u32 = 36;
    let entries = supported.as_slice();
    let leaf = entries.iter().find(|entry| entry.function == 0x8000_0008);
    let bits = leaf.map_or(0, |leaf| {
        let host = get(leaf.eax, 0..=7);
        // Where nested paging reaches less far than the processor, KVM says how far.
        match get(leaf.eax, 16..=23) {
            0 => host,
            guest => host.min(guest),
        }
    });
    if bits == 0 { DEFAULT } else { bits }
}

/// Takes away what needs a VMM that does more.
fn mask(leaves: &mut Leaves) {
    // Virtualization inside of the guest: state that nothing here saves, and an attack surface
    // that no default should have.
    leaves.change(1, |leaf| leaf.ecx &= !ECX1_VMX);
    leaves.change(0x8000_0001, |leaf| leaf.ecx &= !ECX8000_0001_SVM);
    leaves.remove(0x8000_000a);
    // SGX wants enclave memory mapped into the guest.
    leaves.change(7, |leaf| {
        if leaf.index == 0 {
            leaf.ebx &= !EBX7_SGX;
            leaf.ecx &= !ECX7_SGX_LC;
        }
    });
    leaves.remove(0x12);
    // The tile registers need this process's permission. KVM strikes them from leaf 0xd without
    // it, but not from leaf 7.
    let tiles = leaves
        .find(0xd, 0)
        .is_some_and(|leaf| leaf.eax & XCR0_TILE == XCR0_TILE);
    if !tiles {
        leaves.change(7, |leaf| {
            if leaf.index == 0 {
                leaf.edx &= !EDX7_AMX;
            }
        });
    }
}

/// Leaf 1: who this processor is, and that it is not a real one.
fn identify(leaves: &mut Leaves, topology: &Topology, index: u32) {
    let cpus = topology.cpus;
    leaves.change(1, |leaf| {
        set(&mut leaf.ebx, APIC_ID, index & 0xff);
        set(&mut leaf.ebx, LOGICAL_PROCESSORS, slots(cpus).min(0xff));
        set_flag(&mut leaf.edx, EDX1_HTT, cpus > 1);
        set_flag(&mut leaf.ecx, ECX1_TSC_DEADLINE, topology.tsc_deadline);
        leaf.ecx |= ECX1_HYPERVISOR;
    });
}

/// Which cores share which cache; also the number of cores, on Intel processors.
fn share_caches(leaves: &mut Leaves, function: u32, cpus: u32) {
    leaves.change(function, |leaf| {
        if get(leaf.eax, CACHE_TYPE) == 0 {
            return;
        }
        let whole = get(leaf.eax, CACHE_LEVEL) >= SOCKET_CACHE;
        let shared_by = if whole { slots(cpus) } else { 1 };
        set(&mut leaf.eax, CACHE_SHARED_BY, (shared_by - 1).min(0xfff));
        if function == 4 {
            set(&mut leaf.eax, CACHE_CORES, (slots(cpus) - 1).min(0x3f));
        }
    });
}

/// Leaves 0xb and 0x1f: one thread in a core, all cores in the socket.
fn list_levels(leaves: &mut Leaves, cpus: u32, index: u32) {
    for function in [0xb, 0x1f] {
        if leaves.max_basic() < function {
            continue;
        }
        leaves.remove(function);
        let levels = [
            (0, 1, LEVEL_THREAD),
            (id_bits(cpus), cpus, LEVEL_CORE),
            (0, 0, 0),
        ];
        for (level, (shift, processors, kind)) in (0..).zip(levels) {
            leaves.0.push(kvm_cpuid_entry2 {
                function,
                index: level,
                flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
                eax: shift,
                ebx: processors,
                ecx: level | kind << 8,
                edx: index,
                ..kvm_cpuid_entry2::default()
            });
        }
    }
}

/// AMD's own leaves for the same facts.
fn identify_amd(leaves: &mut Leaves, cpus: u32, index: u32) {
    leaves.change(0x8000_0001, |leaf| {
        set_flag(&mut leaf.ecx, ECX8000_0001_CMP_LEGACY, cpus > 1);
    });
    leaves.change(0x8000_0008, |leaf| {
        set(&mut leaf.ecx, CORE_COUNT, (cpus - 1).min(0xff));
        set(&mut leaf.ecx, CORE_ID_BITS, id_bits(cpus));
    });
    leaves.change(0x8000_001e, |leaf| {
        leaf.eax = index;
        // Core id; one thread per core. The id has 8 bits; beyond, leaf 0xb has the whole.
        leaf.ebx = index & 0xff;
        // Node 0 of one.
        leaf.ecx = 0;
    });
}

/// The rate of the time stamp counter, so that the guest does not have to measure it.
fn tell_rate(leaves: &mut Leaves, khz: u32, intel: bool) {
    let maximum = leaves.find(HYPERVISOR, 0).map_or(0, |leaf| leaf.eax);
    if maximum >= HYPERVISOR {
        leaves.change(HYPERVISOR, |leaf| leaf.eax = maximum.max(HYPERVISOR_TIMING));
        leaves.remove(HYPERVISOR_TIMING);
        leaves.0.push(kvm_cpuid_entry2 {
            function: HYPERVISOR_TIMING,
            eax: khz,
            ebx: APIC_BUS_HZ / 1000,
            ..kvm_cpuid_entry2::default()
        });
    }
    // Leaf 0x15: crystal * EBX / EAX. The APIC timer runs at the crystal's rate, so that is
    // KVM's timer, and the ratio is khz / 10^6.
    if intel && leaves.max_basic() >= 0x15 {
        leaves.remove(0x15);
        leaves.0.push(kvm_cpuid_entry2 {
            function: 0x15,
            eax: APIC_BUS_HZ / 1000,
            ebx: khz,
            ecx: APIC_BUS_HZ,
            ..kvm_cpuid_entry2::default()
        });
    }
}

/// The bits of an APIC id that tell the cores of the socket apart.
fn id_bits(cpus: u32) -> u32 {
    u32::BITS - cpus.saturating_sub(1).leading_zeros()
}

/// The number of APIC ids that the socket takes: a power of two.
fn slots(cpus: u32) -> u32 {
    1u32.checked_shl(id_bits(cpus)).unwrap_or(u32::MAX)
}

struct Leaves(Vec<kvm_cpuid_entry2>);

impl Leaves {
    fn find(&self, function: u32, index: u32) -> Option<&kvm_cpuid_entry2> {
        self.0
            .iter()
            .find(|leaf| leaf.function == function && leaf.index == index)
    }

    /// Calls `change` with each sub-leaf of `function`.
    fn change(&mut self, function: u32, change: impl FnMut(&mut kvm_cpuid_entry2)) {
        self.0
            .iter_mut()
            .filter(|leaf| leaf.function == function)
            .for_each(change);
    }

    fn remove(&mut self, function: u32) {
        self.0.retain(|leaf| leaf.function != function);
    }

    fn max_basic(&self) -> u32 {
        self.find(0, 0).map_or(0, |leaf| leaf.eax)
    }

    fn vendor(&self) -> Option<[[u8; 4]; 3]> {
        self.find(0, 0)
            .map(|leaf| [leaf.ebx, leaf.edx, leaf.ecx].map(u32::to_le_bytes))
    }

    fn is_intel(&self) -> bool {
        self.vendor() == Some([*b"Genu", *b"ineI", *b"ntel"])
    }

    /// Hygon's processors are of AMD's design.
    fn is_amd(&self) -> bool {
        let vendor = self.vendor();
        vendor == Some([*b"Auth", *b"enti", *b"cAMD"])
            || vendor == Some([*b"Hygo", *b"nGen", *b"uine"])
    }
}

fn field_mask(bits: &RangeInclusive<u32>) -> u32 {
    (u32::MAX >> (31 - (bits.end() - bits.start()))) << bits.start()
}

fn get(register: u32, bits: RangeInclusive<u32>) -> u32 {
    (register & field_mask(&bits)) >> bits.start()
}

fn set(register: &mut u32, bits: RangeInclusive<u32>, value: u32) {
    let mask = field_mask(&bits);
    *register = *register & !mask | value << bits.start() & mask;
}

fn set_flag(register: &mut u32, flag: u32, on: bool) {
    *register = if on {
        *register | flag
    } else {
        *register & !flag
    };
}

#[cfg(test)]
mod tests;
