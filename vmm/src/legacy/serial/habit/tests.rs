use super::*;

/// Sends `count` bytes with a look before each burst of `burst`.
fn send(guest: &mut Habit, count: u32, burst: u32) {
    for byte in 0..count {
        if byte % burst == 0 {
            guest.read(LSR);
        }
        guest.write(DATA, b'x');
    }
}

fn trusted() -> Habit {
    let mut guest = Habit::default();
    send(&mut guest, PROOF, 1);
    assert!(guest.is_trusted());
    guest
}

#[test]
fn a_look_before_each_burst_of_64_bytes_earns_trust_and_63_do_not() {
    for burst in [1, 5, SEND_FIFO] {
        let mut guest = Habit::default();
        send(&mut guest, PROOF - 1, burst);
        assert!(!guest.is_trusted());
        send(&mut guest, 1, burst);
        assert!(guest.is_trusted(), "bursts of {burst}");
    }
}

#[test]
fn a_look_is_at_the_status_or_the_interrupt() {
    for (register, looks) in [
        (LSR, true),
        (IIR, true),
        (IER, false),
        (MCR, false),
        (7, false),
    ] {
        let mut guest = Habit::default();
        for _ in 0..PROOF {
            guest.read(register);
            guest.write(DATA, b'x');
        }
        assert_eq!(guest.is_trusted(), looks, "register {register}");
    }
}

#[test]
fn a_guest_that_never_looks_is_never_trusted() {
    let mut guest = Habit::default();
    (0..100_000).for_each(|_| guest.write(DATA, b'x'));
    assert!(!guest.is_trusted());
}

#[test]
fn a_burst_that_is_longer_than_the_fifo_starts_the_proof_anew() {
    let mut guest = Habit::default();
    send(&mut guest, PROOF - 1 - SEND_FIFO, 1);
    send(&mut guest, SEND_FIFO + 1, u32::MAX);
    send(&mut guest, PROOF - 1, 1);
    assert!(!guest.is_trusted());
}

#[test]
fn reads_and_harmless_writes_of_other_registers_break_no_habit() {
    let mut guest = Habit::default();
    for _ in 0..PROOF {
        (0..8).for_each(|register| guest.read(register));
        guest.write(IER, 0xff);
        guest.write(IER, 0);
        guest.write(LCR, !DIVISOR_LATCH);
        guest.write(MCR, !LOOPBACK);
        guest.write(DATA, b'x');
    }
    assert!(guest.is_trusted());
}

#[test]
fn divisor_and_loopback_each_end_the_trust_at_once() {
    for (register, value) in [(LCR, DIVISOR_LATCH), (MCR, LOOPBACK)] {
        let mut guest = trusted();
        guest.write(register, value);
        assert!(!guest.is_trusted(), "register {register}");
        send(&mut guest, 10 * PROOF, 1);
        assert!(!guest.is_trusted(), "register {register}");
    }
}

#[test]
fn the_divisor_is_no_byte_and_its_high_half_no_interrupt_enable() {
    let mut guest = Habit::default();
    guest.write(LCR, DIVISOR_LATCH);
    guest.write(DATA, 1);
    guest.write(IER, THRE_INTERRUPT);
    assert_eq!(guest.take_sent(), 0);
    assert!(!guest.wants_interrupt());
    guest.write(LCR, 0);
    guest.write(IER, THRE_INTERRUPT);
    assert!(guest.wants_interrupt());
}

#[test]
fn a_fifo_without_a_look_keeps_the_trust_and_one_more_byte_ends_it() {
    let mut guest = trusted();
    send(&mut guest, 10 * SEND_FIFO, SEND_FIFO);
    assert!(guest.is_trusted());
    guest.write(DATA, b'x');
    assert!(!guest.is_trusted());
}

#[test]
fn each_refutation_doubles_the_proof_but_silence_does_not() {
    let mut guest = trusted();
    for proof in [2 * PROOF, 4 * PROOF, 8 * PROOF] {
        guest.refute();
        send(&mut guest, proof - 1, 1);
        assert!(!guest.is_trusted());
        send(&mut guest, 1, 1);
        assert!(guest.is_trusted());
    }
    guest.forget();
    send(&mut guest, 8 * PROOF, 1);
    assert!(guest.is_trusted());
}

#[test]
fn a_guest_that_was_given_up_is_never_trusted() {
    let mut guest = trusted();
    guest.give_up();
    send(&mut guest, 1_000_000, 1);
    assert!(!guest.is_trusted());
}

#[test]
fn bytes_that_were_sent_are_told_once() {
    let mut guest = Habit::default();
    guest.read(LSR);
    assert_eq!(guest.take_sent(), 0);
    guest.write(DATA, b'x');
    guest.write(DATA, b'y');
    assert_eq!(guest.take_sent(), 2);
    assert_eq!(guest.take_sent(), 0);
}
