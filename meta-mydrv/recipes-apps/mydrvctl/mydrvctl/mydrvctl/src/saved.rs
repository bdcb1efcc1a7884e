// SPDX-License-Identifier: MIT

//! What commands that write to a buffer put back.

use mydrv::{Device, Direction, Error, MappingMut};

/// Some bytes of the buffer, put back when this goes out of scope, for a device to see too. By a mapping of its own, which nothing else borrows.
pub struct Saved {
    mapping: MappingMut,
    parts: Vec<(usize, Vec<u8>)>,
}

impl Saved {
    /// Saves the bytes of each part, given as offset and length.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`], [`Error::Gone`].
    pub fn new(device: &Device, parts: impl IntoIterator<Item = (usize, usize)>) -> std::result::Result<Self, Error> {
        let mapping = device.map_mut(..)?;
        let save = |(offset, length)| {
            let mut bytes = vec![0; length];
            mapping.copy_to(offset, &mut bytes)?;
            Ok((offset, bytes))
        };
        let parts = parts.into_iter().map(save).collect::<std::result::Result<_, Error>>()?;
        Ok(Self { mapping, parts })
    }
}

impl Drop for Saved {
    fn drop(&mut self) {
        for (offset, bytes) in &self.parts {
            // The ranges were proved when they were saved.
            let _ = self.mapping.copy_from(*offset, bytes);
            let range = *offset as u64..(*offset + bytes.len()) as u64;
            let _ = self.mapping.device().sync(range, Direction::ToDevice);
        }
    }
}
