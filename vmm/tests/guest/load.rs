//! Machines under load: several vCPUs, a console, disks and entropy devices on both transports with both
//! ring layouts, all at work, while the guest resets some of them and the host pauses and resumes
//! them all, or pulls the plug.
//!
//! What the guest writes to its disks are blocks that say what they are, so that either side can tell
//! a block that is whole from one that is not. The keyboard's lines are answered with their
//! checksums. A guest that has stalled does not answer: `Host::expect` has a deadline.

use super::*;
use crate::dice::{Dice, rounds};
use crate::support::{Plan, deadline, read_to_string};
use rustix::fs::{OFlags, fdatasync};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use std::fs::{self, File};
use std::io::{Read, stdin};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::Duration;
use vmm::virtio::block::Block;
use vmm::virtio::rng::Rng;
use vmm::virtio::transport::Rings;
use vmm::{Transport, VirtioDevice};

/// One request.
const BLOCK: usize = 16 << 10;
/// What a disk has of them. To make and compare one takes an emulated guest milliseconds.
const BLOCKS: u64 = 4;

const PLACES: [(Transport, Rings); 4] = [
    (Transport::Mmio, Rings::Split),
    (Transport::Mmio, Rings::Packed),
    (Transport::Pci, Rings::Split),
    (Transport::Pci, Rings::Packed),
];

/// How often a machine is paused, unless it is said otherwise, and what that may take.
const PAUSES: u64 = 40;
const PER_PAUSE: Duration = Duration::from_secs(5);

/// The disks that are at work all the time, as the guest knows them by their serial numbers.
const BUSY: [&str; 4] = ["busy0", "busy1", "busy2", "busy3"];
/// The disks that the guest resets.
const RESET: [&str; 2] = ["reset0", "reset1"];

/// What each thread of the guest has done, and when it does more.
#[derive(Default)]
struct Progress {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    done: [u64; BUSY.len() + RESET.len() + 1],
    over: bool,
}

impl Progress {
    /// Thread `worker` has done something. Whether it should go on.
    fn step(&self, worker: usize) -> bool {
        let mut state = self.state.lock().unwrap();
        state.done[worker] += 1;
        self.changed.notify_all();
        !state.over
    }

    /// Waits until each thread has done something that it began after this call.
    fn wait_for_all(&self) {
        let state = self.state.lock().unwrap();
        let before = state.done;
        let all = |state: &mut State| {
            let mut pairs = state.done.iter().zip(before);
            !state.over && pairs.any(|(done, before)| *done < before + 2)
        };
        drop(self.changed.wait_while(state, all).unwrap());
    }

    fn end(&self) {
        self.state.lock().unwrap().over = true;
        self.changed.notify_all();
    }
}

fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}

