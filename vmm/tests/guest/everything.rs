//! Everything at once on two vCPUs: disks that are verified, TCP both ways, noise on a console, entropy.
//! Nothing differs, nothing stalls, and the machine's own memory, threads and descriptors stay what they
//! are.
//!
//! A stall is the time between two turns of a stream, as the guest's clock tells. What the host does to
//! all of us at once is no stall of the machine's, so a thread of the host and one of the guest measure
//! by how much they sleep too long.
//!
//! `HYPE_TEST_SECONDS` says how long it takes.

use super::*;
use crate::support::disk::{self, WAYS, called};
use crate::support::link::Interface;
use crate::support::{Plan, amount, deadline, read_to_string, tcp};
use rustix::fs::fdatasync;
use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use vmm::virtio::block::{Block, Qcow2File, RawFile};
use vmm::virtio::console::Console;
use vmm::virtio::net::{Counters, Mac, Net, Tap};
use vmm::virtio::rng::Rng;
use vmm::virtio::stream::Output;
use vmm::{State, Transport, VirtioDevice};

const TAP: Interface = Interface("hypeg9");
const HOST: Ipv4Addr = Ipv4Addr::new(10, 97, 0, 1);
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 97, 0, 2);
/// Where the host listens, and where it talks.
const PORTS: [u16; 2] = [5000, 5001];

const MEMORY: u64 = 256 << 20;
/// A request of a disk, and how many of them a disk has room for.
const BLOCK: usize = 16 << 10;
const BLOCKS: u64 = 1024;
/// The most that a stream may stall.
const STALL: Duration = Duration::from_secs(2);
/// How long those sleep who measure the stalls of the guest and of the host.
const TICK: Duration = Duration::from_millis(10);
/// How often the guest says that it goes on.
const PERIOD: Duration = Duration::from_secs(3);
/// By how much the machine's own memory may grow, in KiB: the heap is not always equally full.
const SLACK: u64 = 1024;

fn time_to_run() -> Duration {
    Duration::from_secs(amount("HYPE_TEST_SECONDS", 15))
}

/// How often the guest says that it goes on. At the very end streams may be over.
fn periods() -> u32 {
    (time_to_run().as_secs() / PERIOD.as_secs()) as u32 - 1
}

/// One turn after the other until the end: how many, and the longest.
fn repeat(end: Instant, mut turn: impl FnMut(u64)) -> (u64, Duration) {
    let (mut last, mut longest, mut turns) = (Instant::now(), Duration::ZERO, 0);
    while last < end {
        turn(turns);
        let now = Instant::now();
        longest = longest.max(now - last);
        last = now;
        turns += 1;
    }
    (turns, longest)
}

/// A block at an address that a request past the page cache can have.
#[repr(align(4096))]
struct Aligned([u8; BLOCK]);

