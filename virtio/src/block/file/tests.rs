//! Files of a real file system: what may be a disk, who may share it, and what it does with the
//! bytes. Of the two file systems here, `/dev/shm` fails where a disk would.

use super::*;
use crate::block::Error;
use crate::memory::Region;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use vm_memory::{GuestAddress, GuestMemoryRegion, MemoryRegionAddress};

const MIB: u64 = 1 << 20;

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// A file of this size with a pattern in it.
fn image(folder: &TempDir, size: usize) -> PathBuf {
    let path = folder.path().join("disk.img");
    let bytes: Vec<u8> = (0..size).map(|at| (at / 512 + at * 3) as u8).collect();
    std::fs::write(&path, bytes).unwrap();
    path
}

fn open(path: &Path) -> RawFile {
    RawFile::options().open(path).unwrap()
}

fn read(disk: &RawFile, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0xee; len];
    let (first, second) = bytes.split_at_mut(len / 3);
    let slices = [VolatileSlice::from(first), VolatileSlice::from(second)];
    let count = disk.read_vectored_at(&slices, offset)?;
    bytes.truncate(count);
    Ok(bytes)
}

fn write(disk: &RawFile, offset: u64, bytes: &[u8]) -> io::Result<usize> {
    let mut bytes = bytes.to_vec();
    let third = bytes.len() / 3;
    let (first, second) = bytes.split_at_mut(third);
    disk.write_vectored_at(&[first.into(), second.into()], offset)
}

#[test]
fn what_is_written_is_in_the_file_and_the_other_way_round() {
    let folder = folder();
    let path = image(&folder, 1 << 16);
    let disk = open(&path);
    assert_eq!(write(&disk, 1024, &[7; 4096]).unwrap(), 4096);
    disk.flush().unwrap();
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(bytes[1024..1024 + 4096], [7; 4096]);
    assert_eq!(bytes.len(), 1 << 16);
    assert_eq!(read(&disk, 512, 8192).unwrap(), bytes[512..512 + 8192]);
}

#[test]
fn more_buffers_than_one_call_takes_are_left_to_the_next() {
    let folder = folder();
    let disk = open(&image(&folder, 1 << 16));
    let mut bytes = vec![0; 600 * 16];
    let slices: Vec<_> = bytes.chunks_mut(16).map(VolatileSlice::from).collect();
    assert_eq!(
        disk.read_vectored_at(&slices, 0).unwrap(),
        crate::sys::MAX_BUFFERS * 16
    );
}

#[test]
fn a_size_that_is_no_whole_sector_is_rounded_down() {
    let folder = folder();
    for (size, usable) in [
        (512, 512),
        (513, 512),
        (1023, 512),
        (1024, 1024),
        (1025, 1024),
    ] {
        let disk = open(&image(&folder, size));
        assert_eq!(disk.properties().size, usable);
    }
    for size in [0, 1, 511] {
        let path = image(&folder, size);
        let error = RawFile::options().open(&path).unwrap_err();
        assert!(matches!(error, Error::Small { .. }), "{error}");
        assert_eq!(std::fs::metadata(&path).unwrap().len(), size as u64);
    }
}

