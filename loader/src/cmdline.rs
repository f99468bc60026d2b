//! The command line: what may be in it, and how the user's part and the machine's part become one.
//!
//! Refused are NUL and newline (the kernel or its log would end the line there), other control
//! characters, and bytes outside ASCII: the kernel's `isspace()` takes 0xa0 for a blank, so that an
//! innocent "à" (0xc3 0xa0 in UTF-8) splits a word.

use crate::error::Error;

/// Joins the user's line and the machine's arguments.
///
/// Words after a bare `--` go to init, not to the kernel: the machine's arguments are put before
/// it.
pub(crate) fn assemble(user: &str, machine: &str) -> Result<String, Error> {
    check_bytes(user)?;
    check_bytes(machine)?;
    let (kernel, init) = user
        .split_at_checked(init_arguments(user))
        .unwrap_or((user, ""));
    let parts = [kernel.trim(), machine.trim(), init.trim()];
    Ok(parts
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join(" "))
}

/// `limit` is the boot protocol's `cmdline_size`: "the maximum size of the command line without the
/// terminating zero".
pub(crate) fn check_length(line: &str, limit: u64) -> Result<(), Error> {
    if line.len() as u64 > limit {
        return Err(Error::CommandLineLength {
            length: line.len(),
            limit,
        });
    }
    Ok(())
}

fn check_bytes(line: &str) -> Result<(), Error> {
    match line
        .bytes()
        .enumerate()
        .find(|(_, byte)| !matches!(byte, b' '..=b'~' | b'\t'))
    {
        Some((offset, byte)) => Err(Error::CommandLineByte { byte, offset }),
        None => Ok(()),
    }
}

/// Offset of the word `--`, or the end of the line. Quotes hide blanks, as in the kernel's
/// `next_arg()`.
fn init_arguments(line: &str) -> usize {
    let mut quoted = false;
    let words = line.split(|c: char| {
        quoted ^= c == '"';
        !quoted && matches!(c, ' ' | '\t')
    });
    let mut offset = 0;
    for word in words {
        if word == "--" {
            return offset;
        }
        offset += word.len() + 1;
    }
    line.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_arguments_follow_the_users() {
        assert_eq!(
            assemble("console=hvc0 ", " a=1 b=2").unwrap(),
            "console=hvc0 a=1 b=2"
        );
    }

    #[test]
    fn empty_parts_leave_no_blanks() {
        assert_eq!(assemble("", "").unwrap(), "");
        assert_eq!(assemble("quiet", "").unwrap(), "quiet");
        assert_eq!(assemble("", "a=1").unwrap(), "a=1");
    }

    #[test]
    fn machine_arguments_go_before_inits() {
        assert_eq!(
            assemble("quiet -- sh -c", "a=1").unwrap(),
            "quiet a=1 -- sh -c"
        );
        assert_eq!(assemble("-- sh", "a=1").unwrap(), "a=1 -- sh");
    }

    #[test]
    fn quoted_and_longer_dashes_are_not_a_separator() {
        assert_eq!(assemble("x=\"a -- b\" c", "m").unwrap(), "x=\"a -- b\" c m");
        assert_eq!(assemble("a --b --- c", "m").unwrap(), "a --b --- c m");
    }

    #[test]
    fn nul_newline_and_non_ascii_are_refused_with_their_offset() {
        let refused = |line: &str| match assemble(line, "") {
            Err(Error::CommandLineByte { byte, offset }) => (byte, offset),
            other => panic!("{other:?}"),
        };
        assert_eq!(refused("ab\0"), (0, 2));
        assert_eq!(refused("\nab"), (b'\n', 0));
        assert_eq!(refused("a\u{7f}"), (0x7f, 1));
        assert_eq!(refused("xà"), (0xc3, 1));
        assert!(assemble("a\tb", "").is_ok());
    }

    #[test]
    fn machine_arguments_are_checked_too() {
        assert!(matches!(
            assemble("", "a\nb"),
            Err(Error::CommandLineByte {
                byte: b'\n',
                offset: 1
            })
        ));
    }

    #[test]
    fn length_may_equal_the_limit_but_not_exceed_it() {
        assert!(check_length("abc", 4).is_ok());
        assert!(check_length("abcd", 4).is_ok());
        assert!(matches!(
            check_length("abcde", 4),
            Err(Error::CommandLineLength {
                length: 5,
                limit: 4
            })
        ));
    }
}
