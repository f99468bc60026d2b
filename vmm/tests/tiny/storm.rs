//! A guest of which two processors do nothing but ring doorbells: it costs its own devices time, and
//! nobody else.

use crate::busy;
use crate::dice::rounds;
use crate::driven::{Driven, WRITE};
use crate::guest::{Code, NOWHERE, OTHERS, config_loaded};
use crate::kvm_test;
use std::thread;
use std::time::{Duration, Instant};
use vmm::virtio::block::{Block, MemoryDisk};
use vmm::virtio::rng::Rng;
use vmm::vm_memory::{Bytes, GuestAddress};
use vmm::{Config, Outcome, Transport, Vm};

/// How often both doorbells are rung from one exit that is counted to the next.
const RINGS: u32 = 5_000;
/// How long the end of a machine may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where a table of segments is for the processors that start in real mode, and the table.
const TABLE: u32 = 0x4100;
const SEGMENTS: [u64; 3] = [0, 0x00cf_9a00_0000_ffff, 0x00cf_9200_0000_ffff];

/// Rings the doorbells of both devices [`RINGS`] times.
fn ring(code: Code, devices: [&Driven; 2]) -> Code {
    let code = code.bytes(&[0xb9]).bytes(&RINGS.to_le_bytes()); // mov ecx, RINGS
    let start = code.0.len();
    let code = devices
        .iter()
        .fold(code, |code, device| device.notify(code));
    let back = start as i64 - (code.0.len() as i64 + 2);
    code.bytes(&[0xe2, i8::try_from(back).unwrap() as u8]) // loop
}

/// Goes from real mode to the mode of the first processor.
fn protected_mode() -> Code {
    let code = Code::new()
        .bytes(&[0x0f, 0x01, 0x16]) // lgdt [TABLE]
        .bytes(&(TABLE as u16).to_le_bytes())
        .bytes(&[0x0f, 0x20, 0xc0, 0x0c, 0x01, 0x0f, 0x22, 0xc0]); // cr0 |= 1
    let behind = OTHERS as u32 + code.0.len() as u32 + 8;
    code.bytes(&[0x66, 0xea]) // jmp 8:behind
        .bytes(&behind.to_le_bytes())
        .bytes(&[8, 0])
        .bytes(&[0x66, 0xb8, 16, 0, 0x8e, 0xd8]) // mov ds, 16
}

/// The machine. Its first processor looks now and then whether a device answers.
fn machine() -> Config {
    const DATA: u32 = 0x3200;
    let (disk, rng) = (Driven::new(0, 0), Driven::new(1, 0));
    let mut code = rng.start(disk.start(Code::new())).start_processors();
    let again = code.0.len();
    code = rng.send(ring(code, [&disk, &rng]));
    code = rng.receive(code).out8(NOWHERE, 0).jump_to(again);
    let others = protected_mode();
    let again = others.0.len();
    let others = ring(others, [&disk, &rng]).out8(NOWHERE, 0).jump_to(again);
    let config = config_loaded(code, others, move |memory| {
        rng.describe(memory, &[(DATA, 64, WRITE)]);
        let write = |address: u32, bytes: &[u8]| {
            let address = GuestAddress(address.into());
            memory.write_slice(bytes, address).unwrap();
        };
        write(TABLE, &23u16.to_le_bytes());
        write(TABLE + 2, &(TABLE + 8).to_le_bytes());
        write(TABLE + 8, SEGMENTS.map(u64::to_le_bytes).as_flattened());
    });
    let disk = MemoryDisk::new(1 << 20).unwrap();
    Config {
        cpus: 2,
        transport: Some(Transport::Mmio),
        devices: vec![Block::new(disk).into(), Rng::new().into()],
        ..config
    }
}

kvm_test!(a_storm_of_notifies_holds_up_no_other_machine_and_no_end, {
    let [storm, other] = [machine(), busy::machine()].map(|config| Vm::new(config).unwrap());
    let handles = [storm.handle(), other.handle()];
    let machines = [storm, other].map(|vm| thread::spawn(move || vm.run()));
    let [storm, other] = &handles;

    // Both processors ring, and a device there answers each time that the first one makes an exit.
    (0..rounds(4)).for_each(|_| busy::wait_for_rounds(storm, 1));
    busy::wait_for_rounds(other, 4);
    busy::wait_for_rounds(storm, 1);

    for (handle, machine) in handles.iter().zip(machines) {
        let before = Instant::now();
        handle.stop();
        assert_eq!(machine.join().unwrap().unwrap(), Outcome::Stopped);
        let took = before.elapsed();
        assert!(took < PATIENCE, "{took:?}");
    }
});
