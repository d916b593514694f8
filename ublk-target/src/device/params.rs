//! The limits and attributes that the block layer is given for a device.

use forerun::geometry::{BLOCK_BYTES, Geometry, SUB_BLOCK_BYTES};
use libublk::sys;

use super::abi::Params;

const SECTOR_SHIFT: u32 = 9;
/// The longest discard or write of zeroes: a result is a signed 32-bit number of bytes.
const MAX_DISCARD_BYTES: u64 = (2 << 30) - BLOCK_BYTES;

/// The parameters of a device that shows a volume of this shape.
///
/// `dma_alignment_bytes` is what the fast tier asks of the memory it reads and writes directly; it
/// matters with zero copy only, where that memory is the request's own.
pub(super) fn params(
    geometry: Geometry,
    read_only: bool,
    io_buffer_bytes: u32,
    dma_alignment_bytes: Option<u32>,
) -> Params {
    let mut params = Params {
        len: size_of::<Params>() as u32,
        types: sys::UBLK_PARAM_TYPE_BASIC,
        attributes: sys::UBLK_ATTR_VOLATILE_CACHE | sys::UBLK_ATTR_FUA,
        logical_shift: geometry.logical_block_bytes().trailing_zeros() as u8,
        physical_shift: SUB_BLOCK_BYTES.trailing_zeros() as u8,
        io_opt_shift: BLOCK_BYTES.trailing_zeros() as u8,
        io_min_shift: SUB_BLOCK_BYTES.trailing_zeros() as u8,
        max_sectors: io_buffer_bytes >> SECTOR_SHIFT,
        sectors: geometry.size_bytes() >> SECTOR_SHIFT,
        ..Params::default()
    };
    if read_only {
        params.attributes |= sys::UBLK_ATTR_READ_ONLY;
    } else {
        params.types |= sys::UBLK_PARAM_TYPE_DISCARD;
        params.discard_granularity = BLOCK_BYTES as u32;
        params.max_discard_sectors = (MAX_DISCARD_BYTES >> SECTOR_SHIFT) as u32;
        params.max_write_zeroes_sectors = params.max_discard_sectors;
        params.max_discard_segments = 1;
    }
    // The block layer's own default is a sector; the driver takes masks below a page.
    if let Some(bytes) = dma_alignment_bytes.filter(|bytes| bytes.is_power_of_two() && *bytes <= 4096) {
        params.types |= sys::UBLK_PARAM_TYPE_DMA_ALIGN;
        params.dma_alignment_mask = bytes.max(512) - 1;
    }
    params
}

#[cfg(test)]
mod tests {
    use forerun::geometry::MAX_VOLUME_BYTES;

    use super::*;

    #[test]
    fn a_volumes_limits() {
        let geometry = Geometry::new(MAX_VOLUME_BYTES, 512).unwrap();
        let params = params(geometry, false, 512 * 1024, Some(4));
        assert_eq!((params.logical_shift, params.physical_shift, params.io_opt_shift), (9, 12, 16));
        assert_eq!(params.sectors, MAX_VOLUME_BYTES / 512);
        assert_eq!(params.max_sectors, 1024);
        assert_eq!(params.discard_granularity, 65536);
        assert_eq!(params.max_discard_segments, 1);
        assert!(u64::from(params.max_discard_sectors) * 512 < 2 << 30);
        assert_eq!(u64::from(params.max_discard_sectors) * 512 % BLOCK_BYTES, 0);
        assert_eq!(params.dma_alignment_mask, 511);
    }

    #[test]
    fn a_snapshot_cannot_be_discarded() {
        let geometry = Geometry::new(64 << 20, 4096).unwrap();
        let params = params(geometry, true, 1 << 20, None);
        assert_eq!(params.types, sys::UBLK_PARAM_TYPE_BASIC);
        assert_ne!(params.attributes & sys::UBLK_ATTR_READ_ONLY, 0);
        assert_eq!(params.max_discard_sectors, 0);
    }
}
