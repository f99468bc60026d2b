use super::*;

/// Sends `count` bytes as Linux does on a port that nobody has opened.
fn poll(guest: &mut Polling, count: u32) {
    for _ in 0..count {
        guest.read(LSR);
        guest.write(DATA, b'x');
    }
}

fn proven() -> Polling {
    let mut guest = Polling::default();
    poll(&mut guest, PROOF);
    assert!(guest.polls());
    guest
}

#[test]
fn a_look_before_each_of_64_bytes_is_polling_and_63_are_not() {
    let mut guest = Polling::default();
    poll(&mut guest, PROOF - 1);
    assert!(!guest.polls());
    poll(&mut guest, 1);
    assert!(guest.polls());
}

#[test]
fn a_guest_that_never_looks_never_polls() {
    let mut guest = Polling::default();
    (0..100_000).for_each(|_| guest.write(DATA, b'x'));
    assert!(!guest.polls());
}

#[test]
fn a_byte_without_a_look_starts_the_proof_anew() {
    let mut guest = Polling::default();
    poll(&mut guest, PROOF - 1);
    guest.write(DATA, b'x');
    poll(&mut guest, PROOF - 1);
    assert!(!guest.polls());
}

#[test]
fn a_guest_that_is_interrupted_when_a_byte_has_gone_does_not_poll() {
    let mut guest = Polling::default();
    guest.write(IER, THRE_INTERRUPT);
    poll(&mut guest, 10 * PROOF);
    assert!(!guest.polls());
    guest.write(IER, !THRE_INTERRUPT);
    poll(&mut guest, PROOF);
    assert!(guest.polls());
}

#[test]
fn reads_and_harmless_writes_of_other_registers_break_no_habit() {
    let mut guest = Polling::default();
    for _ in 0..PROOF {
        (0..8).for_each(|register| guest.read(register));
        guest.write(IER, !THRE_INTERRUPT);
        guest.write(LCR, !DIVISOR_LATCH);
        guest.write(MCR, !LOOPBACK);
        guest.write(DATA, b'x');
    }
    assert!(guest.polls());
}

#[test]
fn interrupt_divisor_and_loopback_each_end_the_habit_at_once() {
    for (register, value) in [(IER, THRE_INTERRUPT), (LCR, DIVISOR_LATCH), (MCR, LOOPBACK)] {
        let mut guest = proven();
        guest.write(register, value);
        assert!(!guest.polls(), "register {register}");
    }
}

#[test]
fn the_divisor_is_no_byte_and_its_high_half_no_interrupt_enable() {
    let mut guest = Polling::default();
    guest.write(LCR, DIVISOR_LATCH);
    guest.read(LSR);
    guest.write(DATA, 1);
    guest.write(IER, THRE_INTERRUPT);
    assert!(!guest.take_activity());
    guest.write(LCR, 0);
    poll(&mut guest, PROOF);
    assert!(guest.polls());
}

#[test]
fn a_fifo_without_a_look_is_polling_and_one_more_byte_is_not() {
    let mut guest = proven();
    for _ in 0..10 {
        guest.read(LSR);
        (0..SEND_FIFO).for_each(|_| guest.write(DATA, b'x'));
        assert!(guest.polls());
    }
    guest.write(DATA, b'x');
    assert!(!guest.polls());
}

#[test]
fn each_change_of_habit_doubles_the_proof_but_silence_does_not() {
    let mut guest = proven();
    for proof in [2 * PROOF, 4 * PROOF, 8 * PROOF] {
        guest.write(IER, THRE_INTERRUPT);
        guest.write(IER, 0);
        poll(&mut guest, proof - 1);
        assert!(!guest.polls());
        poll(&mut guest, 1);
        assert!(guest.polls());
    }
    guest.forget();
    poll(&mut guest, 8 * PROOF);
    assert!(guest.polls());
}

#[test]
fn a_guest_that_was_given_up_is_never_believed() {
    let mut guest = proven();
    guest.give_up();
    poll(&mut guest, 1_000_000);
    assert!(!guest.polls());
}

#[test]
fn activity_is_a_byte_that_was_sent_and_is_told_once() {
    let mut guest = Polling::default();
    guest.read(LSR);
    assert!(!guest.take_activity());
    guest.write(DATA, b'x');
    assert!(guest.take_activity());
    assert!(!guest.take_activity());
}