/// Block `number` of the disk called `name`, as it is written for the `round`th time: in each word
/// something else.
fn block(name: &str, number: u64, round: u64) -> Vec<u8> {
    let first = checksum(name.as_bytes()) ^ number << 32 ^ round;
    let mut bytes = Vec::with_capacity(BLOCK);
    bytes.extend_from_slice(&round.to_le_bytes());
    while bytes.len() < BLOCK {
        let word = first.wrapping_mul(bytes.len() as u64 | 1);
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes
}

/// Which round the block is of; it has to be whole.
fn round_of(name: &str, number: u64, bytes: &[u8]) -> u64 {
    let round = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    let whole = match round {
        // Never written.
        0 => bytes.iter().all(|byte| *byte == 0),
        _ => bytes == block(name, number, round),
    };
    assert!(whole, "block {number} of {name} is none of round {round}");
    round
}

/// A block at an address that a request past the page cache can have.
#[repr(align(4096))]
struct Aligned([u8; BLOCK]);

/// A disk as its driver has it, past the page cache.
struct Disk {
    file: File,
    name: &'static str,
    buffer: Box<Aligned>,
}

impl Disk {
    fn open(name: &'static str) -> Self {
        let file = File::options()
            .read(true)
            .write(true)
            .custom_flags(OFlags::DIRECT.bits() as i32)
            .open(Path::new("/dev").join(node(name)))
            .unwrap();
        let buffer = Box::new(Aligned([0; BLOCK]));
        Disk { file, name, buffer }
    }

    /// Reads each block, which has to be of the `round`, and writes that of the next.
    fn pass(&mut self, round: u64) {
        for number in 0..BLOCKS {
            let at = number * BLOCK as u64;
            self.file.read_exact_at(&mut self.buffer.0, at).unwrap();
            let found = round_of(self.name, number, &self.buffer.0);
            assert_eq!(found, round, "block {number} of {}", self.name);
            let next = block(self.name, number, round + 1);
            self.buffer.0.copy_from_slice(&next);
            self.file.write_all_at(&self.buffer.0, at).unwrap();
        }
        fdatasync(&self.file).unwrap();
    }
}

/// What the kernel calls the disk of this serial number.
fn node(serial: &str) -> String {
    let disks = fs::read_dir("/sys/block").unwrap();
    disks
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        // One that is being reset goes away between the two.
        .find(|name| {
            let found = fs::read_to_string(format!("/sys/block/{name}/serial"));
            found.is_ok_and(|found| found == serial)
        })
        .unwrap_or_else(|| panic!("no disk is called {serial}"))
}

/// Takes a virtio device from its driver, which resets it, and gives it back.
fn reset(driver: &str, device: &str) {
    let driver = Path::new("/sys/bus/virtio/drivers").join(driver);
    fs::write(driver.join("unbind"), device).unwrap();
    fs::write(driver.join("bind"), device).unwrap();
}

/// Passes over a disk for ever. Says so each time.
fn exercise(worker: usize, progress: &Progress) {
    let mut disk = Disk::open(BUSY[worker]);
    for round in 0.. {
        disk.pass(round);
        println!("{} round {} done", disk.name, round + 1);
        if !progress.step(worker) {
            return;
        }
    }
}

/// The same with a reset before each pass.
fn exercise_and_reset(number: usize, progress: &Progress) {
    let name = RESET[number];
    for round in 0.. {
        let device = fs::canonicalize(format!("/sys/block/{}/device", node(name))).unwrap();
        reset("virtio_blk", device.file_name().unwrap().to_str().unwrap());
        Disk::open(name).pass(round);
        println!("{name} round {} done", round + 1);
        if !progress.step(BUSY.len() + number) {
            return;
        }
    }
}

/// Takes bytes from one entropy device after the other, and resets them: there always is a request
/// in their rings.
fn exercise_rngs(progress: &Progress) {
    let drivers = fs::read_dir("/sys/bus/virtio/drivers/virtio_rng").unwrap();
    let devices: Vec<_> = drivers
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("virtio"))
        .collect();
    assert_eq!(devices.len(), 2);
    for device in devices.iter().cycle() {
        let available = read_to_string("/sys/class/misc/hw_random/rng_available");
        // The other word is "none".
        let rngs = available.split_whitespace();
        for rng in rngs.filter(|name| name.starts_with("virtio")) {
            fs::write("/sys/class/misc/hw_random/rng_current", rng).unwrap();
            let mut bytes = [0; 64];
            let mut source = File::open("/dev/hwrng").unwrap();
            source
                .read_exact(&mut bytes)
                .unwrap_or_else(|error| panic!("{rng} of {available:?}: {error}"));
            assert_ne!(bytes, [0; 64]);
        }
        reset("virtio_rng", device);
        if !progress.step(BUSY.len() + RESET.len()) {
            return;
        }
    }
}

