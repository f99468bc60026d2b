//! The loop, over a vCPU whose exits are written down beforehand.

use super::*;
use crate::bus::BusDevice;
use crate::gate::Gate;
use crate::state::Step;
use crate::{State, memory};
use std::collections::VecDeque;
use std::io;
use std::sync::Mutex;

/// Makes an exit that has no data.
type Make = fn() -> Exit<'static>;

/// An exit that owns its data.
enum Scripted {
    In(u16, u8, usize),
    Out(u16, u8, Vec<u8>),
    Read(u64, usize),
    Write(u64, Vec<u8>),
    Event(u32),
    Internal(u32, Vec<u8>),
    Plain(Make),
    Errno(i32),
}

struct Script {
    exits: VecDeque<Scripted>,
    data: Vec<u8>,
    reads: bool,
    /// What the guest got for its reads.
    answers: Vec<Vec<u8>>,
}

impl Script {
    fn new(exits: impl IntoIterator<Item = Scripted>) -> Self {
        let exits = exits.into_iter().collect();
        Script {
            exits,
            data: Vec::new(),
            reads: false,
            answers: Vec::new(),
        }
    }
}

impl Cpu for Script {
    fn run(&mut self) -> Result<Exit<'_>, kvm::Error> {
        if std::mem::take(&mut self.reads) {
            self.answers.push(std::mem::take(&mut self.data));
        }
        let exit = self
            .exits
            .pop_front()
            .expect("the loop went on after the end");
        self.reads = matches!(exit, Scripted::In(..) | Scripted::Read(..));
        Ok(match exit {
            Scripted::In(port, size, len) => {
                self.data = vec![0; len];
                Exit::IoIn {
                    port,
                    size,
                    data: &mut self.data,
                }
            }
            Scripted::Out(port, size, data) => {
                self.data = data;
                Exit::IoOut {
                    port,
                    size,
                    data: &self.data,
                }
            }
            Scripted::Read(addr, len) => {
                self.data = vec![0; len];
                Exit::MmioRead {
                    addr,
                    data: &mut self.data,
                }
            }
            Scripted::Write(addr, data) => {
                self.data = data;
                Exit::MmioWrite {
                    addr,
                    data: &self.data,
                }
            }
            Scripted::Event(kind) => Exit::SystemEvent { kind, data: &[] },
            Scripted::Internal(suberror, instruction) => {
                self.data = instruction;
                Exit::InternalError {
                    suberror,
                    data: &[],
                    instruction: &self.data,
                }
            }
            Scripted::Plain(exit) => exit(),
            Scripted::Errno(errno) => {
                return Err(kvm::Error::Run {
                    source: io::Error::from_raw_os_error(errno),
                });
            }
        })
    }

    fn locate(&self, _memory: &GuestMemory) -> CrashReport {
        CrashReport {
            rip: 0xabc,
            code: vec![0x90],
            ..CrashReport::default()
        }
    }
}

/// A device that reads as its access counter, keeps what is written, and acts on certain bytes.
#[derive(Default)]
struct Probe {
    reads: Mutex<u8>,
    writes: Mutex<Vec<(u64, Vec<u8>)>>,
    settled: Mutex<usize>,
}

impl BusDevice for Probe {
    fn read(&self, _offset: u64, data: &mut [u8]) {
        let mut reads = self.reads.lock().unwrap();
        *reads += 1;
        data.fill(*reads);
    }

    fn write(&self, offset: u64, data: &[u8]) -> Action {
        self.writes.lock().unwrap().push((offset, data.to_vec()));
        match data {
            [1] => Action::Shutdown,
            [2] => Action::Reset,
            [3] => Action::Panicked,
            _ => Action::None,
        }
    }

    fn settle(&self) {
        *self.settled.lock().unwrap() += 1;
    }
}

struct Bench {
    board: Board,
    gate: Gate,
    counters: Counters,
    probe: Arc<Probe>,
}

