//! The keys that hype keeps for itself on a terminal: Ctrl-A and the one behind it.

/// Ctrl-A, as a terminal sends it.
const PREFIX: u8 = 0x01;

/// What Ctrl-A h prints.
pub const HELP: &str = "\
Ctrl-A x       quit: stop the guest at once
Ctrl-A p       press the guest's power button
Ctrl-A h       this list
Ctrl-A Ctrl-A  send Ctrl-A to the guest
";

/// What the user wants of hype rather than of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Stop the guest at once.
    Quit,
    /// Press its power button.
    PowerButton,
    /// List the keys.
    Help,
}

/// Separates what is typed into bytes for the guest and commands for hype.
#[derive(Debug, Default)]
pub struct Keys {
    prefixed: bool,
}

impl Keys {
    /// Takes the next byte typed. Unknown keys behind Ctrl-A are swallowed with it.
    pub fn next(&mut self, byte: u8) -> Key {
        if !self.prefixed {
            self.prefixed = byte == PREFIX;
            return if self.prefixed {
                Key::Nothing
            } else {
                Key::Guest(byte)
            };
        }
        self.prefixed = false;
        match byte {
            PREFIX => Key::Guest(PREFIX),
            b'x' | b'X' => Key::Hype(Command::Quit),
            b'p' | b'P' => Key::Hype(Command::PowerButton),
            b'h' | b'H' | b'?' => Key::Hype(Command::Help),
            _ => Key::Nothing,
        }
    }
}

/// What a byte typed means.
#[derive(Debug, PartialEq, Eq)]
pub enum Key {
    /// It is the guest's.
    Guest(u8),
    /// It is a command.
    Hype(Command),
    /// It is part of a command.
    Nothing,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(bytes: &[u8]) -> Vec<Key> {
        let mut keys = Keys::default();
        bytes
            .iter()
            .map(|byte| keys.next(*byte))
            .filter(|key| *key != Key::Nothing)
            .collect()
    }

    #[test]
    fn what_has_no_prefix_is_the_guests() {
        assert_eq!(typed(b"x\x03"), [Key::Guest(b'x'), Key::Guest(3)]);
    }

    #[test]
    fn the_key_behind_the_prefix_is_a_command() {
        assert_eq!(typed(b"\x01x"), [Key::Hype(Command::Quit)]);
        assert_eq!(
            typed(b"\x01hx"),
            [Key::Hype(Command::Help), Key::Guest(b'x')]
        );
    }

    #[test]
    fn the_prefix_twice_is_the_guests_once() {
        assert_eq!(typed(b"\x01\x01x"), [Key::Guest(1), Key::Guest(b'x')]);
    }

    #[test]
    fn an_unknown_key_is_swallowed() {
        assert_eq!(typed(b"\x01qx"), [Key::Guest(b'x')]);
    }
}
