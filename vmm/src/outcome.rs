//! How a machine's life ended, when it ended as guests' lives do.
//!
//! What the host or hype did wrong is an [`Error`](crate::Error) instead.

use std::fmt;

/// Why [`Vm::run`](crate::Vm::run) returned.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The guest switched itself off.
    Shutdown,
    /// The guest reset itself. Starting it again is up to the caller, with a new machine.
    Reboot,
    /// [`Handle::stop`](crate::Handle::stop) was called.
    Stopped,
    /// The guest's kernel said that it has panicked (pvpanic).
    Panicked,
    /// A vCPU took a triple fault: an exception while it delivered an exception while it
    /// delivered an exception. Kernels do so when they lose their tables, and on purpose when
    /// their command line says `reboot=t`: then the outcome is [`Reboot`](Self::Reboot).
    Crashed(CrashReport),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Shutdown => f.write_str("the guest switched itself off"),
            Outcome::Reboot => f.write_str("the guest asked for a reboot"),
            Outcome::Stopped => f.write_str("stopped"),
            Outcome::Panicked => f.write_str("the guest's kernel panicked"),
            Outcome::Crashed(report) => write!(f, "triple fault on {report}"),
        }
    }
}

/// Where a vCPU was when it could not go on.
///
/// After a triple fault on an AMD processor KVM has reset the vCPU already, and these are the
/// values after reset (`rip` 0xfff0).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CrashReport {
    /// Which vCPU.
    pub cpu: u32,
    /// The instruction pointer.
    pub rip: u64,
    /// The stack pointer.
    pub rsp: u64,
    /// The flags.
    pub rflags: u64,
    /// Control register 0.
    pub cr0: u64,
    /// The address of the last page fault.
    pub cr2: u64,
    /// Where the page tables are.
    pub cr3: u64,
    /// Control register 4.
    pub cr4: u64,
    /// The bytes at `rip`, as far as they could be read; empty if they could not.
    pub code: Vec<u8>,
}

impl fmt::Display for CrashReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "vCPU {} at rip {:#x} (rsp {:#x}, rflags {:#x}, cr0 {:#x}, cr2 {:#x}, cr3 {:#x}, cr4 {:#x}",
            self.cpu, self.rip, self.rsp, self.rflags, self.cr0, self.cr2, self.cr3, self.cr4
        )?;
        if self.code.is_empty() {
            return f.write_str(", code not readable)");
        }
        f.write_str(", code")?;
        self.code
            .iter()
            .try_for_each(|byte| write!(f, " {byte:02x}"))?;
        f.write_str(")")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_is_told_in_one_line_with_the_registers_and_the_code() {
        let report = CrashReport {
            cpu: 1,
            rip: 0x1000,
            rsp: 0x2000,
            cr3: 0x3000,
            code: vec![0x0f, 0x0b],
            ..CrashReport::default()
        };

        let text = Outcome::Crashed(report).to_string();

        assert!(
            text.starts_with("triple fault on vCPU 1 at rip 0x1000 (rsp 0x2000,"),
            "{text}"
        );
        assert!(text.ends_with("cr3 0x3000, cr4 0x0, code 0f 0b)"), "{text}");
    }

    #[test]
    fn unreadable_code_is_said_to_be_so() {
        assert!(
            CrashReport::default()
                .to_string()
                .ends_with("code not readable)")
        );
    }
}
