//! Disks on web servers that are no servers at all.

use crate::block::Error;
use crate::block::http::{HttpDisk, Options, Scale};
use std::time::Duration;
use ureq::Agent;
use ureq::config::Config;

/// The size of a block, of which few are kept.
pub const BLOCK: u64 = 1024;
const BLOCKS: usize = 2;

/// Opens a disk whose requests are made by the agent that `agent` makes of what a disk has for
/// configuration: with a connector that plays the server, no socket is needed. Such a server does
/// not get better with time, so there are no pauses between the tries.
pub fn open(
    options: &Options,
    url: &str,
    agent: impl FnOnce(Config) -> Agent,
) -> Result<HttpDisk, Error> {
    let scale = Scale {
        block: BLOCK,
        blocks: BLOCKS,
        back_off: Duration::ZERO,
    };
    options.open_by(url, scale, agent)
}