impl Bench {
    /// The probe is at ports 0x10 to 0x17 and at addresses 0x8000_0000 and up.
    fn new() -> Self {
        let probe = Arc::new(Probe::default());
        let mut board = Board::new(memory::build(1 << 20).unwrap(), false);
        board
            .pio
            .insert(0x10..0x18, Arc::clone(&probe) as Arc<dyn BusDevice>)
            .unwrap();
        board
            .mmio
            .insert(
                0x8000_0000..0x8000_1000,
                Arc::clone(&probe) as Arc<dyn BusDevice>,
            )
            .unwrap();
        let gate = Gate::new(1);
        gate.advance(Step::Start).unwrap();
        Bench {
            board,
            gate,
            counters: Counters::default(),
            probe,
        }
    }

    fn run(&self, script: &mut Script) -> Result<Option<Outcome>, Error> {
        let seat = self.gate.enter(7, Box::new(|| {}));
        run(script, 7, &self.board, &seat, &self.counters)
    }

    /// The one exit that ends the loop, or does not: then a power-off follows.
    fn end(&self, exit: Scripted) -> Result<Option<Outcome>, Error> {
        self.run(&mut Script::new([exit]))
    }
}

fn power_off() -> Scripted {
    Scripted::Out(0x10, 1, vec![1])
}

#[test]
fn string_port_input_reads_each_item_by_itself() {
    let bench = Bench::new();
    let mut script = Script::new([Scripted::In(0x10, 2, 6), power_off()]);

    let outcome = bench.run(&mut script).unwrap();

    assert_eq!(outcome, Some(Outcome::Shutdown));
    assert_eq!(script.answers, [[1, 1, 2, 2, 3, 3]]);
}

#[test]
fn devices_settle_before_each_time_that_the_vcpu_may_have_to_hold() {
    let bench = Bench::new();
    let interrupted = || Scripted::Plain(|| Exit::Interrupted);
    let mut script = Script::new([interrupted(), interrupted(), power_off()]);

    bench.run(&mut script).unwrap();

    // At first, and after each interruption.
    assert_eq!(*bench.probe.settled.lock().unwrap(), 3);
}

#[test]
fn string_port_output_writes_each_item_by_itself() {
    let bench = Bench::new();
    let exits = [
        Scripted::Out(0x12, 4, vec![9, 8, 7, 6, 5, 4, 3, 2]),
        power_off(),
    ];

    bench.run(&mut Script::new(exits)).unwrap();

    let writes = bench.probe.writes.lock().unwrap();
    assert_eq!(writes[..2], [(2, vec![9, 8, 7, 6]), (2, vec![5, 4, 3, 2])]);
}

#[test]
fn items_after_one_that_ends_the_machine_are_not_written() {
    let bench = Bench::new();

    let outcome = bench.end(Scripted::Out(0x10, 1, vec![9, 2, 9])).unwrap();

    assert_eq!(outcome, Some(Outcome::Reboot));
    assert_eq!(bench.probe.writes.lock().unwrap().len(), 2);
}

#[test]
fn an_item_size_of_zero_is_no_division_by_zero() {
    let bench = Bench::new();
    let exits = [
        Scripted::Out(0x10, 0, vec![9]),
        Scripted::In(0x10, 0, 1),
        power_off(),
    ];

    assert_eq!(
        bench.run(&mut Script::new(exits)).unwrap(),
        Some(Outcome::Shutdown)
    );
}

#[test]
fn ports_and_addresses_without_a_device_read_as_ones_and_drop_writes() {
    let bench = Bench::new();
    let mut script = Script::new([
        Scripted::In(0xffff, 4, 4),
        Scripted::Read((1 << 52) - 8, 8),
        Scripted::Out(0xffff, 1, vec![1]),
        Scripted::Write(0x9000_0000, vec![1]),
        power_off(),
    ]);

    let outcome = bench.run(&mut script).unwrap();

    assert_eq!(outcome, Some(Outcome::Shutdown));
    assert_eq!(script.answers, [vec![0xff; 4], vec![0xff; 8]]);
}

