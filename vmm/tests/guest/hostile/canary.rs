//! A disk and a card that the kernel's drivers have, and that only we use: while they work, other
//! devices do no harm to them, nor to memory that is not theirs.

use super::{CANARY, PAGE, alone};
use crate::net::{ECHO, GUEST};
use crate::support::link::Interface;
use rustix::fs::OFlags;
use std::cell::Cell;
use std::fs::File;
use std::net::UdpSocket;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::time::Duration;
use vmm::virtio::net::Mac;

/// Far more than a packet needs that is sent and comes back.
const PATIENCE: Duration = Duration::from_secs(5);

pub struct Canary {
    disk: File,
    name: &'static str,
    /// The card: another hypervisor may have none.
    card: Option<Card>,
    songs: Cell<usize>,
}

/// A card with somebody behind it who sends packets back.
struct Card {
    name: &'static str,
    socket: UdpSocket,
}

impl Card {
    fn find() -> Option<Card> {
        let address = Mac::of_name(CANARY).to_string();
        let name = ["eth0", "eth1"].into_iter().find(|name| {
            let found = std::fs::read_to_string(format!("/sys/class/net/{name}/address"));
            found.is_ok_and(|found| found.trim() == address)
        })?;
        Interface(name).set_up(true);
        Interface(name).add_address(GUEST);
        let socket = UdpSocket::bind((GUEST, 7)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.connect(ECHO).unwrap();
        Some(Card { name, socket })
    }
}

impl Canary {
    pub fn find() -> Canary {
        let name = ["vda", "vdb", "vdc"].into_iter().find(|name| {
            let serial = std::fs::read_to_string(format!("/sys/block/{name}/serial"));
            serial.is_ok_and(|serial| serial.trim() == CANARY)
        });
        let name = name.expect("a canary");
        let disk = File::options()
            .read(true)
            .write(true)
            .custom_flags(OFlags::DIRECT.bits() as i32)
            .open(format!("/dev/{name}"))
            .unwrap();
        let card = Card::find();
        assert!(card.is_some() || alone(), "a card that sings");
        Canary {
            disk,
            name,
            card,
            songs: Cell::new(0),
        }
    }

    /// What the kernel calls the disk.
    pub fn name(&self) -> &str {
        self.name
    }

    /// What the kernel calls the card.
    pub fn card(&self) -> Option<&str> {
        self.card.as_ref().map(|card| card.name)
    }

    /// Writes a page of its own for each time, and reads it; sends a packet, and gets it back.
    pub fn sing(&self) {
        let time = self.songs.get();
        self.songs.set(time + 1);
        let mut buffer = vec![0u8; 2 * PAGE];
        let aligned = buffer.as_ptr().align_offset(PAGE);
        let page = &mut buffer[aligned..aligned + PAGE];
        let place = (time % 256 * PAGE) as u64;
        page.fill(time as u8);
        self.disk.write_all_at(page, place).unwrap();
        page.fill(!(time as u8));
        self.disk.read_exact_at(page, place).unwrap();
        assert!(page.iter().all(|byte| *byte == time as u8));
        if let Some(Card { socket, .. }) = &self.card {
            let (song, mut back) = (time.to_le_bytes(), [0; 8]);
            socket.send(&song).unwrap();
            assert_eq!(socket.recv(&mut back).unwrap(), song.len());
            assert_eq!(back, song);
        }
    }
}
