//! QEMU's tool for images, which tells what others make of ours; and how to live beside it.

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};
use virtio::block::qcow2::Qcow2Options;
use virtio::block::{Error, Qcow2File};

/// Opens an image whose lock is free, or soon will be: while another test of this process starts
/// a program, its child has our files too, up to the moment when it becomes that program.
pub fn open(options: &Qcow2Options, path: &Path) -> Result<Qcow2File, Error> {
    let start = Instant::now();
    loop {
        match options.open(path) {
            Err(Error::InUse { .. }) if start.elapsed() < Duration::from_secs(5) => {
                std::thread::yield_now();
            }
            result => return result,
        }
    }
}

/// Whether there is such a tool here.
pub fn have_qemu_img() -> bool {
    Command::new("qemu-img").arg("--version").output().is_ok()
}

/// Ends the test, and says so, where there is no `qemu-img`.
macro_rules! qemu_img_or_skip {
    () => {
        if !$crate::tools::have_qemu_img() {
            eprintln!("skipped: NO qemu-img HERE: {}:{}", file!(), line!());
            return;
        }
    };
}
pub(crate) use qemu_img_or_skip;

/// Runs `qemu-img`, which must succeed.
pub fn qemu_img(words: &[&str], files: &[&Path]) -> String {
    let output = run(words, files);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "qemu-img {words:?}: {said}{errors}"
    );
    said
}

/// Runs `qemu-img`, and gives its exit status.
pub fn qemu_img_status(words: &[&str], files: &[&Path]) -> Option<i32> {
    run(words, files).status.code()
}

fn run(words: &[&str], files: &[&Path]) -> Output {
    let mut command = Command::new("qemu-img");
    command.args(words).args(files).output().unwrap()
}
