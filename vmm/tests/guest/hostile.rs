//! A hostile guest: an init that takes devices from the kernel's drivers and breaks every rule
//! with them that it can.
//!
//! A case is a name and a function. It finds the device running, does what it should not, and
//! says what has to be seen. Then it has to start again, for the next case. After every eighth one
//! it has to work as well, and the canaries have to sing: a disk and a card, and now and then the console, which the kernel's own drivers have.
//!
//! One machine goes through all cases of one transport and one ring layout, on a disk, a read-only
//! disk, an entropy device, a second console and a card. Two more have a second processor, and go through
//! what needs one: memory and registers that change while a device reads them. A case that fails
//! does not end the others.
//!
//! The guest's half knows nothing of hype, so that other hypervisors can be asked the same:
//! `etc/hostile-qemu` does. With `HYPE_GUEST_ALONE` in the environment there is no host's half, and
//! the verdict on each case is printed.

mod canary;
mod card;
mod cases;
mod mirror;
mod rig;
mod target;
mod transport;

use super::*;
use crate::support::Plan;
use canary::Canary;
use cases::Case;
use mirror::Mirror;
use rig::{DISK, Rig, contents, header};
use rustix::pipe::{PipeFlags, pipe_with};
use std::fs::File;
use std::io::{BufRead, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixDatagram;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Instant;
use target::Found;
use transport::Registers;
use vmm::Transport;
use vmm::virtio::Kind;
use vmm::virtio::block::{Block, MemoryDisk, RawFile};
use vmm::virtio::console::Console;
use vmm::virtio::net::{Mac, Net, NetBackend, Wire};
use vmm::virtio::rng::Rng;
use vmm::virtio::stream::{Input, Output};

/// How many devices there are to take.
const TARGETS: usize = 5;
const CANARY: &str = "canary";
const PAGE: usize = 4096;
/// How many cases there are from one look at the device, the disks and the canaries to the next: a
/// look takes as long as a case.
const STRIDE: usize = 8;

/// The machine of these tests.
fn build(plan: &mut Plan, transport: Transport) {
    plan.config.transport = Some(transport);
    plan.cmdline.push(' ');
    plan.cmdline.push_str(target::CMDLINE);
    let canary = Block::new(MemoryDisk::new(1 << 20).unwrap());
    plan.config
        .devices
        .push(canary.serial(CANARY).unwrap().into());
    let (wire, other) = Wire::pair().unwrap();
    let canary = Net::new(wire, Mac::of_name(CANARY)).unwrap();
    plan.config.devices.push(canary.into());
    let other = UnixDatagram::from(other.into_socket());
    other.set_nonblocking(false).unwrap();
    std::thread::spawn(move || crate::net::echo(&other));

    let disk = MemoryDisk::new(DISK as u64).unwrap();
    plan.behind_console.push(Block::new(disk).into());
    let image = tempfile::NamedTempFile::new().unwrap();
    image.as_file().write_all_at(&contents(), 0).unwrap();
    let disk = RawFile::options()
        .read_only(true)
        .open(image.path())
        .unwrap();
    plan.behind_console.push(Block::new(disk).into());
    plan.behind_console.push(Rng::new().into());
    let (input, mut typist) = pipe_with(PipeFlags::CLOEXEC)
        .map(|(read, write)| (read, File::from(write)))
        .unwrap();
    // There always is more, until the machine is gone.
    std::thread::spawn(move || while typist.write_all(&[b'x'; PAGE]).is_ok() {});
    let input = Some(Input::fd(input).unwrap());
    let output = Some(Output::writer(std::io::sink()));
    plan.behind_console.push(Console::new(input, output).into());
    let lanes = [Mirror::new(), Mirror::new()].map(|lane| Box::new(lane) as Box<dyn NetBackend>);
    let card = Net::with_lanes(lanes.into(), Mac::of_name("mirror")).unwrap();
    plan.behind_console.push(card.into());
}

fn alone() -> bool {
    std::env::var_os("HYPE_GUEST_ALONE").is_some()
}

/// Asks the host for a word, and prints it in capitals.
fn echo() {
    if alone() {
        return;
    }
    println!("say something");
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).unwrap();
    println!("heard {}", line.trim().to_uppercase());
}

/// Says a word whenever the guest asks for one, which is once for each target.
fn answer(host: &mut Host) {
    for number in 0..TARGETS {
        host.expect("say something");
        host.type_bytes(format!("tweet{number}\n").as_bytes());
        host.expect(&format!("heard TWEET{number}"));
    }
    host.expect(" cases, 0 failed");
    let shown = host.shown();
    let counts = shown.lines().filter(|line| line.contains(" cases, "));
    counts.for_each(|line| println!("{line}"));
}

/// How many cases there were, and how many failed.
#[derive(Default)]
struct Count {
    cases: usize,
    failed: usize,
}

impl Count {
    /// Goes through a case.
    fn add(&mut self, name: &str, run: impl FnOnce()) {
        self.cases += 1;
        let result = catch_unwind(AssertUnwindSafe(run));
        if result.is_err() {
            self.failed += 1;
            println!("FAILED: {name}");
        } else if alone() {
            println!("ok: {name}");
        }
    }