#[test]
fn what_has_no_fixed_size_is_no_disk() {
    let folder = folder();
    let socket = folder.path().join("socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    let fifo = folder.path().join("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    for (path, kind) in [
        (folder.path(), "a directory"),
        (&fifo, "a FIFO"),
        (&socket, "a socket"),
        (Path::new("/dev/null"), "a character device"),
        (Path::new("/dev/zero"), "a character device"),
        (Path::new("/dev/ptmx"), "a character device"),
    ] {
        for read_only in [false, true] {
            let options = RawFile::options().read_only(read_only).create(MIB);
            let error = options.open(path).unwrap_err();
            let said = format!("{path:?} is {kind}, neither a regular file nor a block device");
            assert_eq!(error.to_string(), said);
        }
    }
}

#[test]
fn a_missing_file_is_created_if_it_has_a_size_and_only_then() {
    let folder = folder();
    let path = folder.path().join("new.img");
    let error = RawFile::options().open(&path).unwrap_err();
    assert!(error.hint().unwrap().contains("size="), "{error}");
    let options = RawFile::options().read_only(true).create(MIB);
    assert!(
        options.open(&path).is_err(),
        "nothing is created to be read"
    );
    for size in [0, 511, 1025, u64::MAX, 1 << 63] {
        let error = RawFile::options().create(size).open(&path).unwrap_err();
        assert!(matches!(error, Error::Size { .. }), "{error}");
    }
    assert!(!path.exists());

    let disk = RawFile::options().create(64 * MIB).open(&path).unwrap();
    assert!(disk.was_created());
    let made = std::fs::metadata(&path).unwrap();
    assert_eq!((made.len(), made.blocks()), (64 * MIB, 0), "sparse");
    drop(disk);
    let disk = RawFile::options().create(MIB).open(&path).unwrap();
    assert!(!disk.was_created());
    assert_eq!(disk.properties().size, 64 * MIB, "as large as it was");
}

#[test]
fn a_file_that_cannot_be_made_whole_is_not_made() {
    let folder = folder();
    let path = folder.path().join("new.img");
    // More than any file system has.
    let size = (i64::MAX as u64) & !511;
    let error = RawFile::options().create(size).open(&path).unwrap_err();
    assert!(matches!(error, Error::Create { .. }), "{error}");
    assert!(!path.exists());
    let nowhere = folder.path().join("none/new.img");
    assert!(RawFile::options().create(MIB).open(nowhere).is_err());
}

#[test]
fn a_file_that_may_not_be_written_can_be_read_only() {
    let folder = folder();
    let path = image(&folder, 4096);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o444)).unwrap();
    if !rustix::process::geteuid().is_root() {
        let error = RawFile::options().open(&path).unwrap_err();
        assert!(error.hint().unwrap().contains("ro=on"), "{error}");
    }
    let disk = RawFile::options().read_only(true).open(&path).unwrap();
    assert!(disk.properties().read_only);
    assert_eq!(read(&disk, 0, 512).unwrap().len(), 512);
    let failed = write(&disk, 0, &[1; 512]).unwrap_err();
    assert_eq!(
        failed.raw_os_error(),
        Some(libc::EBADF),
        "opened to be read"
    );
}

#[test]
fn one_writer_or_many_readers() {
    let folder = folder();
    let path = image(&folder, 4096);
    let reader = RawFile::options().read_only(true);
    let readers = [reader.open(&path).unwrap(), reader.open(&path).unwrap()];
    let error = RawFile::options().open(&path).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("in use by another disk of this very process"),
        "{error}"
    );
    drop(readers);
    let writer = open(&path);
    assert!(matches!(reader.open(&path), Err(Error::InUse { .. })));
    assert!(matches!(
        RawFile::options().open(&path),
        Err(Error::InUse { .. })
    ));
    let same = folder.path().join("link");
    std::fs::hard_link(&path, &same).unwrap();
    assert!(matches!(reader.open(&same), Err(Error::InUse { .. })));
    drop(writer);
    open(&path);
}

#[test]
fn the_process_that_has_a_file_is_named() {
    let folder = folder();
    let path = image(&folder, 4096);
    let file = File::options().read(true).write(true).open(&path).unwrap();
    let found = file.metadata().unwrap();
    let mut child = std::process::Command::new("sleep")
        .arg("60")
        .stdin(file.try_clone().unwrap())
        .spawn()
        .unwrap();
    let identity = (found.dev(), found.ino());
    let holder = Holder::find(identity, file.as_fd());
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(holder, Holder::Process(child.id(), "sleep".to_owned()));
}

#[test]
fn a_file_cut_short_fails_reads_and_one_that_grows_stays_as_it_is() {
    let folder = folder();
    let path = image(&folder, 8192);
    let disk = open(&path);
    let file = File::options().write(true).open(&path).unwrap();
    file.set_len(4096).unwrap();
    assert_eq!(read(&disk, 4096, 512).unwrap().len(), 0, "the end");
    assert_eq!(read(&disk, 3584, 1024).unwrap().len(), 512, "up to the end");
    file.set_len(1 << 20).unwrap();
    assert_eq!(disk.properties().size, 8192);
}

