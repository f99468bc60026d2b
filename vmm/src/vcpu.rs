//! One vCPU's thread: exit in, entry out.
//!
//! `KVM_RUN` returns with a reason; [`Board::serve`] does what the guest wanted and says what
//! comes next; the loop enters the guest again, or ends. Devices do not call back: a write
//! returns an [`Action`]. The loop is written over [`Cpu`], so that tests can script the exits
//! that no guest will produce on demand.

use crate::bus::{Action, Bus};
use crate::exits::Counters;
use crate::gate::{Seat, Turn};
use crate::gathered::Gathered;
use crate::outcome::CrashReport;
use crate::{Error, Outcome};
use kvm::Exit;
use kvm_bindings::{
    KVM_EXIT_HLT, KVM_EXIT_UNKNOWN, KVM_SYSTEM_EVENT_CRASH, KVM_SYSTEM_EVENT_RESET,
    KVM_SYSTEM_EVENT_SHUTDOWN,
};
use std::sync::Arc;
use virtio::GuestMemory;

/// What the loop needs of a vCPU.
pub(crate) trait Cpu {
    /// Runs the guest until it needs something. A signal gives [`Exit::Interrupted`].
    fn run(&mut self) -> Result<Exit<'_>, kvm::Error>;

    /// The registers and the code at the instruction pointer, as far as they can be had.
    fn locate(&self, memory: &GuestMemory) -> CrashReport;
}

/// What the vCPUs share: the places that their accesses go to.
pub(crate) struct Board {
    pub(crate) memory: Arc<GuestMemory>,
    /// I/O ports.
    pub(crate) pio: Bus,
    /// Guest-physical addresses that are not RAM.
    pub(crate) mmio: Bus,
    /// Writes that made no exit.
    pub(crate) gathered: Option<Box<dyn Gathered>>,
    /// Whether a triple fault is how this guest resets the machine.
    pub(crate) triple_fault_reboots: bool,
}

/// What a vCPU does after an exit was served.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// Go on.
    Enter,
    /// See what the gate says.
    Ask,
    /// The machine is over.
    End(Outcome),
    /// The vCPU can't go on.
    Fail(Failure),
}

/// Why a vCPU can't go on.
#[derive(Debug, PartialEq, Eq)]
enum Failure {
    TripleFault,
    /// `code` is the instruction, if KVM says which.
    Emulation {
        suberror: u32,
        code: Vec<u8>,
    },
    Entry {
        reason: u64,
    },
    Memory {
        addr: u64,
    },
    Unexpected {
        reason: u64,
        name: &'static str,
    },
}

impl From<Action> for Next {
    fn from(action: Action) -> Self {
        match action {
            Action::None => Next::Enter,
            Action::Shutdown => Next::End(Outcome::Shutdown),
            Action::Reset => Next::End(Outcome::Reboot),
            Action::Panicked => Next::End(Outcome::Panicked),
        }
    }
}

/// The exits that end the machine, each in its way.
impl From<Exit<'_>> for Next {
    fn from(exit: Exit<'_>) -> Self {
        let name = exit.name();
        Next::Fail(match exit {
            Exit::SystemEvent {
                kind: KVM_SYSTEM_EVENT_SHUTDOWN,
                ..
            } => {
                return Next::End(Outcome::Shutdown);
            }
            Exit::SystemEvent {
                kind: KVM_SYSTEM_EVENT_RESET,
                ..
            } => {
                return Next::End(Outcome::Reboot);
            }
            Exit::SystemEvent {
                kind: KVM_SYSTEM_EVENT_CRASH,
                ..
            } => {
                return Next::End(Outcome::Panicked);
            }
            Exit::SystemEvent { kind, .. } => Failure::Unexpected {
                reason: kind.into(),
                name,
            },
            Exit::Shutdown => Failure::TripleFault,
            Exit::InternalError {
                suberror,
                instruction,
                ..
            } => Failure::Emulation {
                suberror,
                code: instruction.to_vec(),
            },
            Exit::FailEntry { reason, .. } => Failure::Entry { reason },
            Exit::MemoryFault { addr, .. } => Failure::Memory { addr },
            Exit::Unknown { reason } => Failure::Unexpected { reason, name },
            // With interrupt controllers in the kernel, KVM waits for interrupts itself.
            Exit::Hlt => Failure::Unexpected {
                reason: KVM_EXIT_HLT.into(),
                name,
            },
            Exit::Other { reason, name } => Failure::Unexpected {
                reason: reason.into(),
                name,
            },
            _ => Failure::Unexpected {
                reason: KVM_EXIT_UNKNOWN.into(),
                name,
            },
        })
    }
}

