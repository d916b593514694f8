//! The trainer's stored change vectors.
//!
//! Input: how (1), number of changes (4), bytes of the plain body (4), the body. Even: the bytes as they are. Odd: a body, which is
//! packed and sealed; 3: a packed body, which is sealed.
#![no_main]

use std::io::Read;

#[allow(dead_code, unreachable_pub, reason = "the whole file of the trainer, of which not all is called")]
#[path = "../../../trainer/src/history/codec.rs"]
mod codec;

fn sealed(count: u32, plain_bytes: u32, packed: &[u8]) -> Vec<u8> {
    let mut bytes = b"FRCV\x01\0\0\0\x05\0\0\0".to_vec();
    bytes.extend_from_slice(&count.to_le_bytes());
    bytes.extend_from_slice(&[1; 16]);
    bytes.extend_from_slice(&plain_bytes.to_le_bytes());
    bytes.extend_from_slice(packed);
    let crc = codec::crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

fn read(data: &[u8]) {
    let Some(([how, a, b, c, d, e, f, g, h], rest)) = data.split_first_chunk() else { return };
    let (count, plain) = (u32::from_le_bytes([*a, *b, *c, *d]), u32::from_le_bytes([*e, *f, *g, *h]));
    let bytes = match how {
        how if how.is_multiple_of(2) => rest.to_vec(),
        3 => sealed(count, plain, rest),
        _ => match zstd::bulk::compress(rest, 1) {
            Ok(packed) => sealed(count, rest.len() as u32, &packed),
            Err(error) => panic!("{error}"),
        },
    };
    let Ok(vector) = codec::decode(&bytes) else { return };
    let Ok(again) = codec::encode(&vector) else { panic!("what was read is written") };
    assert_eq!(codec::decode(&again).as_ref(), Ok(&vector), "a change vector comes back as it was");
    assert!(vector.changes().is_sorted_by(|a, b| a.block < b.block));
}

/// How much there is to unpack in an input, in bytes: zstd packs 128 KiB into four.
fn plain_bytes(data: &[u8]) -> u64 {
    let packed = match data.first() {
        Some(3) => data.get(9..),
        Some(how) if how.is_multiple_of(2) => data.get(9 + 36..),
        _ => return 0,
    };
    let Ok(mut decoder) = zstd::stream::read::Decoder::with_buffer(packed.unwrap_or_default()) else {
        return 0;
    };
    let mut buffer = [0; 4096];
    let mut plain = 0;
    // What comes before an error counts as well.
    while let Ok(read @ 1..) = decoder.read(&mut buffer) {
        plain += read as u64;
        if plain > 64 << 20 {
            break;
        }
    }
    plain
}

// What is taken may follow what unpacks, whatever the lengths in the header say.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let factor = 64 + plain_bytes(data) as usize * 64 / data.len().max(1);
    forerun_fuzz::bounded(data, factor, read);
});
