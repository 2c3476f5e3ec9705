//! Buffers that a worker uses for one item after another.

/// The most bytes of a buffer that are kept from one item to the next, where nothing else is said: 4 MiB.
pub const SCRATCH_KEPT: usize = 4 << 20;

/// Buffers of one worker, empty at the start of every item.
///
/// What an item made of them stays for the next one up to a limit: a large item does not leave its memory behind.
///
/// ```
/// use framecache::memory::ScratchBuffers;
/// let mut scratch = ScratchBuffers::keeping(1000);
/// scratch.byte_buffer.extend_from_slice(&[1; 5000]);
/// scratch.string_buffer.push_str("text");
/// scratch.clear();
/// assert!(scratch.byte_buffer.is_empty() && scratch.byte_buffer.capacity() <= 1000);
/// assert!(scratch.string_buffer.is_empty() && scratch.string_buffer.capacity() >= 4);
/// ```
#[derive(Debug)]
pub struct ScratchBuffers {
    /// For digits of numbers.
    pub digit_buffer: Vec<u8>,
    /// For bytes.
    pub byte_buffer: Vec<u8>,
    /// For text.
    pub string_buffer: String,
    kept: usize,
}

impl Default for ScratchBuffers {
    fn default() -> Self {
        Self::keeping(SCRATCH_KEPT)
    }
}

impl ScratchBuffers {
    /// Empty buffers that allocate when they are first written to, and keep at most [`SCRATCH_KEPT`] bytes each.
    pub fn new() -> Self {
        Self::default()
    }

    /// As [`Self::new`], keeping at most `kept` bytes of each buffer.
    pub fn keeping(kept: usize) -> Self {
        Self { digit_buffer: Vec::new(), byte_buffer: Vec::new(), string_buffer: String::new(), kept }
    }

    /// Empties the buffers, and gives back what they have beyond what is kept.
    pub fn clear(&mut self) {
        for buffer in [&mut self.digit_buffer, &mut self.byte_buffer] {
            buffer.clear();
            buffer.shrink_to(self.kept);
        }
        self.string_buffer.clear();
        self.string_buffer.shrink_to(self.kept);
    }

    /// Makes room for `bytes` bytes in all in [`Self::byte_buffer`].
    pub fn ensure_byte_capacity(&mut self, bytes: usize) {
        self.byte_buffer.reserve(bytes.saturating_sub(self.byte_buffer.len()));
    }

    /// Makes room for `bytes` bytes of UTF-8 in all in [`Self::string_buffer`].
    pub fn ensure_string_capacity(&mut self, bytes: usize) {
        self.string_buffer.reserve(bytes.saturating_sub(self.string_buffer.len()));
    }

    /// Bytes that the buffers hold on to.
    pub fn capacity(&self) -> usize {
        self.digit_buffer.capacity() + self.byte_buffer.capacity() + self.string_buffer.capacity()
    }
}
