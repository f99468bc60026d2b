//! A hostile guest: an init that takes devices from the kernel's drivers and breaks every rule
//! with them that it can.
//!
//! A case is a name and a function. It finds the device running, does what it should not, and
//! says what has to be seen. After each case the device has to work again after a reset, and the
//! canaries have to sing: a disk, and now and then the console, which the kernel's own drivers have.
//!
//! One machine goes through all cases of one ring layout, on a disk, a read-only disk, an entropy
//! device and a second console. A case that fails does not end the others.

mod cases;
mod rig;
mod target;

use super::*;
use crate::support::Plan;
use rig::{DISK, Rig, contents, header};
use rustix::fs::OFlags;
use rustix::pipe::{PipeFlags, pipe_with};
use std::fs::File;
use std::io::{BufRead, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;
use target::Window;
use vmm::virtio::Kind;
use vmm::virtio::block::{Block, MemoryDisk, RawFile};
use vmm::virtio::console::Console;
use vmm::virtio::rng::Rng;
use vmm::virtio::stream::{Input, Output};

/// The targets' numbers. Before them come the canary and the console.
const TARGETS: std::ops::Range<u64> = 2..6;
const CANARY: &str = "canary";
const PAGE: usize = 4096;
/// How many cases there are from one look at the disks to the next.
const STRIDE: usize = 8;

/// The machine of these tests.
fn build(plan: &mut Plan) {
    plan.cmdline.push(' ');
    plan.cmdline.push_str(target::CMDLINE);
    let canary = Block::new(MemoryDisk::new(1 << 20).unwrap());
    plan.config
        .devices
        .push(canary.serial(CANARY).unwrap().into());

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
}

/// A disk that only the kernel uses.
struct Canary(File);

impl Canary {
    fn find() -> Canary {
        let name = ["vda", "vdb", "vdc"].into_iter().find(|name| {
            let serial = std::fs::read_to_string(format!("/sys/block/{name}/serial"));
            serial.is_ok_and(|serial| serial.trim() == CANARY)
        });
        let disk = File::options()
            .read(true)
            .write(true)
            .custom_flags(OFlags::DIRECT.bits() as i32)
            .open(format!("/dev/{}", name.expect("a canary")))
            .unwrap();
        Canary(disk)
    }

    /// Writes a page of its own for each time, and reads it.
    fn sing(&self, time: usize) {
        let mut buffer = vec![0u8; 2 * PAGE];
        let aligned = buffer.as_ptr().align_offset(PAGE);
        let page = &mut buffer[aligned..aligned + PAGE];
        let place = (time % 256 * PAGE) as u64;
        page.fill(time as u8);
        self.0.write_all_at(page, place).unwrap();
        page.fill(!(time as u8));
        self.0.read_exact_at(page, place).unwrap();
        assert!(page.iter().all(|byte| *byte == time as u8));
    }
}

/// Asks the host for a word, and prints it in capitals.
fn echo() {
    println!("say something");
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).unwrap();
    println!("heard {}", line.trim().to_uppercase());
}

/// Says a word whenever the guest asks for one, which is once for each target.
fn answer(host: &mut Host) {
    for number in TARGETS {
        host.expect("say something");
        host.type_bytes(format!("tweet{number}\n").as_bytes());
        host.expect(&format!("heard TWEET{number}"));
    }
    host.expect(" cases, 0 failed");
    let shown = host.shown();
    let count = shown.lines().find(|line| line.starts_with("hostile: "));
    println!("{}", count.unwrap());
}

/// Takes all devices in turn, and goes through the cases for each.
fn misbehave(packed: bool) {
    let windows: Vec<Window> = TARGETS.map(Window::take).collect();
    let memory = target::memory();
    let canary = Canary::find();
    let (mut count, mut failed) = (0, 0);
    // Whatever a case has to say is said on one line.
    std::panic::set_hook(Box::new(|what| println!("  {what}")));
    for window in windows {
        let mut rig = Rig::new(window, memory.clone(), packed);
        let begin = Instant::now();
        let (cases, bad) = all_cases(&mut rig, &canary);
        println!("{:?}: {cases} cases, {:?}", rig.kind, begin.elapsed());
        count += cases;
        failed += bad;
        echo();
    }
    println!("hostile: {count} cases, {failed} failed");
    assert_eq!(failed, 0);
}

/// Goes through the cases for a device. Tells how many there were, and how many failed.
fn all_cases(rig: &mut Rig, canary: &Canary) -> (usize, usize) {
    let is_disk = rig.kind == Kind::Block;
    if is_disk && !rig.read_only {
        rig.start();
        let (status, _) = rig.request(&[&header(1, 0), &contents()], &[1]);
        assert_eq!(status, [0]);
    }
    let cases = cases::of(rig);
    let mut failed = 0;
    for (number, case) in cases.iter().enumerate() {
        let look = number % STRIDE == 0 || number + 1 == cases.len();
        let result = catch_unwind(AssertUnwindSafe(|| {
            rig.start();
            (case.run)(rig);
            rig.recovers();
            if look {
                canary.sing(number);
            }
            if look && is_disk {
                rig.has_kept_the_disk();
            }
        }));
        if result.is_err() {
            failed += 1;
            println!("FAILED: {:?}: {}", rig.kind, case.name);
        }
    }
    rig.reset();
    (cases.len(), failed)
}

guest_test! {
    a_guest_that_breaks_the_rules_of_split_rings_harms_only_itself,
    config: build,
    guest: || misbehave(false),
    host: answer,
    ends: Outcome::Shutdown,
}

guest_test! {
    a_guest_that_breaks_the_rules_of_packed_rings_harms_only_itself,
    config: build,
    guest: || misbehave(true),
    host: answer,
    ends: Outcome::Shutdown,
}
