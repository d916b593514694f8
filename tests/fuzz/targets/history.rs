//! The trainer's stored change vectors.
//!
//! Input: how (1), number of changes (4), bytes of the plain body (4), the body. Even: the bytes as they are. Odd: a body, which is
//! packed and sealed; 3: a packed body, which is sealed.
#![no_main]

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

// A bitmap's run of 65,536 blocks is 8 bytes, a change is 8 bytes, and its half byte packs to almost nothing: what a
// short input may mean is bounded by what it says of itself, which the tests of `codec` show. Here by what is packed.
libfuzzer_sys::fuzz_target!(|data: &[u8]| forerun_fuzz::bounded(data, 4096, read));
