//! What stands before each frame (virtio 1.2, 5.1.6): which part of its checksum and its
//! segmentation is left to do, by whoever has the next wire.
//!
//! A header comes from the guest, so nothing in it is believed: `Header::checked` gives one of
//! which every field is in range and was negotiated, or none. A header from the host is held to what
//! the driver takes, too (`Header::accepted`).

bitflags::bitflags! {
    /// What a frame may leave to whoever gets it. A host side and a driver agree on a set of these
    /// for each direction.
    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
    pub struct Offloads: u8 {
        /// The checksum is partial, or was checked already.
        const CHECKSUM = 1;
        /// It is a TCP segment over IPv4 of up to 64 KiB, to be cut into smaller ones.
        const TSO4 = 2;
        /// Likewise over IPv6.
        const TSO6 = 4;
        /// The congestion bit of such a segment needs care.
        const ECN = 8;
    }
}

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`: the checksum is partial.
const NEEDS_CSUM: u8 = 1;
/// `VIRTIO_NET_HDR_F_DATA_VALID`: the checksum was found to be right.
const DATA_VALID: u8 = 2;

/// Values of `gso_type`.
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
/// A bit beside the type.
const GSO_ECN: u8 = 0x80;

/// How much of it there is, since version 1.
pub const HEADER_LEN: usize = 12;

/// `struct virtio_net_hdr`. The default says that there is nothing left to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Header {
    /// `NEEDS_CSUM` (1) or `DATA_VALID` (2).
    pub flags: u8,
    /// How the frame is to be segmented: not (0), TCP over IPv4 (1) or over IPv6 (4), with ECN (0x80).
    pub gso_type: u8,
    /// About how long the headers of a frame are that is to be segmented.
    pub hdr_len: u16,
    /// How many bytes of data each segment gets.
    pub gso_size: u16,
    /// Where the bytes begin that the checksum is made of.
    pub csum_start: u16,
    /// Where it goes, counted from there.
    pub csum_offset: u16,
    /// How many buffers a received frame is spread over. The device sees to it.
    pub num_buffers: u16,
}

impl Header {
    /// Reads one.
    pub fn from_bytes(bytes: [u8; HEADER_LEN]) -> Self {
        let [flags, gso_type, h0, h1, s0, s1, c0, c1, o0, o1, n0, n1] = bytes;
        Header {
            flags,
            gso_type,
            hdr_len: u16::from_le_bytes([h0, h1]),
            gso_size: u16::from_le_bytes([s0, s1]),
            csum_start: u16::from_le_bytes([c0, c1]),
            csum_offset: u16::from_le_bytes([o0, o1]),
            num_buffers: u16::from_le_bytes([n0, n1]),
        }
    }

    /// Its bytes, little-endian.
    pub fn to_bytes(self) -> [u8; HEADER_LEN] {
        let [h0, h1] = self.hdr_len.to_le_bytes();
        let [s0, s1] = self.gso_size.to_le_bytes();
        let [c0, c1] = self.csum_start.to_le_bytes();
        let [o0, o1] = self.csum_offset.to_le_bytes();
        let [n0, n1] = self.num_buffers.to_le_bytes();
        let (flags, kind) = (self.flags, self.gso_type);
        [flags, kind, h0, h1, s0, s1, c0, c1, o0, o1, n0, n1]
    }

    /// The header of a frame of this length that the driver sends, with nothing in it that the
    /// device would have to ignore (5.1.6.2.2). `None` if it asks for what was not agreed on, or
    /// for what can't be done.
    pub(super) fn checked(self, frame_len: usize, agreed: Offloads) -> Option<Header> {
        let mut checked = Header::default();
        if self.flags & NEEDS_CSUM != 0 {
            let field = usize::from(self.csum_start) + usize::from(self.csum_offset);
            if !agreed.contains(Offloads::CHECKSUM) || field + 2 > frame_len {
                return None;
            }
            checked.flags = NEEDS_CSUM;
            checked.csum_start = self.csum_start;
            checked.csum_offset = self.csum_offset;
        }
        if self.gso_type != GSO_NONE {
            // A segment is cut into segments with checksums of their own.
            let makes_sense = checked.flags == NEEDS_CSUM
                && self.gso_size != 0
                && usize::from(self.hdr_len) <= frame_len;
            if !makes_sense || !agreed.contains(self.segmentation()?) {
                return None;
            }
            checked.gso_type = self.gso_type;
            checked.gso_size = self.gso_size;
            checked.hdr_len = self.hdr_len;
        }
        Some(checked)
    }

    /// The header of a frame that the host has, as its driver may get it. `None` if it needs more
    /// than the driver takes.
    pub(super) fn accepted(self, agreed: Offloads) -> Option<Header> {
        let mut header = self;
        if !agreed.contains(Offloads::CHECKSUM) {
            if self.flags & NEEDS_CSUM != 0 {
                return None;
            }
            header.flags &= !DATA_VALID;
        }
        header.flags &= NEEDS_CSUM | DATA_VALID;
        if self.gso_type != GSO_NONE && !agreed.contains(self.segmentation()?) {
            return None;
        }
        Some(header)
    }

    /// What the type of segmentation asks for. `None`: there is no such type.
    fn segmentation(self) -> Option<Offloads> {
        let kind = match self.gso_type & !GSO_ECN {
            GSO_TCPV4 => Offloads::TSO4,
            GSO_TCPV6 => Offloads::TSO6,
            _ => return None,
        };
        let ecn = match self.gso_type & GSO_ECN {
            0 => Offloads::empty(),
            _ => Offloads::ECN,
        };
        Some(kind | ecn)
    }
}
