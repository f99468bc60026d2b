use super::*;
use std::collections::HashSet;
use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;

fn errno(errno: i32) -> Error {
    let source = io::Error::from_raw_os_error(errno);
    Error::Open {
        path: "/dev/kvm".into(),
        source,
    }
}

#[test]
fn missing_with_all_capabilities_is_empty() {
    assert_eq!(missing(&|_| 1), []);
}

#[test]
fn missing_with_no_capability_names_every_required_one_and_no_other() {
    let names: Vec<_> = missing(&|_| 0).iter().map(|missing| missing.name).collect();

    let required: Vec<_> = WANTED
        .iter()
        .filter(|w| w.required)
        .map(|w| w.name)
        .collect();
    assert_eq!(names, required);
    assert_eq!(names.len(), 8);
}

#[test]
fn missing_with_one_capability_absent_or_failing_names_just_that_one() {
    for wanted in WANTED.iter().filter(|wanted| wanted.required) {
        for answer in [0, -1] {
            let found = missing(&|cap| if cap == wanted.cap { answer } else { 1 });

            assert_eq!(
                found,
                [Missing {
                    name: wanted.name,
                    why: wanted.why
                }]
            );
        }
    }
}

#[test]
fn missing_capabilities_are_all_in_the_message() {
    let error = Error::MissingCapabilities(missing(&|_| 0));

    let text = error.to_string();
    for wanted in WANTED.iter().filter(|wanted| wanted.required) {
        assert!(text.contains(wanted.name), "{text}");
    }
    assert!(error.hint().is_some());
}

#[test]
fn wanted_capabilities_are_listed_once_each() {
    let names: HashSet<_> = WANTED.iter().map(|wanted| wanted.name).collect();

    assert_eq!(names.len(), WANTED.len());
}

#[test]
fn api_version_other_than_12_is_refused_with_both_numbers() {
    assert!(check_version(12).is_ok());
    for version in [0, 11, 13] {
        let error = check_version(version).unwrap_err();

        let text = error.to_string();
        assert!(
            text.contains(&version.to_string()) && text.contains("12"),
            "{text}"
        );
        assert!(error.hint().is_some());
    }
}

#[test]
fn open_at_a_missing_path_hints_at_the_module_and_the_firmware() {
    let error = System::open_at(Path::new("/nonexistent/kvm")).unwrap_err();

    assert!(error.to_string().contains("/nonexistent/kvm"), "{error}");
    let hint = error.hint().unwrap();
    assert!(
        hint.contains("modprobe kvm_intel or kvm_amd") && hint.contains("firmware"),
        "{hint}"
    );
}

#[test]
fn open_at_a_file_of_mode_000_hints_at_the_group() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kvm");
    File::create(&path)
        .unwrap()
        .set_permissions(Permissions::from_mode(0o000))
        .unwrap();

    let error = System::open_at(&path).unwrap_err();

    // Root opens it whatever the mode, and then it is not KVM's.
    match error {
        Error::Open { .. } => assert!(error.hint().unwrap().contains("group kvm")),
        Error::NotKvm { .. } => {}
        error => panic!("{error:?}"),
    }
}

#[test]
fn open_that_fails_hints_by_its_errno() {
    assert!(errno(libc::EACCES).hint().unwrap().contains("group kvm"));
    assert!(errno(libc::ENODEV).hint().unwrap().contains("not loaded"));
    assert!(errno(libc::ENXIO).hint().unwrap().contains("not loaded"));
    assert!(errno(libc::EMFILE).hint().is_none());
}

#[test]
fn open_at_another_device_or_a_regular_file_says_that_it_is_not_kvm() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for path in [Path::new("/dev/null"), file.path()] {
        let error = System::open_at(path).unwrap_err();

        assert!(matches!(error, Error::NotKvm { .. }), "{error:?}");
        assert!(
            error.to_string().contains(path.to_str().unwrap()),
            "{error}"
        );
        assert!(error.hint().is_some());
    }
}

#[test]
fn from_fd_of_something_else_says_that_it_is_not_kvm() {
    let error = System::from_fd(File::open("/dev/null").unwrap().into()).unwrap_err();

    assert!(matches!(error, Error::NotKvm { .. }), "{error:?}");
}
