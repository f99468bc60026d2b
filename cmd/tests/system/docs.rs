//! The commands in `docs/` do what the pages say.
//!
//! A page is run from its top to its end in one folder. Its fenced blocks are of these kinds:
//!
//! | block | is |
//! | --- | --- |
//! | `sh` | a script that must succeed, run where KVM is |
//! | `console` | what is typed into the script above it, behind a prompt, and what comes back |
//! | `sh meanwhile` | a script that must succeed, run between two such conversations |
//! | `sh outside` | not run here, for it needs the outside world, or root for more than a network of its own: listed as `not run` |
//! | any other | no command |
//!
//! In a `console` block a line with `# ` or `login: ` is typed, from behind that; each other line
//! is waited for. What blocks that aren't run would have fetched is put into the folder before.
//! Programs in the folder come before those of the host.

use super::stage::on_stage;
use super::terminal::Terminal;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A fenced block.
struct Block {
    kind: String,
    /// That of its first line.
    line: usize,
    text: String,
}

/// The fenced blocks of a page, in their order.
fn blocks(page: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut inside = false;
    for (number, line) in page.lines().enumerate() {
        match (line.strip_prefix("```"), inside) {
            (Some(kind), false) => {
                blocks.push(Block {
                    kind: kind.trim().into(),
                    line: number + 2,
                    text: String::new(),
                });
                inside = true;
            }
            (Some(_), true) => inside = false,
            (None, true) => {
                let block = blocks.last_mut().unwrap();
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, false) => {}
        }
    }
    assert!(!inside, "a block has no end");
    blocks
}

/// Types what a person would, and waits for what they would see.
fn converse(terminal: &mut Terminal, conversation: &str) {
    for line in conversation.lines() {
        let prompt = ["login: ", "# "]
            .into_iter()
            .find_map(|prompt| Some((prompt, line.split_once(prompt)?.1)));
        match prompt {
            Some((prompt, typed)) => {
                terminal.expect(prompt);
                terminal.type_line(typed);
            }
            None => terminal.expect(line),
        }
    }
}

/// Runs the page in `folder`.
fn run(page: &str, folder: &Path, patience: Duration) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../docs")
        .join(page);
    let blocks = blocks(&fs::read_to_string(path).unwrap());
    let hype = Path::new(env!("CARGO_BIN_EXE_hype")).parent().unwrap();
    let mut scripts = 0;
    let mut blocks = blocks.iter().peekable();
    while let Some(block) = blocks.next() {
        let place = format!("docs/{page}:{}", block.line);
        match block.kind.as_str() {
            "sh" => {}
            "console" | "sh meanwhile" => panic!("{place}: nothing runs that this could be for"),
            kind => {
                eprintln!("not run: {place}: {kind}");
                continue;
            }
        }
        // As in a shell that is told to stop at the first failure.
        let script = |text: &str| {
            let (hype, folder) = (hype.display(), folder.display());
            format!("PATH={folder}:{hype}:$PATH; cd '{folder}'; set -eu\n{text}")
        };
        let mut terminal = Terminal::spawn("bash", &["-c", &script(&block.text)]).patient(patience);
        while let Some(next) =
            blocks.next_if(|next| ["console", "sh meanwhile"].contains(&next.kind.as_str()))
        {
            if next.kind == "console" {
                converse(&mut terminal, &next.text);
                continue;
            }
            let output = Command::new("bash")
                .args(["-c", &script(&next.text)])
                .output()
                .unwrap();
            assert!(output.status.success(), "{}: {output:?}", next.line);
        }
        assert_eq!(terminal.wait(), 0, "{place}: {}", terminal.text());
        eprintln!("done: {place}");
        scripts += 1;
    }
    assert!(scripts > 0, "docs/{page} has no command");
}

/// What an environment variable names, or None, said loudly, where the test has to be skipped.
fn named(test: &str, variable: &str) -> Option<PathBuf> {
    let path = std::env::var_os(variable).map(PathBuf::from);
    if path.is_none() {
        assert!(
            std::env::var_os("HYPE_REQUIRE_KVM").is_none(),
            "{test}: {variable} is not set"
        );
        eprintln!("skipped: {test}: {variable} is not set");
    }
    path
}

/// A folder with what the pages call `bzImage`, `initrd.cpio.gz` and Alpine's archive.
fn folder(test: &str) -> Option<tempfile::TempDir> {
    let folder = tempfile::tempdir().unwrap();
    for (variable, name) in [
        ("HYPE_GUEST_KERNEL", "bzImage"),
        ("HYPE_GUEST_INITRD", "initrd.cpio.gz"),
        ("HYPE_GUEST_ALPINE", "alpine-minirootfs.tar.gz"),
    ] {
        symlink(named(test, variable)?, folder.path().join(name)).unwrap();
    }
    Some(folder)
}

const ALPINE: Duration = Duration::from_secs(90);
/// What an emulated host needs for systemd to come up.
const DEBIAN: Duration = Duration::from_secs(600);

#[test]
fn the_page_about_alpine_holds() {
    if let Some(folder) = folder("the_page_about_alpine_holds") {
        run("alpine.md", folder.path(), ALPINE);
    }
}

#[test]
fn the_page_about_disks_holds() {
    if let Some(folder) = folder("the_page_about_disks_holds") {
        run("disks.md", folder.path(), ALPINE);
    }
}

/// Who runs this is root, on a network of their own: `sudo` is for others.
#[test]
fn the_page_about_networking_holds() {
    let test = "the_page_about_networking_holds";
    on_stage(test, |_| {
        if let Some(folder) = folder(test) {
            let sudo = folder.path().join("sudo");
            fs::write(&sudo, "#!/bin/sh\nexec \"$@\"\n").unwrap();
            fs::set_permissions(&sudo, fs::Permissions::from_mode(0o755)).unwrap();
            run("networking.md", folder.path(), ALPINE);
        }
    });
}

/// `HYPE_DEBIAN` is the folder where the page's first blocks were run.
#[test]
#[ignore = "needs a Debian, and minutes: etc/debian makes it and runs this"]
fn the_page_about_debian_holds() {
    if let Some(folder) = named("the_page_about_debian_holds", "HYPE_DEBIAN") {
        run("debian.md", &folder, DEBIAN);
    }
}

#[test]
fn blocks_are_told_apart_by_what_stands_behind_their_fence() {
    let page = "text\n```sh\na\nb\n```\n```console\n# c\nd\n```\n```sh outside\n```\n";

    let found = blocks(page);

    let found: Vec<_> = found
        .iter()
        .map(|block| (block.kind.as_str(), block.line, block.text.as_str()))
        .collect();
    assert_eq!(
        found,
        [
            ("sh", 3, "a\nb\n"),
            ("console", 7, "# c\nd\n"),
            ("sh outside", 11, "")
        ]
    );
}
