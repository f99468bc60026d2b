//! Which features a driver may take (virtio 1.2, 2.2).

use crate::device::Kind;
use crate::features::{EVENT_IDX, INDIRECT_DESC, TRANSPORT_MASK, VERSION_1};

/// What the rings and the transport offer, for every device.
const COMMON: u64 = VERSION_1 | INDIRECT_DESC | EVENT_IDX;

/// A feature that is of use only with one of some others.
struct Dependency {
    feature: u8,
    needs_one_of: &'static [u8],
}

const fn needs(feature: u8, needs_one_of: &'static [u8]) -> Dependency {
    Dependency {
        feature,
        needs_one_of,
    }
}

/// Network card, 5.1.3.1. The bits by number: CSUM 0, GUEST_CSUM 1, GUEST_TSO4 7, GUEST_TSO6 8,
/// HOST_TSO4 11, HOST_TSO6 12, CTRL_VQ 17.
const NET: &[Dependency] = &[
    needs(7, &[1]),       // GUEST_TSO4
    needs(8, &[1]),       // GUEST_TSO6
    needs(9, &[7, 8]),    // GUEST_ECN
    needs(10, &[1]),      // GUEST_UFO
    needs(11, &[0]),      // HOST_TSO4
    needs(12, &[0]),      // HOST_TSO6
    needs(13, &[11, 12]), // HOST_ECN
    needs(14, &[0]),      // HOST_UFO
    needs(18, &[17]),     // CTRL_RX
    needs(19, &[17]),     // CTRL_VLAN
    needs(21, &[17]),     // GUEST_ANNOUNCE
    needs(22, &[17]),     // MQ
    needs(23, &[17]),     // CTRL_MAC_ADDR
    needs(53, &[17]),     // NOTF_COAL
    needs(54, &[1]),      // GUEST_USO4
    needs(55, &[1]),      // GUEST_USO6
    needs(56, &[0]),      // HOST_USO
    needs(60, &[17]),     // RSS
    needs(61, &[11, 12]), // RSC_EXT
];

/// The dependencies that the device types of chapter 5 state.
fn dependencies(kind: Kind) -> &'static [Dependency] {
    match kind {
        Kind::Net => NET,
        _ => &[],
    }
}

/// All that a device offers: its own bits, and those of rings and transport.
pub(crate) fn offered(device: u64) -> u64 {
    (device & !TRANSPORT_MASK) | COMMON
}

/// Whether the device agrees to what the driver takes.
pub(crate) fn acceptable(kind: Kind, offered: u64, taken: u64) -> bool {
    let has = |bit: &u8| taken & (1 << bit) != 0;
    taken & !offered == 0
        && taken & VERSION_1 != 0
        && dependencies(kind)
            .iter()
            .all(|rule| !has(&rule.feature) || rule.needs_one_of.iter().any(has))
}
