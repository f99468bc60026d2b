//! `-net` and `-publish`: what users write about a network card, and the card that comes of it.
//!
//! ```text
//!   tap=tap0            bridge=br0,mac=02:00:5e:00:53:01      user,ip=10.0.2.15      none
//!   tap=tap0,queues=4   fd=3,mtu=9000
//!   tap,tap0            bridge,br0            default         (as linuxkit has it)
//! ```
//!
//! An address that nobody gives is made of names that stay the same: this host's, and that of the tap,
//! or of the first disk. So a machine finds its lease again. Machines that are alike in all of that
//! need `mac=`.

use crate::fields::{Attachment, Fields, Syntax, number};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use std::io;
use std::net::IpAddr;
use std::os::fd::{OwnedFd, RawFd};
use vmm::VirtioDevice;
use vmm::virtio::net::passt::{PasstError, Protocol, Publish};
use vmm::virtio::net::tap::TapError;
use vmm::virtio::net::{ConfigError, MAX_PAIRS, Mac, Net, NetBackend, Passt, Tap, Wire};
use vmm::virtio::transport::Rings;

/// What stands in `-net`, for messages.
const FORMS: &str = "tap=NAME, bridge=NAME, user, fd=N or none";

const SYNTAX: Syntax = Syntax {
    known: "tap, bridge, fd, ip, mac, mtu, queues, transport and ring",
    first: "user",
    aliases: &[],
};

/// Why a card can't be had.
#[derive(Debug, thiserror::Error)]
#[error("-net {text:?}")]
pub struct Error {
    text: String,
    source: Cause,
}

/// What was wrong.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    #[error(transparent)]
    Tap(#[from] TapError),
    #[error(transparent)]
    Passt(#[from] PasstError),
    #[error(transparent)]
    Card(#[from] ConfigError),
    #[error("taking descriptor {0}")]
    Fd(RawFd, #[source] io::Error),
    #[error("making a random address")]
    Random(#[source] io::Error),
}

impl Cause {
    /// What the user can do.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Cause::Tap(error) => error.hint(),
            Cause::Passt(error) => error.hint(),
            Cause::Fd(..) => Some("fd=N is for a descriptor that was open when hype was started"),
            Cause::Card(_) | Cause::Random(_) => None,
        }
    }
}

/// A card, as the command line has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Card {
    text: String,
    host: Host,
    mac: Option<Address>,
    mtu: Option<u16>,
    queues: u16,
    attachment: Attachment,
}

/// Where frames go.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    None,
    Tap(String),
    Bridge(String),
    User(Option<IpAddr>),
    Fd(RawFd),
}

/// What `mac` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Address {
    Random,
    This(Mac),
}

