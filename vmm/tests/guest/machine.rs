//! What the guest finds: processors, memory, devices with and without ACPI; and how quietly.

use super::*;
use crate::support::disk::disk;
use crate::support::{Plan, Port, read_to_string};
use rustix::thread::{CpuSet, sched_setaffinity};
use std::collections::HashSet;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::thread;
use vmm::virtio::block::{Block, MemoryDisk};
use vmm::virtio::rng::Rng;
use vmm::{Exits, Transport, VirtioDevice};

/// Stays on one processor until the kernel has counted a tenth of a second of work there.
fn keep_busy(cpu: usize) {
    let mut only = CpuSet::new();
    only.set(cpu);
    sched_setaffinity(None, &only).unwrap();
    let begin = user_ticks(cpu);
    while user_ticks(cpu) < begin + 10 {
        std::hint::black_box((0..100_000u64).fold(0, |sum, number| sum ^ number));
    }
}

/// What /proc/stat counts of user time on a processor, in hundredths of a second.
fn user_ticks(cpu: usize) -> u64 {
    let name = format!("cpu{cpu}");
    let stat = read_to_string("/proc/stat");
    let mut words = stat
        .lines()
        .map(str::split_whitespace)
        .find_map(|mut words| (words.next() == Some(&name)).then_some(words))
        .unwrap();
    words.next().unwrap().parse().unwrap()
}

guest_test! {
    four_cpus_are_brought_up_and_kept_busy,
    config: |plan| plan.config.cpus = 4,
    guest: || {
        assert_eq!(thread::available_parallelism().unwrap().get(), 4);
        assert_eq!(read_to_string("/sys/devices/system/cpu/online").trim(), "0-3");
        let packages = read_to_string("/sys/devices/system/cpu/cpu3/topology/package_cpus_list");
        assert_eq!(packages.trim(), "0-3", "the four are one package");
        let siblings = read_to_string("/sys/devices/system/cpu/cpu3/topology/thread_siblings_list");
        assert_eq!(siblings.trim(), "3", "each is a core of its own");
        let workers: Vec<_> = (0..4).map(|cpu| thread::spawn(move || keep_busy(cpu))).collect();
        workers.into_iter().for_each(|worker| worker.join().unwrap());
    },
    host: |_| {},
    ends: Outcome::Shutdown,
}

guest_test! {
    memory_across_the_hole_is_all_there,
    config: |plan| plan.config.memory = 5 << 30,
    guest: || {
        let total: u64 = read_to_string("/proc/iomem")
            .lines()
            .filter(|line| !line.starts_with(' ') && line.ends_with("System RAM"))
            .map(|line| {
                let (range, _) = line.split_once(" : ").unwrap();
                let (start, end) = range.split_once('-').unwrap();
                u64::from_str_radix(end, 16).unwrap() - u64::from_str_radix(start, 16).unwrap() + 1
            })
            .sum();
        let missing = (5u64 << 30) - total;
        assert!(missing < 2 << 20, "{missing} bytes of the memory are not RAM");
    },
    host: |_| {},
    ends: Outcome::Shutdown,
}

guest_test! {
    without_acpi_devices_are_found_by_the_command_line,
    config: |plan| {
        plan.config.acpi = false;
    },
    // No ACPI, no power-off: the end is a reset.
    guest: || {
        assert!(!std::path::Path::new("/sys/firmware/acpi/tables").exists());
        init::end(rustix::system::RebootCommand::Restart)
    },
    host: |_| {},
    ends: Outcome::Reboot,
}

guest_test! {
    the_entropy_device_gives_bytes_that_differ,
    config: |plan| plan.config.devices.push(Rng::new().into()),
    guest: || {
        let current = read_to_string("/sys/class/misc/hw_random/rng_current");
        assert!(current.starts_with("virtio_rng"), "{current:?}");
        let mut device = std::fs::File::open("/dev/hwrng").unwrap();
        let mut block = || {
            let mut bytes = [0; 512];
            std::io::Read::read_exact(&mut device, &mut bytes).unwrap();
            bytes
        };
        let mut seen: HashSet<[u8; 16]> = HashSet::new();
        for bytes in [block(), block(), block(), block()] {
            seen.extend(bytes.chunks_exact(16).map(|chunk| <[u8; 16]>::try_from(chunk).unwrap()));
        }
        assert_eq!(seen.len(), 4 * 512 / 16, "no 16 bytes come twice");
    },
    host: |_| {},
    ends: Outcome::Shutdown,
}

guest_test! {
    the_clock_is_the_hosts,
    config: |_| {},
    guest: || {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        println!("clock {}", now.as_secs());
    },
    host: |host| host.expect("clock "),
    ends: Outcome::Shutdown,
}

guest_test! {
    the_serial_port_is_found_with_acpi,
    config: |plan| plan.port = Port::TtyS0,
    guest: || assert!(std::path::Path::new("/sys/bus/acpi/devices/PNP0501:00").exists()),
    host: |_| {},
    ends: Outcome::Shutdown,
}

/// The exits of a guest that prints one line.
fn exits_of_a_quiet_boot(test: &str, plan: impl FnOnce(&mut Plan)) -> Option<Exits> {
    if init::is_guest() {
        init::run(|| println!("here"));
    }
    let test = format!("{}::{test}", module_path!());
    let ended: Ended = crate::support::run(&test, plan, |_| {})?;
    let exits = ended.report.total_exits();
    eprintln!("{test}: {exits}");
    Some(exits)
}

