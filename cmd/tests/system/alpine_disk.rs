//! Alpine with four processors: a file system that is made, filled and checked over a reboot, and
//! a package that it fetches from the host and installs.
//!
//! The programs that make and check the file system are the host's, on a disk of their own:
//! Alpine's would have to be fetched.

use super::terminal::Terminal;
use super::{POWER_OFF, QUIET, REBOOT, guest};
use std::path::Path;
use std::process::{Child, Command};

/// A disk with mke2fs and e2fsck and what they need, for chroot.
const TOOLS: &str = r#"
programs="$(command -v mke2fs) $(command -v e2fsck)"
mkdir -p tools/dev
cp -L --parents $programs $(ldd $programs | sed -n 's/.*\s\(\/[^ ]*\) (.*/\1/p' | sort -u) tools
mke2fs -q -t ext4 -d tools tools.img 32M
"#;

/// An Alpine package, as apk-tools 2 takes it unsigned: an archive with what the package is,
/// without the blocks that end one, and an archive with its files, which have checksums.
const PACKAGE: &str = r#"
mkdir -p files/usr/bin served
printf '#!/bin/sh\necho hello from a package\n' >files/usr/bin/greet
chmod 755 files/usr/bin/greet
sum=$(sha1sum files/usr/bin/greet | cut -d ' ' -f 1)
tar --format=pax --pax-option="APK-TOOLS.checksum.SHA1:=$sum" --owner=0 --group=0 \
    --no-recursion -czf data.tar.gz -C files usr usr/bin usr/bin/greet
printf '%s\n' 'pkgname = greet' 'pkgver = 1-r0' 'pkgdesc = says hello' 'arch = x86_64' 'size = 64' \
    "datahash = $(sha256sum <data.tar.gz | cut -d ' ' -f 1)" >.PKGINFO
tar --format=ustar --owner=0 --group=0 -cf control.tar .PKGINFO
{ head -c 1024 control.tar | gzip; cat data.tar.gz; } >served/greet.apk
"#;

/// Runs a script of the host's.
fn make(script: &str, folder: &Path) {
    let mut command = Command::new("bash");
    command.args(["-euc", script]).current_dir(folder);
    assert!(command.status().unwrap().success(), "{script}");
}

/// A web server on the host's loopback, until it is dropped.
struct Server(Child);

impl Server {
    fn start(folder: &Path) -> Server {
        let mut command = Command::new("busybox");
        command
            .args(["httpd", "-f", "-p", "127.0.0.1:8001", "-h"])
            .arg(folder);
        Server(command.spawn().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// At the prompt, types a command, waits for what it has to say, and for the next prompt.
fn shell(terminal: &mut Terminal, command: &str, answer: &str) {
    terminal.type_line(command);
    terminal.expect(answer);
    terminal.expect("# ");
}

#[test]
fn alpine_keeps_a_file_system_over_a_reboot_and_installs_a_package_from_the_host() {
    let Some(guest) = guest("alpine_keeps_a_file_system_over_a_reboot") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    make(TOOLS, folder.path());
    make(PACKAGE, folder.path());
    let _server = Server::start(&folder.path().join("served"));
    let disk = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (tools, data) = (disk("tools.img:ro"), disk("data.img,size=64M"));
    let options = [
        "-cmdline", QUIET, "-cpus", "4", "-net", "user", "-block", &tools, "-block", &data,
    ];
    let borrow = "mount -o ro /dev/vda /mnt; mount --bind /dev /mnt/dev; mkdir /data; echo $?ok";

    let mut terminal = guest.boot(&options);
    shell(&mut terminal, borrow, "0ok");
    let command = "chroot /mnt mke2fs -q -t ext4 /dev/vdb; mount /dev/vdb /data; echo $?ok";
    shell(&mut terminal, command, "0ok");
    let command =
        "for n in 1 2 3 4; do dd if=/dev/urandom of=/data/$n bs=64k count=64 & done; wait";
    shell(&mut terminal, command, "4.0MB");
    let command = "cd /data; sha256sum 1 2 3 4 >sums; sync; cd /; echo $?ok";
    shell(&mut terminal, command, "0ok");
    shell(
        &mut terminal,
        "ip link set eth0 up; udhcpc -n -q -i eth0",
        "lease of",
    );
    let command =
        "wget http://$(ip route | awk '/^default/ { print $3 }'):8001/greet.apk; echo $?ok";
    shell(&mut terminal, command, "0ok");
    let command =
        "apk add --allow-untrusted --force-non-repository --repositories-file /dev/null greet.apk";
    shell(&mut terminal, command, "OK:");
    shell(&mut terminal, "greet", "hello from a package");
    // The file system stays mounted.
    terminal.type_line("reboot");
    assert_eq!(terminal.wait(), REBOOT, "{}", terminal.text());

    let mut terminal = guest.boot(&options);
    shell(&mut terminal, borrow, "0ok");
    // The first takes up what the journal has, the second finds nothing to do.
    let command = "chroot /mnt e2fsck -p /dev/vdb; chroot /mnt e2fsck -f -n /dev/vdb; echo $?ok";
    shell(&mut terminal, command, "0ok");
    let command = "mount /dev/vdb /data; cd /data; sha256sum -c sums; echo $?ok";
    shell(&mut terminal, command, "0ok");
    terminal.type_line("poweroff");
    assert_eq!(terminal.wait(), POWER_OFF, "{}", terminal.text());
}
