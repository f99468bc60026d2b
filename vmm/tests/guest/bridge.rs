//! Two machines, each a process of its own, that are joined by a bridge of the host: the guests talk to
//! the host and to each other. However a machine ends, its tap goes and the bridge is as it was.

use super::*;
use crate::support::Plan;
use crate::support::link::Interface;
use crate::support::process::Process;
use crate::support::{read_to_string, tcp};
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::thread;
use std::time::{Duration, Instant};
use vmm::virtio::net::{Mac, Net, NetBackend, Tap};

const BRIDGE: Interface = Interface("hypebr0");
const HOST: Ipv4Addr = Ipv4Addr::new(10, 98, 0, 1);
const GUESTS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 98, 0, 2), Ipv4Addr::new(10, 98, 0, 3)];
const PORT: u16 = 7;
/// Which of the two a machine, and its guest, is.
const NUMBER: &str = "NUMBER";
/// How much is sent each way, twice.
const STREAM: usize = 1 << 20;

/// The guest: talks to the host, then to the other guest. The first powers off then; the other one
/// sends to the host until it is killed.
fn guest() {
    let number: usize = std::env::var(NUMBER).unwrap().parse().unwrap();
    Interface("eth0").come_up(GUESTS[number]);
    let listener = TcpListener::bind((GUESTS[0], PORT));
    tcp::talk(&tcp::connect((HOST, PORT)), true, STREAM);
    println!("\nguest {number} has talked to the host");
    if number == 0 {
        tcp::talk(&tcp::accept(&listener.unwrap()), false, STREAM);
    } else {
        tcp::talk(&tcp::connect((GUESTS[0], PORT)), true, STREAM);
    }
    println!("\nguest {number} has talked to the other guest");
    if number == 1 {
        tcp::send(&tcp::connect((HOST, PORT)), usize::MAX);
    }
}

/// The process of one machine.
fn machine(name: &str, number: &str) {
    let plan = |plan: &mut Plan| {
        let lanes = Tap::open_on_bridge(BRIDGE.0, 1).unwrap().into_iter();
        let lanes = lanes.map(|lane| Box::new(lane) as Box<dyn NetBackend>);
        let net = Net::with_lanes(lanes.collect(), Mac::of_name(number)).unwrap();
        plan.config.devices.push(net.into());
        plan.cmdline += &format!(" {NUMBER}={number}");
        plan.echo = true;
    };
    let ended = support::run(name, plan, |_| {}).unwrap();
    assert_ends!(ended, Outcome::Shutdown);
}

/// Takes the bridge away, also when the test fails.
struct Made;

impl Made {
    fn new() -> Made {
        BRIDGE.make_bridge([2, 0, 0, 0, 0, 0xb0]);
        BRIDGE.set_up(true);
        BRIDGE.add_address(HOST);
        Made
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        BRIDGE.delete();
    }
}

/// Who is joined to the bridge.
fn members() -> BTreeSet<String> {
    names(&format!("/sys/class/net/{}/brif", BRIDGE.0))
}

fn names(folder: &str) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.collect()
}

/// What the host's network looks like.
#[derive(Debug, PartialEq, Eq)]
struct Picture {
    interfaces: BTreeSet<String>,
    members: BTreeSet<String>,
    bridge: Vec<String>,
}

impl Picture {
    fn now() -> Picture {
        let properties = [
            "address",
            "carrier",
            "flags",
            "mtu",
            "bridge/bridge_id",
            "bridge/forward_delay",
            "bridge/stp_state",
            "bridge/vlan_filtering",
        ];
        let read = |property: &str| {
            let value = read_to_string(&format!("/sys/class/net/{}/{property}", BRIDGE.0));
            format!("{property} {}", value.trim())
        };
        Picture {
            interfaces: names("/sys/class/net"),
            members: members(),
            bridge: properties.into_iter().map(read).collect(),
        }
    }
}

#[test]
fn guests_on_a_bridge_talk_and_taps_go_however_their_machines_end() {
    init::if_guest(guest);
    let name = test_name!(guests_on_a_bridge_talk_and_taps_go_however_their_machines_end);
    if let Ok(number) = std::env::var(NUMBER) {
        return machine(name, &number);
    }
    if support::kernel(name).is_none() {
        return;
    }
    let _bridge = Made::new();
    let before = Picture::now();
    let listener = TcpListener::bind((HOST, PORT)).unwrap();

    let [mut first, mut second] =
        ["0", "1"].map(|number| Process::start(name, &[(NUMBER, number.as_ref())]));
    let calls: Vec<_> = (0..2)
        .map(|_| {
            let stream = tcp::accept(&listener);
            thread::spawn(move || tcp::talk(&stream, false, STREAM))
        })
        .collect();
    calls.into_iter().for_each(|call| call.join().unwrap());
    let with_both = Picture::now();
    for (number, process) in [&mut first, &mut second].into_iter().enumerate() {
        for whom in ["the host", "the other guest"] {
            let line = format!("guest {number} has talked to {whom}");
            assert!(process.line(&line).is_some(), "{line}: it has not");
        }
    }
    assert!(first.wait().success());
    let with_one = members();
    // The other one is killed in the midst of a stream.
    let endless = tcp::accept(&listener);
    tcp::receive(&endless, STREAM);
    second.kill();

    assert_eq!(with_both.members.len(), 2, "{with_both:?}");
    assert_eq!(with_one.len(), 1, "{with_one:?}");
    assert!(with_one.is_subset(&with_both.members), "{with_one:?}");
    // The kernel is slow to tell of carriers.
    let deadline = Instant::now() + Duration::from_secs(10);
    while Picture::now() != before && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(Picture::now(), before);
}
