//! Reads a header map in place, in the form in which a proxy-wasm host serializes it.
//!
//! The form: the number of pairs, then the sizes of the name and the value of each pair, all as 32-bit little-endian
//! numbers, then each pair as name, NUL, value, NUL.

/// The pairs in `buffer`. They end where the buffer contradicts itself.
pub(super) fn pairs(buffer: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let (count, rest) = buffer
        .split_first_chunk::<4>()
        .map_or((0, &[][..]), |(count, rest)| {
            (u32::from_le_bytes(*count), rest)
        });
    let (sizes, data) = usize::try_from(count)
        .ok()
        .and_then(|count| count.checked_mul(SIZES))
        .and_then(|size| rest.split_at_checked(size))
        .unwrap_or((&[], &[]));
    Pairs { sizes, data }
}

const SIZES: usize = 8;

struct Pairs<'b> {
    sizes: &'b [u8],
    data: &'b [u8],
}

impl<'b> Iterator for Pairs<'b> {
    type Item = (&'b [u8], &'b [u8]);

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        let (sizes, rest) = self.sizes.split_first_chunk::<SIZES>()?;
        let sizes = u64::from_le_bytes(*sizes);
        #[allow(clippy::cast_possible_truncation)] // Two numbers in one word.
        let (name_size, value_size) = (sizes as u32 as usize, (sizes >> 32) as usize);
        let (name, data) = text(self.data, name_size)?;
        let (value, data) = text(data, value_size)?;
        self.sizes = rest;
        self.data = data;
        Some((name, value))
    }
}

/// The text of that size at the beginning of `bytes`, and what follows its NUL.
#[inline(always)]
fn text(bytes: &[u8], size: usize) -> Option<(&[u8], &[u8])> {
    Some((bytes.get(..size)?, bytes.get(size + 1..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serialized(list: &[(&[u8], &[u8])]) -> Vec<u8> {
        let size = |bytes: &[u8]| u32::try_from(bytes.len()).expect("small").to_le_bytes();
        let mut buffer = u32::try_from(list.len())
            .expect("small")
            .to_le_bytes()
            .to_vec();
        for (name, value) in list {
            buffer.extend(size(name));
            buffer.extend(size(value));
        }
        for (name, value) in list {
            buffer.extend_from_slice(name);
            buffer.push(0);
            buffer.extend_from_slice(value);
            buffer.push(0);
        }
        buffer
    }

    #[test]
    fn what_the_host_wrote_is_read() {
        let list: &[(&[u8], &[u8])] = &[
            (b":path", b"/"),
            (b"x-empty", b""),
            (b"x-bytes", b"\xff\x00\xfe"),
        ];
        assert_eq!(pairs(&serialized(list)).collect::<Vec<_>>(), list);
        assert_eq!(pairs(&serialized(&[])).count(), 0);
    }

    #[test]
    fn a_buffer_cut_short_anywhere_is_read_as_far_as_it_goes() {
        let whole = serialized(&[(b"a", b"1"), (b"b", b"2")]);
        for size in 0..whole.len() {
            assert!(pairs(&whole[..size]).count() < 2);
        }
        assert_eq!(pairs(&[0xff; 64]).count(), 0);
    }
}
