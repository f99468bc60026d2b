//! The kick: it stops what nothing else stops, and none is lost.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may")]

mod common;

use common::{guest, system};
use kvm::{Error, Exit};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;

/// With interrupt controllers in the kernel, this never leaves KVM_RUN by itself.
const HALT: [u8; 2] = [0xfa, 0xf4]; // cli; hlt
const SPIN: [u8; 2] = [0xeb, 0xfe]; // 1: jmp 1b

/// Runs this guest on a thread of its own until a kick ends it.
fn kicked(test: &str, code: &[u8]) {
    let Some(system) = system(test) else { return };
    let (_vm, mut vcpu) = guest(&system, code);
    let (sender, receiver) = mpsc::channel();
    let runner = thread::spawn(move || {
        let (_binding, kick) = vcpu.bind().unwrap();
        sender.send(kick).unwrap();
        matches!(vcpu.run().unwrap(), Exit::Interrupted)
    });

    receiver.recv().unwrap().kick();

    assert!(runner.join().unwrap());
}

#[test]
fn kick_ends_a_halt_without_interrupts() {
    kicked("kick of a halt", &HALT);
}

#[test]
fn kick_ends_a_guest_that_spins() {
    kicked("kick of a spin", &SPIN);
}

#[test]
fn kick_before_the_run_makes_it_return_at_once_and_only_once() {
    let Some(system) = system("kick before the run") else {
        return;
    };
    let (_vm, mut vcpu) = guest(&system, &[0xe6, 0x80]); // out %al,$0x80
    let (_binding, kick) = vcpu.bind().unwrap();

    kick.kick();
    kick.kick();

    let first = matches!(vcpu.run().unwrap(), Exit::Interrupted);
    let second = vcpu.run().unwrap();
    assert!(first);
    assert!(matches!(second, Exit::IoOut { .. }), "{second:?}");
}

#[test]
fn ten_thousand_requests_from_another_thread_are_all_seen() {
    const REQUESTS: u64 = 10_000;
    let Some(system) = system("kick stress") else {
        return;
    };
    let (_vm, mut vcpu) = guest(&system, &HALT);
    let (asked, seen) = (&AtomicU64::new(0), &AtomicU64::new(0));
    let (sender, receiver) = mpsc::channel();

    thread::scope(|scope| {
        scope.spawn(move || {
            let (_binding, kick) = vcpu.bind().unwrap();
            sender.send(kick).unwrap();
            while seen.load(Ordering::Acquire) < REQUESTS {
                // A lost kick leaves this in the halt, and the test hangs.
                match vcpu.run().unwrap() {
                    Exit::Interrupted => {
                        seen.store(asked.load(Ordering::Acquire), Ordering::Release)
                    }
                    exit => panic!("{exit:?}"),
                }
            }
        });
        let kick = receiver.recv().unwrap();
        for request in 1..=REQUESTS {
            asked.store(request, Ordering::Release);
            kick.kick();
            // Half of them wait until they are seen, the other half pile up.
            while request % 2 == 0 && seen.load(Ordering::Acquire) < request {
                thread::yield_now();
            }
        }
    });

    assert_eq!(seen.load(Ordering::Acquire), REQUESTS);
}

#[test]
fn kick_reaches_a_thread_that_inherited_a_mask_with_the_signal_blocked() {
    let Some(system) = system("kick with the signal blocked") else {
        return;
    };
    let (_vm, mut vcpu) = guest(&system, &HALT);
    let (sender, receiver) = mpsc::channel();
    let runner = thread::spawn(move || {
        vmm_sys_util::signal::block_signal(kvm::signal()).unwrap();
        let (_binding, kick) = vcpu.bind().unwrap();
        sender.send(kick).unwrap();
        matches!(vcpu.run().unwrap(), Exit::Interrupted)
    });

    receiver.recv().unwrap().kick();

    assert!(runner.join().unwrap());
}

#[test]
fn kick_of_a_thread_that_has_ended_does_nothing() {
    let Some(system) = system("kick of an ended thread") else {
        return;
    };
    let (_vm, mut vcpu) = guest(&system, &[0xe6, 0x80]); // out %al,$0x80
    let (mut vcpu, kick) = thread::spawn(move || {
        let (binding, kick) = vcpu.bind().unwrap();
        drop(binding);
        (vcpu, kick)
    })
    .join()
    .unwrap();

    kick.kick();

    // Neither a signal nor the flag: the vCPU runs on another thread as if nothing had been.
    let (_binding, _kick) = vcpu.bind().unwrap();
    let exit = vcpu.run().unwrap();
    assert!(matches!(exit, Exit::IoOut { .. }), "{exit:?}");
}

#[test]
fn kick_leaves_errno_as_it_was() {
    let Some(system) = system("kick and errno") else {
        return;
    };
    let (_vm, mut vcpu) = guest(&system, &HALT);
    let (_binding, kick) = vcpu.bind().unwrap();
    // SAFETY: the C library's errno of this thread.
    unsafe { *libc::__errno_location() = 4242 };

    // On this thread, so that the handler runs within the call.
    kick.kick();

    assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(4242));
    assert!(matches!(vcpu.run().unwrap(), Exit::Interrupted));
}

#[test]
fn second_binding_of_a_thread_or_of_a_vcpu_is_refused_until_the_first_is_dropped() {
    let Some(system) = system("two bindings") else {
        return;
    };
    let (vm, mut first) = guest(&system, &[]);
    let mut second = vm.create_vcpu(1).unwrap();
    let (binding, _kick) = first.bind().unwrap();

    let same_vcpu = first.bind().unwrap_err();
    let same_thread = second.bind().unwrap_err();
    drop(binding);

    assert!(
        matches!(same_vcpu, Error::AlreadyBound("this vCPU")),
        "{same_vcpu:?}"
    );
    assert!(
        matches!(same_thread, Error::AlreadyBound("this thread")),
        "{same_thread:?}"
    );
    assert!(second.bind().is_ok());
}
