"""Why tests of others are not run, and why some that fail say nothing against forerun. scripts/conformance reads it.

A reason counts only where the test ended as `statuses` says and what it said holds the regular expression `said`: another failure of the
same test is a failure.
"""

from typing import NamedTuple


class Reason(NamedTuple):
    tests: str  # a regular expression for the whole name
    said: str  # and one for what the suite printed
    verdict: str  # 'not applicable', 'not ours' or 'explained'
    why: str
    statuses: tuple = ("failed",)


EXCLUDED = {}

QUIESCED = r"\s*\+device is QUIESCED after killing queue daemon\n"

NOT_RUN = ("not run",)

REASONS = [
    Reason("ublk/002", rf"Running ublk/002\n{QUIESCED}{QUIESCED}\s*Test complete", "not applicable",
           "waits for the state DEAD, which only a device without recovery comes to; forerun's always have recovery and wait as QUIESCED, "
           "as ublk/005 and 006 want it. All else the test does (kill -9 under load, del) works"),
    Reason("block/042", r"\+dio-offsets: test_max_vector_limits: data corruption at offset 512/2048: .*\n\s*\+src/dio-offsets failed\n", "not ours",
           "the test compares 2048 bytes (half a logical block) of vectors of which it transfers 512 (the DMA alignment): the bytes between "
           "were never read. The same on a plain disk with 4096-byte blocks"),
    Reason("generic/347", r"filesystem on /dev/mapper/thin-vol.347 is inconsistent", "not ours",
           "the test fills a dm-thin pool and then grows it; in emulation that takes longer than the 60 s after which dm-thin fails what waits for "
           "room (kernel: 'switching pool to out-of-data-space (error IO) mode'). The same on a plain disk"),
    Reason("generic/223", r"file-1-\d+-falloc: Start block 33153 not multiple of sunit", "not ours",
           "on a disk without seeks, or so it says, ext4 places the first file where a group begins. The same on a plain disk that says so"),
    Reason("generic/704", r"/sys/block/sd\*/device/model", "not ours", "the test wants a scsi_debug device, and finds none"),
    Reason("generic/(633|696|697)", r"openat_tmpfile_supported - Value too large for defined data type", "not ours",
           "a test of the file system alone: the kernel refuses O_TMPFILE on an idmapped mount. The same on a plain disk"),
    Reason("dm/001", r"common/rc: line \d+: .*value too great for base", "not ours", "the suite cannot parse the version of Debian's kernel"),
    Reason("block/(011|019)", "setpci", "not applicable", "takes a PCI device away; a ublk device is none", NOT_RUN),
    Reason("block/036|dm/002", "debugfs does not exist|dm_dust", "not applicable",
           "Debian's kernel is built without the fault injection (fail_make_request, dm-dust) it needs", NOT_RUN),
    Reason("block/04[13]", "", "not applicable", "needs a device with integrity metadata", NOT_RUN),
    Reason("nvme/.*", "nvme", "not applicable", "needs an NVMe device", NOT_RUN),
    Reason("scsi/.*", "is not a SCSI device", "not applicable", "needs a SCSI device", NOT_RUN),
    Reason("zbd/.*", "", "not applicable", "needs a zoned device", NOT_RUN),
]  # fmt: skip
