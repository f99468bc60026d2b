//! Does this KVM run an unmodified kernel?
//!
//! The problem: a KVM may offer every capability and still not run Linux. Where it is itself
//! emulated or nested without hardware help, some instructions of ring 0 end in
//! `KVM_EXIT_INTERNAL_ERROR`, and the user sees a VM that dies early for no visible reason. Nothing
//! tells but trying. So each [`Probe`] boots a guest of its own: one page of code in 64-bit mode
//! that does one thing a kernel does, and says whether it worked.
//!
//! The guests run without interrupt controllers (so that HLT is an exit), on a thread of their own,
//! and each is kicked out after a deadline: whatever it is that does not work, the answer comes.
//!
//! What it does not do: measure, or try devices, timers and interrupts.

mod memory;
mod programs;

use crate::error::Error;
use crate::exit::Exit;
use crate::kick::Kick;
use crate::system::System;
use crate::vcpu::Vcpu;
use crate::vm::Vm;
use kvm_bindings::{CpuId, kvm_regs, kvm_segment};
use memory::Memory;
use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;
use vm_memory::{Bytes, GuestAddress};

/// How long a guest of a few instructions may take, even where every one of them is emulated twice.
const DEADLINE: Duration = Duration::from_secs(2);

/// One thing that a kernel does, and whether it works here.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Probe {
    /// What was tried.
    pub what: &'static str,
    /// What KVM answered, if it does not work.
    pub result: Result<(), String>,
}

/// What a guest has to do to pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Halt,
    Say,
}

/// Bits of CPUID leaf 1's ECX.
const CMPXCHG16B: u32 = 1 << 13;
const XSAVE: u32 = 1 << 26;

/// The guests: what each tries, and the CPUID bit without which it makes no sense.
const GUESTS: &[(&str, &[u8], Wanted, u32)] = &[
    ("hlt", programs::HLT, Wanted::Halt, 0),
    ("iretq", programs::IRETQ, Wanted::Say, 0),
    ("int3 through the IDT", programs::INT3, Wanted::Say, 0),
    ("cpuid", programs::CPUID, Wanted::Say, 0),
    ("rdtsc", programs::RDTSC, Wanted::Say, 0),
    ("rdmsr and wrmsr", programs::MSR, Wanted::Say, 0),
    ("rep movsb", programs::REP_MOVSB, Wanted::Say, 0),
    ("invlpg", programs::INVLPG, Wanted::Say, 0),
    ("SSE", programs::SSE, Wanted::Say, 0),
    ("xsave and xrstor", programs::XSAVE, Wanted::Say, XSAVE),
    ("cmpxchg16b", programs::CMPXCHG16B, Wanted::Say, CMPXCHG16B),
];

/// Tries everything that the guest's processor is said to have. All results `Ok`: this KVM runs
/// unmodified Linux. Takes some milliseconds, and two seconds more for each guest that hangs.
#[must_use]
pub fn run(system: &System) -> Vec<Probe> {
    let cpuid = match system.supported_cpuid() {
        Ok(cpuid) => cpuid,
        Err(error) => {
            return vec![Probe {
                what: "cpuid",
                result: Err(chain(&error)),
            }];
        }
    };
    let ecx = cpuid
        .as_slice()
        .iter()
        .find(|leaf| leaf.function == 1)
        .map_or(0, |leaf| leaf.ecx);
    GUESTS
        .iter()
        .filter(|&&(_, _, _, bit)| ecx & bit == bit)
        .map(|&(what, program, wanted, _)| Probe {
            what,
            result: attempt(system, &cpuid, program, wanted),
        })
        .collect()
}

/// Leaf 1's ECX.
fn features(cpuid: &CpuId) -> u32 {
    cpuid
        .as_slice()
        .iter()
        .find(|leaf| leaf.function == 1)
        .map_or(0, |leaf| leaf.ecx)
}

/// Runs one guest on a thread of its own, and keeps the deadline on this one.
fn attempt(system: &System, cpuid: &CpuId, program: &[u8], wanted: Wanted) -> Result<(), String> {
    let late = &AtomicBool::new(false);
    thread::scope(|scope| {
        let (sender, receiver) = mpsc::channel();
        let guest = thread::Builder::new()
            .name("kvm-probe".into())
            .spawn_scoped(scope, move || {
                guest(system, cpuid, program, wanted, &sender, late)
            })
            .map_err(|error| format!("cannot start a thread: {error}"))?;
        // The guest's thread holds the sender until it is done.
        if let Ok(kick) = receiver.recv()
            && matches!(
                receiver.recv_timeout(DEADLINE),
                Err(RecvTimeoutError::Timeout)
            )
        {
            late.store(true, Ordering::SeqCst);
            kick.kick();
        }
        guest
            .join()
            .unwrap_or_else(|_| Err("the probe's thread panicked".into()))
    })
}

