//! The host bridge, device 0: what a bus begins with. It has nothing to configure, and is there
//! because kernels look for one before they trust a way to configuration space.

/// Red Hat's, whose numbers virtual devices have.
const VENDOR: u16 = 0x1b36;
/// A host bridge without peculiarities.
const DEVICE: u16 = 0x0008;
/// Base class 6: bridge. Subclass 0: host.
const CLASS: [u8; 3] = [0x00, 0x00, 0x06];

/// There are so many bytes of configuration space; all ones behind them tell Linux so at its first
/// look, and a zero would be a look for each extended capability.
const HEADER_SPACE: u32 = 0x100;

/// Reads from its configuration space.
pub(super) fn read(offset: u16, data: &mut [u8]) {
    let [vendor, device] = [VENDOR, DEVICE].map(u16::to_le_bytes);
    for (at, byte) in (u32::from(offset)..).zip(data) {
        *byte = match at {
            HEADER_SPACE.. => 0xff,
            0 => vendor[0],
            1 => vendor[1],
            2 => device[0],
            3 => device[1],
            9 => CLASS[0],
            10 => CLASS[1],
            11 => CLASS[2],
            _ => 0,
        };
    }
}
