//! The register state in which the first vCPU starts, as plain data.
//!
//! Field names and meanings are those of Intel SDM volume 3 (and of KVM's `kvm_sregs`, whose layout
//! this resembles without depending on it). What is not here is zero or at its reset value.

/// General, control and segment registers at the first instruction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Registers {
    /// Instruction pointer: the kernel's entry, a physical address (paging is off or maps it to
    /// itself).
    pub rip: u64,
    /// Stack pointer: the end of a page that the loader set aside.
    pub rsp: u64,
    /// Frame pointer.
    pub rbp: u64,
    /// Linux' 64-bit entry: address of `boot_params`.
    pub rsi: u64,
    /// PVH: address of `hvm_start_info`.
    pub rbx: u64,
    /// Flags: only the bit that is always set, so interrupts are off.
    pub rflags: u64,
    /// Control register 0.
    pub cr0: u64,
    /// Physical address of the top page table; 0 while paging is off.
    pub cr3: u64,
    /// Control register 4.
    pub cr4: u64,
    /// Extended feature enable register.
    pub efer: u64,
    /// Global descriptor table.
    pub gdt: Table,
    /// Interrupt descriptor table: empty, the kernel brings its own.
    pub idt: Table,
    /// Code segment.
    pub cs: Segment,
    /// Data segment.
    pub ds: Segment,
    /// Extra segment.
    pub es: Segment,
    /// Extra segment.
    pub fs: Segment,
    /// Extra segment.
    pub gs: Segment,
    /// Stack segment.
    pub ss: Segment,
    /// Task register.
    pub tr: Segment,
    /// Local descriptor table: none.
    pub ldt: Segment,
}

/// A descriptor table register.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Table {
    /// Linear address of the table.
    pub base: u64,
    /// Its size in bytes, minus one.
    pub limit: u16,
}

/// A segment register with its hidden part. The one-bit fields hold 0 or 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Segment {
    /// Linear address of the segment's first byte.
    pub base: u64,
    /// Offset of its last byte (in bytes, whatever `g` says).
    pub limit: u32,
    /// What the visible part holds.
    pub selector: u16,
    /// Type field: 11 for code (and for a busy TSS), 3 for data.
    pub type_: u8,
    /// P: the segment is present.
    pub present: u8,
    /// Descriptor privilege level.
    pub dpl: u8,
    /// D/B: default operand size is 32 bits.
    pub db: u8,
    /// S: code or data (1), system (0).
    pub s: u8,
    /// L: 64-bit code.
    pub l: u8,
    /// G: the limit counts 4 KiB units in the descriptor.
    pub g: u8,
}
