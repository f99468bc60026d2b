//! Ethernet addresses.

use crate::memory::fill_randomly;
use std::fmt;
use std::io;
use std::str::FromStr;
use vm_memory::VolatileSlice;

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac([u8; 6]);

/// Why a text is not the address of a card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MacError {
    /// It does not have the form.
    #[error("an address is six pairs of hexadecimal digits, as in 02:00:5e:00:53:01")]
    Malformed,
    /// It is the address of many.
    #[error("an odd first byte makes a multicast address, which no card can have")]
    Multicast,
    /// It is all zeroes.
    #[error("an address of zeroes is none")]
    Zero,
}

/// The bit of the first byte that tells addresses of many from those of one.
const GROUP: u8 = 1;
/// The bit of the first byte that tells addresses that anybody may choose.
const LOCAL: u8 = 2;

impl Mac {
    /// The address of everybody.
    pub const BROADCAST: Mac = Mac([0xff; 6]);

    /// The address with these bytes, whatever they are.
    pub const fn new(bytes: [u8; 6]) -> Mac {
        Mac(bytes)
    }

    /// Its bytes.
    pub const fn bytes(self) -> [u8; 6] {
        self.0
    }

    /// The address that belongs to a name: locally administered, and the same at each call. Names
    /// that differ have addresses that differ, but for one chance in 2^46 for each two.
    pub fn of_name(name: &str) -> Mac {
        // FNV-1a: what it has to do is to spread, and to stay what it is.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        // The upper bytes are folded in, for the lower ones of the last few characters are alike.
        let [b0, b1, b2, b3, b4, b5, b6, b7] = hash.to_le_bytes();
        Mac([b5, b4, b3, b2, b1 ^ b7, b0 ^ b6]).local()
    }

    /// A locally administered address that nobody else has.
    pub fn random() -> io::Result<Mac> {
        let mut bytes = [0; 6];
        fill_randomly(&VolatileSlice::from(bytes.as_mut_slice()))?;
        Ok(Mac(bytes).local())
    }

    /// Whether it is the address of many, or of everybody.
    pub const fn is_multicast(self) -> bool {
        let [first, ..] = self.0;
        first & GROUP != 0
    }

    /// Whether a card can have it.
    pub fn check(self) -> Result<Mac, MacError> {
        match self {
            Mac([0, 0, 0, 0, 0, 0]) => Err(MacError::Zero),
            mac if mac.is_multicast() => Err(MacError::Multicast),
            mac => Ok(mac),
        }
    }

    fn local(self) -> Mac {
        let [first, rest @ ..] = self.0;
        let [b1, b2, b3, b4, b5] = rest;
        Mac([first & !GROUP | LOCAL, b1, b2, b3, b4, b5])
    }
}

impl FromStr for Mac {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Mac, MacError> {
        let mut bytes = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next().ok_or(MacError::Malformed)?;
            let digits = part.len() == 2 && part.bytes().all(|digit| digit.is_ascii_hexdigit());
            *byte = u8::from_str_radix(part, 16)
                .ok()
                .filter(|_| digits)
                .ok_or(MacError::Malformed)?;
        }
        if parts.next().is_some() {
            return Err(MacError::Malformed);
        }
        Mac(bytes).check()
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [b0, b1, b2, b3, b4, b5] = self.0;
        write!(f, "{b0:02x}:{b1:02x}:{b2:02x}:{b3:02x}:{b4:02x}:{b5:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