#[test]
fn a_file_that_is_removed_or_renamed_goes_on() {
    let folder = folder();
    let path = image(&folder, 8192);
    let disk = open(&path);
    std::fs::rename(&path, folder.path().join("other")).unwrap();
    write(&disk, 0, &[5; 512]).unwrap();
    std::fs::remove_file(folder.path().join("other")).unwrap();
    write(&disk, 512, &[6; 512]).unwrap();
    disk.flush().unwrap();
    assert_eq!(read(&disk, 0, 1024).unwrap(), [[5; 512], [6; 512]].concat());
}

#[test]
fn an_image_of_another_format_is_bytes() {
    let folder = folder();
    let path = image(&folder, 4096);
    let qcow2 = [b"QFI\xfb".as_slice(), &[0, 0, 0, 3], &[0; 504]].concat();
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .write_all_at(&qcow2, 0)
        .unwrap();
    let disk = open(&path);
    assert_eq!(disk.properties().size, 4096);
    assert_eq!(read(&disk, 0, 512).unwrap(), qcow2);
}

#[test]
fn a_discard_punches_a_hole_of_just_that_size() {
    for folder in [folder(), tempfile::tempdir_in("/dev/shm").unwrap()] {
        let path = image(&folder, 1 << 20);
        let before = std::fs::read(&path).unwrap();
        let disk = open(&path);
        disk.discard(4096, 512 << 10).unwrap();
        let mut expected = before.clone();
        expected[4096..4096 + (512 << 10)].fill(0);
        assert!(std::fs::read(&path).unwrap() == expected);
        let blocks = std::fs::metadata(&path).unwrap().blocks();
        assert!(blocks < (1 << 20) / 512, "{blocks} blocks");
    }
}

#[test]
fn zeroes_are_zeroes_whatever_the_file_system_can_do() {
    for folder in [folder(), tempfile::tempdir_in("/dev/shm").unwrap()] {
        for (may_unmap, offset, len) in [
            (false, 512, 512),
            (true, 1024, 100 * 512),
            (false, 3 * 512, 1 << 19),
            (true, (1 << 20) - 512, 512),
        ] {
            let path = image(&folder, 1 << 20);
            let mut expected = std::fs::read(&path).unwrap();
            let disk = open(&path);
            disk.write_zeroes(offset, len, may_unmap).unwrap();
            expected[offset as usize..(offset + len) as usize].fill(0);
            assert!(
                std::fs::read(&path).unwrap() == expected,
                "{may_unmap} {offset} {len}"
            );
        }
    }
}

#[test]
fn zeroes_of_more_than_a_mebibyte_are_written_whole() {
    let folder = folder();
    let path = image(&folder, 3 << 20);
    let disk = open(&path);
    fill_with_zeroes(&disk, 512, (2 << 20) + 1536).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let end = 512 + (2 << 20) + 1536;
    assert!(bytes[512..end].iter().all(|byte| *byte == 0));
    assert_ne!(bytes[end..end + 512], [0; 512]);
    assert_ne!(bytes[..512], [0; 512]);
}

#[test]
fn a_flush_that_failed_fails_for_good() {
    let folder = folder();
    let path = image(&folder, 4096);
    let mut disk = open(&path);
    disk.flush().unwrap();
    // A socket can't be synchronized: what a disk that died would say is hard to come by.
    let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    let file = std::mem::replace(
        &mut disk.file,
        File::from(std::os::fd::OwnedFd::from(socket)),
    );
    disk.flush().expect("nothing was written");
    disk.count_change();
    assert!(disk.flush().is_err());
    disk.file = file;
    write(&disk, 0, &[1; 512]).unwrap();
    for _ in 0..3 {
        let error = disk.flush().unwrap_err();
        assert!(
            error.to_string().contains("earlier flush failed"),
            "{error}"
        );
    }
}

#[test]
fn of_many_flushes_at_the_same_time_none_takes_the_failure_of_another_for_success() {
    let folder = folder();
    let mut disk = open(&image(&folder, 4096));
    let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    disk.file = File::from(std::os::fd::OwnedFd::from(socket));
    disk.count_change();
    let results: Vec<io::Result<()>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| disk.flush())).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| thread.join().unwrap();
        threads.into_iter().map(join).collect()
    });
    assert!(results.iter().all(Result::is_err), "{results:?}");
}

