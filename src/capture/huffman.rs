// SPDX-License-Identifier: Apache-2.0
//! The Huffman tables that a motion JPEG may leave out, put back in front of its scan.
//!
//! UVC cameras and AVI files send baseline pictures without tables where those are the ones that ITU-T T.81 (09/92) prints as an
//! example, in its Annex K.3.3. The decoder puts them in by itself only where the picture says that it is an AVI's.
//!
//! Responsible for: whether a picture brings tables of its own, and the picture with them where it does not. Not responsible for
//! whether tables and picture are any good: the decoder says that.

use std::cell::RefCell;

// Markers, table B.1 of T.81.
const PROGRESSIVE: u8 = 0xC2;
const DHT: u8 = 0xC4;
const EOI: u8 = 0xD9;
const SOS: u8 = 0xDA;

const CUT: &str = "JPEG with a segment that runs past its end";
const NO_SCAN: &str = "JPEG without a scan";

/// Table K.3: the DC coefficients of brightness.
const DC_LUMA: ([u8; 16], [u8; 12]) = (
    [0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0],
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11],
);
/// Table K.4: those of colour.
const DC_CHROMA: ([u8; 16], [u8; 12]) = (
    [0, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0],
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11],
);
/// Table K.5: the AC coefficients of brightness.
#[rustfmt::skip]
const AC_LUMA: ([u8; 16], [u8; 162]) = (
    [0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 125],
    [
        0x01, 0x02, 0x03, 0x00, 0x04, 0x11, 0x05, 0x12, 0x21, 0x31, 0x41, 0x06, 0x13, 0x51, 0x61, 0x07,
        0x22, 0x71, 0x14, 0x32, 0x81, 0x91, 0xA1, 0x08, 0x23, 0x42, 0xB1, 0xC1, 0x15, 0x52, 0xD1, 0xF0,
        0x24, 0x33, 0x62, 0x72, 0x82, 0x09, 0x0A, 0x16, 0x17, 0x18, 0x19, 0x1A, 0x25, 0x26, 0x27, 0x28,
        0x29, 0x2A, 0x34, 0x35, 0x36, 0x37, 0x38, 0x39, 0x3A, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49,
        0x4A, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59, 0x5A, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69,
        0x6A, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7A, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89,
        0x8A, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9A, 0xA2, 0xA3, 0xA4, 0xA5, 0xA6, 0xA7,
        0xA8, 0xA9, 0xAA, 0xB2, 0xB3, 0xB4, 0xB5, 0xB6, 0xB7, 0xB8, 0xB9, 0xBA, 0xC2, 0xC3, 0xC4, 0xC5,
        0xC6, 0xC7, 0xC8, 0xC9, 0xCA, 0xD2, 0xD3, 0xD4, 0xD5, 0xD6, 0xD7, 0xD8, 0xD9, 0xDA, 0xE1, 0xE2,
        0xE3, 0xE4, 0xE5, 0xE6, 0xE7, 0xE8, 0xE9, 0xEA, 0xF1, 0xF2, 0xF3, 0xF4, 0xF5, 0xF6, 0xF7, 0xF8,
        0xF9, 0xFA,
    ],
);
/// Table K.6: those of colour.
#[rustfmt::skip]
const AC_CHROMA: ([u8; 16], [u8; 162]) = (
    [0, 2, 1, 2, 4, 4, 3, 4, 7, 5, 4, 4, 0, 1, 2, 119],
    [
        0x00, 0x01, 0x02, 0x03, 0x11, 0x04, 0x05, 0x21, 0x31, 0x06, 0x12, 0x41, 0x51, 0x07, 0x61, 0x71,
        0x13, 0x22, 0x32, 0x81, 0x08, 0x14, 0x42, 0x91, 0xA1, 0xB1, 0xC1, 0x09, 0x23, 0x33, 0x52, 0xF0,
        0x15, 0x62, 0x72, 0xD1, 0x0A, 0x16, 0x24, 0x34, 0xE1, 0x25, 0xF1, 0x17, 0x18, 0x19, 0x1A, 0x26,
        0x27, 0x28, 0x29, 0x2A, 0x35, 0x36, 0x37, 0x38, 0x39, 0x3A, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48,
        0x49, 0x4A, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59, 0x5A, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68,
        0x69, 0x6A, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7A, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87,
        0x88, 0x89, 0x8A, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9A, 0xA2, 0xA3, 0xA4, 0xA5,
        0xA6, 0xA7, 0xA8, 0xA9, 0xAA, 0xB2, 0xB3, 0xB4, 0xB5, 0xB6, 0xB7, 0xB8, 0xB9, 0xBA, 0xC2, 0xC3,
        0xC4, 0xC5, 0xC6, 0xC7, 0xC8, 0xC9, 0xCA, 0xD2, 0xD3, 0xD4, 0xD5, 0xD6, 0xD7, 0xD8, 0xD9, 0xDA,
        0xE2, 0xE3, 0xE4, 0xE5, 0xE6, 0xE7, 0xE8, 0xE9, 0xEA, 0xF2, 0xF3, 0xF4, 0xF5, 0xF6, 0xF7, 0xF8,
        0xF9, 0xFA,
    ],
);

