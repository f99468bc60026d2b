//! Programs of the host's: those that judge what a guest left behind, and those that it borrows.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Where a program is.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
}

/// Whether a test has to be skipped, which is said, because this host lacks programs.
pub fn lacking(test: &str, programs: &[&str]) -> bool {
    let lacking: Vec<_> = programs
        .iter()
        .filter(|name| find(name).is_none())
        .collect();
    if lacking.is_empty() {
        return false;
    }
    assert!(
        std::env::var_os("HYPE_REQUIRE_KVM").is_none(),
        "{test}: this host has no {lacking:?}"
    );
    eprintln!("skipped: {test}: this host has no {lacking:?}");
    true
}

/// Runs a program.
pub fn run(program: &str, words: &[&str], files: &[&Path]) -> Output {
    let mut command = Command::new(program);
    let output = command.args(words).args(files).output();
    output.unwrap_or_else(|error| panic!("{program}: {error}"))
}

/// Runs a program that has to succeed, and gives what it said.
pub fn expect(program: &str, words: &[&str], files: &[&Path]) -> String {
    let output = run(program, words, files);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    let status = output.status;
    assert!(
        status.success(),
        "{program} {words:?} {files:?}: {status}\n{said}{errors}"
    );
    said
}

/// Programs with the libraries that they need, for the guest: where it finds each of them, and
/// where it is.
pub fn with_libraries(programs: &[&str]) -> Vec<(String, PathBuf)> {
    let mut files = Vec::new();
    for program in programs {
        let path = find(program).unwrap();
        let libraries = expect("ldd", &[], &[&path]);
        // `name => /path (address)`, or `/path (address)` for the dynamic linker.
        let paths = libraries
            .split_whitespace()
            .filter(|word| word.starts_with('/'));
        files.extend(paths.map(|path| (path.to_owned(), PathBuf::from(path))));
        let name = Path::new(program).file_name().and_then(OsStr::to_str);
        files.push((format!("/bin/{}", name.unwrap()), path));
    }
    files
}
