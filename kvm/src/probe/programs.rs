//! The programs of the probe: ring 0, 64-bit mode, position-independent.
//!
//! At the start, `%rdi` holds the address of two zeroed pages to work on, and `%rsp` that of a
//! stack. A program that works puts [`PASSED`] out to [`RESULT_PORT`], computed where possible by
//! what is tried, so that an instruction that silently does nothing fails.

/// What a program that works says.
pub(super) const PASSED: u8 = 0x2a;
/// Where it says so.
pub(super) const RESULT_PORT: u16 = 0xf4;
/// Where a handler says which exception came instead.
pub(super) const EXCEPTION_PORT: u16 = 0xf5;

/// The handler of every exception but the breakpoint.
#[rustfmt::skip]
pub(super) const fn exception_handler(vector: u8) -> [u8; 8] {
    [
        0xb0, vector, // mov $vector,%al
        0xe6, 0xf5, // out %al,$0xf5
        0xf4, // hlt
        0x90, 0x90, 0x90,
    ]
}

/// Nothing but a halt.
#[rustfmt::skip]
pub(super) const HLT: &[u8] = &[
    0xf4, // hlt
];

/// An exception through the IDT and back: kernels patch themselves with this one.
#[rustfmt::skip]
pub(super) const INT3: &[u8] = &[
    0x31, 0xdb, // xor %ebx,%ebx
    0xcc, // int3
    0x88, 0xd8, // mov %bl,%al
    0xe6, 0xf4, // out %al,$0xf4
];

/// Where the IDT leads for vector 3.
#[rustfmt::skip]
pub(super) const BREAKPOINT_HANDLER: &[u8] = &[
    0xb3, 0x2a, // mov $0x2a,%bl
    0x48, 0xcf, // iretq
];

/// A return to the next line, as from an interrupt.
#[rustfmt::skip]
pub(super) const IRETQ: &[u8] = &[
    0x48, 0x89, 0xe0, // mov %rsp,%rax
    0x6a, 0x10, // push $0x10
    0x50, // push %rax
    0x9c, // pushf
    0x6a, 0x08, // push $0x8
    0x48, 0x8d, 0x05, 0x03, 0x00, 0x00, 0x00, // lea 0x3(%rip),%rax # 0x13
    0x50, // push %rax
    0x48, 0xcf, // iretq
    0xb0, 0x2a, // mov $0x2a,%al
    0xe6, 0xf4, // out %al,$0xf4
];

/// The vector registers, saved and loaded as at a switch of tasks. XCR0 is set already.
#[rustfmt::skip]
pub(super) const XSAVE: &[u8] = &[
    0x0f, 0x20, 0xe0, // mov %cr4,%rax
    0x0d, 0x00, 0x00, 0x04, 0x00, // or $0x40000,%eax
    0x0f, 0x22, 0xe0, // mov %rax,%cr4
    0x31, 0xd2, // xor %edx,%edx
    0xb8, 0x03, 0x00, 0x00, 0x00, // mov $0x3,%eax
    0xbb, 0x2a, 0x00, 0x00, 0x00, // mov $0x2a,%ebx
    0x66, 0x0f, 0x6e, 0xc3, // movd %ebx,%xmm0
    0x0f, 0xae, 0x27, // xsave (%rdi)
    0x66, 0x0f, 0xef, 0xc0, // pxor %xmm0,%xmm0
    0x0f, 0xae, 0x2f, // xrstor (%rdi)
    0x66, 0x0f, 0x7e, 0xc0, // movd %xmm0,%eax
    0xe6, 0xf4, // out %al,$0xf4
];

/// The widest atomic: slab allocators live on it.
#[rustfmt::skip]
pub(super) const CMPXCHG16B: &[u8] = &[
    0x31, 0xc0, // xor %eax,%eax
    0x31, 0xd2, // xor %edx,%edx
    0xbb, 0x2a, 0x00, 0x00, 0x00, // mov $0x2a,%ebx
    0x31, 0xc9, // xor %ecx,%ecx
    0xf0, 0x48, 0x0f, 0xc7, 0x0f, // lock cmpxchg16b (%rdi)
    0x8a, 0x07, // mov (%rdi),%al
    0xe6, 0xf4, // out %al,$0xf4
];

/// The time stamp counter.
#[rustfmt::skip]
pub(super) const RDTSC: &[u8] = &[
    0x0f, 0x31, // rdtsc
    0xb0, 0x2a, // mov $0x2a,%al
    0xe6, 0xf4, // out %al,$0xf4
];

/// A model-specific register, KERNEL_GS_BASE, written and read back.
#[rustfmt::skip]
pub(super) const MSR: &[u8] = &[
    0xb9, 0x02, 0x01, 0x00, 0xc0, // mov $0xc0000102,%ecx
    0x31, 0xd2, // xor %edx,%edx
    0xb8, 0x2a, 0x00, 0x00, 0x00, // mov $0x2a,%eax
    0x0f, 0x30, // wrmsr
    0x31, 0xc0, // xor %eax,%eax
    0x0f, 0x32, // rdmsr
    0xe6, 0xf4, // out %al,$0xf4
];

/// A copy of 17 bytes to the next page.
#[rustfmt::skip]
pub(super) const REP_MOVSB: &[u8] = &[
    0xc6, 0x47, 0x10, 0x2a, // movb $0x2a,0x10(%rdi)
    0x48, 0x89, 0xfe, // mov %rdi,%rsi
    0x48, 0x81, 0xc7, 0x00, 0x10, 0x00, 0x00, // add $0x1000,%rdi
    0xb9, 0x11, 0x00, 0x00, 0x00, // mov $0x11,%ecx
    0xf3, 0xa4, // rep movsb %ds:(%rsi),%es:(%rdi)
    0x8a, 0x47, 0xff, // mov -0x1(%rdi),%al
    0xe6, 0xf4, // out %al,$0xf4
];

/// Leaf 0: the number of leaves is never 0.
#[rustfmt::skip]
pub(super) const CPUID: &[u8] = &[
    0x31, 0xc0, // xor %eax,%eax
    0x0f, 0xa2, // cpuid
    0x85, 0xc0, // test %eax,%eax
    0x0f, 0x95, 0xc0, // setne %al
    0x6b, 0xc0, 0x2a, // imul $0x2a,%eax,%eax
    0xe6, 0xf4, // out %al,$0xf4
];

/// Arithmetic in a vector register.
#[rustfmt::skip]
pub(super) const SSE: &[u8] = &[
    0xb8, 0x15, 0x00, 0x00, 0x00, // mov $0x15,%eax
    0x66, 0x0f, 0x6e, 0xc0, // movd %eax,%xmm0
    0x66, 0x0f, 0xfe, 0xc0, // paddd %xmm0,%xmm0
    0x0f, 0x29, 0x07, // movaps %xmm0,(%rdi)
    0x8a, 0x07, // mov (%rdi),%al
    0xe6, 0xf4, // out %al,$0xf4
];

/// One page out of the TLB.
#[rustfmt::skip]
pub(super) const INVLPG: &[u8] = &[
    0x0f, 0x01, 0x3f, // invlpg (%rdi)
    0xb0, 0x2a, // mov $0x2a,%al
    0xe6, 0xf4, // out %al,$0xf4
];
