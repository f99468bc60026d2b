//! Wishes that an entropy device should not grant (virtio 1.2, 5.4).

use super::{Case, case};
use crate::hostile::rig::link;
use vmm::virtio::testing::ring::{Descriptor, WRITE};

/// The most that one request gets.
const LIMIT: u32 = 64 << 10;

pub fn cases() -> Vec<Case> {
    vec![
        case("no bytes are asked for", |rig| {
            assert_eq!(rig.request(&[], &[0]).1, 0);
        }),
        case("a buffer that can only be read", |rig| {
            let (_, len) = rig.request(&[&[0xa5; 64]], &[]);
            assert_eq!(len, 0);
        }),
        case("a buffer to read before one to write", |rig| {
            let (bytes, len) = rig.request(&[&[0xa5; 64]], &[32]);
            assert_eq!(len, 32);
            assert_ne!(bytes, [0; 32], "random bytes");
        }),
        case("1 MiB is asked for", |rig| {
            let (_, len) = rig.request(&[], &[1 << 20]);
            assert!(len <= LIMIT && len > 0, "{len}");
        }),
        case("a GiB is asked for", |rig| {
            rig.start_with(64, 0);
            let chain = rig.gibibyte(64, WRITE);
            rig.offer(&link(chain));
            let (_, len) = rig.used();
            assert!(len <= LIMIT && len > 0, "{len}");
        }),
        case("2 MiB are asked for in 32 requests", |rig| {
            for _ in 0..32 {
                let (_, len) = rig.request(&[], &[LIMIT as usize]);
                assert!(len <= LIMIT && len > 0, "{len}");
            }
        }),
        case("16 bytes are asked for in 16 pieces", |rig| {
            assert_eq!(rig.request(&[], &[1; 16]).1, 16);
        }),
        case("nearly 4 GiB are asked for", |rig| {
            let address = rig.main().alloc(16);
            rig.offer(&[Descriptor {
                address,
                len: u32::MAX,
                flags: WRITE,
                next: 0,
            }]);
            rig.refuses();
        }),
        case("a reset while the device has run dry", |rig| {
            rig.start_with(64, 0);
            for _ in 0..40 {
                rig.main().add(&[], &[LIMIT as usize]);
            }
            rig.kick();
            rig.reset();
            assert_eq!(rig.status(), 0);
        }),
    ]
}
