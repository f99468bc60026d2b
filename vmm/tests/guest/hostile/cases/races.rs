//! What takes two processors: memory and registers that change while a device reads them, and
//! registers that both use at once (virtio 1.2, chapter 2: a driver must not).
//!
//! One processor makes requests, and the other one spoils them, without any order between the two.
//! So what a device sees is open, and a case says what it may make of that: what was there before
//! or after, never a mix; no memory written but what was offered; and a device that either serves
//! the request or says that it can't go on.

mod chains;
mod contents;
mod registers;
mod transport;

use super::{Case, case};
use crate::hostile::rig::Rig;
use crate::hostile::transport::Registers;
use rustix::thread::{CpuSet, sched_setaffinity};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use vmm::virtio::Kind;
use vmm::virtio::transport::status::NEEDS_RESET;

/// How often a case tries, and how long at most.
const ROUNDS: usize = 1000;
const BUDGET: Duration = Duration::from_millis(250);

/// The cases for a device that need a second processor.
pub fn cases(rig: &Rig) -> Vec<Case> {
    let on_pci = matches!(*rig.registers, Registers::Pci(_));
    let all = match rig.kind {
        Kind::Block if rig.read_only => Vec::new(),
        Kind::Block if on_pci => vec![
            contents::cases(),
            chains::cases(),
            registers::cases(),
            transport::cases(),
        ],
        Kind::Block => vec![contents::cases(), chains::cases(), registers::cases()],
        Kind::Net => vec![registers::cases(), vec![registers::address()]],
        _ => vec![registers::cases()],
    };
    all.into_iter().flatten().collect()
}

/// Does one thing again and again on the second processor, while another is done on the first.
fn race<R>(
    rig: &mut Rig,
    spoil: impl Fn(&Registers, usize) + Sync,
    run: impl FnOnce(&mut Rig) -> R,
) -> R {
    let over = AtomicBool::new(false);
    let registers = Arc::clone(&rig.registers);
    stay_on(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            stay_on(1);
            for turn in 0.. {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                spoil(&registers, turn);
            }
        });
        let _over = Over(&over);
        run(rig)
    })
}

/// Ends the other processor's part, even if a case fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Keeps this thread on a processor.
fn stay_on(processor: usize) {
    let mut set = CpuSet::new();
    set.set(processor);
    sched_setaffinity(None, &set).unwrap();
}

/// As many rounds as there is time for.
fn rounds(rig: &mut Rig, mut round: impl FnMut(&mut Rig)) {
    let end = Instant::now() + BUDGET;
    for _ in 0..ROUNDS {
        round(rig);
        rig.rounds += 1;
        if Instant::now() > end {
            break;
        }
    }
}

/// What becomes of a request: the used length, or None if the device can't go on.
fn outcome(rig: &mut Rig) -> Option<u32> {
    let queue = usize::from(rig.queue());
    let used = rig.until("an answer of any kind", |rig| {
        let broken = rig.status() & u32::from(NEEDS_RESET) != 0;
        let used = rig.rings[queue].used();
        (broken || used.is_some()).then_some(used)
    });
    used.map(|(_, len)| len)
}
