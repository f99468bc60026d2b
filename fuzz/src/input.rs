//! The bytes that the fuzzer chose, as choices.

/// The input, taken from its front. What is missing is 0.
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// All of the input.
    pub fn new(bytes: &'a [u8]) -> Self {
        Input(bytes)
    }

    /// Whether there is nothing left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next bytes, as many as there are.
    pub fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// A byte.
    pub fn byte(&mut self) -> u8 {
        self.number(1) as u8
    }

    /// A number of so many bytes.
    pub fn number(&mut self, bytes: usize) -> u64 {
        let taken = self.bytes(bytes).iter().rev();
        taken.fold(0, |value, byte| value << 8 | u64::from(*byte))
    }

    /// One of these.
    pub fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::from(self.byte()) % all.len()]
    }

    /// The width of an access: 1, 2, 4 or 8 bytes.
    pub fn width(&mut self) -> usize {
        1 << (self.byte() % 4)
    }
}