/// What is written in a turn: in each word something else.
fn fill(block: &mut Aligned, turn: u64) {
    for (at, word) in block.0.chunks_mut(8).enumerate() {
        let value = (turn << 32 | at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        word.copy_from_slice(&value.to_le_bytes());
    }
}

/// Writes a block, and reads one that was written half a disk ago.
fn exercise(disk: &File, turn: u64, now: &mut Aligned, expected: &mut Aligned) {
    let place = |turn| turn % BLOCKS * BLOCK as u64;
    fill(expected, turn);
    disk.write_all_at(&expected.0, place(turn)).unwrap();
    let earlier = turn.saturating_sub(BLOCKS / 2);
    disk.read_exact_at(&mut now.0, place(earlier)).unwrap();
    fill(expected, earlier);
    assert!(
        now.0 == expected.0,
        "turn {turn}: what was written in turn {earlier} differs"
    );
    if turn % 16 == 15 {
        fdatasync(disk).unwrap();
    }
}

fn noise(turn: u64) -> String {
    format!("{turn} makes as much noise as {}", turn.wrapping_mul(turn))
}

/// The guest: all streams, each on a thread.
fn do_everything() {
    Interface("eth0").come_up(GUEST);
    let [to_host, from_host] = PORTS.map(|port| tcp::connect((HOST, port)));
    tcp::keep_little(&to_host);
    let disks = [WAYS[1], WAYS[2]].map(|way| (way.name, disk::disk(&called(way.name), true)));
    let mut console = File::options().write(true).open("/dev/hvc1").unwrap();
    let mut entropy = File::open("/dev/hwrng").unwrap();
    println!("\nall begin");
    let begin = Instant::now();
    let end = begin + time_to_run();
    let told = |name: &str, (turns, longest): (u64, Duration)| {
        println!("\nstream {name} {turns} {}", longest.as_micros());
    };
    thread::scope(|scope| {
        for (name, disk) in &disks {
            scope.spawn(move || {
                let [mut now, mut expected] = [(); 2].map(|()| Box::new(Aligned([0; BLOCK])));
                let turn = |turn| exercise(disk, turn, &mut now, &mut expected);
                told(name, repeat(end, turn));
            });
        }
        let at = |turn: u64| turn as usize * tcp::PIECE;
        scope.spawn(move || {
            let turn = |turn| tcp::send_piece(&to_host, at(turn)).unwrap();
            told("tcp-to-host", repeat(end, turn));
        });
        scope.spawn(move || {
            let turn = |turn| tcp::receive_piece(&from_host, at(turn)).unwrap();
            told("tcp-from-host", repeat(end, turn));
        });
        scope.spawn(move || {
            let turn = |turn| writeln!(console, "{}", noise(turn)).unwrap();
            told("console", repeat(end, turn));
        });
        scope.spawn(move || {
            let (mut last, mut bytes) = ([0; 64], [0; 64]);
            let turn = |_| {
                entropy.read_exact(&mut bytes).unwrap();
                assert_ne!(bytes, last, "twice the same entropy");
                last = bytes;
            };
            told("entropy", repeat(end, turn));
        });
        let mut marks = (1..=periods())
            .map(|number| begin + PERIOD * number)
            .peekable();
        let turn = |_| {
            if marks.next_if(|mark| *mark < Instant::now()).is_some() {
                println!("\ngoing on");
            }
            thread::sleep(TICK);
        };
        told("sleep", repeat(end, turn));
        // The host counts on those that it was too late for.
        marks.for_each(|_| println!("\ngoing on"));
    });
}

/// A console's output that has to be the noise of all turns, one after the other. It counts them.
struct Listener {
    line: Vec<u8>,
    turns: Arc<AtomicU64>,
}

impl Write for Listener {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for byte in bytes {
            match byte {
                b'\r' => {}
                b'\n' => {
                    let turn = self.turns.load(Ordering::SeqCst);
                    let heard = String::from_utf8_lossy(&self.line);
                    assert_eq!(heard, noise(turn), "noise {turn} differs");
                    self.turns.store(turn + 1, Ordering::SeqCst);
                    self.line.clear();
                }
                byte => self.line.push(*byte),
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What this process has.
#[derive(Debug, Clone, Copy)]
struct Sample {
    /// KiB that are resident, of the guest's memory and of all else.
    guest: u64,
    own: u64,
    threads: usize,
    descriptors: usize,
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} KiB of its own, {} KiB of the guest's, {} threads, {} descriptors",
            self.own, self.guest, self.threads, self.descriptors
        )
    }
}

impl Sample {
    fn now() -> Sample {
        let count = |folder| std::fs::read_dir(folder).unwrap().count();
        let (guest, own) = resident();
        Sample {
            guest,
            own,
            threads: count("/proc/self/task"),
            descriptors: count("/proc/self/fd"),
        }
    }
}

/// KiB that are resident in mappings which are as large as the guest's memory, and in all others.
fn resident() -> (u64, u64) {
    let (mut guest, mut own, mut size) = (0, 0, 0);
    for line in read_to_string("/proc/self/smaps").lines() {
        let kib = |name: &str| {
            let value = line.strip_prefix(name)?.trim().strip_suffix(" kB")?;
            value.parse::<u64>().ok()
        };
        if let Some(kib) = kib("Size:") {
            size = kib;
        } else if let Some(kib) = kib("Rss:") {
            *(if size >= MEMORY >> 10 {
                &mut guest
            } else {
                &mut own
            }) += kib;
        }
    }
    (guest, own)
}

/// What a stream of the guest's has come to.
struct Told {
    name: String,
    turns: u64,
    longest: Duration,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} turns, the longest {:?}",
            self.name, self.turns, self.longest
        )
    }
}

impl Told {
    fn of(line: &str) -> Option<Told> {
        let mut words = line.strip_prefix("stream ")?.split_whitespace();
        Some(Told {
            name: words.next()?.to_owned(),
            turns: words.next()?.parse().ok()?,
            longest: Duration::from_micros(words.next()?.parse().ok()?),
        })
    }
}

/// Receives what the guest sends, or sends to it, as long as it likes.
fn serve(port: u16) -> impl FnOnce() {
    let listener = TcpListener::bind((HOST, port)).unwrap();
    let piece: fn(&TcpStream, usize) -> io::Result<()> = if port == PORTS[0] {
        tcp::receive_piece
    } else {
        tcp::send_piece
    };
    move || {
        let stream = tcp::accept(&listener);
        tcp::keep_little(&stream);
        let over = (0..)
            .step_by(tcp::PIECE)
            .find_map(|at| piece(&stream, at).err());
        // The guest has hung up.
        let kinds = [
            ErrorKind::UnexpectedEof,
            ErrorKind::ConnectionReset,
            ErrorKind::BrokenPipe,
        ];
        let error = over.unwrap();
        assert!(
            kinds.contains(&error.kind()),
            "no answer: port {port}: {error}"
        );
    }
}

