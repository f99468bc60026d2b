//! Files that are not what a kernel or an initrd should be: none of them blocks, panics or is half-loaded.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{CWD, FileType, Mode};

use crate::testing::images::bzimage;
use crate::testing::{MIB, bytes, chain, file, load, ram, skipped};
use crate::{Payload, Source, check};

/// What `check` and `load` say about a kernel and about an initrd at this path: they agree.
fn refusal(path: &Path) -> String {
    let as_kernel = Payload::linux(path);
    let as_initrd = Payload::linux(file(&bzimage())).initrd(path);
    let says = |payload: &Payload| {
        let loaded = chain(&load(payload, &ram(&[0..64 * MIB])).unwrap_err());
        let checked: Vec<String> = check(payload).iter().map(chain).collect();
        assert_eq!(checked, std::slice::from_ref(&loaded));
        loaded
    };
    let (kernel, initrd) = (says(&as_kernel), says(&as_initrd));
    assert_eq!(kernel.replace("the kernel", "the initrd"), initrd);
    assert!(
        kernel.contains(&format!("{:?}", path.display().to_string())),
        "{kernel}"
    );
    kernel
}

#[test]
fn missing_files_and_bad_paths_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let dangling = directory.path().join("dangling");
    std::os::unix::fs::symlink("nowhere", &dangling).unwrap();

    assert!(refusal(&directory.path().join("missing")).contains("No such file"));
    assert!(refusal(&dangling).contains("No such file"));
    assert!(refusal(Path::new("")).contains("No such file"));
    // The C libraries word it differently: "File name", "Filename".
    assert!(refusal(Path::new(&"x".repeat(5000))).contains("name too long"));
    assert!(refusal(Path::new("/dev/null/x")).contains("Not a directory"));
    assert!(refusal(Path::new("a\0b")).contains("Invalid argument"));
}

#[test]
fn directories_fifos_sockets_and_devices_are_refused_without_waiting() {
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("fifo");
    rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let socket = directory.path().join("socket");
    let _listener = UnixListener::bind(&socket).unwrap();

    assert!(refusal(directory.path()).ends_with("is a directory, not a regular file"));
    assert!(refusal(&fifo).ends_with("is a FIFO, not a regular file"));
    assert!(refusal(&socket).contains("cannot open"));
    assert!(refusal(Path::new("/dev/zero")).ends_with("is a device, not a regular file"));
    assert!(refusal(Path::new("/dev/full")).ends_with("is a device, not a regular file"));
}

#[test]
fn unreadable_files_are_refused() {
    let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    if rustix::process::geteuid().is_root() {
        skipped("a file without permissions: root may read everything");
        return;
    }

    assert!(refusal(&path).contains("Permission denied"));
}

#[test]
fn empty_files_are_refused() {
    let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();

    assert!(refusal(&path).ends_with("the file is empty"));
}

#[test]
fn a_kernel_of_one_byte_is_refused() {
    let errors = check(&Payload::linux(file(b"M")));

    assert!(chain(&errors[0]).ends_with("first bytes 4d: too short for a kernel"));
}

#[test]
fn open_files_that_are_not_regular_are_refused() {
    let errors = check(&Payload::linux(File::open("/dev/zero").unwrap()));

    assert!(chain(&errors[0]).ends_with("is a device, not a regular file"));
}

#[test]
fn a_path_and_an_open_file_give_the_same_boot() {
    let named = tempfile::NamedTempFile::new().unwrap();
    fs::write(named.path(), bzimage()).unwrap();
    let (one, other) = (ram(&[0..64 * MIB]), ram(&[0..64 * MIB]));

    let by_path = load(&Payload::linux(named.path()), &one).unwrap();
    let by_file = load(&Payload::linux(File::open(named.path()).unwrap()), &other).unwrap();

    assert_eq!(by_path, by_file);
    assert_eq!(
        bytes(&one, 16 * MIB, 0x4000),
        bytes(&other, 16 * MIB, 0x4000)
    );
}

#[test]
fn content_larger_than_the_buffer_is_whole_either_way() {
    let content: Vec<u8> = (0..0x9_0001u32).map(|i| (i % 251) as u8).collect();
    let named = tempfile::NamedTempFile::new().unwrap();
    fs::write(named.path(), &content).unwrap();
    let sources: [Source; 2] = [
        named.path().into(),
        File::open(named.path()).unwrap().into(),
    ];

    for source in sources {
        // Two regions that touch: the content lies across the border.
        let memory = ram(&[0..0x3f8_0000, 0x3f8_0000..64 * MIB]);
        let boot = load(&Payload::linux(file(&bzimage())).initrd(source), &memory).unwrap();
        let range = boot.initrd.unwrap();
        assert!(range.contains(&0x3f8_0000));
        assert_eq!(bytes(&memory, range.start, content.len()), content);
    }
}

#[test]
fn the_offset_of_an_open_file_is_neither_used_nor_moved() {
    use std::io::{Seek, SeekFrom};
    let Source::File(kernel) = file(&bzimage()) else {
        unreachable!()
    };
    (&*kernel).seek(SeekFrom::Start(123)).unwrap();

    load(&Payload::linux(Arc::clone(&kernel)), &ram(&[0..64 * MIB])).unwrap();

    assert_eq!((&*kernel).stream_position().unwrap(), 123);
}

#[test]
fn a_file_that_shrinks_after_it_was_measured_is_an_error() {
    use crate::error::Role;
    use crate::file::ImageFile;
    let named = tempfile::NamedTempFile::new().unwrap();
    fs::write(named.path(), [1; 0x4000]).unwrap();
    let shared = File::open(named.path()).unwrap().into();
    let own = ImageFile::open(Role::Initrd, &named.path().into()).unwrap();
    let shared = ImageFile::open(Role::Initrd, &shared).unwrap();
    named.as_file().set_len(0x1000).unwrap();
    let memory = ram(&[0..2 * MIB]);

    for file in [own, shared] {
        let error = file.read_into(0, file.len, &memory, MIB).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("cannot read 16384 bytes at offset 0 into")
        );
        assert!(file.read("the end", 0x3000, 0x1000).is_err());
    }
}

#[test]
fn check_reports_all_problems_at_once() {
    let payload = Payload::linux(file(b"#!/bin/sh"))
        .initrd("/nowhere")
        .cmdline("a\nb");

    let problems: Vec<String> = check(&payload).iter().map(chain).collect();

    assert_eq!(problems.len(), 3, "{problems:?}");
    assert!(problems[0].contains("looks like a script"));
    assert!(problems[1].contains("byte 0x0a at offset 1"));
    assert!(problems[2].contains("/nowhere"));
}

#[test]
fn check_finds_nothing_wrong_with_a_good_payload() {
    let payload = Payload::linux(file(&bzimage()))
        .initrd(file(&[1]))
        .cmdline("quiet");

    assert!(check(&payload).is_empty());
}

#[test]
fn check_knows_the_kernels_limit() {
    let payload = Payload::linux(file(&bzimage())).cmdline("x".repeat(2048));

    assert!(chain(&check(&payload)[0]).contains("limit of this kernel: 2047"));
}
