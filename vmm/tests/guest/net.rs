//! A network card on a tap of the host, whose kernel is the other side: TCP both ways with large
//! segments and checksums left to do, and a tap that goes down, comes back and goes away.

use super::*;
use crate::support::link::Interface;
use crate::support::{Plan, tcp};
use rustix::thread::{CpuSet, sched_setaffinity};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use std::{io, thread};
use vmm::virtio::net::{Counters, Mac, Net, NetBackend, Tap, Wire};
use vmm::virtio::transport::Rings;
use vmm::{Transport, VirtioDevice};

const HOST: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
pub const GUEST: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);
const CARD: Interface = Interface("eth0");
/// Where [`echo`] answers.
pub const ECHO: (Ipv4Addr, u16) = (HOST, 7);
/// How much is sent each way.
const STREAM: usize = 4 << 20;

/// What passed the card, for the host half.
static COUNTERS: Mutex<Option<Arc<Counters>>> = Mutex::new(None);

/// Gives the machine a card on a tap of this name, and the host an address there.
fn card_on_tap(
    plan: &mut Plan,
    name: &'static str,
    lanes: usize,
    rings: Rings,
    transport: Transport,
) {
    let lanes = Tap::open_lanes(name, lanes).unwrap();
    let lanes = lanes
        .into_iter()
        .map(|lane| Box::new(lane) as Box<dyn NetBackend>);
    let net = Net::with_lanes(lanes.collect(), Mac::of_name(name))
        .unwrap()
        .name(name);
    *COUNTERS.lock().unwrap() = Some(net.counters());
    Interface(name).add_address(HOST);
    let device = VirtioDevice::from(net).rings(rings).transport(transport);
    plan.config.devices.push(device);
}

fn guest_talks() {
    CARD.come_up(GUEST);
    let stream = tcp::connect((HOST, 5000));
    tcp::talk(&stream, true, STREAM);
    println!("all of it, both ways");
    // And a connection from outside.
    let listener = TcpListener::bind((GUEST, 80)).unwrap();
    println!("listening");
    let (mut stream, _) = listener.accept().unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    println!("somebody says {text}");
}

fn host_talks(host: &mut Host) {
    let listener = TcpListener::bind((HOST, 5000)).unwrap();
    tcp::talk(&tcp::accept(&listener), false, STREAM);
    host.expect("all of it, both ways");
    let counters = COUNTERS.lock().unwrap().take().unwrap();
    let counts = counters.read();
    // Two streams each way: of 1448 bytes each it would be more, and the acknowledgements.
    let most = (4 * STREAM / 1448) as u64;
    assert!(counts.sent + counts.received < most, "{counts:?}");
    eprintln!("{STREAM} bytes, twice each way: {counts:?}");
    host.expect("listening");
    let mut stream = TcpStream::connect((GUEST, 80)).unwrap();
    stream.write_all(b"hello").unwrap();
    drop(stream);
    host.expect("somebody says hello");
}

macro_rules! streams {
    ($name:ident: $tap:literal, $lanes:expr, $cpus:expr, $rings:ident, $transport:ident) => {
        guest_test! {
            $name,
            config: |plan: &mut Plan| {
                plan.config.cpus = $cpus;
                card_on_tap(plan, $tap, $lanes, Rings::$rings, Transport::$transport);
            },
            guest: guest_talks,
            host: host_talks,
            ends: Outcome::Shutdown,
        }
    };
}

streams! { tcp_both_ways_packed_mmio: "hypeg0", 1, 1, Packed, Mmio }
streams! { tcp_both_ways_split_mmio: "hypeg1", 1, 1, Split, Mmio }
streams! { tcp_both_ways_packed_pci: "hypeg2", 1, 1, Packed, Pci }
streams! { tcp_both_ways_split_pci_two_pairs: "hypeg3", 2, 2, Split, Pci }

/// How much goes there and back on each connection of several.
const PART: usize = 1 << 20;

guest_test! {
    connections_of_several_vcpus_use_several_pairs,
    config: |plan: &mut Plan| {
        plan.config.cpus = 2;
        card_on_tap(plan, "hypeg5", 3, Rings::Any, Transport::Pci);
    },
    guest: || {
        CARD.come_up(GUEST);
        thread::scope(|scope| (0..2).for_each(|cpu| drop(scope.spawn(move || bounce(cpu)))));
        println!("all is back");
        // Until the host has looked.
        let mut stream = TcpStream::connect((HOST, 5000)).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    },
    host: |host| {
        let listener = TcpListener::bind((HOST, 5000)).unwrap();
        host.expect("connecting");
        for _ in 0..2 {
            let (stream, _) = listener.accept().unwrap();
            thread::spawn(move || io::copy(&mut &stream, &mut &stream));
        }
        host.expect("all is back");
        let counters = COUNTERS.lock().unwrap().take().unwrap();
        let counts: Vec<_> = counters.by_pair().collect();
        eprintln!("{PART} bytes there and back for each of two vCPUs: {counts:?}");
        // By the kernel's choice, which is that of the vCPU, each way.
        for pair in &counts[..2] {
            assert!(pair.sent > 10 && pair.received > 10, "{counts:?}");
        }
        assert_eq!(counts[2], Default::default(), "the guest has two vCPUs");
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        // Those of connections come and go.
        let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
        let names: Vec<_> = names.filter(|name| name.starts_with("hypeg5")).collect();
        assert_eq!(names.len(), 2, "a pair that is not used has no thread: {names:?}");
        drop(listener.accept().unwrap());
    },
    ends: Outcome::Shutdown,
}