/// Runs vCPU `id` until the machine ends. `Some` if it is this vCPU that ended it.
pub(crate) fn run(
    cpu: &mut impl Cpu,
    id: u32,
    board: &Board,
    seat: &Seat<'_>,
    counters: &Counters,
) -> Result<Option<Outcome>, Error> {
    let mut next = Next::Ask;
    loop {
        match next {
            Next::Enter => {}
            Next::Ask => {
                board.pio.settle();
                match seat.turn() {
                    Turn::Run => {}
                    Turn::End => return Ok(None),
                }
            }
            Next::End(outcome) => return Ok(Some(outcome)),
            Next::Fail(failure) => {
                let at = CrashReport {
                    cpu: id,
                    ..cpu.locate(&board.memory)
                };
                return board.fail(failure, at).map(Some);
            }
        }
        next = match cpu.run() {
            Ok(exit) => board.serve(id, exit, counters),
            Err(source) => return Err(Error::Run { cpu: id, source }),
        };
    }
}

impl Board {
    /// A board with nothing on it.
    pub(crate) fn new(memory: Arc<GuestMemory>, triple_fault_reboots: bool) -> Self {
        let (pio, mmio) = (Bus::new("port"), Bus::new("mmio"));
        Board {
            memory,
            pio,
            mmio,
            gathered: None,
            triple_fault_reboots,
        }
    }

    /// Does what the guest wanted when it left.
    fn serve(&self, id: u32, exit: Exit<'_>, counters: &Counters) -> Next {
        self.take_gathered();
        match exit {
            Exit::IoIn { port, size, data } => {
                counters.io_in.count();
                log::trace!(target: "vmm::exits", "vcpu{id} in {port:#x} {}", data.len());
                for item in data.chunks_mut(usize::from(size).max(1)) {
                    self.pio.read(port.into(), item);
                }
                Next::Enter
            }
            Exit::IoOut { port, size, data } => {
                counters.io_out.count();
                log::trace!(target: "vmm::exits", "vcpu{id} out {port:#x} {data:x?}");
                data.chunks(usize::from(size).max(1))
                    .map(|item| self.pio.write(port.into(), item))
                    .find(|action| *action != Action::None)
                    .map_or(Next::Enter, Next::from)
            }
            Exit::MmioRead { addr, data } => {
                counters.mmio_read.count();
                log::trace!(target: "vmm::exits", "vcpu{id} read {addr:#x} {}", data.len());
                self.mmio.read(addr, data);
                Next::Enter
            }
            Exit::MmioWrite { addr, data } => {
                counters.mmio_write.count();
                log::trace!(target: "vmm::exits", "vcpu{id} write {addr:#x} {data:x?}");
                Next::from(self.mmio.write(addr, data))
            }
            Exit::Interrupted => {
                counters.interrupted.count();
                Next::Ask
            }
            Exit::Hlt => {
                counters.hlt.count();
                Next::from(exit)
            }
            _ => {
                counters.other.count();
                Next::from(exit)
            }
        }
    }

    /// What becomes of the machine when a vCPU can't go on.
    fn fail(&self, failure: Failure, at: CrashReport) -> Result<Outcome, Error> {
        match failure {
            Failure::TripleFault if self.triple_fault_reboots => Ok(Outcome::Reboot),
            Failure::TripleFault => Ok(Outcome::Crashed(at)),
            Failure::Emulation { suberror, code } => {
                let code = if code.is_empty() {
                    at.code.clone()
                } else {
                    code
                };
                Err(Error::Emulation {
                    suberror,
                    at: CrashReport { code, ..at },
                })
            }
            Failure::Entry { reason } => Err(Error::FailEntry { reason, at }),
            Failure::Memory { addr } => Err(Error::MemoryFault { addr, at }),
            Failure::Unexpected { reason, name } => Err(Error::UnexpectedExit { reason, name, at }),
        }
    }
}

#[cfg(test)]
mod tests;
