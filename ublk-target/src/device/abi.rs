//! The structures that go to and from the driver over `/dev/ublk-control`, byte for byte.
//!
//! They are written out here because the bindings' `ublk_params` ends before the DMA alignment, which
//! zero copy to a direct-I/O file needs. All numbers are in the machine's byte order, as the kernel's
//! `include/uapi/linux/ublk_cmd.h` has them; nothing here does I/O.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Kept by the driver in `server_flags` with each device of ours ("FORERUN", 1): tells ours from others'.
pub(super) const OURS: u64 = u64::from_be_bytes(*b"FORERUN\x01");

/// `struct ublksrv_ctrl_dev_info`: 64 bytes.
#[derive(Clone, Copy, Debug, Default, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub(super) struct DevInfo {
    pub queues: u16,
    pub depth: u16,
    pub state: u16,
    pub pad0: u16,
    pub io_buffer_bytes: u32,
    pub id: u32,
    pub pid: i32,
    pub pad1: u32,
    pub flags: u64,
    /// Ours to use: the driver keeps it as long as the device.
    pub server_flags: u64,
    pub owner_uid: u32,
    pub owner_gid: u32,
    pub reserved1: u64,
    pub reserved2: u64,
}

/// `struct ublksrv_ctrl_cmd`: 32 bytes, followed by zeros up to the 80 of a big SQE's command.
#[derive(Clone, Copy, Debug, Default, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub(super) struct ControlCommand {
    pub id: u32,
    pub queue: u16,
    pub len: u16,
    pub address: u64,
    pub data: u64,
    pub path_len: u16,
    pub pad: u16,
    pub reserved: u32,
}

/// `struct ublk_params` up to and with the DMA alignment: 120 bytes.
///
/// A driver that knows less reads less, one that knows more takes zeros for the rest.
#[derive(Clone, Copy, Debug, Default, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub(super) struct Params {
    pub len: u32,
    pub types: u32,
    pub attributes: u32,
    pub logical_shift: u8,
    pub physical_shift: u8,
    pub io_opt_shift: u8,
    pub io_min_shift: u8,
    pub max_sectors: u32,
    pub chunk_sectors: u32,
    pub sectors: u64,
    pub virt_boundary_mask: u64,
    pub discard_alignment: u32,
    pub discard_granularity: u32,
    pub max_discard_sectors: u32,
    pub max_write_zeroes_sectors: u32,
    pub max_discard_segments: u16,
    pub discard_reserved: u16,
    pub char_major: u32,
    pub char_minor: u32,
    pub disk_major: u32,
    pub disk_minor: u32,
    pub max_open_zones: u32,
    pub max_active_zones: u32,
    pub max_zone_append_sectors: u32,
    pub zoned_reserved: [u8; 20],
    pub dma_alignment_mask: u32,
    pub dma_pad: [u8; 4],
    pub end_pad: [u8; 4],
}

#[cfg(test)]
mod tests {
    use std::mem::{offset_of, size_of};

    use super::*;

    #[test]
    fn sizes_and_places_are_the_kernels() {
        assert_eq!(size_of::<DevInfo>(), 64);
        assert_eq!(offset_of!(DevInfo, flags), 24);
        assert_eq!(size_of::<ControlCommand>(), 32);
        assert_eq!(offset_of!(ControlCommand, data), 16);
        assert_eq!(size_of::<Params>(), 120);
        assert_eq!(offset_of!(Params, sectors), 24);
        assert_eq!(offset_of!(Params, discard_alignment), 40);
        assert_eq!(offset_of!(Params, char_major), 60);
        assert_eq!(offset_of!(Params, max_open_zones), 76);
        assert_eq!(offset_of!(Params, dma_alignment_mask), 108);
        assert_eq!(size_of::<DevInfo>(), size_of::<libublk::sys::ublksrv_ctrl_dev_info>());
        assert_eq!(size_of::<ControlCommand>(), size_of::<libublk::sys::ublksrv_ctrl_cmd>());
        assert_eq!(offset_of!(Params, max_open_zones), offset_of!(libublk::sys::ublk_params, zoned));
    }
}
