//! Virtio devices, driven by guests that are nothing but a list of register writes.

use crate::driven::Driven;
use crate::guest::*;
use crate::kvm_test;
use std::sync::Arc;
use std::time::Duration;
use vmm::virtio::console::Console;
use vmm::virtio::device::Kind;
use vmm::virtio::stream::Output;
use vmm::virtio::{ConfigSpace, Device, Event, Io, Spec};
use vmm::vm_memory::{Bytes, GuestAddress};
use vmm::{Config, Error, Outcome, Vm};

/// The first virtio-mmio window, and the registers of virtio 1.2, 4.2.2.
const WINDOW: u32 = 0xd000_0000;
const MAGIC_VALUE: u32 = WINDOW;
const DRIVER_FEATURES: u32 = WINDOW + 0x20;
const DRIVER_FEATURES_SEL: u32 = WINDOW + 0x24;
const STATUS: u32 = WINDOW + 0x70;

/// A device without queues, which may panic as soon as it is started.
pub struct Dummy {
    spec: Spec,
    panics: bool,
}

impl Dummy {
    pub fn new(panics: bool) -> Self {
        let spec = Spec {
            kind: Kind::Rng,
            name: "dummy0".into(),
            features: 0,
            queues: vec![],
            config: Arc::new(ConfigSpace::new(vec![])),
        };
        Dummy { spec, panics }
    }
}

impl Device for Dummy {
    fn spec(&self) -> &Spec {
        &self.spec
    }

    fn activate(&mut self, _io: &mut Io) -> Result<(), vmm::virtio::Error> {
        assert!(!self.panics, "a bug in the device");
        Ok(())
    }

    fn handle(&mut self, _event: Event, _io: &mut Io) -> Result<(), vmm::virtio::Error> {
        Ok(())
    }

    fn quiesce(&mut self, _io: &mut Io) -> Result<(), vmm::virtio::Error> {
        Ok(())
    }
}

/// What a driver writes to start a device: features, then `DRIVER_OK`.
fn start_device(code: Code) -> Code {
    code.store32(STATUS, 1)
        .store32(STATUS, 1 | 2)
        .store32(DRIVER_FEATURES_SEL, 1)
        .store32(DRIVER_FEATURES, 1)
        .store32(STATUS, 1 | 2 | 8)
        .store32(STATUS, 1 | 2 | 8 | 4)
}

fn with_dummy(panics: bool, code: Code) -> Config {
    Config {
        devices: vec![Dummy::new(panics).into()],
        ..config(code)
    }
}

kvm_test!(the_guest_finds_a_device_in_its_window, {
    let code = Code::new().power_off_if32(MAGIC_VALUE, 0x7472_6976).reset();

    assert_eq!(run(with_dummy(false, code)), Outcome::Shutdown);
});

kvm_test!(a_device_that_the_guest_never_started_is_reported, {
    for started in [true, false] {
        let code = if started {
            start_device(Code::new())
        } else {
            Code::new()
        };
        let vm = Vm::new(with_dummy(false, code.power_off())).unwrap();
        let handle = vm.handle();
        vm.run().unwrap();

        let report = handle.report();
        assert_eq!(report.devices[0].name, "dummy0");
        assert_eq!(report.devices[0].started, started);
        assert_eq!(report.unstarted().count(), usize::from(!started));
    }
});

kvm_test!(
    a_device_that_panics_ends_the_machine_with_an_error_that_names_it,
    {
        let vm = Vm::new(with_dummy(true, start_device(Code::new()).spin())).unwrap();

        let error = vm.run().unwrap_err();

        assert!(matches!(&error, Error::DevicePanicked { device, .. } if device == "dummy0"));
        assert!(error.to_string().contains("a bug in the device"), "{error}");
    }
);

kvm_test!(
    what_a_guest_writes_to_its_console_right_before_it_ends_is_printed,
    {
        const TRANSMITQ: u32 = 1;
        const TEXT: u32 = 0x3000;
        const WORDS: &[u8] = b"Kernel panic - not syncing\n";
        // Whether the console's thread or the end comes first is chance.
        for _ in 0..50 {
            let console = Driven::new(0, TRANSMITQ);
            let code = console.send(console.start(Code::new())).power_off();
            let (output, captured) = Output::capture();
            let mut config = config_loaded(code, Code::new(), move |memory| {
                let at = GuestAddress(u64::from(console.memory + TEXT));
                memory.write_slice(WORDS, at).unwrap();
                console.describe(memory, &[(TEXT, WORDS.len() as u32, 0)]);
            });
            config.devices = vec![Console::new(None, Some(output.clone())).into()];

            assert_eq!(run(config), Outcome::Shutdown);

            assert!(output.finish(Duration::from_secs(20)));
            assert_eq!(captured.bytes(), WORDS);
        }
    }
);
