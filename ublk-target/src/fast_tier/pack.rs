//! Deltas into payloads of pages and back: no delta spans two pages, so that each page is read alone.

use super::delta::Delta;
use super::page::PAYLOAD_BYTES;

/// Cuts encoded deltas into payloads, each at most a page's, in order; `None` where the bytes are no deltas.
pub(super) fn payloads(mut bytes: &[u8]) -> Option<Vec<&[u8]>> {
    let mut payloads = Vec::with_capacity(bytes.len() / PAYLOAD_BYTES + 1);
    while !bytes.is_empty() {
        let mut taken = 0;
        let mut rest = bytes;
        while !rest.is_empty() {
            Delta::decode(&mut rest)?;
            let after = bytes.len() - rest.len();
            if after > PAYLOAD_BYTES {
                break;
            }
            taken = after;
        }
        let (payload, after) = bytes.split_at_checked(taken)?;
        payloads.push(payload);
        bytes = after;
    }
    Some(payloads)
}

/// Hands over every delta in `payload`; false where there is something else in it.
pub(super) fn unpack(mut payload: &[u8], take: &mut dyn FnMut(Delta)) -> bool {
    while !payload.is_empty() {
        let Some(delta) = Delta::decode(&mut payload) else { return false };
        take(delta);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fast_tier::delta::tests::any_delta;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn all_deltas_come_back(deltas in proptest::collection::vec(any_delta(), 0..1000)) {
            let mut bytes = Vec::new();
            deltas.iter().for_each(|delta| delta.encode(&mut bytes));
            let payloads = payloads(&bytes).expect("deltas");
            let mut read = Vec::new();
            for payload in payloads {
                prop_assert!(payload.len() <= PAYLOAD_BYTES && !payload.is_empty());
                prop_assert!(unpack(payload, &mut |delta| read.push(delta)));
            }
            prop_assert_eq!(read, deltas);
        }
    }
}