impl Card {
    /// Reads the value of `-net` or `-networking`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let fields = SYNTAX.parse(&from_linuxkit(text))?;
        let mut card = Card {
            text: text.to_owned(),
            host: host(&fields)?,
            mac: None,
            mtu: None,
            queues: 1,
            attachment: Attachment::default(),
        };
        for (key, value) in &fields.pairs {
            card.set(key, value)?;
        }
        card.check(&fields)?;
        Ok(card)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        if let Some(result) = self.attachment.set(key, value) {
            return result;
        }
        match key {
            // They say where frames go, and were read.
            "tap" | "bridge" | "fd" => {}
            "ip" => match &mut self.host {
                Host::User(ip) => {
                    let address = value.parse();
                    *ip = Some(address.map_err(|_| format!("ip={value}: no address"))?);
                }
                _ => return Err("ip= is for user networking".into()),
            },
            "mac" if value == "random" => self.mac = Some(Address::Random),
            "mac" => {
                let mac = value.parse::<Mac>();
                let mac = mac.map_err(|error| format!("mac={value}: {error}, or random"))?;
                self.mac = Some(Address::This(mac));
            }
            "mtu" => self.mtu = Some(number(key, value, 68, u16::MAX)?),
            "queues" => self.queues = number(key, value, 1, MAX_PAIRS as u16)?,
            _ => return Err(SYNTAX.unknown(key)),
        }
        Ok(())
    }

    /// Refuses keys that mean nothing beside each other.
    fn check(&self, fields: &Fields) -> Result<(), String> {
        match self.host {
            Host::None if !fields.pairs.is_empty() => Err("none has no keys".into()),
            Host::User(_) | Host::Fd(_) if self.queues > 1 => {
                Err("queues= is for tap= and bridge=".into())
            }
            _ => Ok(()),
        }
    }

    /// Whether ports of the host can lead to it.
    pub fn is_user(&self) -> bool {
        matches!(self.host, Host::User(_))
    }

    /// Makes the card, and what is behind it. `machine` tells this machine from others.
    pub fn open(
        &self,
        index: usize,
        machine: &str,
        publish: &[Publish],
        rings: Rings,
    ) -> Result<Option<(VirtioDevice, Mac)>, Error> {
        let made = self.build(index, machine, publish);
        let made = made.map_err(|source| Error {
            text: self.text.clone(),
            source,
        })?;
        Ok(made.map(|(net, mac)| (self.attachment.attach(net, rings), mac)))
    }

    fn build(
        &self,
        index: usize,
        machine: &str,
        publish: &[Publish],
    ) -> Result<Option<(Net, Mac)>, Cause> {
        let queues = usize::from(self.queues);
        let lanes = match &self.host {
            Host::None => return Ok(None),
            Host::Tap(name) => boxed(Tap::open_lanes(name, queues)?),
            Host::Bridge(name) => boxed(Tap::open_on_bridge(name, queues)?),
            Host::User(ip) => {
                let mut options = Passt::options();
                if let Some(ip) = ip {
                    options = options.address(*ip);
                }
                let options = publish.iter().fold(options, |all, one| all.publish(*one));
                boxed(vec![options.start()?])
            }
            Host::Fd(number) => vec![inherited(*number)?],
        };
        let mac = match self.mac {
            Some(Address::This(mac)) => mac,
            Some(Address::Random) => Mac::random().map_err(Cause::Random)?,
            None => match &self.host {
                Host::Tap(name) => Mac::of_name(&format!("{}/tap/{name}", host_name())),
                _ => Mac::of_name(&format!("{}/{machine}/{index}", host_name())),
            },
        };
        let mut net = Net::with_lanes(lanes, mac)?.name(&format!("net{index}"));
        if let Some(mtu) = self.mtu {
            net = net.mtu(mtu)?;
        }
        Ok(Some((net, mac)))
    }
}

/// Warns of addresses that two cards have: what is sent to one may arrive at the other.
pub fn warn_of_twins(macs: &[Mac]) {
    for (index, mac) in macs.iter().enumerate() {
        if macs.iter().take(index).any(|earlier| earlier == mac) {
            log::warn!("-net: {mac} is the address of more than one card");
        }
    }
}

/// Reads the value of `-publish`.
pub fn publish(text: &str) -> Result<Publish, String> {
    let rule =
        || "ports are published as HOST:GUEST, with ADDRESS: before and /udp behind if need be";
    let (ports, protocol) = match text.rsplit_once('/') {
        None => (text, Protocol::Tcp),
        Some((ports, "tcp")) => (ports, Protocol::Tcp),
        Some((ports, "udp")) => (ports, Protocol::Udp),
        Some((_, other)) => return Err(format!("{other:?} is neither tcp nor udp")),
    };
    let (rest, guest) = ports.rsplit_once(':').ok_or_else(rule)?;
    let (address, host) = match rest.rsplit_once(':') {
        None => (None, rest),
        Some((address, host)) => {
            let bare = address
                .strip_prefix('[')
                .and_then(|rest| rest.strip_suffix(']'));
            let address = bare.unwrap_or(address);
            let address = address.parse::<IpAddr>();
            (Some(address.map_err(|_| rule())?), host)
        }
    };
    let port = |text: &str| {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let port = text.parse().ok().filter(|port: &u16| digits && *port > 0);
        port.ok_or_else(|| format!("{text:?} is no port: they are 1 to 65535"))
    };
    Ok(Publish {
        address,
        host: port(host)?,
        guest: port(guest)?,
        protocol,
    })
}