#[test]
fn mmio_reaches_the_device_at_its_offset() {
    let bench = Bench::new();
    let mut script = Script::new([
        Scripted::Read(0x8000_0100, 8),
        Scripted::Write(0x8000_0fff, vec![5, 6]),
        Scripted::Write(0x8000_0000, vec![3]),
    ]);

    let outcome = bench.run(&mut script).unwrap();

    assert_eq!(outcome, Some(Outcome::Panicked));
    assert_eq!(script.answers, [[1; 8]]);
    assert_eq!(bench.probe.writes.lock().unwrap()[0], (0xfff, vec![5, 6]));
}

#[test]
fn a_triple_fault_is_a_crash_with_the_registers_and_the_vcpu() {
    let outcome = Bench::new()
        .end(Scripted::Plain(|| Exit::Shutdown))
        .unwrap();

    let Some(Outcome::Crashed(report)) = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!((report.cpu, report.rip), (7, 0xabc));
}

#[test]
fn a_triple_fault_is_a_reboot_where_the_guest_reboots_that_way() {
    let mut bench = Bench::new();
    bench.board.triple_fault_reboots = true;

    let outcome = bench.end(Scripted::Plain(|| Exit::Shutdown)).unwrap();

    assert_eq!(outcome, Some(Outcome::Reboot));
}

#[test]
fn system_events_of_kvm_are_outcomes_as_the_devices_are() {
    let bench = Bench::new();
    let end = |kind| bench.end(Scripted::Event(kind)).unwrap();

    assert_eq!(end(KVM_SYSTEM_EVENT_SHUTDOWN), Some(Outcome::Shutdown));
    assert_eq!(end(KVM_SYSTEM_EVENT_RESET), Some(Outcome::Reboot));
    assert_eq!(end(KVM_SYSTEM_EVENT_CRASH), Some(Outcome::Panicked));
}

#[test]
fn a_system_event_that_is_not_known_is_an_error_with_its_number() {
    let error = Bench::new().end(Scripted::Event(99)).unwrap_err();

    assert!(
        matches!(error, Error::UnexpectedExit { reason: 99, .. }),
        "{error}"
    );
}

#[test]
fn an_instruction_that_kvm_cannot_emulate_is_named_by_its_bytes() {
    let error = Bench::new()
        .end(Scripted::Internal(1, vec![0x0f, 0xc7]))
        .unwrap_err();

    let text = error.to_string();
    assert!(
        text.contains("internal error 1") && text.contains("rip 0xabc"),
        "{text}"
    );
    assert!(text.contains("code 0f c7"), "{text}");
}

#[test]
fn where_kvm_does_not_give_the_bytes_they_come_from_guest_memory() {
    let error = Bench::new().end(Scripted::Internal(3, vec![])).unwrap_err();

    assert!(error.to_string().contains("code 90"), "{error}");
}

#[test]
fn each_exit_that_nobody_can_serve_is_an_error_that_says_where() {
    let bench = Bench::new();
    let exits: [(Make, &str); 5] = [
        (
            || Exit::FailEntry {
                reason: 0x8000_0021,
                cpu: 3,
            },
            "hardware reason 0x80000021",
        ),
        (|| Exit::Unknown { reason: 5 }, "KVM_EXIT_UNKNOWN, 5"),
        (|| Exit::Hlt, "KVM_EXIT_HLT, 5"),
        (
            || Exit::MemoryFault {
                flags: 0,
                addr: 0x1000,
                size: 1,
            },
            "guest address 0x1000 is lost",
        ),
        (
            || Exit::Other {
                reason: 31,
                name: "KVM_EXIT_DIRTY_RING_FULL",
            },
            "DIRTY_RING_FULL, 31",
        ),
    ];
    for (exit, expected) in exits {
        let text = bench.end(Scripted::Plain(exit)).unwrap_err().to_string();
        assert!(
            text.contains(expected) && text.contains("vCPU 7 at rip 0xabc"),
            "{text}"
        );
    }
}

