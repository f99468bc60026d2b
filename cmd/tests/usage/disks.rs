//! Disks that can't be had, and what is left of them.

use crate::command::{FAILURE, POWER_OFF, USAGE, finish, hype, refused};
use crate::guest::{Code, Kernel, kvm};
use crate::host::is_root;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;

fn kernel() -> Kernel {
    Kernel::new(Code::new().power_off())
}

#[test]
fn what_makes_no_sense_is_bad_usage_with_the_keys_that_are_known() {
    for (disk, word) in [
        ("", "path is missing"),
        ("d,cache=none", "known keys are path"),
        ("d,format=vmdk", "raw or qcow2"),
        ("d,ro=1", "on or off"),
        ("mem:much", "a size is"),
        ("mem:1M,queues=17", "1 to 16"),
        ("mem:1M,ring=round", "split or packed"),
        ("https://example.org/d,size=1G", "web server"),
        ("http://example.org/d,ro=off", "can't be written"),
        ("http://example.org/d,ca=ca.pem", "https://"),
        ("d,ca=ca.pem", "https://"),
    ] {
        refused(&mut hype(["-block", disk]), USAGE, &["-block", word]);
        refused(&mut hype(["-disk", disk]), USAGE, &["-block", word]);
    }
}

#[test]
fn what_is_no_disk_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("small"), [1; 511]).unwrap();
    let kernel = kernel();
    for (disk, word) in [
        (path("missing"), "No such file"),
        (path("missing:ro"), "No such file"),
        (path("missing,ro=on,size=1M"), "No such file"),
        (path("no/where,size=1M"), "No such file"),
        ("/".to_owned(), "a directory"),
        ("/dev/null:ro".to_owned(), "a character device"),
        (path("small"), "less than a block"),
        (path("small,size=1M"), "less than a block"),
        (path("new,size=1M,serial=a b"), "20 printable"),
        // Nobody listens there.
        ("http://127.0.0.1:1/d".to_owned(), "refused"),
        ("https://127.0.0.1:1/d,ca=/missing".to_owned(), "/missing"),
        (
            format!("https://127.0.0.1:1/d,ca={}", path("small")),
            "no certificate",
        ),
    ] {
        let options = kernel.options(&["-block", &disk]);
        let ended = finish(&mut hype(options));
        assert_eq!(ended.code(), Some(FAILURE), "{disk}: {ended:?}");
        let said = ended.stderr.lines().next().unwrap_or_default();
        assert!(
            said.contains("-block ") && said.contains(word),
            "{disk}: {said}"
        );
    }
    assert_eq!(fs::read(path("small")).unwrap(), [1; 511]);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_disk_that_may_not_be_written_is_refused_with_a_hint() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    fs::write(&path, [1; 4096]).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o444)).unwrap();
    if is_root() {
        return crate::guest::skipped(
            "a_disk_that_may_not_be_written",
            "root may write to all files",
        );
    }
    let kernel = kernel();
    let options = kernel.options(&["-block", path.to_str().unwrap()]);
    let ended = finish(&mut hype(options));
    assert_eq!(ended.code(), Some(FAILURE));
    assert!(
        ended.stderr.contains("hint: ") && ended.stderr.contains("ro=on"),
        "{ended:?}"
    );
}

#[test]
fn a_file_is_not_two_disks_unless_both_are_read_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    File::create(&path).unwrap().set_len(4096).unwrap();
    let (path, read_only) = (path.to_str().unwrap(), format!("{}:ro", path.display()));
    let kernel = kernel();
    for second in [path, &read_only] {
        let options = kernel.options(&["-block", path, "-disk", second]);
        let ended = finish(&mut hype(options));
        assert_eq!(ended.code(), Some(FAILURE), "{ended:?}");
        assert!(ended.stderr.contains("in use by"), "{ended:?}");
    }
    if kvm("a_file_is_not_two_disks_unless_both_are_read_only") {
        let options = kernel.options(&["-block", &read_only, "-block", &read_only]);
        let ended = finish(&mut hype(options));
        assert_eq!(ended.code(), Some(POWER_OFF), "{ended:?}");
    }
}

#[test]
fn a_kernel_can_be_a_read_only_disk_too() {
    if !kvm("a_kernel_can_be_a_read_only_disk_too") {
        return;
    }
    let kernel = kernel();
    let file = kernel.options(&[])[1].to_owned();
    // What comes behind an ELF file's last segment is nothing to it.
    File::options()
        .append(true)
        .open(&file)
        .unwrap()
        .set_len(4096)
        .unwrap();
    let disk = format!("{file}:ro");
    let ended = finish(&mut hype(kernel.options(&["-block", &disk])));
    assert_eq!(ended.code(), Some(POWER_OFF), "{ended:?}");
}

#[test]
fn a_disk_is_created_for_a_machine_that_runs_and_for_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    let disk = format!("{},size=3M", path.display());
    let ended = finish(&mut hype(["-kernel", "/dev/null", "-block", &disk]));
    assert_eq!(ended.code(), Some(FAILURE), "{ended:?}");
    let kernel = kernel();
    let ended = finish(&mut hype(kernel.options(&["-cpus", "0", "-block", &disk])));
    assert_eq!(ended.code(), Some(FAILURE), "{ended:?}");
    assert!(!path.exists());
    if kvm("a_disk_is_created_for_a_machine_that_runs_and_for_no_other") {
        for _ in 0..2 {
            let ended = finish(&mut hype(kernel.options(&["-block", &disk])));
            assert_eq!(ended.code(), Some(POWER_OFF), "{ended:?}");
            assert_eq!(fs::metadata(&path).unwrap().len(), 3 << 20);
        }
    }
}
