//! The kick's signal is someone else's. A program of its own, for the handler is the process's.

mod common;

use kvm::Error;
use std::sync::atomic::{AtomicBool, Ordering};

static HANDLED: AtomicBool = AtomicBool::new(false);

extern "C" fn theirs(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    HANDLED.store(true, Ordering::SeqCst);
}

#[test]
fn bind_with_a_foreign_handler_is_refused_and_leaves_that_handler_in_place() {
    let Some(system) = common::system("signal taken") else {
        return;
    };
    vmm_sys_util::signal::register_signal_handler(kvm::signal(), theirs).unwrap();
    let (_vm, mut vcpu) = common::guest(&system, &[]);

    let error = vcpu.bind().unwrap_err();

    assert!(
        matches!(error, Error::SignalTaken { signal } if signal == kvm::signal()),
        "{error:?}"
    );
    // SAFETY: raises a signal that has an async-signal-safe handler.
    unsafe { libc::raise(kvm::signal()) };
    assert!(HANDLED.load(Ordering::SeqCst));
}
