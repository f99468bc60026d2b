//! A disk that the kernel's driver has, and that only we use: while it works, other devices do no
//! harm to it, nor to memory that is not theirs.

use super::{CANARY, PAGE};
use rustix::fs::OFlags;
use std::cell::Cell;
use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

pub struct Canary {
    disk: File,
    name: &'static str,
    songs: Cell<usize>,
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
        Canary {
            disk,
            name,
            songs: Cell::new(0),
        }
    }

    /// What the kernel calls the disk.
    pub fn name(&self) -> &str {
        self.name
    }

    /// Writes a page of its own for each time, and reads it.
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
    }
}