/// Where frames go, of which one place is said.
fn host(fields: &Fields) -> Result<Host, String> {
    let mut hosts = Vec::new();
    match fields.first.as_deref() {
        None => {}
        Some("user") => hosts.push(Host::User(None)),
        Some("none") => hosts.push(Host::None),
        Some(other) => return Err(format!("{other:?} is not known: it is {FORMS}")),
    }
    for (key, value) in &fields.pairs {
        match key.as_str() {
            "tap" => hosts.push(Host::Tap(value.clone())),
            "bridge" => hosts.push(Host::Bridge(value.clone())),
            "fd" => {
                let number = value.parse().ok().filter(|number| *number >= 0);
                hosts.push(Host::Fd(number.ok_or_else(|| {
                    format!("fd={value}: it is the number of a descriptor")
                })?));
            }
            "user" | "none" => return Err(format!("{key} has no value")),
            _ => {}
        }
    }
    match hosts.pop() {
        Some(host) if hosts.is_empty() => Ok(host),
        Some(_) => Err(format!("one of {FORMS}, and not two of them")),
        None => Err(format!("where frames go is missing: {FORMS}")),
    }
}

/// The forms that linuxkit has, in ours.
fn from_linuxkit(text: &str) -> String {
    let (kind, rest) = text.split_once(',').unwrap_or((text, ""));
    let name = rest.split(',').next().unwrap_or_default();
    match kind {
        "default" => text.replacen("default", "user", 1),
        "tap" | "bridge" if !name.is_empty() && !name.contains('=') => text.replacen(',', "=", 1),
        _ => text.to_owned(),
    }
}

fn boxed<B: NetBackend>(lanes: Vec<B>) -> Vec<Box<dyn NetBackend>> {
    lanes.into_iter().map(|lane| Box::new(lane) as _).collect()
}

/// A descriptor that whoever started this process has left open: of a tap, or of a socket with packets
/// or a stream of frames.
fn inherited(number: RawFd) -> Result<Box<dyn NetBackend>, Cause> {
    let fd = own(number).map_err(|error| Cause::Fd(number, error))?;
    use rustix::net::SocketType;
    match rustix::net::sockopt::socket_type(&fd) {
        Ok(SocketType::STREAM) => Ok(Box::new(Passt::on(fd))),
        Ok(_) => Ok(Box::new(Wire::on(fd))),
        Err(_) => Ok(Box::new(Tap::from_fd(fd)?)),
    }
}

/// Another descriptor of what that number is here. There is no telling who owns the number itself.
fn own(number: RawFd) -> io::Result<OwnedFd> {
    let ourselves = pidfd_open(getpid(), PidfdFlags::empty())?;
    Ok(pidfd_getfd(&ourselves, number, PidfdGetfdFlags::empty())?)
}

