//! MSI-X.

use super::*;
use crate::Irq;
use crate::testing::driver::pci::{control, msix_table, program};
use crate::testing::echo::{COMMAND, Command};
use crate::testing::irq::Counts;
use crate::testing::msi::ADDRESS;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

fn queues(driver: &Driver<Pci>) -> u64 {
    driver.interrupts().queue
}

/// A request on the echo queue, whose vector is 1, is answered.
fn answer(driver: &mut Driver<Pci>) {
    driver.send(ECHO, &[b"ping"], &[4]);
    driver.transport.turn();
    assert!(driver.rings[0].used().is_some());
}

fn pending(pci: &mut Pci) -> u64 {
    let (_, at) = msix_table(pci);
    u64::from_le_bytes(bar(pci, at))
}

fn mask(pci: &mut Pci, vector: u16, masked: bool) {
    program(pci, vector, ADDRESS, vector.into(), masked);
}

#[test]
fn queues_and_configuration_interrupt_by_their_vectors() {
    let mut driver = started();
    answer(&mut driver);
    assert_eq!(
        driver.interrupts(),
        Counts {
            queue: 1,
            config: 0
        }
    );
    driver
        .transport
        .write_config(COMMAND, &[Command::Count as u8]);
    driver.transport.turn();
    assert_eq!(
        driver.interrupts(),
        Counts {
            queue: 1,
            config: 1
        }
    );
}

#[test]
fn without_msix_there_is_nothing_but_the_isr_status() {
    let mut driver = started();
    control(&mut driver.transport, false, false);
    answer(&mut driver);
    assert_eq!(driver.interrupts(), Counts::default());
    assert_eq!(pending(&mut driver.transport), 0);
    assert_eq!(driver.transport.acknowledge(), 1);
    control(&mut driver.transport, true, false);
    assert_eq!(driver.interrupts(), Counts::default());
    answer(&mut driver);
    assert_eq!(queues(&driver), 1);
}

#[test]
fn a_queue_without_a_vector_does_not_interrupt() {
    let mut driver = started();
    set_common(&mut driver.transport, QUEUE_SELECT, &[0, 0]);
    set_common(&mut driver.transport, QUEUE_MSIX_VECTOR, &[0xff; 2]);
    answer(&mut driver);
    assert_eq!(driver.interrupts(), Counts::default());
}

#[test]
fn a_vector_that_is_not_there_reads_back_as_none() {
    for vectors in [1, 3, 2048] {
        let mut pci = with_vectors(vectors).0.transport;
        for field in [CONFIG_MSIX_VECTOR, QUEUE_MSIX_VECTOR] {
            assert_eq!(common(&mut pci, field), [0xff; 2]);
            for (vector, taken) in [
                (0, true),
                (vectors - 1, true),
                (vectors, false),
                (0xfffe, false),
                (0xffff, false),
            ] {
                set_common(&mut pci, field, &vector.to_le_bytes());
                let expected = if taken { vector } else { 0xffff };
                assert_eq!(common(&mut pci, field), expected.to_le_bytes());
            }
        }
    }
}

#[test]
fn a_masked_vector_is_pending_and_sent_once_when_unmasked() {
    let mut driver = started();
    mask(&mut driver.transport, 1, true);
    answer(&mut driver);
    answer(&mut driver);
    assert_eq!(queues(&driver), 0);
    assert_eq!(pending(&mut driver.transport), 1 << 1);
    mask(&mut driver.transport, 1, false);
    assert_eq!(queues(&driver), 1);
    assert_eq!(pending(&mut driver.transport), 0);
    mask(&mut driver.transport, 1, true);
    mask(&mut driver.transport, 1, false);
    assert_eq!(queues(&driver), 1);
}

