//! Interfaces, on the host and in the guest alike: up, down, addresses, gone. By route netlink, which
//! takes no tool that a guest would need to have.

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, recv, send, socket};
use std::net::Ipv4Addr;
use std::thread;
use std::time::{Duration, Instant};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
/// `NLM_F_REQUEST | NLM_F_ACK`.
const REQUEST: u16 = 1 | 4;
/// `NLM_F_CREATE | NLM_F_REPLACE`.
const CREATE: u16 = 0x400 | 0x100;
/// `NLM_F_CREATE | NLM_F_EXCL`.
const CREATE_NEW: u16 = 0x400 | 0x200;
const IFF_UP: u32 = 1;

/// An interface by its name.
pub struct Interface<'n>(pub &'n str);

impl Interface<'_> {
    /// Makes a bridge, which keeps this hardware address whoever joins it.
    pub fn make_bridge(&self, mac: [u8; 6]) {
        let mut body = vec![0; 16];
        body.extend(attribute(3, self.0.as_bytes()));
        body.extend(attribute(1, &mac));
        body.extend(attribute(18, &attribute(1, b"bridge")));
        ask(RTM_NEWLINK, CREATE_NEW, &body);
    }

    fn index(&self) -> u32 {
        let path = format!("/sys/class/net/{}/ifindex", self.0);
        super::read_to_string(&path).trim().parse().unwrap()
    }

    /// Whether frames can pass, as the guest sees it. None while the interface is not up.
    pub fn carrier(&self) -> Option<bool> {
        let path = format!("/sys/class/net/{}/carrier", self.0);
        let text = std::fs::read_to_string(path).ok()?;
        Some(text.trim() == "1")
    }

    /// Sets it up with an address, and waits until frames can pass.
    pub fn come_up(&self, address: Ipv4Addr) {
        self.set_up(true);
        self.add_address(address);
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.carrier() != Some(true) {
            assert!(Instant::now() < deadline, "the link does not come up");
            thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn set_up(&self, up: bool) {
        let flags = if up { IFF_UP } else { 0 };
        ask(RTM_NEWLINK, 0, &self.link(flags, IFF_UP, &[]));
    }

    pub fn set_mtu(&self, mtu: u32) {
        let attribute = attribute(4, &mtu.to_ne_bytes());
        ask(RTM_NEWLINK, 0, &self.link(0, 0, &attribute));
    }

    pub fn delete(&self) {
        ask(RTM_DELLINK, 0, &self.link(0, 0, &[]));
    }

    /// Adds an address in a network of 24 bits.
    pub fn add_address(&self, address: Ipv4Addr) {
        let mut body = vec![2, 24, 0, 0];
        body.extend(self.index().to_ne_bytes());
        body.extend(attribute(2, &address.octets()));
        body.extend(attribute(1, &address.octets()));
        ask(RTM_NEWADDR, CREATE, &body);
    }

    /// `struct ifinfomsg`, and attributes.
    fn link(&self, flags: u32, change: u32, attributes: &[u8]) -> Vec<u8> {
        let mut body = vec![0; 4];
        for field in [self.index(), flags, change] {
            body.extend(field.to_ne_bytes());
        }
        body.extend(attributes);
        body
    }
}

/// `struct rtattr` with a value, filled up to whole words.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let len = 4 + value.len() as u16;
    let mut bytes = [&len.to_ne_bytes(), &kind.to_ne_bytes(), value].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Makes a request and waits for its answer.
fn ask(kind: u16, flags: u16, body: &[u8]) {
    let len = 16 + body.len() as u32;
    let mut message = len.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend((REQUEST | flags).to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    let socket = socket(AddressFamily::NETLINK, SocketType::RAW, None).unwrap();
    send(&socket, &message, SendFlags::empty()).unwrap();
    let mut answer = [0; 1024];
    let (len, _) = recv(&socket, answer.as_mut_slice(), RecvFlags::empty()).unwrap();
    assert!(len >= 20, "an answer of {len} bytes");
    let error = i32::from_ne_bytes(answer[16..20].try_into().unwrap());
    assert_eq!(error, 0, "route netlink: request {kind} failed");
}
