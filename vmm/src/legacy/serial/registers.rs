//! Registers of the 16550A, and the bits in them that matter outside of the model.

pub(super) const REGISTERS: u64 = 8;

/// Receive buffer, transmitter holding register, or the divisor's low byte.
pub(super) const DATA: u8 = 0;
/// Interrupt enable register, or the divisor's high byte.
pub(super) const IER: u8 = 1;
/// Interrupt identification register.
pub(super) const IIR: u8 = 2;
/// Line control register.
pub(super) const LCR: u8 = 3;
/// Modem control register.
pub(super) const MCR: u8 = 4;
/// Line status register.
pub(super) const LSR: u8 = 5;

/// IER: interrupt when the transmitter holding register is empty.
pub(super) const THRE_INTERRUPT: u8 = 1 << 1;
/// LCR: registers 0 and 1 are the divisor.
pub(super) const DIVISOR_LATCH: u8 = 1 << 7;
/// MCR: what is sent is received.
pub(super) const LOOPBACK: u8 = 1 << 4;

/// Bytes that the transmitter's FIFO holds.
pub(super) const SEND_FIFO: u32 = 16;