    /// The last word of a guest.
    fn tell(self) {
        println!("hostile: {} cases, {} failed", self.cases, self.failed);
        assert_eq!(self.failed, 0);
    }
}

/// Takes all devices but the canary and the first console.
fn take_all() -> Vec<Rig> {
    // Whatever a case has to say is said on one line.
    std::panic::set_hook(Box::new(|what| println!("  {what}")));
    let memory = target::memory();
    let canary = Rc::new(Canary::find());
    let mut all = Found::all();
    all.retain(|found| !found.has_disk(canary.name()));
    all.retain(|found| !canary.card().is_some_and(|card| found.has_card(card)));
    let console = all
        .iter()
        .position(|found| found.kind == u32::from(Kind::Console.id()));
    all.remove(console.unwrap());
    assert_eq!(all.len(), TARGETS);
    all.iter()
        .map(|found| {
            let registers = Registers::take(found);
            Rig::new(registers, memory.clone(), canary.clone())
        })
        .collect()
}

/// Takes all devices in turn, and goes through the cases for each.
fn misbehave(packed: bool) {
    let mut count = Count::default();
    for mut rig in take_all() {
        rig.packed = packed;
        go_through(&mut rig, cases::of, &mut count);
        echo();
    }
    count.tell();
}

/// The same with what takes two processors, in both ring layouts.
fn race() {
    let mut count = Count::default();
    let mut rigs = take_all();
    for rig in &mut rigs {
        for packed in [false, true] {
            rig.packed = packed;
            go_through(rig, cases::races, &mut count);
        }
        echo();
    }
    across(&mut rigs, &mut count);
    count.tell();
}

/// What a disk and an entropy device do to each other.
fn across(rigs: &mut [Rig], count: &mut Count) {
    let is_disk = |rig: &&mut Rig| rig.kind == Kind::Block && !rig.read_only;
    let is_random = |rig: &&mut Rig| rig.kind == Kind::Rng;
    let (front, back) = rigs.split_at_mut(rigs.len() / 2);
    let disk = front.iter_mut().find(is_disk).unwrap();
    let random = back.iter_mut().find(is_random).unwrap();
    for packed in [false, true] {
        (disk.packed, random.packed) = (packed, packed);
        for pair in cases::PAIRS {
            count.add(pair.name, || (pair.run)(disk, random));
        }
    }
}

/// Goes through the cases for a device.
fn go_through(rig: &mut Rig, cases: fn(&Rig) -> Vec<Case>, count: &mut Count) {
    let begin = Instant::now();
    let is_disk = rig.kind == Kind::Block;
    if is_disk && !rig.read_only {
        rig.start();
        let (status, _) = rig.request(&[&header(1, 0), &contents()], &[1]);
        assert_eq!(status, [0]);
    }
    let cases = cases(rig);
    // Whether the device was started since the last case, which ended well.
    let mut is_fresh = false;
    for (number, case) in cases.iter().enumerate() {
        let look = number % STRIDE == 0 || number + 1 == cases.len();
        count.add(&format!("{:?}: {}", rig.kind, case.name), || {
            if !std::mem::take(&mut is_fresh) {
                rig.start_as_usual();
            }
            (case.run)(rig);
            if look {
                rig.recovers();
                rig.canary.sing();
            }
            if look && is_disk {
                rig.has_kept_the_disk();
            }
            rig.start_as_usual();
            is_fresh = true;
        });
    }
    rig.reset();
    println!(
        "{:?}: {} cases, {} rounds by chance, {:?}",
        rig.kind,
        cases.len(),
        std::mem::take(&mut rig.rounds),
        begin.elapsed()
    );
}

guest_test! {
    a_guest_that_breaks_the_rules_of_split_rings_harms_only_itself,
    config: |plan| build(plan, Transport::Mmio),
    guest: || misbehave(false),
    host: answer,
    ends: Outcome::Shutdown,
}

guest_test! {
    a_guest_that_breaks_the_rules_of_packed_rings_harms_only_itself,
    config: |plan| build(plan, Transport::Mmio),
    guest: || misbehave(true),
    host: answer,
    ends: Outcome::Shutdown,
}

guest_test! {
    a_guest_that_breaks_the_rules_of_split_rings_on_pci_harms_only_itself,
    config: |plan| build(plan, Transport::Pci),
    guest: || misbehave(false),
    host: answer,
    ends: Outcome::Shutdown,
}

guest_test! {
    a_guest_that_breaks_the_rules_of_packed_rings_on_pci_harms_only_itself,
    config: |plan| build(plan, Transport::Pci),
    guest: || misbehave(true),
    host: answer,
    ends: Outcome::Shutdown,
}

guest_test! {
    a_guest_that_changes_things_while_they_are_read_harms_only_itself,
    config: |plan| {
        build(plan, Transport::Mmio);
        plan.config.cpus = 2;
    },
    guest: race,
    host: answer,
    ends: Outcome::Shutdown,
}

guest_test! {
    a_guest_that_changes_things_on_pci_while_they_are_read_harms_only_itself,
    config: |plan| {
        build(plan, Transport::Pci);
        plan.config.cpus = 2;
    },
    guest: race,
    host: answer,
    ends: Outcome::Shutdown,
}