/// A table: its class and place as its segment says them (0x10 is AC), how many codes there are of each length from 1 to 16 bits, and
/// what they stand for.
type Table = (u8, [u8; 16], &'static [u8]);

const TABLES: [Table; 4] = [
    (0x00, DC_LUMA.0, &DC_LUMA.1),
    (0x01, DC_CHROMA.0, &DC_CHROMA.1),
    (0x10, AC_LUMA.0, &AC_LUMA.1),
    (0x11, AC_CHROMA.0, &AC_CHROMA.1),
];
/// Bytes of the segment that holds them, behind its marker: its length, and of each table its place, lengths and values.
const TABLES_LEN: u16 = 2 + 4 * 17 + 2 * 12 + 2 * 162;

thread_local! {
    /// A picture with the tables that it lacked. Kept, so that only a camera's first picture allocates: each has a thread.
    static COMPLETED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Calls `decode` with the picture, completed if it lacks its tables. `room`: a length that hardly any picture exceeds.
///
/// # Errors
/// What is wrong with the picture in front of its scan, or what `decode` says.
pub(super) fn completed(
    jpeg: &[u8],
    room: usize,
    decode: impl FnOnce(&[u8]) -> Result<(), &'static str>,
) -> Result<(), &'static str> {
    let Some(at) = lacking_at(jpeg)? else {
        return decode(jpeg);
    };
    COMPLETED.with_borrow_mut(|whole| {
        let (before, scan) = jpeg.split_at(at);
        whole.clear();
        whole.reserve(room.max(jpeg.len()) + 2 + usize::from(TABLES_LEN));
        whole.extend_from_slice(before);
        whole.extend_from_slice(&[0xFF, DHT]);
        whole.extend_from_slice(&TABLES_LEN.to_be_bytes());
        for (place, lengths, values) in &TABLES {
            whole.push(*place);
            whole.extend_from_slice(lengths);
            whole.extend_from_slice(values);
        }
        whole.extend_from_slice(scan);
        decode(whole)
    })
}

/// Where the tables are to go: in front of the scan, if there are none before it. Of progressive pictures none is the standard one,
/// so nothing is put into those.
///
/// # Errors
/// A picture in which no scan is found.
fn lacking_at(jpeg: &[u8]) -> Result<Option<usize>, &'static str> {
    // Behind the start of the picture. Each round leaves less of it.
    let mut rest = jpeg.get(2..).unwrap_or_default();
    loop {
        // What the decoder skips between two segments, so that what it takes is taken here.
        let marker = behind(rest, |byte| byte != 0xFF);
        let at = jpeg.len() - marker.len();
        let [code, segment @ ..] = behind(marker, |byte| byte == 0xFF || byte == 0) else {
            return Err(NO_SCAN);
        };
        match *code {
            SOS => return Ok(Some(at)),
            DHT | PROGRESSIVE => return Ok(None),
            EOI => return Err(NO_SCAN),
            _ => {}
        }
        let [high, low, ..] = segment else {
            return Err(CUT);
        };
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        rest = match segment.get(len..) {
            Some(rest) if len >= 2 => rest,
            Some(_) => return Err("JPEG with a segment that is shorter than its own length"),
            None => return Err(CUT),
        };
    }
}

