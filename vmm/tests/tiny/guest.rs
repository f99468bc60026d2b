//! Guests of a few bytes, in 32-bit protected mode without paging, and the machines for them.

use std::error::Error;
use std::io::Write;
use vmm::loader::{Boot, Payload, Registers, Segment};
use vmm::virtio::GuestMemory;
use vmm::vm_memory::{Bytes, GuestAddress};
use vmm::{Config, Guest, Outcome, Vm};

/// Where the code is, and where `eip` starts.
pub const CODE: u64 = 0x1000;
/// Where the code of the other processors is, which start at the beginning of a page.
pub const OTHERS: u64 = 0x2000;
/// Bytes for the guest to use.
pub const DATA: u32 = 0x4000;

/// ACPI's sleep control register: S5, and "go".
pub const SLEEP_PORT: u16 = 0x600;
pub const SLEEP_S5: u8 = 5 << 2 | 1 << 5;
/// The reset control register.
pub const RESET_PORT: u16 = 0xcf9;
pub const RESET: u8 = 6;
/// A port at which nothing is.
pub const NOWHERE: u16 = 0x4321;

/// The local APIC's interrupt command register, and parts of a command.
const APIC_ICR: u32 = 0xfee0_0300;
const TO_ALL_OTHERS: u32 = 3 << 18;
const ASSERT: u32 = 1 << 14;

/// Machine code, put together instruction by instruction.
#[derive(Default, Clone)]
pub struct Code(pub Vec<u8>);

impl Code {
    pub fn new() -> Self {
        Code::default()
    }

    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn dx(self, port: u16) -> Self {
        self.bytes(&[0x66, 0xba]).bytes(&port.to_le_bytes())
    }

    /// `mov al, value; out dx, al`
    pub fn out8(self, port: u16, value: u8) -> Self {
        self.dx(port).bytes(&[0xb0, value, 0xee])
    }

    /// `mov ax, value; out dx, ax`
    pub fn out16(self, port: u16, value: u16) -> Self {
        let code = self.dx(port).bytes(&[0x66, 0xb8]);
        code.bytes(&value.to_le_bytes()).bytes(&[0x66, 0xef])
    }

    /// `mov eax, value; out dx, eax`
    pub fn out32(self, port: u16, value: u32) -> Self {
        let code = self.dx(port).bytes(&[0xb8]);
        code.bytes(&value.to_le_bytes()).bytes(&[0xef])
    }

    /// Reads a port as wide as `value` is, in bytes; resets if that is not what it reads.
    pub fn reset_unless_in(self, port: u16, value: &[u8]) -> Self {
        let reset = Code::new().reset();
        let (read, compare): (&[u8], &[u8]) = match value.len() {
            1 => (&[0xec], &[0x3c]),
            2 => (&[0x66, 0xed], &[0x66, 0x3d]),
            _ => (&[0xed], &[0x3d]),
        };
        self.dx(port)
            .bytes(read)
            .bytes(compare)
            .bytes(value)
            .bytes(&[0x74, u8::try_from(reset.0.len()).unwrap()]) // je over
            .bytes(&reset.0)
    }

    /// `mov dword [address], value`
    pub fn store32(self, address: u32, value: u32) -> Self {
        let (address, value) = (address.to_le_bytes(), value.to_le_bytes());
        self.bytes(&[0xc7, 0x05]).bytes(&address).bytes(&value)
    }

    /// `cmp dword [address], value`; switches off if equal, else goes on.
    pub fn power_off_if32(self, address: u32, value: u32) -> Self {
        let off = Code::new().power_off();
        let (address, value) = (address.to_le_bytes(), value.to_le_bytes());
        self.bytes(&[0x81, 0x3d])
            .bytes(&address)
            .bytes(&value)
            .bytes(&[0x75, u8::try_from(off.0.len()).unwrap()]) // jne over
            .bytes(&off.0)
    }

    pub fn power_off(self) -> Self {
        self.out8(SLEEP_PORT, SLEEP_S5)
    }

    pub fn reset(self) -> Self {
        self.out8(RESET_PORT, RESET)
    }

    /// `jmp .`
    pub fn spin(self) -> Self {
        self.bytes(&[0xeb, 0xfe])
    }

    /// `cli; hlt; jmp .-1`
    pub fn halt(self) -> Self {
        self.bytes(&[0xfa, 0xf4, 0xeb, 0xfd])
    }

    /// Writes to a port where nothing is, for ever: exits that can be counted.
    pub fn chatter(self) -> Self {
        self.dx(NOWHERE).bytes(&[0xee, 0xeb, 0xfd])
    }

    /// The same in real mode, in which the other processors start.
    pub fn chatter_16(self) -> Self {
        self.bytes(&[0xba]) // mov dx, NOWHERE
            .bytes(&NOWHERE.to_le_bytes())
            .bytes(&[0xee, 0xeb, 0xfd])
    }

