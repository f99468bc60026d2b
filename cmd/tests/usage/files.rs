//! Kernels and initrds that are none.

use crate::command::{FAILURE, hype, refused, shell};
use crate::guest::{Code, Kernel, skipped};
use crate::host::is_root;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;

#[test]
fn what_is_no_regular_file_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let _listener = UnixListener::bind(path("socket")).unwrap();
    mknodat(
        CWD,
        path("fifo"),
        FileType::Fifo,
        Mode::RUSR | Mode::WUSR,
        0,
    )
    .unwrap();
    symlink("nothing", path("dangling")).unwrap();
    fs::write(path("empty"), "").unwrap();
    fs::write(path("byte"), "x").unwrap();
    let long = "x".repeat(5000);
    for (file, word) in [
        ("", "No such file"),
        (&path("missing"), "No such file"),
        (&path("dangling"), "No such file"),
        (&path("byte/x"), "Not a directory"),
        (&long, "too long"),
        ("/", "directory"),
        ("/dev/zero", "device"),
        ("/dev/full", "device"),
        (&path("fifo"), "FIFO"),
        (&path("socket"), "No such device"),
        (&path("empty"), "empty"),
        (&path("byte"), "format not known"),
    ] {
        refused(
            &mut hype(["-kernel", file]),
            FAILURE,
            &["-kernel ", file, word],
        );
        if word != "format not known" {
            let kernel = Kernel::new(Code::new().power_off());
            let mut command = hype(kernel.options(&["-initrd", file]));
            refused(&mut command, FAILURE, &["-initrd ", file, word]);
        }
    }
}

#[test]
fn what_looks_like_something_else_is_called_that() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    for (bytes, word) in [
        (b"\x1f\x8b\x08\0\0\0\0\0 rest".as_slice(), "gzip"),
        (b"\x28\xb5\x2f\xfd and some more", "zstd"),
        (b"#!/bin/sh\nexec true\n", "script"),
        (b"%PDF-1.7 and so on", "PDF"),
    ] {
        let mut bytes = bytes.to_vec();
        bytes.resize(1 << 16, 0);
        fs::write(&path, bytes).unwrap();
        let mut command = hype(["-kernel", path.to_str().unwrap()]);
        refused(&mut command, FAILURE, &["format not known", word]);
    }
}

#[test]
fn what_may_not_be_read_is_refused() {
    if !is_root() {
        skipped("what_may_not_be_read", "needs root, to become nobody");
        return;
    }
    let kernel = Kernel::new(Code::new().power_off());
    let hidden = kernel.folder().join("hidden");
    fs::write(&hidden, "x").unwrap();
    fs::set_permissions(kernel.folder(), Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&hidden, Permissions::from_mode(0o000)).unwrap();
    let program = kernel.folder().join("hype");
    fs::copy(crate::command::HYPE, &program).unwrap();
    let script = "shift; exec setpriv --reuid 65534 --regid 65534 --clear-groups \"$@\"";
    let words = ["-kernel ", "hidden", "Permission denied"];

    let mut command = shell(script, [program.to_str().unwrap(), "-kernel"]);
    refused(command.arg(&hidden), FAILURE, &words);

    // The file is readable now, but not the way to it.
    let closed = kernel.folder().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::write(closed.join("hidden"), "x").unwrap();
    fs::set_permissions(&closed, Permissions::from_mode(0o600)).unwrap();
    let mut command = shell(script, [program.to_str().unwrap(), "-kernel"]);
    refused(command.arg(closed.join("hidden")), FAILURE, &words);
}
