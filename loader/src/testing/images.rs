//! The smallest valid images, byte by byte; tests and the fuzzer break them one field at a time.

/// Writes over part of an image, which grows if need be.
pub(crate) fn put(image: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if image.len() < end {
        image.resize(end, 0);
    }
    for (to, from) in image.iter_mut().skip(offset).zip(bytes) {
        *to = *from;
    }
}

/// Length of [`bzimage`]'s boot sector and setup code.
pub(crate) const SETUP: usize = 0x400;
/// Length of its protected-mode kernel.
pub(crate) const CODE: usize = 0x3000;

/// Protocol 2.15, one setup sector, 12 KiB of kernel that is all 0xcc, prefers 16 MiB and needs 1 MiB there.
pub(crate) fn bzimage() -> Vec<u8> {
    let mut image = vec![0; SETUP];
    image.resize(SETUP + CODE, 0xcc);
    let fields: &[(usize, &[u8])] = &[
        (0x1f1, &[1]),                              // setup_sects
        (0x1f4, &(CODE as u32 / 16).to_le_bytes()), // syssize
        (0x1fe, &0xaa55u16.to_le_bytes()),          // boot_flag
        (0x200, &[0xeb, 0x6a]),                     // jump
        (0x202, b"HdrS"),                           // header
        (0x206, &0x020fu16.to_le_bytes()),          // version
        (0x20e, &0x0080u16.to_le_bytes()),          // kernel_version, the string is at 0x280
        (0x211, &[1]),                              // loadflags: LOADED_HIGH
        (0x214, &0x10_0000u32.to_le_bytes()),       // code32_start
        (0x22c, &0x7fff_ffffu32.to_le_bytes()),     // initrd_addr_max
        (0x230, &0x20_0000u32.to_le_bytes()),       // kernel_alignment
        (0x234, &[1, 21]),                          // relocatable_kernel, min_alignment
        (0x236, &0x0023u16.to_le_bytes()),          // xloadflags: KERNEL_64, ABOVE_4G, 5LEVEL
        (0x238, &2047u32.to_le_bytes()),            // cmdline_size
        (0x248, &0x10u32.to_le_bytes()),            // payload_offset
        (0x24c, &0x100u32.to_le_bytes()),           // payload_length
        (0x258, &0x100_0000u64.to_le_bytes()),      // pref_address
        (0x260, &0x10_0000u32.to_le_bytes()),       // init_size
        (0x268, &0x30u32.to_le_bytes()),            // kernel_info_offset
        (0x280, b"6.1.2-test (me@here) #1\0"),
    ];
    for (offset, bytes) in fields {
        put(&mut image, *offset, bytes);
    }
    image
}

/// Where [`elf`] has its program headers: text, data with bss, notes.
pub(crate) const PHDR: [usize; 3] = [0x40, 0x78, 0xb0];
/// Where it has its note.
pub(crate) const NOTE: usize = 0xf00;
/// Where its text and its data are in the file.
pub(crate) const TEXT: usize = 0x1000;
pub(crate) const DATA: usize = 0x2000;

/// An ELF kernel of two segments at 16 MiB and 32 MiB with its PVH entry at 16 MiB + 0x10.
pub(crate) fn elf() -> Vec<u8> {
    let mut image = Vec::new();
    put(&mut image, 0, b"\x7fELF\x02\x01\x01");
    put(&mut image, 16, &2u16.to_le_bytes()); // e_type: ET_EXEC
    put(&mut image, 18, &62u16.to_le_bytes()); // e_machine: EM_X86_64
    put(&mut image, 20, &1u32.to_le_bytes()); // e_version
    put(&mut image, 32, &0x40u64.to_le_bytes()); // e_phoff
    put(&mut image, 52, &64u16.to_le_bytes()); // e_ehsize
    put(&mut image, 54, &56u16.to_le_bytes()); // e_phentsize
    put(&mut image, 56, &3u16.to_le_bytes()); // e_phnum
    put_phdr(
        &mut image,
        PHDR[0],
        1,
        [TEXT as u64, 0x100_0000, 0x1000, 0x1000],
    );
    put_phdr(
        &mut image,
        PHDR[1],
        1,
        [DATA as u64, 0x200_0000, 0x800, 0x4000],
    );
    put_phdr(&mut image, PHDR[2], 4, [NOTE as u64, 0, 0x18, 0x18]);
    put(&mut image, NOTE, &4u32.to_le_bytes()); // n_namesz
    put(&mut image, NOTE + 4, &8u32.to_le_bytes()); // n_descsz
    put(&mut image, NOTE + 8, &18u32.to_le_bytes()); // n_type: XEN_ELFNOTE_PHYS32_ENTRY
    put(&mut image, NOTE + 12, b"Xen\0");
    put(&mut image, NOTE + 16, &0x100_0010u64.to_le_bytes());
    put(&mut image, TEXT, &[0x90; 0x1000]);
    put(&mut image, DATA, &[0xda; 0x800]);
    image
}

/// Writes a program header: type, then p_offset, p_paddr, p_filesz, p_memsz.
pub(crate) fn put_phdr(image: &mut Vec<u8>, at: usize, kind: u32, values: [u64; 4]) {
    let [offset, paddr, filesz, memsz] = values;
    put(image, at, &kind.to_le_bytes());
    put(image, at + 8, &offset.to_le_bytes());
    put(image, at + 24, &paddr.to_le_bytes());
    put(image, at + 32, &filesz.to_le_bytes());
    put(image, at + 40, &memsz.to_le_bytes());
    put(image, at + 48, &4u64.to_le_bytes());
}