/// The guest half: everything at once, until the keyboard says that it is enough.
fn be_busy() {
    let progress = Progress::default();
    // What is typed would be echoed in the midst of the lines of the disks.
    let mut attributes = tcgetattr(stdin()).unwrap();
    attributes.local_modes.remove(LocalModes::ECHO);
    tcsetattr(stdin(), OptionalActions::Now, &attributes).unwrap();
    // Ends what the test harness has begun.
    println!();
    thread::scope(|scope| {
        let progress = &progress;
        // Who panics ends the others, so that the test fails soon.
        let start = |work: Box<dyn FnOnce() + Send>| {
            scope.spawn(move || {
                catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
                    progress.end();
                    resume_unwind(panic)
                })
            });
        };
        (0..BUSY.len()).for_each(|disk| start(Box::new(move || exercise(disk, progress))));
        (0..RESET.len())
            .for_each(|disk| start(Box::new(move || exercise_and_reset(disk, progress))));
        start(Box::new(move || exercise_rngs(progress)));
        progress.wait_for_all();
        println!("all are busy");
        let mut line = String::new();
        while !line.starts_with("end") && !progress.state.lock().unwrap().over {
            line.clear();
            stdin().read_line(&mut line).unwrap();
            progress.wait_for_all();
            println!("{:016x} heard", checksum(line.trim_end().as_bytes()));
        }
        progress.end();
    });
}

/// As many vCPUs as the host has processors, two to four: those that have none keep the others
/// waiting for the guest's spin locks, and then next to nothing is done.
fn cpus() -> u32 {
    let host = thread::available_parallelism().map_or(1, |host| host.get());
    host.clamp(2, 4) as u32
}

/// The files that are disks, on the host. They go with the test.
struct Images(PathBuf);

