//! A disk on a web server that is not a good one: what the guest reads is right all the same, or
//! there is an I/O error.

use super::*;
use crate::support::disk::{MIB, drop_caches, pattern};
use crate::support::{Plan, read_to_string, tools};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use vmm::virtio::block::{Block, HttpDisk};
use vmm::virtio::testing::http::{Act, Answer, Asked, Served, Server};

const LEN: usize = 12 * MIB;
const EIO: i32 = 5;
/// How long a read may take. Emulated hosts are slow. A server that says nothing is left after a third
/// of it.
const PATIENCE: Duration = Duration::from_secs(12);

fn add(plan: &mut Plan, server: &Server) {
    let disk = HttpDisk::options().patience(PATIENCE).open(&server.url);
    plan.config.devices.push(Block::new(disk.unwrap()).into());
}

/// The first half of an answer.
fn half(answer: &Answer) -> Vec<u8> {
    let mut bytes = answer.bytes();
    bytes.truncate(bytes.len() - answer.body.len() / 2);
    bytes
}

/// What a server does that is overloaded, and whose connections get lost: some of it fails, and all of
/// that goes better the next time.
fn unreliable(asked: &Asked, answer: Answer) -> Act {
    match asked.number {
        30 | 60 => Act::Stall(half(&answer)),
        number if number % 5 == 3 => Act::Send(Answer::status("503 Busy")),
        number if number % 7 == 4 => Act::Close(half(&answer)),
        number if number % 11 == 6 => Act::Close(Vec::new()),
        _ => Act::Send(answer),
    }
}

/// After so many requests, a liar begins anew.
const LIES: usize = 12;

/// What a server does that is not one for files of this kind: every other answer is wrong in its own
/// way.
fn lying(asked: &Asked, answer: Answer) -> Act {
    let len = answer.body.len();
    let (first, last) = asked.range().unwrap_or_default();
    Act::Send(match asked.number % LIES {
        1 => {
            let range = format!("bytes {}-{}/{len}", first + 512, last + 512);
            answer.with("Content-Range", Some(&range))
        }
        3 => answer.with("Content-Range", None),
        5 => Answer {
            body: vec![0xbd; len + 1],
            ..answer.with("Content-Length", Some(&(len + 1).to_string()))
        },
        7 => Answer {
            status: "HTTP/1.1 200 OK".into(),
            body: vec![0xbd; len],
            ..answer
        },
        9 => Answer {
            body: vec![0xbd; len / 2],
            ..answer.with("Content-Length", Some(&(len / 2).to_string()))
        },
        11 => answer.and("Content-Encoding", Some("gzip")),
        _ => answer,
    })
}

guest_test! {
    a_disk_on_a_web_server_is_right_until_the_file_changes,
    config: |plan: &mut Plan| {
        let served = Served::new(LEN);
        let server = Server::good(&served);
        add(plan, &server);
        server.behave(move |asked| {
            let mut served = served.clone();
            if CHANGED.load(Ordering::SeqCst) {
                served.etag = "\"two\"".into();
            }
            unreliable(asked, served.answer(asked))
        });
    },
    guest: || {
        assert_eq!(read_to_string("/sys/block/vda/ro").trim(), "1");
        assert_eq!(read_to_string("/sys/block/vda/size").trim(), (LEN / 512).to_string());
        let disk = File::open("/dev/vda").unwrap();
        let mut bytes = vec![0; MIB];
        for (number, expected) in Served::new(LEN).data.chunks(MIB).enumerate() {
            disk.read_exact_at(&mut bytes, (number * MIB) as u64).unwrap();
            assert!(bytes == expected, "MiB {number}");
        }
        println!("all of it");
        let mut line = String::new();
        io::stdin().read_line(&mut line).unwrap();
        drop_caches();
        // The start of the file is not among the last blocks that were read: it is asked for.
        let error = disk.read_exact_at(&mut bytes, 0).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(EIO), "{error}");
        // And the end is, but nobody gets it any more.
        let last = (LEN - bytes.len()) as u64;
        assert!(disk.read_exact_at(&mut bytes, last).is_err());
    },
    host: |host| {
        host.expect("all of it");
        CHANGED.store(true, Ordering::SeqCst);
        host.type_bytes(b"changed\n");
    },
    ends: Outcome::Shutdown,
}

/// Whether the file is another one by now. Both ends of a test are in one process.
static CHANGED: AtomicBool = AtomicBool::new(false);

/// How many files the tree has.
const FILES: usize = 24;

/// A file of the tree: its path, and what it has in it.
fn file(number: usize) -> (String, Vec<u8>) {
    let len = number * 37_123 % 700_000;
    (
        format!("tree/{}/{number}", number % 5),
        pattern(number as u64, number)[..len].to_vec(),
    )
}

