//! 64 disks on each transport, alone and both at once.

use super::*;
use crate::support::disk::{disk, serials};
use rustix::fs::fdatasync;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use vmm::virtio::block::{Block, MemoryDisk};
use vmm::{Transport, VirtioDevice};

const DISKS: usize = 64;
const PAGE: usize = 4096;
/// What a disk may cost more, in user exits up to its last use: more than is measured, so that an
/// access that is made for each of the other disks is seen.
const EXITS_ON_MMIO: u64 = 120;
const EXITS_ON_PCI: u64 = 400;

/// What a disk has in it: its number, over and over.
fn contents(number: usize) -> Vec<u8> {
    format!("disk {number:03}|")
        .repeat(PAGE / 9 + 1)
        .into_bytes()[..PAGE]
        .to_vec()
}

fn serial(number: usize) -> String {
    format!("number-{number}")
}

fn disks(numbers: Range<usize>) -> impl Iterator<Item = VirtioDevice> {
    numbers.map(|number| {
        let disk = Block::new(MemoryDisk::with_contents(&contents(number)).unwrap());
        VirtioDevice::from(disk.serial(&serial(number)).unwrap())
    })
}

fn add_disks(config: &mut vmm::Config, transport: Transport, count: usize) {
    config.transport = Some(transport);
    config.devices.extend(disks(0..count));
}

/// Finds each disk once, with what is its own.
fn find_all() {
    let uptime = support::read_to_string("/proc/uptime");
    println!("\ninit after {}", uptime.split(' ').next().unwrap());
    let disks: usize = std::env::var("DISKS").unwrap().parse().unwrap();
    let serials = serials();
    assert_eq!(serials.len(), disks);
    for (serial, name) in serials {
        let number = serial.strip_prefix("number-").unwrap().parse().unwrap();
        assert!(number < disks);
        let mut bytes = vec![0; PAGE];
        disk(&name, false).read_exact_at(&mut bytes, 0).unwrap();
        assert!(bytes == contents(number), "disk {number}");
    }
}

/// Boots with so many disks; gives the user exits, and the guest's time up to its init.
fn boot(name: &str, transport: Transport, disks: usize) -> Option<(u64, f64)> {
    let plan = |plan: &mut support::Plan| {
        add_disks(&mut plan.config, transport, disks);
        plan.cmdline += &format!(" DISKS={disks}");
    };
    let ended = support::run(name, plan, |_| {})?;
    assert_ends!(ended, Outcome::Shutdown);
    assert_eq!(ended.report.unstarted().count(), 0);
    let line = ended
        .text
        .lines()
        .find_map(|line| line.strip_prefix("init after "));
    let time = line.unwrap().trim().parse().unwrap();
    Some((ended.report.total_exits().guest(), time))
}

/// Compares a machine that has one disk with one that has them all.
fn compare(name: &str, transport: Transport, budget: u64) {
    let Some((few, early)) = boot(name, transport, 1) else {
        return;
    };
    let (many, late) = boot(name, transport, DISKS).unwrap();
    let more = DISKS as u64 - 1;
    let each = (many - few) / more;
    println!(
        "{transport}: {few} exits with 1 disk, {many} with {DISKS}: {each} for each further one; \
         init after {early} s and {late} s: {:.1} ms for each",
        (late - early) * 1000.0 / more as f64
    );
    assert!(each <= budget, "{each} exits for each further disk");
}

#[test]
fn sixty_four_disks_on_mmio_are_all_found() {
    init::if_guest(find_all);
    let name = test_name!(sixty_four_disks_on_mmio_are_all_found);
    compare(name, Transport::Mmio, EXITS_ON_MMIO);
}

#[test]
fn sixty_four_disks_on_pci_are_all_found() {
    init::if_guest(find_all);
    let name = test_name!(sixty_four_disks_on_pci_are_all_found);
    compare(name, Transport::Pci, EXITS_ON_PCI);
}

/// The same, and that each can be written.
fn find_and_write_all() {
    find_all();
    for name in serials().into_values() {
        let disk = disk(&name, false);
        disk.write_all_at(&[1; PAGE], 0).unwrap();
        fdatasync(&disk).unwrap();
    }
}

guest_test! {
    sixty_four_disks_on_each_transport_at_once_are_found_and_written,
    config: |plan| {
        let on_mmio = disks(0..DISKS).map(|disk| disk.transport(Transport::Mmio));
        let on_pci = disks(DISKS..2 * DISKS).map(|disk| disk.transport(Transport::Pci));
        plan.config.devices.extend(on_mmio.chain(on_pci));
        plan.cmdline += &format!(" DISKS={}", 2 * DISKS);
    },
    guest: find_and_write_all,
    host: |_| {},
    ends: Outcome::Shutdown,
}

#[test]
fn one_disk_more_than_there_are_places_is_refused_with_the_limit() {
    for (transport, places) in [(Transport::Mmio, 256), (Transport::Pci, 248)] {
        let mut config = vmm::Config::default();
        add_disks(&mut config, transport, places + 1);

        let error = vmm::Vm::new(config).err().unwrap().to_string();

        let said = format!(
            "{} virtio devices on {transport}: there are places for {places}",
            places + 1
        );
        assert!(error.contains(&said), "{error}");
    }
}