#[test]
fn a_run_that_fails_is_an_error_with_the_errno_as_its_source() {
    for errno in [libc::EFAULT, libc::ENOMEM] {
        let error = Bench::new().end(Scripted::Errno(errno)).unwrap_err();

        let Error::Run {
            cpu: 7,
            source: kvm::Error::Run { source },
        } = error
        else {
            panic!("{error}")
        };
        assert_eq!(source.raw_os_error(), Some(errno));
    }
}

#[test]
fn an_interruption_without_a_request_enters_the_guest_again() {
    let bench = Bench::new();
    let exits = [Scripted::Plain(|| Exit::Interrupted), power_off()];

    assert_eq!(
        bench.run(&mut Script::new(exits)).unwrap(),
        Some(Outcome::Shutdown)
    );
}

#[test]
fn an_interruption_with_the_request_to_end_leaves_without_an_outcome() {
    /// Somebody else ends the machine while the vCPU is in the guest.
    struct EndedMeanwhile<'a>(&'a Gate);
    impl Cpu for EndedMeanwhile<'_> {
        fn run(&mut self) -> Result<Exit<'_>, kvm::Error> {
            self.0.end(Ok(Outcome::Stopped));
            Ok(Exit::Interrupted)
        }

        fn locate(&self, _memory: &GuestMemory) -> CrashReport {
            CrashReport::default()
        }
    }
    let bench = Bench::new();
    let seat = bench.gate.enter(0, Box::new(|| {}));

    let outcome = run(
        &mut EndedMeanwhile(&bench.gate),
        0,
        &bench.board,
        &seat,
        &bench.counters,
    )
    .unwrap();

    assert_eq!(outcome, None);
}

#[test]
fn a_half_done_access_is_served_before_the_vcpu_holds() {
    /// A kick arrives during an access of two parts: the second part comes before the EINTR.
    struct TwoParts(VecDeque<Scripted>, Vec<u8>);
    impl Cpu for TwoParts {
        fn run(&mut self) -> Result<Exit<'_>, kvm::Error> {
            match self.0.pop_front() {
                Some(Scripted::Write(addr, data)) => {
                    self.1 = data;
                    Ok(Exit::MmioWrite {
                        addr,
                        data: &self.1,
                    })
                }
                _ => Ok(Exit::Interrupted),
            }
        }

        fn locate(&self, _memory: &GuestMemory) -> CrashReport {
            CrashReport::default()
        }
    }
    let bench = Bench::new();
    let parts = [
        Scripted::Write(0x8000_0ff8, vec![7; 8]),
        Scripted::Write(0x8000_0000, vec![8; 8]),
    ];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let seat = bench.gate.enter(0, Box::new(|| {}));
            let mut cpu = TwoParts(parts.into(), Vec::new());
            run(&mut cpu, 0, &bench.board, &seat, &bench.counters).unwrap();
        });
        assert_eq!(bench.gate.wait_for(State::Running), State::Running);
        while bench.counters.read().interrupted == 0 {
            std::thread::yield_now();
        }
        bench.gate.hold().unwrap();
        assert_eq!(bench.probe.writes.lock().unwrap().len(), 2);
        bench.gate.end(Ok(Outcome::Stopped));
    });
}

#[test]
fn exits_are_counted_by_reason() {
    let bench = Bench::new();
    let exits = [
        Scripted::In(0x10, 1, 1),
        Scripted::In(0x10, 1, 4),
        Scripted::Read(0x8000_0000, 4),
        Scripted::Write(0x8000_0000, vec![9; 4]),
        Scripted::Plain(|| Exit::Interrupted),
        power_off(),
    ];

    bench.run(&mut Script::new(exits)).unwrap();

    let exits = bench.counters.read();
    assert_eq!(
        (exits.io_in, exits.io_out, exits.mmio_read, exits.mmio_write),
        (2, 1, 1, 1)
    );
    assert_eq!((exits.interrupted, exits.guest(), exits.total()), (1, 5, 6));
}
