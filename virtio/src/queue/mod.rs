//! Virtqueues (virtio 1.2, 2.6 to 2.8): a driver's offers of memory, one chain at a time.
