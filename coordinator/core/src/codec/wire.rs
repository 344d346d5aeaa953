//! Single values to and from bytes.

use alloc::{string::String, sync::Arc, vec::Vec};

use super::DecodeError;

/// Items for which room is set aside on the word of a length alone; more is allocated as items
/// really come.
const MAX_ITEMS_RESERVED: usize = 256;
/// Different texts that are remembered in order to share them: a batch names few resources.
const MAX_SHARED_TEXTS: usize = 8;

/// Appends values to bytes. Cannot fail.
pub(crate) struct Writer {
    bytes: Vec<u8>,
}

#[allow(
    dead_code,
    reason = "one complete pair with Reader; each user takes what it needs"
)]
impl Writer {
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(bytes),
        }
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    pub(crate) fn bool(&mut self, value: bool) {
        self.u8(u8::from(value));
    }

    /// One byte per seven bits: for numbers that are usually small.
    pub(crate) fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    /// Eight bytes: for numbers that use most of their bits.
    pub(crate) fn fixed(&mut self, value: u64) {
        self.raw(&value.to_le_bytes());
    }

    /// Bytes whose number the reader knows.
    pub(crate) fn raw(&mut self, value: &[u8]) {
        self.bytes.extend_from_slice(value);
    }

    pub(crate) fn bytes(&mut self, value: &[u8]) {
        self.varint(value.len() as u64);
        self.raw(value);
    }

    pub(crate) fn str(&mut self, value: &str) {
        self.bytes(value.as_bytes());
    }

    pub(crate) fn option<T>(&mut self, value: Option<T>, put: impl FnOnce(&mut Self, T)) {
        self.bool(value.is_some());
        if let Some(value) = value {
            put(self, value);
        }
    }

    pub(crate) fn list<T>(
        &mut self,
        items: impl IntoIterator<Item = T, IntoIter: ExactSizeIterator>,
        mut put: impl FnMut(&mut Self, T),
    ) {
        let items = items.into_iter();
        self.varint(items.len() as u64);
        for item in items {
            put(self, item);
        }
    }
}

/// Takes values off the front of bytes, in the order in which [`Writer`] put them.
pub(crate) struct Reader<'a> {
    left: &'a [u8],
    texts: Vec<Arc<str>>,
}

#[allow(
    dead_code,
    reason = "one complete pair with Writer; each user takes what it needs"
)]
impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self {
            left: bytes,
            texts: Vec::new(),
        }
    }

    /// Must be called when the last value is read.
    pub(crate) fn end(self) -> Result<(), DecodeError> {
        match self.left.len() {
            0 => Ok(()),
            left => Err(DecodeError::TrailingBytes { left }),
        }
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        let (&first, left) = self.left.split_first().ok_or(DecodeError::Truncated)?;
        self.left = left;
        Ok(first)
    }

    pub(crate) fn bool(&mut self) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            tag => Err(DecodeError::UnknownTag {
                what: "yes or no",
                tag,
            }),
        }
    }

    pub(crate) fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit; a zero at the end could have been left out.
            if (bits << shift) >> shift != bits || (byte == 0 && shift > 0) {
                return Err(DecodeError::BadNumber);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::BadNumber)
    }

    /// A varint that must fit a smaller number; `what` names it in the error.
    pub(crate) fn small<T: TryFrom<u64>>(&mut self, what: &'static str) -> Result<T, DecodeError> {
        T::try_from(self.varint()?).map_err(|_| DecodeError::OutOfRange { what })
    }

    pub(crate) fn fixed(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_le_bytes)
    }

    /// Bytes whose number is known.
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (first, left) = self
            .left
            .split_first_chunk()
            .ok_or(DecodeError::Truncated)?;
        self.left = left;
        Ok(*first)
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.length()?;
        let (first, left) = self
            .left
            .split_at_checked(length)
            .ok_or(DecodeError::Truncated)?;
        self.left = left;
        Ok(first)
    }

    pub(crate) fn str(&mut self) -> Result<&'a str, DecodeError> {
        core::str::from_utf8(self.bytes()?).map_err(|_| DecodeError::NotText)
    }

    pub(crate) fn string(&mut self) -> Result<String, DecodeError> {
        self.str().map(String::from)
    }

    /// Texts that come often share one allocation.
    pub(crate) fn shared_str(&mut self) -> Result<Arc<str>, DecodeError> {
        let text = self.str()?;
        if let Some(known) = self.texts.iter().find(|known| ***known == *text) {
            return Ok(Arc::clone(known));
        }
        let shared = Arc::<str>::from(text);
        if self.texts.len() < MAX_SHARED_TEXTS {
            self.texts.push(Arc::clone(&shared));
        }
        Ok(shared)
    }

    pub(crate) fn shared_bytes(&mut self) -> Result<Arc<[u8]>, DecodeError> {
        self.bytes().map(Arc::from)
    }

    pub(crate) fn option<T>(
        &mut self,
        get: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        if self.bool()? {
            get(self).map(Some)
        } else {
            Ok(None)
        }
    }

    /// Every item must take at least one byte: the bytes that are left bound their number.
    pub(crate) fn list<T>(
        &mut self,
        mut get: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let count = self.length()?;
        let mut items = Vec::with_capacity(count.min(MAX_ITEMS_RESERVED));
        for _ in 0..count {
            items.push(get(self)?);
        }
        Ok(items)
    }

    /// A number of bytes, or of items of at least one byte, that can still follow.
    fn length(&mut self) -> Result<usize, DecodeError> {
        match usize::try_from(self.varint()?) {
            Ok(length) if length <= self.left.len() => Ok(length),
            _ => Err(DecodeError::Truncated),
        }
    }
}
