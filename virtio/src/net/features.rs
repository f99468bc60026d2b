//! Feature bits of network cards (virtio 1.2, 5.1.3), and how they name offloads.

use super::Offloads;

/// `VIRTIO_NET_F_CSUM`: the driver may leave checksums to us.
pub(super) const CSUM: u64 = 1 << 0;
/// `VIRTIO_NET_F_GUEST_CSUM`: the driver takes frames with partial checksums.
pub(super) const GUEST_CSUM: u64 = 1 << 1;
/// `VIRTIO_NET_F_CTRL_GUEST_OFFLOADS`: the driver may change its mind about what it takes.
pub(super) const CTRL_GUEST_OFFLOADS: u64 = 1 << 2;
/// `VIRTIO_NET_F_MTU`: the configuration space has the MTU.
pub(super) const MTU: u64 = 1 << 3;
/// `VIRTIO_NET_F_MAC`: the configuration space has the address.
pub(super) const MAC: u64 = 1 << 5;
const GUEST_TSO4: u64 = 1 << 7;
const GUEST_TSO6: u64 = 1 << 8;
const GUEST_ECN: u64 = 1 << 9;
const HOST_TSO4: u64 = 1 << 11;
const HOST_TSO6: u64 = 1 << 12;
const HOST_ECN: u64 = 1 << 13;
/// `VIRTIO_NET_F_MRG_RXBUF`: a frame may be spread over several chains.
pub(super) const MRG_RXBUF: u64 = 1 << 15;
/// `VIRTIO_NET_F_STATUS`: the configuration space tells whether the link is up.
pub(super) const STATUS: u64 = 1 << 16;
/// `VIRTIO_NET_F_CTRL_VQ`: there is a control queue.
pub(super) const CTRL_VQ: u64 = 1 << 17;
/// `VIRTIO_NET_F_CTRL_RX`: the driver says which frames it wants.
pub(super) const CTRL_RX: u64 = 1 << 18;
/// `VIRTIO_NET_F_CTRL_RX_EXTRA`: in more detail.
pub(super) const CTRL_RX_EXTRA: u64 = 1 << 20;
/// `VIRTIO_NET_F_MQ`: there are several pairs of queues.
pub(super) const MQ: u64 = 1 << 22;
/// `VIRTIO_NET_F_CTRL_MAC_ADDR`: the driver may change the address.
pub(super) const CTRL_MAC_ADDR: u64 = 1 << 23;

/// Each offload, the feature of a driver that makes use of it, and of one that takes it.
const OFFLOADS: [(Offloads, u64, u64); 4] = [
    (Offloads::CHECKSUM, CSUM, GUEST_CSUM),
    (Offloads::TSO4, HOST_TSO4, GUEST_TSO4),
    (Offloads::TSO6, HOST_TSO6, GUEST_TSO6),
    (Offloads::ECN, HOST_ECN, GUEST_ECN),
];

/// All features that a host side with these offloads makes possible.
pub(super) fn of(offloads: Offloads) -> u64 {
    let known = OFFLOADS.iter().filter(|(one, ..)| offloads.contains(*one));
    known.fold(0, |features, (_, host, guest)| features | host | guest)
}

/// What the driver may leave to the host.
pub(super) fn host_offloads(features: u64) -> Offloads {
    let agreed = OFFLOADS.iter().filter(|(_, host, _)| features & host != 0);
    agreed.map(|(one, ..)| *one).collect()
}

/// What the host may leave to the driver.
pub(super) fn guest_offloads(features: u64) -> Offloads {
    let agreed = OFFLOADS.iter().filter(|(.., guest)| features & guest != 0);
    agreed.map(|(one, ..)| *one).collect()
}

/// The bits that stand for offloads of the driver's side.
pub(super) const GUEST_OFFLOADS: u64 = GUEST_CSUM | GUEST_TSO4 | GUEST_TSO6 | GUEST_ECN;
