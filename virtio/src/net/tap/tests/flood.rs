//! A host that sends as fast as it can to a driver that gives no buffers.

use super::*;
use crate::net::{Mac, Net};
use crate::testing::Driver;
use rustix::net::sockopt::set_ip_multicast_if_with_ifindex;
use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

const NAME: &str = "hypetest4";
const GROUP: (Ipv4Addr, u16) = (Ipv4Addr::new(239, 1, 1, 1), 9);
const FLOOD: Duration = Duration::from_millis(1000);
const LAST: &[u8] = b"after the flood";

/// How long the thread of this name was on a processor.
fn processor_time(name: &str) -> Duration {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let mut folders = tasks.map(|task| task.unwrap().path());
    let is_it = |comm: String| comm.trim() == name;
    let folder = folders.find(|folder| fs::read_to_string(folder.join("comm")).is_ok_and(is_it));
    let text = fs::read_to_string(folder.unwrap().join("schedstat")).unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

fn dropped() -> u64 {
    let path = format!("/sys/class/net/{NAME}/statistics/tx_dropped");
    fs::read_to_string(path).unwrap().trim().parse().unwrap()
}

#[test]
fn a_flood_without_buffers_costs_no_time_and_traffic_goes_on_after_it() {
    let Some(mut lanes) = tap(NAME, 1) else {
        return;
    };
    let index = u32::try_from(Interface::named(NAME).index().unwrap()).unwrap();
    let net = Net::new(lanes.remove(0), Mac::of_name(NAME)).unwrap();
    let net = net.name("flooded");
    let counters = net.counters();
    let mut driver = Driver::mmio(Box::new(net));
    driver.start(0);
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let group = GROUP.0;
    set_ip_multicast_if_with_ifindex(&socket, &group, &Ipv4Addr::UNSPECIFIED, index).unwrap();
    for _ in 0..16 {
        driver.send(0, &[], &[2048]);
    }
    while counters.read().received < 16 {
        socket.send_to(b"what fits", GROUP).unwrap();
    }
    (0..16).for_each(|_| drop(driver.receive(0)));

    let before = (processor_time("flooded"), Instant::now(), dropped());
    let mut sent = 0_u32;
    while before.1.elapsed() < FLOOD {
        // It fails where even the host has had enough.
        sent += u32::from(socket.send_to(b"too much", GROUP).is_ok());
    }

    let took = processor_time("flooded") - before.0;
    let lost = dropped() - before.2;
    eprintln!("{sent} packets in {FLOOD:?}, {lost} dropped, {took:?} of the card's thread");
    assert!(took < FLOOD / 50, "{took:?}");
    assert!(lost > 1000, "{lost} of {sent} dropped");
    assert_eq!(counters.read().received, 16);
    // What has waited comes first, and then what is new: the interface is not stuck.
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut payload = Vec::new();
    while payload != LAST {
        assert!(Instant::now() < deadline, "nothing new arrives");
        socket.send_to(LAST, GROUP).unwrap();
        driver.send(0, &[], &[2048]);
        // 12 bytes of its own header, and those of Ethernet, IPv4 and UDP.
        payload = driver.receive(0).1.split_off(12 + 14 + 20 + 8);
    }
}