#[test]
fn a_quiet_boot_makes_few_user_exits_and_none_for_a_notify() {
    let test = "a_quiet_boot_makes_few_user_exits_and_none_for_a_notify";
    if let Some(exits) = exits_of_a_quiet_boot(test, |_| {}) {
        assert!(exits.guest() <= 200, "{exits}");
    }
}

#[test]
fn a_quiet_boot_with_pci_makes_hardly_more_user_exits() {
    let test = "a_quiet_boot_with_pci_makes_hardly_more_user_exits";
    let all_on_pci = |plan: &mut Plan| plan.config.transport = Some(Transport::Pci);
    if let Some(exits) = exits_of_a_quiet_boot(test, all_on_pci) {
        assert!(exits.guest() <= 250, "{exits}");
    }
}

fn add_a_disk(plan: &mut Plan) {
    let disk = Block::new(MemoryDisk::new(1 << 20).unwrap());
    plan.config.devices.push(disk.into());
}

#[test]
fn a_quiet_boot_with_two_disks_makes_hardly_more_user_exits() {
    let test = "a_quiet_boot_with_two_disks_makes_hardly_more_user_exits";
    let two_disks = |plan: &mut Plan| (0..2).for_each(|_| add_a_disk(plan));
    if let Some(exits) = exits_of_a_quiet_boot(test, two_disks) {
        assert!(exits.guest() <= 250, "{exits}");
    }
}

/// Prints a line for each that is typed.
fn answer() {
    println!("ready");
    for _ in 0..ANSWERS {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).unwrap();
        println!("answer {line}");
    }
}

const ANSWERS: u64 = 100;

/// Reads and writes of registers while the guest answers: each answer is several buffers in both
/// queues, with interrupts and notifies.
fn exits_of_answers(host: &mut Host) -> (u64, u64) {
    host.expect("ready");
    let before = host.handle.report().total_exits();
    for _ in 0..ANSWERS {
        host.type_bytes(b"question\n");
        host.expect("answer question");
    }
    let after = host.handle.report().total_exits();
    let exits = (
        after.mmio_read - before.mmio_read,
        after.mmio_write - before.mmio_write,
    );
    eprintln!("{ANSWERS} answers: {exits:?}");
    exits
}

guest_test! {
    a_console_at_work_makes_user_exits_for_interrupts_but_none_for_a_notify,
    config: |_| {},
    guest: answer,
    // An interrupt is a read of its cause; the write that acknowledges it is gathered.
    host: |host| {
        let (_, writes) = exits_of_answers(host);
        assert!(writes < ANSWERS / 2, "{writes} writes");
    },
    ends: Outcome::Shutdown,
}

guest_test! {
    a_console_at_work_on_pci_makes_no_user_exits,
    config: |plan| plan.config.transport = Some(Transport::Pci),
    guest: answer,
    host: |host| {
        let (reads, writes) = exits_of_answers(host);
        assert!(reads + writes < ANSWERS / 2, "{reads} reads, {writes} writes");
    },
    ends: Outcome::Shutdown,
}

/// How many virtio devices the guest has found, and how many of them on PCI.
fn virtio_devices() -> (usize, usize) {
    let bus = std::fs::read_dir("/sys/bus/virtio/devices").unwrap();
    let devices: Vec<_> = bus
        .map(|entry| std::fs::canonicalize(entry.unwrap().path()).unwrap())
        .collect();
    let on_pci = |path: &&PathBuf| path.starts_with("/sys/devices/pci0000:00");
    (devices.len(), devices.iter().filter(on_pci).count())
}

guest_test! {
    devices_on_both_transports_are_all_found,
    config: |plan| {
        let on_pci = || VirtioDevice::from(Rng::new()).transport(Transport::Pci);
        plan.config.devices.extend((0..33).map(|_| on_pci()));
    },
    guest: || {
        assert_eq!(virtio_devices(), (34, 33));
        assert!(std::path::Path::new("/sys/bus/pci/devices/0000:00:02.1").exists());
        // BARs are where the machine has placed them, one behind the other.
        let resources = read_to_string("/sys/bus/pci/devices/0000:00:02.1/resource");
        assert!(resources.starts_with("0x00000000c0200000 0x00000000c020ffff"), "{resources}");
    },
    host: |_| {},
    ends: Outcome::Shutdown,
}

guest_test! {
    without_acpi_devices_on_pci_are_found_by_the_ports,
    config: |plan| {
        plan.config.acpi = false;
        plan.config.transport = Some(Transport::Pci);
    },
    guest: || init::end(rustix::system::RebootCommand::Restart),
    host: |_| {},
    ends: Outcome::Reboot,
}

guest_test! {
    without_acpi_a_disk_is_found_on_pci_and_a_console_on_mmio,
    config: |plan| {
        plan.config.acpi = false;
        add_a_disk(plan);
    },
    guest: || {
        assert_eq!(virtio_devices(), (2, 1));
        let mut bytes = vec![1; 4096];
        disk("vda", true).read_exact_at(&mut bytes, 4096).unwrap();
        assert_eq!(bytes, [0; 4096]);
        init::end(rustix::system::RebootCommand::Restart)
    },
    host: |_| {},
    ends: Outcome::Reboot,
}
