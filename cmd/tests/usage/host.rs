//! Hosts that lack something: KVM, descriptors, memory, threads.

use crate::command::{FAILURE, HYPE, POWER_OFF, finish, hype, refused, shell};
use crate::guest::{Code, Kernel, kvm, skipped};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The command with a `/dev/kvm` that `script` makes, in a mount name space of its own. None, said
/// loudly, where that can't be had.
fn with_devices(test: &str, script: &str, options: &[&str]) -> Option<Command> {
    let possible = Command::new("unshare")
        .args(["-m", "mount", "-t", "tmpfs", "none", "/dev"])
        .output();
    if !possible.is_ok_and(|output| output.status.success()) {
        skipped(test, "needs root, for a mount name space");
        return None;
    }
    let script = format!("exec unshare -m sh -ec '{script}' sh \"$@\"");
    Some(shell(&script, options))
}

#[test]
fn a_missing_kvm_is_told_with_what_to_do() {
    let kernel = Kernel::new(Code::new().power_off());
    let script = "mount -t tmpfs none /dev; exec \"$@\"";
    let options = kernel.options(&[]);
    let Some(mut command) = with_devices("a_missing_kvm", script, &options) else {
        return;
    };

    let ended = finish(&mut command);

    assert_eq!(ended.code(), Some(FAILURE), "{ended:?}");
    assert!(ended.stderr.contains("/dev/kvm: No such file"), "{ended:?}");
    assert!(ended.stderr.contains("\nhint: modprobe"), "{ended:?}");
}

#[test]
fn a_kvm_that_one_may_not_use_is_told_with_what_to_do() {
    let kernel = Kernel::new(Code::new().power_off());
    let program = for_everybody(&kernel);
    let script = "mount -t tmpfs -o mode=755 none /dev; mknod -m 600 /dev/kvm c 10 232; shift; \
         exec setpriv --reuid 65534 --regid 65534 --clear-groups \"$@\"";
    let mut options = vec![program.as_str()];
    options.extend(kernel.options(&[]));
    let Some(mut command) = with_devices("a_kvm_that_one_may_not_use", script, &options) else {
        return;
    };

    let ended = finish(&mut command);

    assert_eq!(ended.code(), Some(FAILURE), "{ended:?}");
    assert!(
        ended.stderr.contains("/dev/kvm: Permission denied"),
        "{ended:?}"
    );
    assert!(
        ended.stderr.contains("\nhint: add yourself to group kvm"),
        "{ended:?}"
    );
}

#[test]
fn a_kvm_that_is_none_is_called_so() {
    let kernel = Kernel::new(Code::new().power_off());
    let script = "mount -t tmpfs none /dev; echo > /dev/kvm; exec \"$@\"";
    let options = kernel.options(&[]);
    let Some(mut command) = with_devices("a_kvm_that_is_none", script, &options) else {
        return;
    };

    refused(&mut command, FAILURE, &["/dev/kvm is not a KVM device"]);
}

#[test]
fn check_says_what_is_missing_and_its_status_says_it_too() {
    let script = "mount -t tmpfs none /dev; exec \"$@\"";
    let check = |options: &[&str]| with_devices("check_says_what_is_missing", script, options);
    let (Some(mut loud), Some(mut quiet)) = (check(&["check"]), check(&["check", "-quiet"])) else {
        return;
    };

    refused(&mut loud, FAILURE, &["/dev/kvm", "No such file"]);
    let quiet = finish(&mut quiet);
    assert_eq!(quiet.code(), Some(FAILURE));
    assert_eq!((quiet.stdout, quiet.stderr), (String::new(), String::new()));
}