fn guest(
    system: &System,
    cpuid: &CpuId,
    program: &[u8],
    wanted: Wanted,
    started: &Sender<Kick>,
    late: &AtomicBool,
) -> Result<(), String> {
    let memory = Arc::new(memory::build(program)?);
    let mut vcpu = set_up(system, cpuid, &memory).map_err(|error| chain(&error))?;
    let (_binding, kick) = vcpu.bind().map_err(|error| chain(&error))?;
    // If nobody listens any more, nobody wants to know.
    let _ = started.send(kick);
    let answer = loop {
        match vcpu.run() {
            Ok(Exit::Interrupted) if !late.load(Ordering::SeqCst) => {}
            Ok(Exit::Interrupted) => break format!("no answer within {DEADLINE:?}"),
            Ok(Exit::Hlt) if wanted == Wanted::Halt => return Ok(()),
            Ok(Exit::IoOut {
                port: programs::RESULT_PORT,
                data: &[programs::PASSED],
                ..
            }) if wanted == Wanted::Say => {
                return Ok(());
            }
            Ok(exit) => break describe(&exit),
            Err(error) => break chain(&error),
        }
    };
    Err(format!("{answer}{}", place(&vcpu, &memory)))
}

/// A vCPU in 64-bit mode at the program's start.
fn set_up(system: &System, cpuid: &CpuId, memory: &Arc<Memory>) -> Result<Vcpu, Error> {
    let vcpu = Vm::without_irqchip(system, Arc::clone(memory))?.create_vcpu(0)?;
    vcpu.set_cpuid(cpuid)?;
    let mut sregs = vcpu.get_sregs()?;
    let flat = kvm_segment {
        limit: u32::MAX,
        present: 1,
        s: 1,
        g: 1,
        ..Default::default()
    };
    let (code, data) = (memory::CODE_SELECTOR, memory::DATA_SELECTOR);
    sregs.cs = kvm_segment {
        selector: code,
        type_: 0xb,
        l: 1,
        ..flat
    };
    let data = kvm_segment {
        selector: data,
        type_: 0x3,
        db: 1,
        ..flat
    };
    (sregs.ds, sregs.es, sregs.ss, sregs.fs, sregs.gs) = (data, data, data, data, data);
    (sregs.gdt.base, sregs.gdt.limit) = memory::GDT_TABLE;
    (sregs.idt.base, sregs.idt.limit) = memory::IDT_TABLE;
    sregs.cr3 = memory::CR3;
    sregs.cr0 = 0x8001_0033; // PG, WP, NE, ET, MP, PE
    sregs.cr4 = 0x620; // OSXMMEXCPT, OSFXSR, PAE
    sregs.efer = 0x500; // LMA, LME
    vcpu.set_sregs(&sregs)?;
    if features(cpuid) & XSAVE != 0 {
        // From outside, for a probe tries one thing: XSETBV is another.
        vcpu.set_xcr0(0b11)?;
    }
    vcpu.set_regs(&kvm_regs {
        rip: memory::CODE,
        rsp: memory::STACK,
        rdi: memory::DATA,
        rflags: 2,
        ..Default::default()
    })?;
    Ok(vcpu)
}

/// An exit that was not wanted, in KVM's words.
fn describe(exit: &Exit<'_>) -> String {
    let name = exit.name();
    match exit {
        Exit::InternalError { suberror, .. } => {
            format!(
                "{name}, suberror {suberror} ({})",
                Exit::suberror_name(*suberror)
            )
        }
        Exit::IoOut {
            port: programs::EXCEPTION_PORT,
            data: [vector],
            ..
        } => {
            format!("exception {vector}")
        }
        Exit::IoOut {
            port: programs::RESULT_PORT,
            data,
            ..
        } => {
            format!("a wrong result, {data:02x?}")
        }
        Exit::FailEntry { reason, .. } => format!("{name}, hardware reason {reason:#x}"),
        Exit::Unknown { reason } => format!("{name}, hardware reason {reason:#x}"),
        Exit::Shutdown => format!("{name}, a triple fault"),
        _ => name.into(),
    }
}

/// Where the guest stopped, and what is there.
fn place(vcpu: &Vcpu, memory: &Memory) -> String {
    let Ok(regs) = vcpu.get_regs() else {
        return String::new();
    };
    let mut bytes = [0; 8];
    match memory.read_slice(&mut bytes, GuestAddress(regs.rip)) {
        Ok(()) => format!(" at rip {:#x}, bytes {bytes:02x?}", regs.rip),
        Err(_) => format!(" at rip {:#x}", regs.rip),
    }
}

/// An error with its causes.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