#[test]
fn a_masked_function_holds_all_vectors() {
    let mut driver = started();
    control(&mut driver.transport, true, true);
    answer(&mut driver);
    driver
        .transport
        .write_config(COMMAND, &[Command::Count as u8]);
    driver.transport.turn();
    assert_eq!(driver.interrupts(), Counts::default());
    assert_eq!(pending(&mut driver.transport), 0b11);
    // Unmasking a vector does not help while the function is masked.
    mask(&mut driver.transport, 1, true);
    mask(&mut driver.transport, 1, false);
    assert_eq!(queues(&driver), 0);
    control(&mut driver.transport, true, false);
    assert_eq!(
        driver.interrupts(),
        Counts {
            queue: 1,
            config: 1
        }
    );
    assert_eq!(pending(&mut driver.transport), 0);
}

#[test]
fn what_is_pending_is_sent_to_where_the_vector_points_when_it_is_unmasked() {
    let mut driver = started();
    mask(&mut driver.transport, 1, true);
    answer(&mut driver);
    // As for the configuration.
    program(&mut driver.transport, 1, ADDRESS, 0, false);
    assert_eq!(
        driver.interrupts(),
        Counts {
            queue: 0,
            config: 1
        }
    );
}

#[test]
fn disabling_msix_and_a_reset_drop_what_is_pending() {
    let by_disabling = |pci: &mut Pci| {
        control(pci, false, false);
        control(pci, true, false);
    };
    let by_reset = |pci: &mut Pci| pci.set_status(0);
    for drop in [by_disabling as fn(&mut Pci), by_reset] {
        let mut driver = started();
        mask(&mut driver.transport, 1, true);
        answer(&mut driver);
        drop(&mut driver.transport);
        assert_eq!(pending(&mut driver.transport), 0);
        mask(&mut driver.transport, 1, false);
        assert_eq!(queues(&driver), 0);
    }
}

#[test]
fn entries_take_accesses_of_4_and_8_bytes() {
    let (mut driver, _) = with_vectors(3);
    let pci = &mut driver.transport;
    let entry = msix_table(pci).0 + 16;
    assert_eq!(bar(pci, entry + 12), [1, 0, 0, 0], "masked at first");
    pci.write(entry, &0x1111_2222_3333_4444_u64.to_le_bytes());
    pci.write(entry + 8, &0x5555_6666_u64.to_le_bytes());
    pci.write(entry + 4, &0x7777_8888_u32.to_le_bytes());
    pci.write(entry + 12, &u32::MAX.to_le_bytes());
    assert_eq!(bar(pci, entry), 0x7777_8888_3333_4444_u64.to_le_bytes());
    // Of the vector control, only the mask is there.
    assert_eq!(bar(pci, entry + 8), 0x1_5555_6666_u64.to_le_bytes());
    assert_eq!(bar(pci, entry + 8), 0x5555_6666_u32.to_le_bytes());
    assert_eq!(bar(pci, entry - 4), [1, 0, 0, 0]);
    pci.write(entry + 12, &(u32::MAX - 1).to_le_bytes());
    assert_eq!(bar(pci, entry + 12), [0; 4]);
}

#[test]
fn other_accesses_to_the_table_read_as_zero_and_are_ignored() {
    let (mut driver, msi) = with_vectors(3);
    let pci = &mut driver.transport;
    let (table, _) = msix_table(pci);
    for vector in 0..3 {
        program(pci, vector, ADDRESS, 0xffff_ffff, true);
    }
    let whole = |pci: &mut Pci| -> Vec<[u8; 4]> {
        let words = (table..table + 64).step_by(4);
        words.map(|at| bar(pci, at)).collect()
    };
    let before = whole(pci);
    assert_eq!(before[12..], [[0; 4]; 4], "nothing beyond the table");
    for at in table - 8..table + 72 {
        for width in [0, 1, 2, 3, 4, 5, 8, 16] {
            let aligned = matches!(width, 4 | 8) && at % width as u64 == 0;
            let beyond = at >= table + 48 || at < table;
            if !aligned || beyond {
                let mut data = vec![0xaa; width];
                pci.read(at, &mut data);
                assert_eq!(data, vec![0; width], "{width} at {at:#x}");
                pci.write(at, &vec![0xee; width]);
            }
        }
    }
    assert_eq!(whole(pci), before);
    assert_eq!(msi.programmed(), 0);
}