/// Gives the machine its devices, and tells what passes its card.
fn furnish(plan: &mut Plan, folder: &TempDir, noise: Output) -> Arc<Counters> {
    let size = BLOCKS * BLOCK as u64;
    let raw = RawFile::options().create(size);
    let raw = raw.open(folder.path().join("raw")).unwrap();
    let image = Qcow2File::options().create(size);
    let image = image.open(folder.path().join("qcow2")).unwrap();
    let disks = [
        WAYS[1].disk(Block::new(raw)),
        WAYS[2].disk(Block::new(image)),
    ];
    let net = Net::new(Tap::open(TAP.0).unwrap(), Mac::of_name(TAP.0)).unwrap();
    let counters = net.counters();
    let net = VirtioDevice::from(net).transport(Transport::Pci);
    TAP.add_address(HOST);
    plan.config.cpus = 2;
    plan.config.memory = MEMORY;
    plan.config.devices.extend(disks);
    plan.config.devices.extend([net, Rng::new().into()]);
    plan.behind_console
        .push(Console::new(None, Some(noise)).into());
    plan.deadline = deadline() + time_to_run();
    counters
}

/// What the host has seen while the guest was at work.
struct Seen {
    samples: Vec<Sample>,
    /// The longest time that `TICK` took.
    longest: Duration,
}

fn watch(host: &mut Host) -> Seen {
    let servers = PORTS.map(|port| thread::spawn(serve(port)));
    host.expect("all begin");
    let handle = host.handle.clone();
    let sleeper = thread::spawn(move || {
        let mut longest = Duration::ZERO;
        while handle.state() != State::Stopped {
            let before = Instant::now();
            thread::sleep(TICK);
            longest = longest.max(before.elapsed());
        }
        longest
    });
    let mut samples = Vec::new();
    for _ in 0..periods() {
        host.expect("going on");
        samples.push(Sample::now());
    }
    for server in servers {
        server.join().unwrap();
    }
    let longest = sleeper.join().unwrap();
    Seen { samples, longest }
}

/// Says what was measured, and fails if it is not as it has to be.
fn judge(seen: &Seen, told: &[Told], noises: u64) {
    let Seen { samples, longest } = seen;
    let (first, last) = (samples[0], samples[samples.len() - 1]);
    eprintln!("the host slept {TICK:?} in at most {longest:?}");
    told.iter().for_each(|stream| eprintln!("{stream}"));
    let middle = samples[samples.len() / 2];
    for (when, sample) in [("first", first), ("middle", middle), ("last", last)] {
        eprintln!("{when}: {sample}");
    }
    let most = samples.iter().map(|sample| sample.own).max();
    eprintln!("the most of its own: {} KiB", most.unwrap());

    let stalled = |stream: &&Told| stream.longest > STALL + *longest;
    let stalled: Vec<_> = told.iter().filter(stalled).collect();
    // How etc/test knows what an emulated host may be to blame for.
    stalled
        .iter()
        .for_each(|stream| eprintln!("no answer: {stream}"));
    assert!(stalled.is_empty(), "{} streams stalled", stalled.len());
    assert_eq!(told.len(), 7);
    assert!(told.iter().all(|stream| stream.turns > 0));
    let console = told.iter().find(|stream| stream.name == "console");
    assert_eq!(console.unwrap().turns, noises, "lines of the console");
    assert!(last.own <= first.own + SLACK, "{first}; {last}");
    let things = |sample: Sample| (sample.threads, sample.descriptors);
    assert_eq!(things(first), things(last));
}

#[test]
fn everything_at_once_neither_differs_nor_stalls_nor_grows() {
    init::if_guest(do_everything);
    let name = test_name!(everything_at_once_neither_differs_nor_stalls_nor_grows);
    let folder = TempDir::new().unwrap();
    let noises = Arc::new(AtomicU64::new(0));
    let noise = Output::writer(Listener {
        line: Vec::new(),
        turns: Arc::clone(&noises),
    });
    let (mut seen, mut counters) = (None, None);

    let plan = |plan: &mut Plan| counters = Some(furnish(plan, &folder, noise.clone()));
    let Some(ended) = support::run(name, plan, |host| seen = Some(watch(host))) else {
        return;
    };

    assert_ends!(ended, Outcome::Shutdown);
    assert!(ended.text.contains("guest half passed"), "{}", ended.text);
    assert!(noise.finish(deadline()), "{noise:?}");
    let told: Vec<_> = ended.text.lines().filter_map(Told::of).collect();
    let frames = counters.unwrap().read();
    eprintln!("{frames:?}");
    judge(&seen.unwrap(), &told, noises.load(Ordering::SeqCst));
    assert_eq!((frames.sent_dropped, frames.received_dropped), (0, 0));
}
