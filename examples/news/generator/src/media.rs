//! Bytes of images, fonts and downloads.
//!
//! In: a size, a generator of random numbers. Out: at least roughly that many
//! bytes of the right format. Holds: images decode; a PNG's pixels are noise
//! over a gradient, stored uncompressed, and a JPEG is a mosaic filled up with
//! comments of noise, so that neither compresses better than a real one.

use crate::shape::{index, whole};
use kernel::Rng;

const PNG_SIGNATURE: [u8; 8] = [0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a];
const STORED_BLOCK_MAX: usize = 65_535;

/// A grey PNG of about `bytes` bytes, never more than a row over.
pub fn png(bytes: usize, rng: &mut Rng) -> Vec<u8> {
    let pixels = bytes.saturating_sub(90).max(16);
    let side = u32::try_from(pixels).map_or(4.0, f64::from).sqrt();
    let width = whole(side * 1.25).max(4);
    let height = (pixels / (width + 1)).max(1);
    let mut raw = Vec::with_capacity((width + 1) * height);
    for row in 0..height {
        raw.push(0);
        for column in 0..width {
            let gradient = (row * 120 / height) + (column * 80 / width);
            raw.push(u8::try_from(gradient + index(rng, 56)).unwrap_or(u8::MAX));
        }
    }
    let mut header = Vec::new();
    for side in [width, height] {
        header.extend(u32::try_from(side).unwrap_or(1).to_be_bytes());
    }
    header.extend([8, 0, 0, 0, 0]);
    let mut out = PNG_SIGNATURE.to_vec();
    chunk(&mut out, *b"IHDR", &header);
    chunk(&mut out, *b"IDAT", &zlib_stored(&raw));
    chunk(&mut out, *b"IEND", &[]);
    out
}

/// Blocks of eight by eight pixels in a JPEG's row and column.
const MOSAIC: (u16, u16) = (80, 50);
const SEGMENT_DATA_MAX: usize = 65_533;

/// A grey JPEG of `bytes` bytes, or of about 8,000 if that is more.
pub fn jpeg(bytes: usize, rng: &mut Rng) -> Vec<u8> {
    let (width, height) = MOSAIC;
    let mut out = vec![0xff, 0xd8];
    segment(&mut out, 0xe0, b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0");
    // All steps are 8: a block's mean is then its first coefficient.
    segment(&mut out, 0xdb, &[&[0][..], &[8; 64]].concat());
    let mut frame = vec![8];
    frame.extend((height * 8).to_be_bytes());
    frame.extend((width * 8).to_be_bytes());
    frame.extend([1, 1, 0x11, 0]);
    segment(&mut out, 0xc0, &frame);
    let lengths = |bits: usize, codes: u8| {
        let mut counts = [0_u8; 16];
        counts[bits - 1] = codes;
        counts
    };
    // Twelve codes of four bits for the means, one of one bit for "no detail".
    let means = [&[0][..], &lengths(4, 12), &(0..12).collect::<Vec<u8>>()].concat();
    segment(&mut out, 0xc4, &means);
    segment(
        &mut out,
        0xc4,
        &[&[0x10][..], &lengths(1, 1), &[0]].concat(),
    );
    let scan = mosaic(width, height, rng);
    let mut missing = bytes.saturating_sub(out.len() + scan.len() + 12);
    while missing > 4 {
        let len = (missing - 4).min(SEGMENT_DATA_MAX);
        segment(&mut out, 0xfe, &noise(&[], len, rng));
        missing -= len + 4;
    }
    segment(&mut out, 0xda, &[1, 1, 0, 0, 63, 0]);
    out.extend(scan);
    out.extend([0xff, 0xd9]);
    out
}

fn segment(out: &mut Vec<u8>, marker: u8, data: &[u8]) {
    out.extend([0xff, marker]);
    out.extend(u16::try_from(data.len() + 2).unwrap_or(2).to_be_bytes());
    out.extend(data);
}

/// The entropy-coded means of the blocks.
fn mosaic(width: u16, height: u16, rng: &mut Rng) -> Vec<u8> {
    let mut bits = Bits::default();
    let mut before = 0_i32;
    for row in 0..i32::from(height) {
        for column in 0..i32::from(width) {
            let noise = i32::try_from(rng.below(40)).unwrap_or(0);
            let mean = row * 120 / i32::from(height) + column * 60 / i32::from(width) + noise - 110;
            let step = mean - before;
            before = mean;
            let size = 32 - step.unsigned_abs().leading_zeros();
            bits.push(size, 4);
            let low = if step < 0 { step - 1 } else { step };
            bits.push(low.cast_unsigned() & ((1 << size) - 1), size);
            bits.push(0, 1);
        }
    }
    bits.finish()
}

#[derive(Default)]
struct Bits {
    out: Vec<u8>,
    held: u32,
    count: u32,
}

impl Bits {
    fn push(&mut self, value: u32, count: u32) {
        for bit in (0..count).rev() {
            self.held = (self.held << 1) | ((value >> bit) & 1);
            self.count += 1;
            if self.count == 8 {
                let byte = u8::try_from(self.held).unwrap_or(u8::MAX);
                self.out.push(byte);
                if byte == u8::MAX {
                    self.out.push(0);
                }
                (self.held, self.count) = (0, 0);
            }
        }
    }

    fn finish(mut self) -> Vec<u8> {
        while self.count != 0 {
            self.push(1, 1);
        }
        self.out
    }
}

/// `bytes` bytes that begin with a format's signature; the rest is noise.
pub fn noise(signature: &[u8], bytes: usize, rng: &mut Rng) -> Vec<u8> {
    let mut out = signature.to_vec();
    while out.len() < bytes {
        out.extend(rng.next_u64().to_le_bytes());
    }
    out.truncate(bytes.max(signature.len()));
    out
}

fn chunk(out: &mut Vec<u8>, kind: [u8; 4], data: &[u8]) {
    out.extend(u32::try_from(data.len()).unwrap_or(0).to_be_bytes());
    let start = out.len();
    out.extend(kind);
    out.extend(data);
    let sum = crc32fast::hash(&out[start..]);
    out.extend(sum.to_be_bytes());
}

fn zlib_stored(raw: &[u8]) -> Vec<u8> {
    let mut out = vec![0x78, 0x01];
    let mut blocks = raw.chunks(STORED_BLOCK_MAX).peekable();
    while let Some(block) = blocks.next() {
        out.push(u8::from(blocks.peek().is_none()));
        let len = u16::try_from(block.len()).unwrap_or(u16::MAX);
        out.extend(len.to_le_bytes());
        out.extend((!len).to_le_bytes());
        out.extend(block);
    }
    out.extend(adler32(raw).to_be_bytes());
    out
}

fn adler32(data: &[u8]) -> u32 {
    let (mut low, mut high) = (1_u32, 0_u32);
    for byte in data {
        low = (low + u32::from(*byte)) % 65_521;
        high = (high + low) % 65_521;
    }
    (high << 16) | low
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_published_one() {
        assert_eq!(adler32(b"Wikipedia"), 0x11e6_0398);
    }

    #[test]
    fn images_have_about_the_size_asked_for() {
        for bytes in [200, 5_000, 70_000, 900_000] {
            let made = png(bytes, &mut Rng::seeded(1)).len();
            assert!(
                made <= bytes + 200 && made * 10 >= bytes * 8,
                "{bytes} {made}"
            );
        }
        for bytes in [10_000, 70_000, 1_500_000] {
            let made = jpeg(bytes, &mut Rng::seeded(1)).len();
            assert!(made <= bytes && made + 16 >= bytes, "{bytes} {made}");
        }
    }
}