#[test]
fn pending_bits_cannot_be_written() {
    let mut driver = started();
    mask(&mut driver.transport, 1, true);
    answer(&mut driver);
    let (_, at) = msix_table(&mut driver.transport);
    for value in [[0; 8], [0xff; 8]] {
        driver.transport.write(at, &value);
        driver.transport.write(at, &value[..4]);
        assert_eq!(pending(&mut driver.transport), 1 << 1);
        assert_eq!(bar(&mut driver.transport, at), [2, 0, 0, 0]);
        assert_eq!(bar(&mut driver.transport, at + 1), [0; 2]);
        assert_eq!(bar(&mut driver.transport, at + 8), [0; 8]);
    }
}

#[test]
fn pending_bits_of_many_vectors_are_where_they_belong() {
    let (mut driver, _) = with_vectors(2048);
    let pci = &mut driver.transport;
    control(pci, true, false);
    let (_, at) = msix_table(pci);
    for vector in [0_u16, 31, 32, 63, 64, 1000, 2047] {
        set_common(pci, CONFIG_MSIX_VECTOR, &vector.to_le_bytes());
        Irq::config(&*pci.vectors);
        let word = u64::from_le_bytes(bar(pci, at + u64::from(vector / 64) * 8));
        assert_ne!(word & 1 << (vector % 64), 0, "{vector}");
    }
    let count: u32 = (0..32)
        .map(|word| u64::from_le_bytes(bar(pci, at + word * 8)).count_ones())
        .sum();
    assert_eq!(count, 7);
}

#[test]
fn a_vector_is_programmed_only_when_what_it_sends_changes() {
    let (mut driver, msi) = with_vectors(2);
    let pci = &mut driver.transport;
    program(pci, 0, ADDRESS, 1, true);
    control(pci, true, false);
    program(pci, 0, ADDRESS, 2, true);
    assert_eq!(msi.programmed(), 0, "masked");
    mask(pci, 0, false);
    let message = |data| {
        Some(Message {
            address: ADDRESS,
            data,
        })
    };
    assert_eq!(
        (msi.vectors(), msi.programmed()),
        (vec![message(0), None], 1)
    );
    for _ in 0..100 {
        mask(pci, 0, false);
        control(pci, true, false);
    }
    assert_eq!(msi.programmed(), 1, "as it was");
    control(pci, true, true);
    control(pci, false, false);
    assert_eq!((msi.vectors(), msi.programmed()), (vec![None, None], 2));
}

#[test]
fn garbage_is_handed_on_and_harmless() {
    let mut driver = started();
    for address in [0, 1, ADDRESS + 3, 0xffff_ffff, 1 << 32, u64::MAX] {
        for data in [0, 0xff, u32::MAX] {
            program(&mut driver.transport, 1, address, data, false);
            answer(&mut driver);
        }
    }
    assert_eq!(driver.interrupts(), Counts::default());
    mask(&mut driver.transport, 1, false);
    answer(&mut driver);
    assert_eq!(queues(&driver), 1);
}

/// Looks closely at what is sent: a signal while the vector isn't programmed is lost. Of what
/// else can happen at the same time, it can make happen the worst.
#[derive(Default)]
struct Wire {
    programmed: AtomicBool,
    /// Counted up before each raise, by whoever raises.
    raised: AtomicU64,
    /// What was raised when a message last went out.
    seen: AtomicU64,
    /// Masked by the vCPU right when the worker signals.
    mask_in_signal: Mutex<Option<Table>>,
    /// Raised by the worker right when the vCPU programs.
    raise_in_program: Mutex<Option<Arc<Vectors>>>,
}