    /// Sends INIT and then SIPI to all other processors, which start at [`OTHERS`].
    pub fn start_processors(self) -> Self {
        let page = u32::try_from(OTHERS >> 12).unwrap();
        self.store32(APIC_ICR, TO_ALL_OTHERS | ASSERT | 5 << 8)
            .store32(APIC_ICR, TO_ALL_OTHERS | ASSERT | 6 << 8 | page)
    }

    /// `inc word [address]`
    pub fn increment16(self, address: u32) -> Self {
        self.bytes(&[0x66, 0xff, 0x05])
            .bytes(&address.to_le_bytes())
    }

    /// `again: pause; mov ax, [left]; cmp ax, [right]; jne again`
    pub fn wait_until_same16(self, left: u32, right: u32) -> Self {
        self.bytes(&[0xf3, 0x90, 0x66, 0xa1])
            .bytes(&left.to_le_bytes())
            .bytes(&[0x66, 0x3b, 0x05])
            .bytes(&right.to_le_bytes())
            .bytes(&[0x75, 0xef])
    }

    /// `cmp dword [address], value`; resets if not equal, else goes on.
    pub fn reset_unless32(self, address: u32, value: u32) -> Self {
        let reset = Code::new().reset();
        self.bytes(&[0x81, 0x3d])
            .bytes(&address.to_le_bytes())
            .bytes(&value.to_le_bytes())
            .bytes(&[0x74, u8::try_from(reset.0.len()).unwrap()]) // je over
            .bytes(&reset.0)
    }

    /// `jmp` to so many bytes behind the start.
    pub fn jump_to(self, start: usize) -> Self {
        let end = i32::try_from(self.0.len() + 5).unwrap();
        let distance = i32::try_from(start).unwrap() - end;
        self.bytes(&[0xe9]).bytes(&distance.to_le_bytes())
    }

    /// `ud2`, with an empty interrupt table: a triple fault.
    pub fn triple_fault(self) -> Self {
        self.bytes(&[0x0f, 0x0b])
    }
}

/// A machine of 2 MiB that runs `code`.
pub fn config(code: Code) -> Config {
    config_loaded(code, Code::new().halt(), |_| {})
}

/// The same with code for the other processors, and with something in its memory.
pub fn config_loaded(
    code: Code,
    others: Code,
    prepare: impl Fn(&GuestMemory) + Send + 'static,
) -> Config {
    let loader = move |guest: &Guest<'_>| {
        prepare(guest.memory);
        guest.memory.write_slice(&others.0, GuestAddress(OTHERS))?;
        load(guest, &code)
    };
    Config {
        memory: 2 << 20,
        loader: Some(Box::new(loader)),
        ..Config::default()
    }
}

/// The same with a command line, as if it were a kernel's.
pub fn config_with_cmdline(code: Code, cmdline: &str) -> Config {
    Config {
        payload: Some(Payload::default().cmdline(cmdline)),
        ..config(code)
    }
}

fn load(guest: &Guest<'_>, code: &Code) -> Result<Boot, Box<dyn Error + Send + Sync>> {
    guest.memory.write_slice(&code.0, GuestAddress(CODE))?;
    let flat = Segment {
        limit: u32::MAX,
        present: 1,
        s: 1,
        db: 1,
        g: 1,
        ..Segment::default()
    };
    let data = Segment {
        selector: 16,
        type_: 3,
        ..flat
    };
    let registers = Registers {
        rip: CODE,
        rsp: 0x8000,
        rflags: 2,
        cr0: 0x11,
        cs: Segment {
            selector: 8,
            type_: 11,
            ..flat
        },
        ds: data,
        es: data,
        fs: data,
        gs: data,
        ss: data,
        tr: Segment {
            limit: 0x67,
            type_: 11,
            present: 1,
            ..Segment::default()
        },
        ..Registers::default()
    };
    Ok(Boot {
        registers,
        ..Boot::default()
    })
}

/// Builds and runs, to an outcome.
pub fn run(config: Config) -> Outcome {
    Vm::new(config).unwrap().run().unwrap()
}

/// Whether this host's KVM can be used. If not that is said so that it can't be overlooked, and
/// where it is required (`HYPE_REQUIRE_KVM=1`) it is a failure.
pub fn kvm(test: &str) -> bool {
    match vmm::kvm::System::open() {
        Ok(_) => true,
        Err(error) if std::env::var_os("HYPE_REQUIRE_KVM").is_some_and(|value| value == "1") => {
            panic!("HYPE_REQUIRE_KVM=1, and {error}: {error:?}")
        }
        Err(error) => {
            skipped(&format!("{test}: {error}"));
            false
        }
    }
}

/// Says so; not by a macro, whose output the test harness hides.
pub fn skipped(why: &str) {
    let line = format!("skipped: {why}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}
