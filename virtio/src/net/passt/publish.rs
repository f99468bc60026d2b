//! Ports of the host that lead to the guest.
//!
//! passt opens them, but gives up only if it can't open any: where another program has a port on IPv4,
//! it goes on with IPv6 and says nothing. So they are tried before. Who takes a port between that and
//! passt's own try is not noticed.

use super::error::PasstError;
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket};

/// A port of the host that leads to one of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Publish {
    /// The address of the host; all of them, if none is said.
    pub address: Option<IpAddr>,
    /// The port of the host.
    pub host: u16,
    /// The port of the guest.
    pub guest: u16,
    /// Which ports are meant.
    pub protocol: Protocol,
}

/// A protocol that has ports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
        })
    }
}

impl fmt::Display for Publish {
    /// As passt wants to have it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(address) = self.address {
            write!(f, "{address}/")?;
        }
        write!(f, "{}:{}", self.host, self.guest)
    }
}

impl Publish {
    /// Looks whether the port of the host can be had.
    pub(super) fn check(&self) -> Result<(), PasstError> {
        let all = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        let addresses = match &self.address {
            Some(address) => std::slice::from_ref(address),
            None => all.as_slice(),
        };
        for address in addresses {
            let opened = match self.protocol {
                Protocol::Tcp => TcpListener::bind((*address, self.host)).map(drop),
                Protocol::Udp => UdpSocket::bind((*address, self.host)).map(drop),
            };
            match opened {
                Ok(()) => {}
                Err(error) if self.address.is_none() && is_without_family(&error) => {}
                Err(source) => {
                    return Err(PasstError::Port {
                        protocol: self.protocol,
                        port: self.host,
                        address: *address,
                        source,
                    });
                }
            }
        }
        Ok(())
    }
}

/// Whether the host has no addresses of this kind at all.
fn is_without_family(error: &io::Error) -> bool {
    error.kind() == ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
}