#[test]
fn a_limit_on_file_sizes_is_an_error_and_no_signal() {
    // Limits are the process's, so this one is a process of its own.
    if std::env::var_os("HYPE_TEST_FSIZE").is_none() {
        let test = "block::file::tests::a_limit_on_file_sizes_is_an_error_and_no_signal";
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test])
            .env("HYPE_TEST_FSIZE", "1")
            .stdout(std::process::Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "{status}");
        return;
    }
    let folder = folder();
    let path = folder.path().join("new.img");
    let disk = RawFile::options().create(MIB).open(&path).unwrap();
    let limit = rustix::process::Rlimit {
        current: Some(4096),
        maximum: None,
    };
    rustix::process::setrlimit(rustix::process::Resource::Fsize, limit).unwrap();
    let more = RawFile::options().create(8192);
    assert!(more.open(folder.path().join("more.img")).is_err());
    sys::block_sigxfsz();
    assert_eq!(write(&disk, 0, &[1; 512]).unwrap(), 512);
    let error = write(&disk, 8192, &[1; 512]).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EFBIG));
    assert_eq!(
        write(&disk, 3584, &[1; 1024]).unwrap(),
        512,
        "up to the limit"
    );
}

/// A disk with direct I/O, where the file system of temporary files has it.
fn direct(path: &Path) -> Option<RawFile> {
    match RawFile::options().direct(true).open(path) {
        Err(Error::NoDirect { .. }) => {
            eprintln!("skipped: {path:?} is on a file system without direct I/O");
            None
        }
        result => Some(result.unwrap()),
    }
}

#[test]
fn direct_io_takes_any_request() {
    let folder = folder();
    let path = image(&folder, 1 << 20);
    let mut expected = std::fs::read(&path).unwrap();
    let Some(disk) = direct(&path) else { return };
    let memory = Region::anonymous(GuestAddress(0), 1 << 20).unwrap();
    // Offset on the disk, length, and offset in memory: aligned; by sectors; not at all; and more
    // than the buffer holds.
    for (offset, len, place) in [
        (4096, 8192, 0),
        (512, 512, 4096),
        (3584, 1024, 512),
        (4096, 4096, 17),
        (1536, 200 << 10, 100),
        ((1 << 20) - 512, 512, 3),
    ] {
        let slice = memory.get_slice(MemoryRegionAddress(place), len).unwrap();
        let mut done = 0;
        while done < len {
            let rest = [slice.offset(done).unwrap()];
            let count = disk.read_vectored_at(&rest, offset + done as u64).unwrap();
            assert_ne!(count, 0);
            done += count;
        }
        let mut bytes = vec![0; len];
        slice.copy_to(&mut bytes);
        let range = offset as usize..offset as usize + len;
        assert!(bytes == expected[range.clone()], "{offset} {len} {place}");

        let data: Vec<u8> = (0..len).map(|at| (at * 5 + place as usize) as u8).collect();
        slice.copy_from(&data);
        done = 0;
        while done < len {
            let (head, tail) = (slice.subslice(done, 1), slice.offset(done + 1));
            let rest = [head.unwrap(), tail.unwrap()];
            let count = disk.write_vectored_at(&rest, offset + done as u64).unwrap();
            assert_ne!(count, 0);
            done += count;
        }
        expected[range].copy_from_slice(&data);
        assert!(
            std::fs::read(&path).unwrap() == expected,
            "{offset} {len} {place}"
        );
    }
    disk.write_zeroes(512, 1024, false).unwrap();
    expected[512..1536].fill(0);
    assert!(std::fs::read(&path).unwrap() == expected);
}

#[test]
fn direct_io_leaves_a_tail_out_that_is_no_whole_block() {
    let folder = folder();
    let path = image(&folder, 8192 + 100);
    let Some(disk) = direct(&path) else { return };
    let size = disk.properties().size;
    assert!(size <= 8192 && size.is_multiple_of(disk.direct.as_ref().unwrap().alignment().into()));
    assert_eq!(write(&disk, size - 512, &[1; 512]).unwrap(), 512);
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 8292);
}
