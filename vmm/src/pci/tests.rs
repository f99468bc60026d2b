use super::places::{Binder, Bound};
use super::*;
use crate::arch::layout::PCI_ECAM;
use crate::config::VirtioDevice;
use crate::gate::Gate;
use crate::irq::NoLine;
use crate::memory;
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use virtio::console::Console;
use virtio::transport::Doorbell;
use virtio::transport::pci::{Message, Msi};

const BAR0: u64 = 0x10;
const COMMAND: u64 = 0x04;
const MEMORY_SPACE: [u8; 2] = [2, 0];
/// In BAR 0: the number of queues, which is 2 for a console.
const NUM_QUEUES: u64 = 0x12;

struct NoMessages;

impl Msi for NoMessages {
    fn vectors(&self) -> u16 {
        3
    }

    fn program(&self, _vector: u16, _message: Option<Message>) {}

    fn signal(&self, _vector: u16) {}
}

/// The addresses where doorbells are bound now.
#[derive(Clone, Default)]
struct Bells(Arc<Mutex<BTreeSet<u64>>>);

impl Bells {
    fn bound(&self) -> Vec<u64> {
        let bells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        bells.iter().copied().collect()
    }
}

struct Registration(Bells, Vec<u64>);

impl Drop for Registration {
    fn drop(&mut self) {
        let mut bells = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        self.1.iter().for_each(|at| assert!(bells.remove(at)));
    }
}

impl Binder for Bells {
    fn bind(&self, _name: &str, base: u64, doorbells: &[Doorbell]) -> Bound {
        let all: Vec<_> = doorbells.iter().map(|bell| base + bell.offset).collect();
        let mut bells = self.0.lock().unwrap();
        all.iter()
            .for_each(|at| assert!(bells.insert(*at), "{at:#x} is bound already"));
        Box::new(Registration(self.clone(), all))
    }
}

/// The two buses of a machine with consoles on PCI.
pub(super) struct Machine {
    pub mmio: Bus,
    pub pio: Bus,
    bells: Bells,
}

impl Machine {
    fn new(functions: usize) -> Self {
        Self::with(functions, false)
    }

    fn with(functions: usize, ecam_is_told: bool) -> Self {
        Self::shown(functions, ecam_is_told, None)
    }

    pub(super) fn shown(functions: usize, ecam_is_told: bool, shown: Option<Shown>) -> Self {
        let memory = memory::build(1 << 20).unwrap();
        let gate = Arc::new(Gate::new(1));
        let function = || {
            let console = VirtioDevice::from(Console::new(None, None));
            let make = |device, environment| Pci::new(device, environment, Arc::new(NoMessages));
            Arc::new(Plugged::new(console, &memory, &gate, Arc::new(NoLine), make).unwrap())
        };
        let (mut mmio, mut pio) = (Bus::new("mmio"), Bus::new("port"));
        let bells = Bells::default();
        let functions = (0..functions).map(|_| function()).collect();
        Root::new(functions, Box::new(bells.clone()), shown)
            .attach(&mut mmio, &mut pio, ecam_is_told)
            .unwrap();
        Machine { mmio, pio, bells }
    }

    fn config<const N: usize>(&self, device: u64, function: u64, offset: u64) -> [u8; N] {
        self.memory(PCI_ECAM.start + (device << 15 | function << 12) + offset)
    }

    fn set_config(&self, device: u64, offset: u64, data: &[u8]) {
        let at = PCI_ECAM.start + (device << 15) + offset;
        assert_eq!(self.mmio.write(at, data), Action::None);
    }

    fn memory<const N: usize>(&self, address: u64) -> [u8; N] {
        let mut data = [0xa5; N];
        self.mmio.read(address, &mut data);
        data
    }

    fn port<const N: usize>(&self, port: u64) -> [u8; N] {
        let mut data = [0xa5; N];
        self.pio.read(port, &mut data);
        data
    }

    fn set_port(&self, port: u64, data: &[u8]) {
        assert_eq!(self.pio.write(port, data), Action::None);
    }

    fn bar(&self, device: u64) -> u64 {
        u64::from_le_bytes(self.config(device, 0, BAR0)) & !0xf
    }

    fn move_bar(&self, device: u64, to: u64) {
        self.set_config(device, BAR0, &to.to_le_bytes()[..4]);
        self.set_config(device, BAR0 + 4, &to.to_le_bytes()[4..]);
    }

