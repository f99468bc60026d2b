//! Feature bits that belong to no device in particular (virtio 1.2, chapter 6).

/// `VIRTIO_F_INDIRECT_DESC`: a descriptor may point at a table of descriptors.
pub const INDIRECT_DESC: u64 = 1 << 28;
/// `VIRTIO_F_EVENT_IDX`: each side names the index at which it wants to be woken.
pub const EVENT_IDX: u64 = 1 << 29;
/// `VIRTIO_F_VERSION_1`: the modern interface; a driver that does not take it is refused.
pub const VERSION_1: u64 = 1 << 32;
/// `VIRTIO_F_RING_PACKED`: the packed ring layout.
pub const RING_PACKED: u64 = 1 << 34;
/// `VIRTIO_F_IN_ORDER`: buffers are used in the order in which they were made available.
pub const IN_ORDER: u64 = 1 << 35;

/// Bits 24 to 40 and up: what the rings and transports negotiate. A device's own bits lie
/// outside of this mask (6, "Reserved Feature Bits").
pub const TRANSPORT_MASK: u64 = ((1 << 42) - 1) & !((1 << 24) - 1);