/// Makes a squashfs of the tree and, if it is to be a root file system, of an init and what it needs.
fn squashfs(with_init: bool) -> Vec<u8> {
    let folder = TempDir::new().unwrap();
    let root = folder.path().join("root");
    for (path, contents) in (0..FILES).map(file) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, contents).unwrap();
    }
    if with_init {
        for name in ["dev", "proc", "sys"] {
            std::fs::create_dir(root.join(name)).unwrap();
        }
        std::fs::copy(std::env::current_exe().unwrap(), root.join("init")).unwrap();
    }
    let image = folder.path().join("image");
    // Data is not compressed, so that there is more of it to get.
    let words = ["-quiet", "-no-progress", "-comp", "lz4", "-noD", "-noF"];
    let mut make = std::process::Command::new("mksquashfs");
    let made = make.args([&root, &image]).args(words).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    std::fs::read(image).unwrap()
}

/// Reads all files of the tree. Returns how many can't be read; those that can be are right.
fn read_tree(root: &Path) -> usize {
    let unreadable = (0..FILES).filter(|number| {
        let (path, expected) = file(*number);
        match std::fs::read(root.join(&path)) {
            Ok(found) => assert!(found == expected, "{path} is wrong"),
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(EIO), "{path}: {error}");
                return true;
            }
        }
        false
    });
    unreadable.count()
}

fn live_on_the_tree() {
    let mounts = read_to_string("/proc/mounts");
    assert!(mounts.starts_with("/dev/root / squashfs ro"), "{mounts}");
    for _ in 0..2 {
        assert_eq!(read_tree(Path::new("/")), 0);
        drop_caches();
    }
}

#[test]
fn a_root_file_system_on_an_unreliable_web_server_is_right() {
    init::if_guest(live_on_the_tree);
    let name = test_name!(a_root_file_system_on_an_unreliable_web_server_is_right);
    if support::kernel(name).is_none() || tools::lacking(name, &["mksquashfs"]) {
        return;
    }
    let served = Served::file(squashfs(true));
    let server = Server::good(&served);
    let plan = |plan: &mut Plan| {
        add(plan, &server);
        server.behave(move |asked| unreliable(asked, served.answer(asked)));
        plan.initrd = false;
        plan.cmdline += " root=/dev/vda rootfstype=squashfs ro init=/init";
    };

    let ended = support::run(name, plan, |_| {}).unwrap();

    assert_ends!(ended, Outcome::Shutdown);
    println!("{} requests", server.gets());
    assert!(server.gets() > 60, "not all faults have come");
}

/// Mounts the tree, which may need some tries, and reads it. Returns how much failed.
fn mount_and_read() -> usize {
    let place = Path::new("/tree");
    std::fs::create_dir_all(place).unwrap();
    let mount = || mount("/dev/vda", place, "squashfs", MountFlags::RDONLY, None);
    let failures = (0..20).take_while(|_| mount().is_err()).count();
    assert!(failures < 20, "it can't be mounted");
    let unreadable = read_tree(place);
    unmount(place, UnmountFlags::empty()).unwrap();
    drop_caches();
    failures + unreadable
}

fn meet_a_liar() {
    let failures: usize = (0..2).map(|_| mount_and_read()).sum();
    println!("\n{failures} failures");
    assert!(failures > 0);
    let mut line = String::new();
    io::stdin().read_line(&mut line).unwrap();
    assert_eq!(mount_and_read(), 0);
}

#[test]
fn a_web_server_whose_answers_are_wrong_brings_io_errors_and_no_wrong_byte() {
    init::if_guest(meet_a_liar);
    let name = test_name!(a_web_server_whose_answers_are_wrong_brings_io_errors_and_no_wrong_byte);
    if support::kernel(name).is_none() || tools::lacking(name, &["mksquashfs"]) {
        return;
    }
    let served = Served::file(squashfs(false));
    let server = Server::good(&served);
    let honest = Arc::new(AtomicBool::new(false));
    let behaviour = Arc::clone(&honest);
    let plan = |plan: &mut Plan| {
        add(plan, &server);
        server.behave(move |asked| match behaviour.load(Ordering::SeqCst) {
            true => Act::Send(served.answer(asked)),
            false => lying(asked, served.answer(asked)),
        });
    };
    let improve = |host: &mut Host| {
        host.expect(" failures");
        assert!(server.gets() > LIES, "not all lies were told");
        honest.store(true, Ordering::SeqCst);
        host.type_bytes(b"\n");
    };

    let ended = support::run(name, plan, improve).unwrap();

    assert_ends!(ended, Outcome::Shutdown);
    let failures = ended.text.lines().find(|line| line.ends_with(" failures"));
    println!("{}, {} requests", failures.unwrap(), server.gets());
}
