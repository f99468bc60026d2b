//! Kernels of a few bytes: ELF files with a PVH note, entered in 32-bit protected mode.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Where the code is loaded and entered.
const ENTRY: u32 = 0x10_0000;
/// ACPI's sleep control register, and the value that switches off (S5, go).
const SLEEP: (u16, u8) = (0x600, 5 << 2 | 1 << 5);
/// The reset control register.
const RESET: (u16, u8) = (0xcf9, 6);
/// pvpanic: the kernel has panicked.
const PANIC: (u16, u8) = (0x505, 1);
const SERIAL: u16 = 0x3f8;

/// Machine code, put together instruction by instruction.
#[derive(Default, Clone)]
pub struct Code(Vec<u8>);

impl Code {
    pub fn new() -> Self {
        Code::default()
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// `mov dx, port; mov al, value; out dx, al`
    fn out(self, (port, value): (u16, u8)) -> Self {
        self.bytes(&[0x66, 0xba])
            .bytes(&port.to_le_bytes())
            .bytes(&[0xb0, value, 0xee])
    }

    pub fn power_off(self) -> Self {
        self.out(SLEEP).halt()
    }

    pub fn reset(self) -> Self {
        self.out(RESET).halt()
    }

    pub fn panic(self) -> Self {
        self.out(PANIC).halt()
    }

    /// `ud2`, with no interrupt table to speak of.
    pub fn triple_fault(self) -> Self {
        self.bytes(&[0x0f, 0x0b])
    }

    /// `jmp .`
    pub fn spin(self) -> Self {
        self.bytes(&[0xeb, 0xfe])
    }

    /// `cli; hlt; jmp .-1`
    pub fn halt(self) -> Self {
        self.bytes(&[0xfa, 0xf4, 0xeb, 0xfd])
    }

    /// Prints on the serial port.
    pub fn print(self, text: &str) -> Self {
        text.bytes()
            .fold(self, |code, byte| code.out((SERIAL, byte)))
    }

    /// Does `body` so many times.
    pub fn repeat(self, times: u32, body: Code) -> Self {
        let back = -(i32::try_from(body.0.len()).unwrap() + 7);
        self.bytes(&[0xb9]) // mov ecx, times
            .bytes(&times.to_le_bytes())
            .bytes(&body.0)
            .bytes(&[0x49, 0x0f, 0x85]) // dec ecx; jnz back
            .bytes(&back.to_le_bytes())
    }

    /// Sends back what comes in by the serial port, up to a `q`.
    pub fn echo(self) -> Self {
        self.bytes(&[0x66, 0xba, 0xfd, 0x03, 0xec]) // again: mov dx, line status; in al, dx
            .bytes(&[0xa8, 0x01, 0x74, 0xf7]) // test al, data ready; jz again
            .bytes(&[0x66, 0xba, 0xf8, 0x03, 0xec, 0xee]) // mov dx, data; in al, dx; out dx, al
            .bytes(&[0x3c, b'q', 0x75, 0xed]) // cmp al, 'q'; jne again
    }

    /// The ELF file: header, two program headers, the note, the code.
    pub fn image(&self) -> Vec<u8> {
        const NOTE: u64 = 64 + 2 * 56;
        const CODE: u64 = NOTE + 20;
        let (size, entry) = (self.0.len() as u64, u64::from(ENTRY));
        Code::new()
            .bytes(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0")
            .u16s(&[2, 62]) // an executable, for x86-64
            .u32s(&[1])
            .u64s(&[entry, 64, 0]) // where the program headers are; no sections
            .u32s(&[0])
            .u16s(&[64, 56, 2, 0, 0, 0]) // sizes and counts of headers
            .u32s(&[1, 5]) // PT_LOAD: offset, addresses, sizes in file and memory, alignment
            .u64s(&[CODE, entry, entry, size, size, 4])
            .u32s(&[4, 4]) // PT_NOTE
            .u64s(&[NOTE, 0, 0, CODE - NOTE, CODE - NOTE, 4])
            .u32s(&[4, 4, 18]) // XEN_ELFNOTE_PHYS32_ENTRY
            .bytes(b"Xen\0")
            .u32s(&[ENTRY])
            .bytes(&self.0)
            .0
    }

    fn u16s(self, values: &[u16]) -> Self {
        values
            .iter()
            .fold(self, |code, value| code.bytes(&value.to_le_bytes()))
    }

    fn u32s(self, values: &[u32]) -> Self {
        values
            .iter()
            .fold(self, |code, value| code.bytes(&value.to_le_bytes()))
    }

    fn u64s(self, values: &[u64]) -> Self {
        values
            .iter()
            .fold(self, |code, value| code.bytes(&value.to_le_bytes()))
    }
}

/// A kernel in a folder of its own.
pub struct Kernel {
    folder: TempDir,
    path: PathBuf,
}

impl Kernel {
    pub fn new(code: Code) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kernel");
        std::fs::write(&path, code.image()).unwrap();
        Kernel { folder, path }
    }

    /// The options of a small machine that runs it, before others.
    pub fn options<'a>(&'a self, others: &[&'a str]) -> Vec<&'a str> {
        let mut options = vec!["-kernel", self.path.to_str().unwrap(), "-mem", "4"];
        options.extend(others);
        options
    }

    /// Where a test can put its files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// Whether this host's KVM can be used. If not that is said so that it can't be overlooked, and
/// where it is required (`HYPE_REQUIRE_KVM=1`) it is a failure.
pub fn kvm(test: &str) -> bool {
    let Err(error) = File::options().read(true).write(true).open("/dev/kvm") else {
        return true;
    };
    assert!(
        std::env::var_os("HYPE_REQUIRE_KVM").is_none(),
        "HYPE_REQUIRE_KVM is set, and /dev/kvm: {error}"
    );
    skipped(test, &format!("/dev/kvm: {error}"));
    false
}

/// Says that a test was skipped, past the test harness, which hides what macros print.
pub fn skipped(test: &str, why: &str) {
    let line = format!("skipped: {test}: {why}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}