/// Sends bytes from a vCPU, and has them sent back.
fn bounce(cpu: usize) {
    let mut only = CpuSet::new();
    only.set(cpu);
    sched_setaffinity(None, &only).unwrap();
    println!("connecting");
    let stream = tcp::connect((HOST, 5000));
    let (mut sent, mut received) = (vec![0; 1 << 14], vec![0; 1 << 14]);
    for at in (0..PART).step_by(sent.len()) {
        tcp::pattern(at, &mut sent);
        (&stream).write_all(&sent).unwrap();
        (&stream).read_exact(&mut received).unwrap();
        assert!(received == sent, "different bytes at {at}");
    }
}

guest_test! {
    a_tap_that_goes_down_comes_back_and_goes_away_costs_the_link_alone,
    config: |plan: &mut Plan| card_on_tap(plan, "hypeg4", 1, Rings::Any, Transport::Mmio),
    guest: || {
        CARD.come_up(GUEST);
        println!("up");
        let socket = UdpSocket::bind((GUEST, 7)).unwrap();
        let mut last = CARD.carrier();
        let mut changes = 0;
        let deadline = Instant::now() + Duration::from_secs(60);
        // Up to 2 rounds of down and up, and gone.
        while changes < 5 {
            // Errors are those of an interface without a carrier.
            let _ = socket.send_to(&[0; 1000], (HOST, 9));
            let now = CARD.carrier();
            if now != last {
                changes += 1;
                println!("carrier {}", if now == Some(true) { "back" } else { "lost" });
                last = now;
            }
            assert!(Instant::now() < deadline, "no answer: {changes} changes of the link");
            thread::sleep(Duration::from_millis(2));
        }
    },
    host: |host| {
        host.expect("up");
        let tap = Interface("hypeg4");
        for _ in 0..2 {
            tap.set_up(false);
            host.expect("carrier lost");
            tap.set_up(true);
            host.expect("carrier back");
        }
        tap.set_mtu(9000);
        tap.set_mtu(600);
        tap.delete();
        host.expect("carrier lost");
    },
    ends: Outcome::Shutdown,
}

guest_test! {
    a_program_can_be_the_other_end_of_a_wire,
    config: |plan: &mut Plan| {
        let (wire, other) = Wire::pair().unwrap();
        let net = Net::new(wire.mtu(9000), Mac::of_name("wire")).unwrap().mtu(4000).unwrap();
        plan.config.devices.push(net.into());
        let other = std::os::unix::net::UnixDatagram::from(other.into_socket());
        other.set_nonblocking(false).unwrap();
        thread::spawn(move || echo(&other));
    },
    guest: || {
        CARD.come_up(GUEST);
        assert_eq!(support::read_to_string("/sys/class/net/eth0/mtu").trim(), "4000");
        let socket = UdpSocket::bind((GUEST, 7)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let (mut sent, mut buffer) = (vec![0; 3900], vec![0; 5000]);
        for round in 0..300 {
            tcp::pattern(round, &mut sent);
            socket.send_to(&sent, (HOST, 7)).unwrap();
            let (len, from) = socket.recv_from(&mut buffer).unwrap();
            assert_eq!(from, SocketAddr::from((HOST, 7)));
            assert!(buffer[..len] == sent, "round {round}");
        }
        println!("300 packets came back");
    },
    host: |host| host.expect("300 packets came back"),
    ends: Outcome::Shutdown,
}

/// Answers ARP, and sends each UDP packet back, checksum included: it is the same both ways.
pub fn echo(wire: &std::os::unix::net::UnixDatagram) {
    let ours = [2, 0, 0, 0, 0, 0xee];
    let mut buffer = [0; 9100];
    let answer = || -> io::Result<()> {
        loop {
            let len = wire.recv(&mut buffer)?;
            if len == 0 {
                return Ok(());
            }
            let frame = &mut buffer[..len];
            match (frame.get(12..14), frame.get(23)) {
                (Some([8, 6]), _) if frame[38..42] == HOST.octets() => {
                    frame[20..22].copy_from_slice(&[0, 2]);
                    frame.copy_within(22..32, 32);
                    frame[22..28].copy_from_slice(&ours);
                    frame[28..32].copy_from_slice(&HOST.octets());
                }
                // UDP without options: addresses and ports change places.
                (Some([8, 0]), Some(17)) => {
                    let source: [u8; 4] = frame[26..30].try_into().unwrap();
                    frame.copy_within(30..34, 26);
                    frame[30..34].copy_from_slice(&source);
                }
                _ => continue,
            }
            frame.copy_within(6..12, 0);
            frame[6..12].copy_from_slice(&ours);
            wire.send(frame)?;
        }
    };
    let mut answer = answer;
    // The machine has ended, and with it the wire.
    let _ = answer();
}
