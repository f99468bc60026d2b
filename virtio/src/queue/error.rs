//! The rules of a ring that a driver can break.

/// The parts of a ring that the driver places in memory (virtio 1.2, 2.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Part {
    /// The descriptor table, or a packed ring's descriptor ring.
    Descriptors,
    /// The available ring, or a packed ring's driver event suppression.
    Driver,
    /// The used ring, or a packed ring's device event suppression.
    Device,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Part::Descriptors => "descriptor area",
            Part::Driver => "driver area",
            Part::Device => "device area",
        })
    }
}

/// How a driver broke the rules of a ring. There is no way to go on with that queue: its device
/// needs a reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// The queue was used before the driver enabled it.
    #[error("the queue is not ready")]
    NotReady,
    /// The queue's size is not one that the layout and the device allow.
    #[error("queue size {size} is not one of the sizes up to {max} that the ring's layout allows")]
    Size {
        /// What the driver asked for.
        size: u16,
        /// What the device allows.
        max: u16,
    },
    /// A part of the ring has no address.
    #[error("the {0} has no address")]
    NoAddress(Part),
    /// A part of the ring is not aligned.
    #[error("the {part} at {address:#x} is not aligned to {alignment} bytes")]
    Alignment {
        /// Which part.
        part: Part,
        /// Where it is.
        address: u64,
        /// What the layout asks for.
        alignment: u64,
    },
    /// A part of the ring is not in RAM, or not in one piece of it.
    #[error("the {part} of {len:#x} bytes at {address:#x} is not within RAM")]
    Outside {
        /// Which part.
        part: Part,
        /// Where it starts.
        address: u64,
        /// How long it is.
        len: usize,
    },
    /// The driver made more chains available than there are, or took some back.
    #[error("the available index went from {from} to {to} in a queue of size {size}")]
    AvailIndexJump {
        /// The last index that was used.
        from: u16,
        /// The index that the driver wrote.
        to: u16,
        /// The queue's size.
        size: u16,
    },
    /// A chain starts outside of the descriptor table.
    #[error("a chain starts at descriptor {head} in a queue of size {size}")]
    HeadOutOfRange {
        /// Where it starts.
        head: u16,
        /// The queue's size.
        size: u16,
    },
    /// A chain that the device still works on was made available again.
    #[error("chain {head} was made available while in flight")]
    HeadInFlight {
        /// Its identifier; in a split ring, where it starts.
        head: u16,
    },
    /// A chain of a packed ring lies over descriptors of chains that the device still works on.
    #[error("a chain of {len} descriptors was made available where {free} were free")]
    DescriptorsInFlight {
        /// How many descriptors the chain has.
        len: u16,
        /// How many of the ring's belong to no chain.
        free: u16,
    },
    /// A descriptor goes on outside of its table.
    #[error("a descriptor goes on at {next} in a table of {entries}")]
    NextOutOfRange {
        /// Where it goes on.
        next: u16,
        /// The size of the table.
        entries: u16,
    },
    /// A chain has more descriptors than the queue, as one that goes in circles does.
    #[error("a chain has more than {limit} descriptors")]
    ChainTooLong {
        /// The queue's size.
        limit: u16,
    },
    /// A chain describes more memory than 32 bits can count.
    #[error("the descriptors of a chain add up to more than {} bytes", u32::MAX)]
    LengthOverflow,
    /// A descriptor that the device reads comes after one that it writes.
    #[error("a device-readable descriptor follows a device-writable one")]
    ReadableAfterWritable,
    /// An indirect descriptor, though the feature was not negotiated.
    #[error("indirect descriptor without VIRTIO_F_INDIRECT_DESC")]
    IndirectNotNegotiated,
    /// An indirect descriptor with a next one.
    #[error("indirect descriptor with a next one")]
    IndirectWithNext,
    /// An indirect descriptor in a packed ring that follows a direct one.
    #[error("indirect descriptor behind a direct one")]
    IndirectInList,
    /// An indirect descriptor in an indirect table.
    #[error("indirect descriptor in an indirect table")]
    NestedIndirect,
    /// An indirect table that is empty or not made of whole descriptors.
    #[error("indirect table of {len} bytes is not a nonzero multiple of 16 bytes")]
    IndirectLength {
        /// Its length.
        len: u32,
    },
    /// A buffer, or an indirect table, is not in RAM.
    #[error("buffer of {len:#x} bytes at {address:#x} is not within RAM")]
    BadAddress {
        /// Where it starts.
        address: u64,
        /// How long it is.
        len: u32,
    },
    /// The device completed a chain that it had completed before, or one of another queue.
    #[error("completion of chain {id}, which is not in flight")]
    NotInFlight {
        /// The chain's identifier.
        id: u16,
    },
}
