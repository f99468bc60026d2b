//! The registers of the MMIO transport (virtio 1.2, 4.2.2).

use super::Transport;
use crate::hostile::target::{Window, whereabouts};
use vmm::virtio::transport::mmio::register;

/// A device on MMIO. All of its registers are one window.
pub struct Mmio {
    window: Window,
    config: Window,
}

impl Mmio {
    pub fn find(name: &str) -> Mmio {
        let (address, len) = whereabouts(name);
        let config = address + register::CONFIG;
        let window = Window::map(address, len);
        assert_eq!(
            window.get(register::MAGIC_VALUE),
            u32::from_le_bytes(*b"virt")
        );
        Mmio {
            window,
            config: Window::map(config, len - register::CONFIG),
        }
    }

    /// The registers, to do anything with.
    pub fn window(&self) -> &Window {
        &self.window
    }

    /// The largest size of a queue.
    pub fn max_size(&self, queue: u32) -> u32 {
        self.select(queue);
        self.window.get(register::QUEUE_NUM_MAX)
    }

    fn select(&self, queue: u32) {
        self.window.set(register::QUEUE_SEL, queue);
    }
}

impl Transport for Mmio {
    fn device_id(&self) -> u32 {
        self.window.get(register::DEVICE_ID)
    }

    fn device_features(&self, select: u32) -> u32 {
        self.window.set(register::DEVICE_FEATURES_SEL, select);
        self.window.get(register::DEVICE_FEATURES)
    }

    fn set_driver_features(&self, select: u32, features: u32) {
        self.window.set(register::DRIVER_FEATURES_SEL, select);
        self.window.set(register::DRIVER_FEATURES, features);
    }

    fn status(&self) -> u32 {
        self.window.get(register::STATUS)
    }

    fn set_status(&self, status: u32) {
        self.window.set(register::STATUS, status);
    }

    fn set_size(&self, queue: u32, size: u32) {
        self.select(queue);
        self.window.set(register::QUEUE_NUM, size);
    }

    fn set_areas(&self, queue: u32, [desc, driver, device]: [u64; 3]) {
        self.select(queue);
        self.window.set_wide(register::QUEUE_DESC_LOW, desc);
        self.window.set_wide(register::QUEUE_DRIVER_LOW, driver);
        self.window.set_wide(register::QUEUE_DEVICE_LOW, device);
    }

    fn enable(&self, queue: u32, value: u32) -> u32 {
        self.select(queue);
        self.window.set(register::QUEUE_READY, value);
        self.window.get(register::QUEUE_READY)
    }

    fn notify(&self, queue: u32) {
        self.window.set(register::QUEUE_NOTIFY, queue);
    }

    fn causes(&self) -> u32 {
        self.window.get(register::INTERRUPT_STATUS)
    }

    fn generation(&self) -> u32 {
        self.window.get(register::CONFIG_GENERATION)
    }

    fn config(&self) -> &Window {
        &self.config
    }

    fn address(&self) -> u64 {
        self.window.address()
    }

    fn doorbell(&self) -> u64 {
        self.address() + register::QUEUE_NOTIFY
    }
}
