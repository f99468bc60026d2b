use super::*;
use crate::bus::{Action, BusDevice};
use crate::memory;
use std::sync::{Arc, Mutex};

/// Writes in the order in which they came.
type Log = Arc<Mutex<Vec<(IoAddress, Vec<u8>)>>>;

struct Ring(Log);

impl Gathered for Ring {
    fn take(&self, each: &mut dyn FnMut(IoAddress, &[u8])) {
        let gathered = std::mem::take(&mut *self.0.lock().unwrap());
        gathered.iter().for_each(|(at, data)| each(*at, data));
    }
}

/// A device that is all of a bus. It wants to reset the machine, which nobody heeds.
struct Recorder(Log, fn(u64) -> IoAddress);

impl BusDevice for Recorder {
    fn read(&self, _offset: u64, _data: &mut [u8]) {}

    fn write(&self, offset: u64, data: &[u8]) -> Action {
        let at = (self.1)(offset);
        self.0.lock().unwrap().push((at, data.to_vec()));
        Action::Reset
    }
}

#[test]
fn gathered_writes_go_to_their_bus_in_order_and_once() {
    let writes = vec![
        (IoAddress::Mmio(0xc000_0016), vec![1, 0]),
        (IoAddress::Pio(0x70), vec![0x0a]),
        (IoAddress::Mmio(0xc000_0016), vec![2, 0]),
    ];
    let (ring, seen) = (Log::default(), Log::default());
    ring.lock().unwrap().clone_from(&writes);
    let mut board = Board::new(memory::build(1 << 20).unwrap(), false);
    let mmio = Recorder(Arc::clone(&seen), IoAddress::Mmio);
    let pio = Recorder(Arc::clone(&seen), |port| IoAddress::Pio(port as u16));
    board.mmio.insert(0..1 << 32, Arc::new(mmio)).unwrap();
    board.pio.insert(0..1 << 16, Arc::new(pio)).unwrap();
    board.gathered = Some(Box::new(Ring(ring)));

    board.take_gathered();
    board.take_gathered();

    assert_eq!(*seen.lock().unwrap(), writes);
}

#[test]
fn ranges_become_registrations_at_their_base() {
    let mut patient = Patient::default();

    patient.add(0xc001_0000, 0x16..0x38);
    patient.add_index(&(0xcf8..0xcf9), 4);

    let expected = [
        (IoAddress::Mmio(0xc001_0016), 0x22),
        (IoAddress::Pio(0xcf8), 4),
    ];
    assert_eq!(patient.0, expected);
}
