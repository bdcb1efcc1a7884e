// SPDX-License-Identifier: MIT

//! What commands that write to a buffer put back.

use mydrv::{Device, Direction, Error, MappingMut};

/// Some bytes of the buffer, put back when this goes out of scope, for a device to see too.
pub struct Saved<'m, 'd> {
    device: &'d Device,
    mapping: &'m MappingMut<'d>,
    parts: Vec<(usize, Vec<u8>)>,
}

impl<'m, 'd> Saved<'m, 'd> {
    /// Saves the bytes of each part, given as offset and length.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`], [`Error::Gone`].
    pub fn new(
        device: &'d Device,
        mapping: &'m MappingMut<'d>,
        parts: impl IntoIterator<Item = (usize, usize)>,
    ) -> std::result::Result<Self, Error> {
        let save = |(offset, length)| {
            let mut bytes = vec![0; length];
            mapping.copy_to(offset, &mut bytes)?;
            Ok((offset, bytes))
        };
        Ok(Self {
            device,
            mapping,
            parts: parts.into_iter().map(save).collect::<std::result::Result<_, Error>>()?,
        })
    }
}

impl Drop for Saved<'_, '_> {
    fn drop(&mut self) {
        for (offset, bytes) in &self.parts {
            // The ranges were proved when they were saved.
            let _ = self.mapping.copy_from(*offset, bytes);
            let _ = self
                .device
                .sync(*offset as u64..(*offset + bytes.len()) as u64, Direction::ToDevice);
        }
    }
}
