//! A kernel that somebody built: the one that `HYPE_TEST_KERNEL` names (a bzImage). Without it these tests are skipped,
//! and say so.

use std::fs;
use std::path::PathBuf;

use linux_loader::bootparam::boot_params;
use vm_memory::{Bytes, GuestAddress};

use crate::testing::{MIB, bytes, chain, file, load, ram, skipped};
use crate::{Payload, check};

fn kernel() -> Option<PathBuf> {
    let path = std::env::var_os("HYPE_TEST_KERNEL").map(PathBuf::from);
    if path.is_none() {
        skipped("HYPE_TEST_KERNEL names no bzImage");
    }
    path
}

#[test]
fn a_real_kernel_gets_a_zero_page_as_its_header_asks() {
    let Some(path) = kernel() else { return };
    let image = fs::read(&path).unwrap();
    let field = |offset: usize| u32::from_le_bytes(image[offset..offset + 4].try_into().unwrap());
    let memory = ram(&[0..512 * MIB]);
    let payload = Payload::linux(path)
        .initrd(file(&[0x5a; 0x1801]))
        .cmdline("console=ttyS0");

    let boot = load(&payload, &memory).unwrap();

    let pref_address = u64::from(field(0x258));
    assert_eq!(
        boot.kernel,
        pref_address..pref_address + u64::from(field(0x260))
    );
    assert_eq!(boot.registers.rip, pref_address + 0x200);
    assert_eq!(boot.initrd, Some(512 * MIB - 0x2000..512 * MIB - 0x7ff));
    assert!(boot.version.unwrap().contains('#'));

    let params: boot_params = memory.read_obj(GuestAddress(boot.registers.rsi)).unwrap();
    assert_eq!(params.hdr.setup_sects, image[0x1f1]);
    assert_eq!({ params.hdr.header }, u32::from_le_bytes(*b"HdrS"));
    assert_eq!({ params.hdr.boot_flag }, 0xaa55);
    assert_eq!(u32::from(params.hdr.version), field(0x206) & 0xffff);
    assert_eq!(params.hdr.type_of_loader, 0xff);
    assert_eq!(params.hdr.loadflags, 1);
    assert_eq!({ params.hdr.ramdisk_image }, 512 * MIB as u32 - 0x2000);
    assert_eq!({ params.hdr.ramdisk_size }, 0x1801);
    assert_eq!(
        ({ params.ext_ramdisk_image }, { params.ext_ramdisk_size }),
        (0, 0)
    );
    assert_eq!({ params.hdr.cmd_line_ptr }, 0x20000);
    assert_eq!({ params.hdr.kernel_alignment }, field(0x230));
    assert_eq!({ params.hdr.init_size }, field(0x260));
    assert_eq!({ params.hdr.setup_data }, 0);
    assert_eq!({ params.acpi_rsdp_addr }, 0);
    assert_eq!((params.sentinel, params.e820_entries), (0, 3));
    assert_eq!(bytes(&memory, 0x20000, 14), b"console=ttyS0\0");

    let setup = (usize::from(image[0x1f1]) + 1) * 512;
    let code = field(0x1f4) as usize * 16;
    assert_eq!(
        bytes(&memory, pref_address, code),
        &image[setup..setup + code]
    );
    assert_eq!(bytes(&memory, 512 * MIB - 0x2000, 0x1801), [0x5a; 0x1801]);
}

#[test]
fn a_real_kernel_cut_short_anywhere_is_refused() {
    let Some(path) = kernel() else { return };
    let image = fs::read(path).unwrap();
    let setup = (usize::from(image[0x1f1]) + 1) * 512;
    let syssize = u32::from_le_bytes(image[0x1f4..0x1f8].try_into().unwrap());
    // What follows the last, perhaps incomplete paragraph (a signature) is not needed.
    let needed = setup + syssize as usize * 16 - 15;
    let whole = tempfile::NamedTempFile::new().unwrap();
    fs::write(whole.path(), &image).unwrap();
    let payload = Payload::linux(whole.path());

    assert!(check(&payload).is_empty());
    let mut lengths: Vec<_> = (0..=0x270).chain((0..needed).step_by(4096)).collect();
    lengths.sort_unstable();
    for length in lengths.into_iter().rev() {
        whole.as_file().set_len(length as u64).unwrap();
        let errors = check(&payload);
        assert_eq!(errors.len(), 1, "{length} bytes were accepted");
        let message = chain(&errors[0]);
        let why = [
            "the file is empty",
            "format not known",
            "the file ends early",
        ];
        assert!(
            why.iter().any(|why| message.contains(why)),
            "{length}: {message}"
        );
    }
}