impl Msi for Wire {
    fn vectors(&self) -> u16 {
        1
    }

    fn program(&self, _vector: u16, message: Option<Message>) {
        if let Some(vectors) = self.raise_in_program.lock().unwrap().take() {
            self.raised.fetch_add(1, Ordering::SeqCst);
            let before = self.seen.load(Ordering::SeqCst);
            Irq::queue(&*vectors, 0);
            let seen = self.seen.load(Ordering::SeqCst);
            assert_eq!(seen, before, "not sent while the message changes");
        }
        self.programmed.store(message.is_some(), Ordering::SeqCst);
    }

    fn signal(&self, _vector: u16) {
        let raised = self.raised.load(Ordering::SeqCst);
        let table = self.mask_in_signal.lock().unwrap().take();
        if let Some(mut table) = table {
            table.write(12, &[1, 0, 0, 0]);
            *self.mask_in_signal.lock().unwrap() = Some(table);
        }
        // Whoever is slow here may find the vector masked meanwhile.
        std::thread::yield_now();
        if self.programmed.load(Ordering::SeqCst) {
            self.seen.fetch_max(raised, Ordering::SeqCst);
        }
    }
}

/// An open vector for queue 0.
fn open(wire: &Arc<Wire>) -> (Arc<Vectors>, Table) {
    let vectors = Arc::new(Vectors::new(Arc::clone(wire) as _, 1));
    let mut table = Table::new(Arc::clone(&vectors));
    vectors.set_queue(0, 0);
    table.control(true, false);
    table.write(12, &[0; 4]);
    (vectors, table)
}

#[test]
fn what_is_sent_while_the_vector_is_being_masked_is_sent_again_when_it_is_unmasked() {
    let wire = Arc::new(Wire::default());
    let (vectors, table) = open(&wire);
    wire.raised.store(1, Ordering::SeqCst);
    *wire.mask_in_signal.lock().unwrap() = Some(table);
    Irq::queue(&*vectors, 0);
    let mut table = wire.mask_in_signal.lock().unwrap().take().unwrap();
    assert_eq!(wire.seen.load(Ordering::SeqCst), 0);
    assert!(vectors.is_pending(0));
    table.write(12, &[0; 4]);
    assert_eq!(wire.seen.load(Ordering::SeqCst), 1);
}

#[test]
fn what_is_raised_while_the_message_changes_is_sent_afterwards() {
    let wire = Arc::new(Wire::default());
    let (vectors, mut table) = open(&wire);
    *wire.raise_in_program.lock().unwrap() = Some(Arc::clone(&vectors));
    table.write(8, &[7; 4]);
    assert_eq!(wire.seen.load(Ordering::SeqCst), 1);
}

#[test]
fn no_interrupt_is_lost_in_a_storm_of_masking_and_rewriting() {
    let wire = Arc::new(Wire::default());
    let (vectors, mut table) = open(&wire);
    let rounds = 20_000;
    let raised = AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1..=rounds {
                wire.raised.store(round, Ordering::SeqCst);
                Irq::queue(&*vectors, 0);
                raised.store(round, Ordering::SeqCst);
            }
        });
        let mut noise = Noise(9);
        while raised.load(Ordering::SeqCst) < rounds {
            table.write(8, &(noise.next() as u32).to_le_bytes());
            table.write(12, &[noise.below(2) as u8, 0, 0, 0]);
            table.control(true, noise.below(4) == 0);
            // All that was raised before has arrived once the vector is open.
            let before = raised.load(Ordering::SeqCst);
            table.control(true, false);
            table.write(12, &[0; 4]);
            let seen = wire.seen.load(Ordering::SeqCst);
            assert!(seen >= before, "{seen} of {before} have arrived");
        }
    });
    assert_eq!(wire.seen.load(Ordering::SeqCst), rounds);
}