/// What tells this host from others.
fn host_name() -> String {
    let id = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    if id.trim().is_empty() {
        return rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned();
    }
    id.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(text: &str) -> Card {
        Card::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn each_place_has_its_form() {
        let ip = "10.0.2.15".parse().unwrap();
        for (text, host) in [
            ("none", Host::None),
            ("tap=tap0", Host::Tap("tap0".into())),
            ("tap,tap0", Host::Tap("tap0".into())),
            ("tap,tap0,mtu=1400", Host::Tap("tap0".into())),
            ("bridge=br0", Host::Bridge("br0".into())),
            ("bridge,br0", Host::Bridge("br0".into())),
            ("user", Host::User(None)),
            ("default", Host::User(None)),
            ("user,ip=10.0.2.15", Host::User(Some(ip))),
            ("fd=7", Host::Fd(7)),
            ("mtu=1400,tap=t", Host::Tap("t".into())),
        ] {
            assert_eq!(card(text).host, host, "{text}");
        }
    }

    #[test]
    fn keys_are_read() {
        let card = card("tap=t,mac=02:00:5e:00:53:01,mtu=9000,queues=4,ring=split");
        let mac = Mac::new([2, 0, 0x5e, 0, 0x53, 1]);
        assert_eq!(card.mac, Some(Address::This(mac)));
        assert_eq!((card.mtu, card.queues), (Some(9000), 4));
        assert_eq!(
            super::Card::parse("user,mac=random").unwrap().mac,
            Some(Address::Random)
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_a_reason() {
        for (text, reason) in [
            ("", "it is tap=NAME"),
            ("eth0", "it is tap=NAME"),
            ("tap", "it is tap=NAME"),
            ("mac=02:00:5e:00:53:01", "where frames go is missing"),
            ("tap=a,bridge=b", "not two of them"),
            ("user,tap=a", "not two of them"),
            ("tap=a,tap=b", "tap is given twice"),
            ("user=x", "user has no value"),
            ("tap=a,colour=red", "known keys are tap"),
            ("tap=a,ip=1.2.3.4", "user networking"),
            ("user,ip=1.2.3", "no address"),
            ("user,ip=1.2.3.4/24", "no address"),
            ("user,queues=2", "queues= is for tap="),
            ("fd=3,queues=2", "queues= is for tap="),
            ("fd=", "number of a descriptor"),
            ("fd=-1", "number of a descriptor"),
            ("fd=x", "number of a descriptor"),
            ("none,mtu=1500", "none has no keys"),
            ("user,mac=", "six pairs"),
            ("user,mac=02:00", "six pairs"),
            ("user,mac=01:00:5e:00:00:01", "multicast"),
            ("user,mac=00:00:00:00:00:00", "zeroes"),
            ("user,mtu=67", "from 68 to 65535"),
            ("user,mtu=65536", "from 68 to 65535"),
            ("tap=a,queues=0", "from 1 to 16"),
            ("tap=a,queues=17", "from 1 to 16"),
            ("tap=a,ring=round", "split or packed"),
        ] {
            let error = Card::parse(text).expect_err(text);
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn ports_are_published_in_both_protocols_and_families() {
        let read = |address: Option<&str>, host, guest, protocol| Publish {
            address: address.map(|address| address.parse().unwrap()),
            host,
            guest,
            protocol,
        };
        for (text, expected) in [
            ("8080:80", read(None, 8080, 80, Protocol::Tcp)),
            ("8080:80/tcp", read(None, 8080, 80, Protocol::Tcp)),
            ("53:53/udp", read(None, 53, 53, Protocol::Udp)),
            (
                "127.0.0.1:1:65535",
                read(Some("127.0.0.1"), 1, 65535, Protocol::Tcp),
            ),
            (
                "[::1]:8080:80/udp",
                read(Some("::1"), 8080, 80, Protocol::Udp),
            ),
            ("::1:8080:80", read(Some("::1"), 8080, 80, Protocol::Tcp)),
        ] {
            assert_eq!(publish(text), Ok(expected), "{text}");
        }
        for text in [
            "",
            "80",
            ":",
            ":80",
            "80:",
            "0:80",
            "80:0",
            "65536:80",
            "80:65536",
            "-1:80",
            "+1:80",
            "80:80/sctp",
            "80:80/",
            "localhost:80:80",
            "1.2.3:80:80",
            "a:b",
        ] {
            publish(text).expect_err(text);
        }
    }

    #[test]
    fn descriptors_are_taken_for_what_they_are() {
        assert!(matches!(inherited(987_654), Err(Cause::Fd(987_654, _))));
        let (pipe, _other) = io::pipe().unwrap();
        let number = std::os::fd::AsRawFd::as_raw_fd(&pipe);
        assert!(matches!(inherited(number), Err(Cause::Tap(_))));
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(inherited(std::os::fd::AsRawFd::as_raw_fd(&one)).is_ok());
        let (one, _other) = std::os::unix::net::UnixDatagram::pair().unwrap();
        assert!(inherited(std::os::fd::AsRawFd::as_raw_fd(&one)).is_ok());
    }

    #[test]
    fn the_address_is_that_of_tap_or_machine_and_index() {
        let (one, _other) = std::os::unix::net::UnixDatagram::pair().unwrap();
        let number = std::os::fd::AsRawFd::as_raw_fd(&one);
        let mac = |index, machine| {
            let card = card(&format!("fd={number}"));
            card.build(index, machine, &[]).unwrap().unwrap().1
        };
        assert_eq!(mac(0, "disk"), mac(0, "disk"));
        assert_ne!(mac(0, "disk"), mac(1, "disk"));
        assert_ne!(mac(0, "disk"), mac(0, "other"));
    }
}
