//! Taps that change under traffic: another MTU, down and up again, deleted, made again.
//!
//! Each round has a card and a tap of its own, for a tap that was deleted does not come back: a new one of
//! the same name is another one. The guest sends packets all the time, which the host answers. A card
//! beside them is left alone, and its TCP streams go on in the meantime.
//!
//! `HYPE_TEST_ROUNDS` says how many rounds there are.

use super::*;
use crate::support::link::Interface;
use crate::support::{Plan, amount, deadline, read_to_string, tcp};
use std::fs;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use vmm::virtio::net::{Mac, Net, Tap};
use vmm::{Transport, VirtioDevice};

/// The card that is left alone; the others have the numbers of their rounds, from 1 on.
const ALONE: u64 = 0;
const PORT: u16 = 7;
/// What the guest sends: more than fits the smallest MTU.
const PACKET: usize = 1000;
const MTUS: [u32; 3] = [600, 9000, 1500];
/// How often, and how long apart, a worker is looked at that has nothing to do.
const LOOKS: usize = 20;
const APART: Duration = Duration::from_millis(3);

fn rounds() -> u64 {
    amount("HYPE_TEST_ROUNDS", 10)
}

fn tap(number: u64) -> String {
    format!("hypet{number}")
}

fn address(number: u64, host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 96, number.try_into().unwrap(), host)
}

fn host(number: u64) -> Ipv4Addr {
    address(number, 1)
}

fn guest(number: u64) -> Ipv4Addr {
    address(number, 2)
}

/// How the guest calls the card of this number. The order of many functions on PCI is not that of their
/// names.
fn card(number: u64) -> String {
    let mac = Mac::of_name(&tap(number)).to_string();
    let cards = fs::read_dir("/sys/class/net").unwrap();
    let mut cards = cards.map(|card| card.unwrap().file_name().into_string().unwrap());
    let is_it =
        |card: &String| read_to_string(&format!("/sys/class/net/{card}/address")).trim() == mac;
    cards.find(is_it).unwrap()
}

/// The guest: streams by one card until the host has had enough, and one round after the other by the
/// others.
fn talk_by_all_cards() {
    Interface(&card(ALONE)).come_up(guest(ALONE));
    let stream = tcp::connect((host(ALONE), PORT));
    let turn = |at| {
        let sent = tcp::send_piece(&stream, at);
        sent.and_then(|()| tcp::receive_piece(&stream, at))
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            let end = (0..).step_by(tcp::PIECE).find(|at| turn(*at).is_err());
            println!("\n{} bytes each way", end.unwrap());
        });
        (1..=rounds()).for_each(talk_until_it_is_deleted);
    });
}

/// Sends packets with what the host has said last, and tells what becomes of the link, until it is
/// lost for the second time.
fn talk_until_it_is_deleted(round: u64) {
    let name = card(round);
    let card = Interface(&name);
    card.come_up(guest(round));
    let socket = UdpSocket::bind((guest(round), PORT)).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(5)))
        .unwrap();
    let (mut packet, mut losses, mut last) = ([0; PACKET], 0, Some(true));
    let deadline = Instant::now() + tcp::PATIENCE;
    while losses < 2 {
        // Errors are those of a card without a carrier, and of time that is over.
        let _ = socket.send_to(&packet, (host(round), PORT));
        let _ = socket.recv(&mut packet);
        let now = card.carrier();
        if now != last {
            let up = now == Some(true);
            println!("\nround {round}: {}", if up { "back" } else { "lost" });
            losses += u64::from(!up);
            last = now;
        }
        assert!(Instant::now() < deadline, "no answer: {losses} losses");
    }
}

/// The host's side of a round.
struct Round {
    number: u64,
    socket: UdpSocket,
    /// What was said last.
    said: u64,
}