#[test]
fn check_tells_whether_linux_runs_here() {
    if !kvm("check_tells_whether_linux_runs_here") {
        return;
    }

    let ended = finish(&mut hype(["check"]));
    let quiet = finish(&mut hype(["check", "--quiet"]));

    assert!(ended.stdout.contains("KVM_CAP_IRQCHIP "), "{ended:?}");
    let runs = ended.stdout.contains("\nUnmodified Linux runs here.\n");
    let status = if runs { POWER_OFF } else { FAILURE };
    assert_eq!(ended.code(), Some(status), "{ended:?}");
    assert_eq!(quiet.code(), Some(status), "{quiet:?}");
    assert_eq!((quiet.stdout, quiet.stderr), (String::new(), String::new()));
}

#[test]
fn too_few_descriptors_at_any_step_are_an_error() {
    if !kvm("too_few_descriptors") {
        return;
    }
    let kernel = Kernel::new(Code::new().power_off());
    let link = kernel.folder().join("link");
    let serial = format!("-serial=pty={}", link.display());

    let worked: Vec<_> = (6..=64)
        .map(|limit| {
            let script = format!("ulimit -n {limit}; exec \"$@\"");
            let ended = finish(&mut shell(&script, kernel.options(&[&serial])));
            assert!(!link.is_symlink(), "limit {limit}: the link is left");
            let told = ended.code() == Some(FAILURE) && ended.stderr.contains("(os error 24)");
            let worked = ended.code() == Some(POWER_OFF);
            assert!(told || worked, "limit {limit}: {ended:?}");
            worked
        })
        .collect();

    // Only then each step has been the last one.
    assert!(worked.is_sorted() && !worked[0] && worked[58], "{worked:?}");
}

#[test]
fn memory_beyond_the_limit_is_refused() {
    if !kvm("memory_beyond_the_limit") {
        return;
    }
    let kernel = Kernel::new(Code::new().power_off());
    let mut options = kernel.options(&[]);
    options.truncate(2);
    let words = ["-mem 1024: cannot reserve", "bytes", "(os error 12)"];

    refused(
        &mut shell("ulimit -v 200000; exec \"$@\"", &options),
        FAILURE,
        &words,
    );

    // Whoever refuses that, the host or its KVM.
    options.extend(["-mem", "60T"]);
    refused(&mut hype(&options), FAILURE, &["-mem 60T: "]);
}

#[test]
fn too_few_threads_are_an_error() {
    if !kvm("too_few_threads") {
        return;
    }
    if !is_root() {
        skipped(
            "too_few_threads",
            "needs root, to become a user without other processes",
        );
        return;
    }
    let kernel = Kernel::new(Code::new().print("hello\n").power_off());
    let program = for_everybody(&kernel);
    let group = fs::metadata("/dev/kvm").unwrap().gid();

    let with_limit = |limit| {
        let script = format!(
            "shift; exec setpriv --reuid 61234 --regid 61234 --groups {group} \
             prlimit --nproc={limit} \"$@\""
        );
        let mut options = vec![program.as_str()];
        options.extend(kernel.options(&["-serial", "stdio"]));
        shell(&script, options)
    };

    for limit in [1, 2] {
        refused(&mut with_limit(limit), FAILURE, &["(os error 11)"]);
    }
    // With these KVM, or a thread of ours, gets one thread too few now and then.
    for limit in 3..=5 {
        let ended = finish(&mut with_limit(limit));
        assert!(
            matches!(ended.code(), Some(POWER_OFF | FAILURE)),
            "{limit}: {ended:?}"
        );
    }
    let ended = finish(&mut with_limit(16));
    assert_eq!(ended.code(), Some(POWER_OFF), "{ended:?}");
    assert_eq!(ended.stdout, "hello\n");
}

/// A copy of the command, and its guest, where a user without rights finds them.
fn for_everybody(kernel: &Kernel) -> String {
    let program = kernel.folder().join("hype");
    // By a process of its own: a test beside this one might start another while we have it open
    // for writing, and then it can't be run ("text file busy").
    let copied = Command::new("cp").arg(HYPE).arg(&program).status();
    assert!(copied.unwrap().success());
    fs::set_permissions(kernel.folder(), Permissions::from_mode(0o755)).unwrap();
    program.to_str().unwrap().to_owned()
}
