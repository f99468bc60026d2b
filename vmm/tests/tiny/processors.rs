//! Machines of many vCPUs.

use crate::guest::*;
use crate::kvm_test;
use vmm::kvm::System;
use vmm::{Config, Error, MAX_CPUS, Outcome, Problem, Vm};

/// A machine whose vCPUs all count themselves; it switches itself off when `expected` have.
fn roll_call(cpus: u32, expected: u16) -> Config {
    // Real mode: lock inc word [DATA]; cli; hlt; jmp back to the hlt.
    let data = u16::try_from(DATA).unwrap().to_le_bytes();
    let others = Code::new()
        .bytes(&[0x31, 0xc0, 0x8e, 0xd8]) // xor ax, ax; mov ds, ax
        .bytes(&[0xf0, 0xff, 0x06]) // lock inc word [DATA]
        .bytes(&data)
        .bytes(&[0xfa, 0xf4, 0xeb, 0xfd]);
    let code = Code::new()
        .store32(DATA + 4, expected.into())
        .start_processors()
        .wait_until_same16(DATA, DATA + 4)
        .power_off();
    Config {
        cpus,
        ..config_loaded(code, others, |_| {})
    }
}

/// As many as KVM lets a machine have, and as the APIC has identifiers for.
fn most() -> u32 {
    System::open().unwrap().max_vcpus().min(MAX_CPUS)
}

kvm_test!(every_vcpu_of_many_runs, {
    for cpus in [2, 16, 64] {
        if cpus <= most() {
            let outcome = run(roll_call(cpus, u16::try_from(cpus - 1).unwrap()));
            assert_eq!(outcome, Outcome::Shutdown, "{cpus} vCPUs");
        }
    }
});

kvm_test!(as_many_vcpus_as_there_can_be_run_and_can_be_stopped, {
    let cpus = most();
    let outcome = run(roll_call(cpus, u16::try_from(cpus - 1).unwrap()));
    assert_eq!(outcome, Outcome::Shutdown, "{cpus} vCPUs");

    let vm = Vm::new(Config {
        cpus,
        ..config(Code::new().spin())
    });
    let vm = vm.unwrap();
    let handle = vm.handle();
    let machine = std::thread::spawn(move || vm.run());
    handle.wait_for(vmm::State::Running);
    handle.pause().unwrap();
    handle.resume().unwrap();
    handle.stop();
    assert_eq!(machine.join().unwrap().unwrap(), Outcome::Stopped);
});

kvm_test!(one_vcpu_more_than_there_can_be_is_refused_with_the_limit, {
    let cpus = most() + 1;
    let result = Vm::new(Config {
        cpus,
        ..config(Code::new())
    });

    let Err(Error::Config(problems)) = result else {
        panic!("{cpus} vCPUs are taken");
    };
    let limit = match problems.iter().next() {
        Some(Problem::Cpus { max, .. }) => *max,
        other => panic!("{other:?}"),
    };
    assert_eq!(limit, cpus - 1);
});
