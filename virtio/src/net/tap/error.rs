//! Why a tap can't be had, and what to do.

use std::io;

/// Why a tap can't be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TapError {
    /// It would be no name.
    #[error("{name:?} is no name of an interface: 1 to 15 characters, without blanks, /, : and %")]
    Name {
        /// The name.
        name: String,
    },
    /// There are too many lanes, or none.
    #[error("a tap of {0} queues: 1 to {max} are possible", max = super::super::MAX_PAIRS)]
    Lanes(usize),
    /// There are no taps here.
    #[error("opening /dev/net/tun")]
    NoTun(#[source] io::Error),
    /// The tap is not to be had.
    #[error("opening tap {name}")]
    Attach {
        /// Which one.
        name: String,
        /// Whether it was to have several queues.
        multi_queue: bool,
        /// Why.
        source: io::Error,
    },
    /// Something about it is not to be had.
    #[error("interface {name}: {what}")]
    SetUp {
        /// Which one.
        name: String,
        /// What was being done.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// There is no such bridge.
    #[error("looking for bridge {bridge}")]
    NoBridge {
        /// Which one.
        bridge: String,
        /// Why.
        source: io::Error,
    },
    /// It does not take the tap.
    #[error("joining a tap to bridge {bridge}")]
    Join {
        /// Which one.
        bridge: String,
        /// Why.
        source: io::Error,
    },
    /// A descriptor is something else.
    #[error("the descriptor is no tap")]
    NotATap(#[source] io::Error),
    /// A descriptor was opened in another way.
    #[error("interface {name} was opened with flags {flags:#x}: IFF_TAP and IFF_NO_PI are needed")]
    Flags {
        /// Which one.
        name: String,
        /// How it was opened.
        flags: u16,
    },
}

impl TapError {
    /// What the user can do.
    pub fn hint(&self) -> Option<&'static str> {
        let errno = |source: &io::Error| source.raw_os_error();
        match self {
            TapError::NoTun(source) => match errno(source)? {
                libc::ENOENT | libc::ENODEV | libc::ENXIO => {
                    Some("the kernel module is missing: sudo modprobe tun")
                }
                libc::EACCES | libc::EPERM => {
                    Some("the device is closed to you: sudo chmod 666 /dev/net/tun")
                }
                _ => None,
            },
            TapError::Attach {
                source,
                multi_queue,
                ..
            } => match errno(source)? {
                libc::EPERM | libc::EACCES => Some(
                    "it takes root (CAP_NET_ADMIN), or a tap made for you: \
                     sudo ip tuntap add NAME mode tap user $USER && sudo ip link set NAME up",
                ),
                libc::EBUSY => Some("another program has it: one tap serves one machine"),
                libc::EINVAL if *multi_queue => Some(
                    "it is no tap, or one that was made for a single queue: \
                     sudo ip tuntap add NAME mode tap multi_queue",
                ),
                libc::EINVAL => Some("an interface of this name exists, and is no tap"),
                _ => None,
            },
            TapError::NoBridge { .. } => Some(
                "bridges are made by: sudo ip link add NAME type bridge && sudo ip link set NAME up",
            ),
            TapError::Join { source, .. } => match errno(source)? {
                libc::EPERM => Some("it takes root (CAP_NET_ADMIN): -net tap=NAME does not"),
                libc::EOPNOTSUPP => Some("it is an interface, and no bridge"),
                _ => None,
            },
            TapError::SetUp { source, .. } => match errno(source)? {
                libc::EPERM => Some("it takes root (CAP_NET_ADMIN)"),
                _ => None,
            },
            _ => None,
        }
    }
}
