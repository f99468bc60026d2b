mod bar;
mod config;
mod interrupts;

use super::common::register::*;
use super::*;
use crate::testing::driver::pci::{bar, capability, common, find, set_common};
use crate::testing::driver::{Driver, Machine, Transport};
use crate::testing::echo::{ECHO, Echo};
use crate::testing::msi::Messages;
use crate::transport::status::NEEDS_RESET;

fn driver() -> Driver<Pci> {
    Driver::pci_in(Box::new(Echo::default()), Mode::Inline)
}

fn started() -> Driver<Pci> {
    let mut driver = driver();
    driver.start(0);
    driver
}

/// A function with this many vectors.
fn with_vectors(vectors: u16) -> (Driver<Pci>, Arc<Messages>) {
    let machine = Machine::default();
    let msi = Messages::new(Arc::clone(&machine.interrupts), vectors);
    let device = Box::new(Echo::default());
    let environment = machine.environment();
    let pci = Pci::with_mode(device, environment, Arc::clone(&msi) as _, Mode::Inline);
    (Driver::new(pci.unwrap(), machine), msi)
}

/// All fields of the common configuration.
fn fields(pci: &mut Pci) -> Vec<u32> {
    let field = |field: u64| match field {
        CONFIG_MSIX_VECTOR | NUM_QUEUES | QUEUE_SELECT..QUEUE_DESC => {
            u16::from_le_bytes(common(pci, field)).into()
        }
        DEVICE_STATUS | CONFIG_GENERATION => u8::from_le_bytes(common(pci, field)).into(),
        _ => u32::from_le_bytes(common(pci, field)),
    };
    let wide = (0..0x10).step_by(4).chain((0x20..0x38).step_by(4));
    let narrow = (0x10..0x14).step_by(2).chain((0x16..0x20).step_by(2));
    wide.chain(narrow).chain([0x14, 0x15]).map(field).collect()
}

/// The whole configuration space.
fn space(pci: &mut Pci) -> Vec<u8> {
    let mut bytes = vec![0xaa; 0x1000];
    pci.config_read(0, &mut bytes);
    bytes
}

/// The device answers a request.
fn works(driver: &mut Driver<Pci>) {
    let id = driver.send(ECHO, &[b"ping"], &[4]);
    driver.transport.turn();
    assert_eq!(driver.receive(ECHO), (id, b"ping".to_vec()));
    assert_eq!(driver.transport.status() & NEEDS_RESET, 0);
}

/// Numbers that look random and are the same in each run.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}