    fn enable(&self, device: u64) {
        self.set_config(device, COMMAND, &MEMORY_SPACE);
    }

    /// Whether a console answers here.
    fn answers(&self, base: u64) -> bool {
        match self.memory(base + NUM_QUEUES) {
            [2, 0] => true,
            [0xff, 0xff] => false,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn bus_has_a_host_bridge_then_the_functions_and_then_nothing() {
    let machine = Machine::new(2);

    assert_eq!(machine.config(0, 0, 0), [0x36, 0x1b, 0x08, 0x00]);
    assert_eq!(machine.config(0, 0, 8), [0, 0, 0, 6], "a host bridge");
    assert_eq!(machine.config(1, 0, 0), [0xf4, 0x1a, 0x43, 0x10]);
    assert_eq!(machine.config(2, 0, 0), [0xf4, 0x1a, 0x43, 0x10]);
    for (device, function) in [(0, 1), (0, 7), (1, 1), (3, 0), (31, 0), (31, 7)] {
        let nothing = [0xff; 8];
        assert_eq!(
            machine.config(device, function, 0),
            nothing,
            "{device}.{function}"
        );
    }
}

#[test]
fn functions_beyond_31_are_further_functions_of_the_devices() {
    let machine = Machine::new(33);

    let header = |device, function| machine.config::<1>(device, function, 0x0e)[0];
    for device in [1, 2] {
        assert_eq!(header(device, 0), MULTI_FUNCTION);
        assert_eq!(machine.config(device, 0, 0x0c), [0, 0, MULTI_FUNCTION, 0]);
        assert_eq!(machine.config(device, 1, 0), [0xf4, 0x1a, 0x43, 0x10]);
        assert_eq!(header(device, 1), 0);
    }
    assert_eq!((header(3, 0), header(31, 0)), (0, 0));
    assert_eq!(machine.config(3, 1, 0), [0xff; 4]);
}

#[test]
fn ports_reach_the_same_bytes_as_ecam_in_every_width() {
    let machine = Machine::new(1);
    machine.set_port(0xcf8, &0x8000_0800_u32.to_le_bytes());

    assert_eq!(machine.port(0xcf8), 0x8000_0800_u32.to_le_bytes());
    assert_eq!(machine.port(0xcfc), [0xf4, 0x1a, 0x43, 0x10]);
    assert_eq!(machine.port(0xcfe), [0x43, 0x10]);
    assert_eq!(machine.port(0xcfd), [0x1a]);
    machine.set_port(0xcf8, &0x8000_0804_u32.to_le_bytes());
    machine.set_port(0xcfc, &MEMORY_SPACE);
    assert_eq!(machine.config(1, 0, COMMAND), MEMORY_SPACE);
}

#[test]
fn ports_read_as_ones_when_off_off_the_bus_or_across_the_double_word() {
    let machine = Machine::new(1);
    let ones = [0xff; 4];
    for (address, what) in [
        (0x0000_0800_u32, "not enabled"),
        (0x8001_0800, "bus 1"),
        (0x80ff_0800, "bus 255"),
        (0x8000_1000, "device 2"),
        (0x8000_0900, "function 1"),
    ] {
        machine.set_port(0xcf8, &address.to_le_bytes());
        assert_eq!(machine.port(0xcfc), ones, "{what}");
        machine.set_port(0xcfc, &[0; 4]);
    }
    machine.set_port(0xcf8, &0x8000_0800_u32.to_le_bytes());
    assert_eq!(machine.port(0xcfd), ones, "across");
    assert_eq!(machine.port(0xcff), [0xff; 2], "across");
}

#[test]
fn address_port_takes_double_words_and_only_bits_that_exist() {
    let machine = Machine::new(1);
    machine.set_port(0xcf8, &u32::MAX.to_le_bytes());
    assert_eq!(machine.port(0xcf8), 0x80ff_fffc_u32.to_le_bytes());

    machine.set_port(0xcf8, &[0]);
    machine.set_port(0xcf8, &[0, 0]);
    machine.set_port(0xcf9, &[6]);

    assert_eq!(machine.port(0xcf8), 0x80ff_fffc_u32.to_le_bytes());
    assert_eq!(machine.port(0xcf8), [0xff]);
}

#[test]
fn address_port_works_but_does_not_read_back_where_ecam_is_told_of() {
    let machine = Machine::with(1, true);

    machine.set_port(0xcf8, &0x8000_0800_u32.to_le_bytes());

    assert_eq!(machine.port(0xcf8), [0xff; 4]);
    assert_eq!(machine.port(0xcfc), [0xf4, 0x1a, 0x43, 0x10]);
}

#[test]
fn bars_are_placed_apart_in_the_window_and_answer_once_enabled() {
    let machine = Machine::new(PCI_DEVICES);
    for device in 1..=PCI_DEVICES as u64 {
        let bar = machine.bar(device);
        assert!(PCI_WINDOW.contains(&bar) && PCI_WINDOW.contains(&(bar + Pci::BAR_SIZE - 1)));
        assert!(!machine.answers(bar), "switched off");
        machine.enable(device);
        assert!(machine.answers(bar));
    }
    assert_eq!(machine.bells.bound().len(), 2 * PCI_DEVICES);

    machine.set_config(5, COMMAND, &[0, 0]);

    assert!(!machine.answers(machine.bar(5)) && machine.answers(machine.bar(6)));
    assert_eq!(machine.bells.bound().len(), 2 * (PCI_DEVICES - 1));
}

#[test]
fn moved_bar_answers_at_its_new_place_only_and_takes_its_doorbells_along() {
    let machine = Machine::new(1);
    machine.enable(1);
    let (old, before) = (machine.bar(1), machine.bells.bound());
    let new = PCI_WINDOW.end - Pci::BAR_SIZE;

    machine.move_bar(1, new);

    assert!(machine.answers(new) && !machine.answers(old));
    let moved: Vec<_> = before.iter().map(|at| at - old + new).collect();
    assert_eq!(machine.bells.bound(), moved);
}

#[test]
fn bar_outside_of_the_window_answers_nowhere_and_hides_nothing() {
    let machine = Machine::new(2);
    machine.enable(1);
    let places = [
        0,
        0x10_0000,
        PCI_WINDOW.start - Pci::BAR_SIZE,
        PCI_WINDOW.end,
        PCI_ECAM.start,
        0xfec0_0000,
        0xfee0_0000,
        1 << 32,
        !(Pci::BAR_SIZE - 1),
    ];
    for place in places {
        machine.move_bar(1, place);
        assert_ne!(machine.memory(place + NUM_QUEUES), [2, 0], "{place:#x}");
        assert!(machine.bells.bound().is_empty(), "{place:#x}");
        assert_eq!(
            machine.config(0, 0, 0),
            [0x36, 0x1b, 0x08, 0x00],
            "{place:#x}"
        );
    }
    machine.move_bar(1, PCI_WINDOW.start);
    assert!(machine.answers(PCI_WINDOW.start), "and comes back");
}

#[test]
fn first_bar_at_a_place_keeps_it_until_it_leaves() {
    let machine = Machine::new(2);
    machine.enable(1);
    machine.enable(2);
    let (first, second) = (machine.bar(1), machine.bar(2));
    let of_first = machine.bells.bound()[..2].to_vec();

    machine.move_bar(2, first);
    assert!(machine.answers(first) && !machine.answers(second));
    assert_eq!(machine.bells.bound(), of_first);
    machine.set_config(1, COMMAND, &[0, 0]);
    assert!(machine.answers(first), "the second has it now");
    assert_eq!(machine.bells.bound(), of_first);
    machine.set_config(2, COMMAND, &[0, 0]);
    assert!(!machine.answers(first) && machine.bells.bound().is_empty());
}

#[test]
fn accesses_across_the_ends_of_configuration_space_and_window_do_no_harm() {
    let machine = Machine::new(1);
    machine.enable(1);
    for at in [
        PCI_ECAM.start + 0xffd,
        PCI_ECAM.start + 0x8ffd,
        PCI_ECAM.end - 1,
        PCI_WINDOW.start + Pci::BAR_SIZE - 1,
        PCI_WINDOW.end - 1,
    ] {
        let _: [u8; 8] = machine.memory(at);
        assert_eq!(machine.mmio.write(at, &[0xff; 8]), Action::None);
    }
    assert!(machine.answers(machine.bar(1)));
}