impl Round {
    /// Waits until something that is said now has come back. How long that took.
    fn exchange(&mut self) -> Duration {
        self.said += 1;
        let begin = Instant::now();
        let mut packet = [0; PACKET];
        loop {
            let came = self.socket.recv_from(&mut packet);
            let (len, from) =
                came.unwrap_or_else(|error| panic!("no answer: round {}: {error}", self.number));
            assert_eq!((len, from), (PACKET, (guest(self.number), PORT).into()));
            if packet[..8] == self.said.to_le_bytes() {
                return begin.elapsed();
            }
            packet[..8].copy_from_slice(&self.said.to_le_bytes());
            // While its tap goes up, the host may not know the way yet.
            let _ = self.socket.send_to(&packet, from);
        }
    }

    /// What a tap goes through while the guest sends. How long it took until packets passed again
    /// after it was down.
    fn play(number: u64, host: &mut Host) -> Duration {
        let socket = UdpSocket::bind((self::host(number), PORT)).unwrap();
        socket.set_read_timeout(Some(tcp::PATIENCE)).unwrap();
        let said = 0;
        let mut round = Round {
            number,
            socket,
            said,
        };
        let (name, lost) = (tap(number), format!("round {number}: lost"));
        let tap = Interface(&name);
        round.exchange();
        for mtu in MTUS {
            tap.set_mtu(mtu);
            round.exchange();
        }
        tap.set_up(false);
        host.expect(&lost);
        is_idle(&name);
        tap.set_up(true);
        let resumed = round.exchange();
        host.expect(&format!("round {number}: back"));
        tap.delete();
        // The same name, and yet another tap.
        let again = Tap::open(&name).unwrap();
        host.expect(&lost);
        is_idle(&name);
        drop(again);
        resumed
    }
}

/// Fails if the worker of this card spins: then it is never found asleep, however busy all others are.
fn is_idle(name: &str) {
    let threads = fs::read_dir("/proc/self/task").unwrap();
    let mut threads = threads.map(|thread| thread.unwrap().path().display().to_string());
    let thread = threads.find(|thread| read_to_string(&format!("{thread}/comm")).trim() == name);
    let stat = format!("{}/stat", thread.unwrap());
    let looks = (0..LOOKS).filter(|_| {
        thread::sleep(APART);
        // `TID (NAME) STATE ...`
        let text = read_to_string(&stat);
        text.rsplit_once(") ").unwrap().1.starts_with('S')
    });
    let asleep = looks.count();
    assert!(
        asleep > LOOKS / 2,
        "{name} sleeps {asleep} of {LOOKS} times"
    );
}

fn furnish(plan: &mut Plan) {
    let cards = (ALONE..=rounds()).map(|number| {
        let name = tap(number);
        let net = Net::new(Tap::open(&name).unwrap(), Mac::of_name(&name)).unwrap();
        Interface(&name).add_address(host(number));
        VirtioDevice::from(net.name(&name)).transport(Transport::Pci)
    });
    plan.config.devices.extend(cards);
    // Linux has some 200 interrupt vectors a processor, of which each card takes three.
    plan.config.cpus = 2;
    plan.deadline = deadline() + Duration::from_secs(3 * rounds());
}

guest_test! {
    taps_that_change_under_traffic_cost_their_own_links_alone,
    config: furnish,
    guest: talk_by_all_cards,
    host: |host| {
        let listener = TcpListener::bind((self::host(ALONE), PORT)).unwrap();
        let stream = tcp::accept(&listener);
        let over = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&over);
        let echo = thread::spawn(move || {
            let mut at = 0;
            while !is_over.load(Ordering::SeqCst) {
                tcp::receive_piece(&stream, at).unwrap();
                tcp::send_piece(&stream, at).unwrap();
                at += tcp::PIECE;
            }
            at
        });
        let resumed = (1..=rounds()).map(|number| Round::play(number, host)).max().unwrap();
        over.store(true, Ordering::SeqCst);
        let bytes = echo.join().unwrap();
        host.expect("bytes each way");
        eprintln!("{} rounds, packets passed again after {resumed:?} at most", rounds());
        eprintln!("{bytes} bytes each way by the card that was left alone");
    },
    ends: Outcome::Shutdown,
}
