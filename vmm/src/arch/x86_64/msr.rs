//! Model-specific registers that firmware would have set.
//!
//! KVM starts a vCPU with the values of a processor at reset; Linux takes over after firmware has
//! run, and looks at these few. Everything else it sets itself.

/// Miscellaneous features; bit 0: fast string operations.
const IA32_MISC_ENABLE: u32 = 0x1a0;
const FAST_STRINGS: u64 = 1 << 0;

/// The memory type where no range register says another; bit 11: range registers are on.
const IA32_MTRR_DEF_TYPE: u32 = 0x2ff;
const MTRR_ENABLE: u64 = 1 << 11;
const WRITE_BACK: u64 = 6;

/// Number and value of each register to set, for every processor.
pub const BOOT: &[(u32, u64)] = &[
    // Else Linux believes that `rep movsb` is slow and clears the feature.
    (IA32_MISC_ENABLE, FAST_STRINGS),
    // Else Linux finds that all memory is uncached, and turns the page attribute table off.
    (IA32_MTRR_DEF_TYPE, MTRR_ENABLE | WRITE_BACK),
];
