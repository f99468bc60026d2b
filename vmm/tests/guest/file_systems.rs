//! A file system that the guest makes, fills, checks and finds again after a reboot, on each ring
//! and transport; and what the host's own tools make of it.

use super::*;
use crate::support::disk::{MIB, WAYS, Way, called, pattern};
use crate::support::tools;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::system::RebootCommand;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;
use vmm::virtio::block::Block;

const IMAGE: usize = 24 * MIB;
/// The large file of the guest's, and that of the host's; in MiB.
const LARGE: usize = 3;
const SEED_OF_GUEST: u64 = 1;
const SEED_OF_HOST: u64 = 2;
/// How many small files there are.
const SMALL: usize = 90;

/// What a small file has in it: less than a block, and up to some of them.
fn small(number: usize) -> Vec<u8> {
    format!("file {number}\n")
        .repeat(1 + number * 7)
        .into_bytes()
}

fn large(seed: u64) -> Vec<u8> {
    (0..LARGE)
        .flat_map(|mebibyte| pattern(seed, mebibyte))
        .collect()
}

/// Runs a program in the guest.
fn guest_runs(program: &str, words: &[&str]) {
    let status = Command::new(program).args(words).status().unwrap();
    assert!(status.success(), "{program} {words:?}: {status}");
}

fn with_mounted(disk: &str, act: impl FnOnce(&Path)) {
    let place = Path::new("/mnt").join(disk);
    std::fs::create_dir_all(&place).unwrap();
    let device = Path::new("/dev").join(disk);
    mount(&device, &place, "ext4", MountFlags::empty(), None).unwrap();
    act(&place);
    unmount(&place, UnmountFlags::empty()).unwrap();
}

fn make_and_fill(disk: &str) {
    guest_runs(
        "/bin/mke2fs",
        &["-q", "-F", "-t", "ext4", &format!("/dev/{disk}")],
    );
    with_mounted(disk, |place| {
        std::fs::write(place.join("guest"), large(SEED_OF_GUEST)).unwrap();
        std::fs::create_dir(place.join("small")).unwrap();
        let path = |number: usize| place.join(format!("small/{number}"));
        // Each third is removed again, so that there are holes to be told apart from files.
        (0..SMALL).for_each(|number| std::fs::write(path(number), small(number)).unwrap());
        rustix::fs::sync();
        (0..SMALL)
            .step_by(3)
            .for_each(|number| std::fs::remove_file(path(number)).unwrap());
    });
}

fn check_and_find(disk: &str) {
    guest_runs("/bin/e2fsck", &["-f", "-n", &format!("/dev/{disk}")]);
    with_mounted(disk, |place| {
        assert!(std::fs::read(place.join("guest")).unwrap() == large(SEED_OF_GUEST));
        assert!(std::fs::read(place.join("host")).unwrap() == large(SEED_OF_HOST));
        for number in 0..SMALL {
            let found = std::fs::read(place.join(format!("small/{number}"))).ok();
            let expected = (number % 3 != 0).then(|| small(number));
            assert!(found == expected, "small/{number}");
        }
    });
}

/// The guest's two lives.
fn guest() {
    let again = std::env::var_os("AGAIN").is_some();
    for way in WAYS {
        let disk = called(way.name);
        if again {
            check_and_find(&disk);
        } else {
            make_and_fill(&disk);
        }
    }
    if !again {
        println!("guest half passed");
        init::end(RebootCommand::Restart);
    }
}

#[test]
fn a_file_system_of_the_guests_is_sound_and_the_hosts_finds_its_files() {
    init::if_guest(guest);
    let name = test_name!(a_file_system_of_the_guests_is_sound_and_the_hosts_finds_its_files);
    if tools::lacking(name, &["mke2fs", "e2fsck", "debugfs"]) {
        return;
    }
    let folder = TempDir::new().unwrap();
    let image = |way: Way| folder.path().join(way.name);
    for way in WAYS {
        let file = std::fs::File::create_new(image(way)).unwrap();
        file.set_len(IMAGE as u64).unwrap();
    }
    let boot = |words: &str| {
        let plan = |plan: &mut support::Plan| {
            plan.cmdline.push_str(words);
            plan.files = tools::with_libraries(&["mke2fs", "e2fsck"]);
            let disks = WAYS.map(|way| way.disk(Block::open(image(way)).unwrap()));
            plan.config.devices.extend(disks);
        };
        support::run(name, plan, |_| {})
    };

    let Some(first) = boot("") else { return };
    assert_ends!(first, Outcome::Reboot);
    assert!(first.text.contains("guest half passed"), "{}", first.text);
    let from_host = folder.path().join("from-host");
    std::fs::write(&from_host, large(SEED_OF_HOST)).unwrap();
    for way in WAYS {
        is_sound(&image(way));
        assert!(
            dump(&folder, &image(way)) == large(SEED_OF_GUEST),
            "{}",
            way.name
        );
        let order = format!("write {} host", from_host.display());
        tools::expect("debugfs", &["-w", "-R", &order], &[&image(way)]);
    }

    let second = boot(" AGAIN=1").unwrap();
    assert_ends!(second, Outcome::Shutdown);
    WAYS.iter().for_each(|way| is_sound(&image(*way)));
}

/// Has the host check a file system.
fn is_sound(image: &Path) {
    tools::expect("e2fsck", &["-f", "-n"], &[image]);
}

/// The guest's large file, as the host finds it.
fn dump(folder: &TempDir, image: &Path) -> Vec<u8> {
    let copy: PathBuf = folder.path().join("from-guest");
    let order = format!("dump guest {}", copy.display());
    tools::expect("debugfs", &["-R", &order], &[image]);
    std::fs::read(copy).unwrap()
}