/// What is left behind the bytes that are to be skipped.
fn behind(bytes: &[u8], skipped: impl Fn(u8) -> bool) -> &[u8] {
    let len = bytes.iter().take_while(|byte| skipped(**byte)).count();
    bytes.get(len..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::decode::tests::{jpeg_of, soft};
    use crate::capture::decode::{Format, into_rgb};
    use crate::ports::Frame;
    use std::ops::Range;

    const SIZE: [usize; 2] = [64, 48];
    const APP0: u8 = 0xE0;

    fn whole() -> Vec<u8> {
        jpeg_of(&soft(SIZE[0], SIZE[1], 0), SIZE[0], SIZE[1])
    }

    fn rgb_of(jpeg: &[u8]) -> Result<Vec<u8>, &'static str> {
        let mut frame = Frame::black(SIZE[0], SIZE[1]);
        into_rgb(Format::Mjpg, jpeg, 0, SIZE, &mut frame).map(|()| frame.rgb)
    }

    /// Marker and place of each segment in front of the scan.
    fn segments(jpeg: &[u8]) -> Vec<(u8, Range<usize>)> {
        let (mut list, mut at) = (Vec::new(), 2);
        while jpeg[at + 1] != SOS {
            let len = u16::from_be_bytes([jpeg[at + 2], jpeg[at + 3]]);
            let end = at + 2 + usize::from(len);
            list.push((jpeg[at + 1], at..end));
            at = end;
        }
        list
    }

    fn without(jpeg: &[u8], marker: u8) -> Vec<u8> {
        let mut left = jpeg.to_vec();
        for (found, range) in segments(jpeg).into_iter().rev() {
            if found == marker {
                left.drain(range);
            }
        }
        left
    }

    /// The same as AVI files have it, and some cameras.
    fn avi1(jpeg: &[u8]) -> Vec<u8> {
        let other = without(jpeg, APP0);
        let (start, rest) = other.split_at(2);
        [start, &[0xFF, APP0, 0, 16], b"AVI1", &[0; 10], rest].concat()
    }

    #[test]
    fn a_picture_without_tables_is_the_picture_with_them() {
        let whole = whole();
        let want = rgb_of(&whole).expect("a picture");
        let bare = without(&whole, DHT);
        assert!(bare.len() + 4 * 17 < whole.len());
        for jpeg in [whole.clone(), avi1(&whole)] {
            assert_eq!(lacking_at(&jpeg), Ok(None));
            assert_eq!(rgb_of(&jpeg).as_ref(), Ok(&want));
        }
        let scan = lacking_at(&bare).expect("a scan").expect("no tables");
        // Bytes of no meaning may stand in front of a marker.
        let filled = [&bare[..scan], &[0xFF; 3], &bare[scan..]].concat();
        for jpeg in [bare.clone(), avi1(&bare), filled] {
            let at = lacking_at(&jpeg).expect("a scan").expect("no tables");
            assert!(jpeg[at..].starts_with(&[0xFF]) && jpeg[..at].ends_with(&bare[scan - 8..scan]));
            assert_eq!(rgb_of(&jpeg).as_ref(), Ok(&want));
        }
    }

    /// Written down a second time, by others.
    #[test]
    fn the_tables_are_those_of_an_encoder() {
        let whole = whole();
        let mut theirs: Vec<&[u8]> = segments(&whole)
            .into_iter()
            .filter(|(marker, _)| *marker == DHT)
            .map(|(_, range)| &whole[range.start + 4..range.end])
            .collect();
        theirs.sort_unstable();
        let ours = TABLES.map(|(place, lengths, values)| [&[place][..], &lengths, values].concat());
        assert_eq!(theirs, ours);
        let len = 2 + ours.iter().map(Vec::len).sum::<usize>();
        assert_eq!(len, usize::from(TABLES_LEN));
    }

    #[test]
    fn a_progressive_picture_without_tables_is_refused() {
        let mut whole = Vec::new();
        let mut encoder = jpeg_encoder::Encoder::new(&mut whole, 92);
        encoder.set_progressive(true);
        let rgb = soft(SIZE[0], SIZE[1], 0);
        let colours = jpeg_encoder::ColorType::Rgb;
        let done = encoder.encode(&rgb, SIZE[0] as u16, SIZE[1] as u16, colours);
        done.expect("encodes");
        let bare = without(&whole, DHT);
        assert_eq!(lacking_at(&bare), Ok(None));
        assert!(rgb_of(&bare).is_err());
    }

    #[test]
    fn what_is_cut_or_lies_about_a_length_is_an_error() {
        let bare = without(&whole(), DHT);
        let scan = lacking_at(&bare).expect("a scan").expect("no tables");
        for len in 0..scan + 2 {
            assert!(lacking_at(&bare[..len]).is_err(), "{len} bytes");
            assert!(rgb_of(&bare[..len]).is_err(), "{len} bytes");
        }
        for (marker, range) in segments(&bare) {
            for lie in [[0, 0], [0, 1], [0xFF, 0xFF]] {
                let mut jpeg = bare.clone();
                jpeg[range.start + 2..range.start + 4].copy_from_slice(&lie);
                assert!(lacking_at(&jpeg).is_err(), "{marker:x}: {lie:?}");
                assert!(rgb_of(&jpeg).is_err(), "{marker:x}: {lie:?}");
            }
        }
        let endless = [
            vec![0xFF_u8; 10_000],
            vec![0; 10_000],
            [0xFF, 1, 0, 2].repeat(10_000),
        ];
        for bytes in endless {
            assert_eq!(lacking_at(&bytes), Err(NO_SCAN));
        }
    }

    #[test]
    fn mutated_pictures_are_pictures_or_errors() {
        let whole = whole();
        let bare = without(&whole, DHT);
        let mut random = 0x9E37_79B9_7F4A_7C15_u64;
        let mut below = |most: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random >> 33) as usize % most
        };
        let (mut taken, mut refused) = (0, 0);
        for round in 0..800 {
            let mut jpeg = [&whole, &bare][round % 2].clone();
            for _ in 0..=below(4) {
                // What stands in front of the scan, and its beginning.
                let at = below(jpeg.len().min(700));
                match below(3) {
                    0 => jpeg[at] = below(256) as u8,
                    1 => {
                        jpeg.remove(at);
                    }
                    _ => jpeg.insert(at, [0, 0xFF, DHT, SOS][below(4)]),
                }
            }
            if let Ok(Some(at)) = lacking_at(&jpeg) {
                assert_eq!(jpeg[at], 0xFF, "round {round}");
            }
            match rgb_of(&jpeg) {
                Ok(_) => taken += 1,
                Err(_) => refused += 1,
            }
        }
        assert!(taken > 0 && refused > 0, "{taken} taken, {refused} refused");
    }
}