impl Images {
    fn new(test: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("hype-{}-{test}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        Images(folder)
    }

    fn disk(&self, name: &str, (transport, rings): (Transport, Rings)) -> VirtioDevice {
        let path = self.0.join(name);
        let file = File::create(&path).unwrap();
        file.set_len(BLOCKS * BLOCK as u64).unwrap();
        let disk = Block::open(&path).unwrap().serial(name).unwrap();
        VirtioDevice::from(disk).transport(transport).rings(rings)
    }

    fn furnish(&self, plan: &mut Plan) {
        plan.config.cpus = cpus();
        let devices = &mut plan.behind_console;
        for (name, place) in BUSY.into_iter().zip(PLACES) {
            devices.push(self.disk(name, place));
        }
        // One on each transport, and of each layout.
        for (number, name) in (0..).zip(RESET) {
            let place = PLACES[1 + number];
            devices.push(self.disk(name, place));
            let rng = VirtioDevice::from(Rng::new());
            devices.push(rng.transport(place.0).rings(place.1));
        }
    }

    /// The rounds of the blocks on a disk, each of which has to be whole.
    fn rounds(&self, name: &str) -> Vec<u64> {
        let bytes = fs::read(self.0.join(name)).unwrap();
        let blocks = (0..).zip(bytes.chunks(BLOCK));
        blocks
            .map(|(number, bytes)| round_of(name, number, bytes))
            .collect()
    }

    /// The disks have what the guest said that it had written, or are in the round behind that.
    fn agree_with(&self, text: &str) {
        for name in BUSY.into_iter().chain(RESET) {
            let said = rounds_done(text, name);
            for (block, round) in self.rounds(name).into_iter().enumerate() {
                assert!(
                    round == said || round == said + 1,
                    "block {block} of {name} is of round {round}, not {said}: {text}"
                );
            }
        }
    }
}

impl Drop for Images {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// How many rounds of a disk the guest has told of, which has to be one after the other.
fn rounds_done(text: &str, name: &str) -> u64 {
    let prefix = format!("{name} round ");
    let mut done = 0;
    for line in text.lines().filter_map(|line| line.strip_prefix(&prefix)) {
        // The last line may be cut.
        let Some(round) = line.strip_suffix(" done") else {
            continue;
        };
        done += 1;
        assert_eq!(round.parse(), Ok(done), "lines of {name} are lost: {text}");
    }
    done
}

/// Types a line while the machine is paused and resumed at random moments; the guest has to go on.
fn pause_often(host: &mut Host, dice: &mut Dice, pauses: u64) {
    host.expect("all are busy");
    let mut left = pauses;
    while left > 0 {
        let letters = (0..dice.below(200)).map(|_| b'a' + dice.below(26) as u8);
        let mut line: Vec<_> = letters.collect();
        let answer = format!("{:016x} heard", checksum(&line));
        line.push(b'\n');
        host.type_bytes(&line);
        for _ in 0..(1 + dice.below(8)).min(left) {
            dice.nap(Duration::from_millis(30));
            host.handle.pause().unwrap();
            let before = host.handle.report();
            dice.nap(Duration::from_millis(2));
            assert_eq!(host.handle.report(), before, "nobody runs");
            host.handle.resume().unwrap();
            left -= 1;
        }
        host.expect(&answer);
    }
    host.type_bytes(b"end\n");
}

/// The test on one transport and ring of the console.
fn pauses_lose_nothing(test: &str, (transport, rings): (Transport, Rings)) {
    if init::is_guest() {
        init::run(be_busy);
    }
    let mut dice = Dice::new(test);
    let images = Images::new(test);
    let pauses = rounds(PAUSES);
    let plan = |plan: &mut Plan| {
        images.furnish(plan);
        plan.deadline = deadline().max(PER_PAUSE * u32::try_from(pauses).unwrap());
        plan.config.transport = Some(transport);
        plan.rings = rings;
    };
    let path = format!("{}::{test}", module_path!());
    let pause = |host: &mut Host| pause_often(host, &mut dice, pauses);
    let Some(ended) = crate::support::run(&path, plan, pause) else {
        return;
    };
    let text = &ended.text;
    assert!(matches!(ended.outcome, Outcome::Shutdown), "{text}");
    assert!(text.contains("guest half passed"), "{text}");
    assert!(!text.contains("error"), "{text}");
    images.agree_with(text);
    let passes = BUSY.into_iter().chain(RESET);
    let passes: Vec<_> = passes.map(|name| rounds_done(text, name)).collect();
    eprintln!("rounds of the disks: {passes:?}");
}

#[test]
fn pauses_and_resets_under_load_lose_nothing() {
    let test = "pauses_and_resets_under_load_lose_nothing";
    pauses_lose_nothing(test, (Transport::Mmio, Rings::Packed));
}

#[test]
fn pauses_and_resets_under_load_lose_nothing_on_pci() {
    let test = "pauses_and_resets_under_load_lose_nothing_on_pci";
    pauses_lose_nothing(test, (Transport::Pci, Rings::Split));
}

#[test]
fn a_stop_under_load_leaves_whole_blocks() {
    if init::is_guest() {
        init::run(be_busy);
    }
    let test = "a_stop_under_load_leaves_whole_blocks";
    let mut dice = Dice::new(test);
    for _ in 0..rounds(4) {
        let images = Images::new(test);
        let path = format!("{}::{test}", module_path!());
        let stop = |host: &mut Host| {
            host.expect("all are busy");
            dice.nap(Duration::from_millis(500));
            host.handle.stop();
        };
        let plan = |plan: &mut Plan| images.furnish(plan);
        let Some(ended) = crate::support::run(&path, plan, stop) else {
            return;
        };
        assert!(matches!(ended.outcome, Outcome::Stopped), "{}", ended.text);
        images.agree_with(&ended.text);
    }
}

guest_test! {
    sixteen_cpus_are_brought_up,
    config: |plan| plan.config.cpus = 16,
    guest: || {
        assert_eq!(thread::available_parallelism().unwrap().get(), 16);
        assert_eq!(read_to_string("/sys/devices/system/cpu/online").trim(), "0-15");
    },
    host: |_| {},
    ends: Outcome::Shutdown,
}
