"""A trainer beside a volume: its tables reach the target, name files, and tell reads from changes."""

import os
import time

from lab import BLOCK, MIB, equal, expect, run, test, until

TABLE_LIMIT = 240  # seconds that a prediction table may take under emulation


@test
def predictions_reach_the_target(lab):
    """A pattern of two that alternates: a trainer learns it, reservations are made and used."""
    volume = lab.volume("learn", "256M", "256M", "--threshold", "0.3", "--sync-interval", "3600")
    path = volume.add(trainer=True)
    device = lab.device(path)
    unit = BLOCK // 4096
    for epoch in range(12):
        for block in range(40):
            device.write((block + 400 * (epoch % 2)) * unit, 2)
        snapshot = volume.snapshot(f"e{epoch}")["snapshot"]
        # A table that comes after the next epoch has ended is of no use; some machines emulate floating point slowly.
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            prefetch = volume.status()["prefetch"]
            if prefetch["table_epoch"] >= snapshot["epoch"] and prefetch["queue_length"] == 0:
                break
            time.sleep(0.3)
        if epoch >= 8 and prefetch["reservations_used"] > 60:
            break
    lab.note(
        f"after {epoch + 1} epochs: {prefetch['tables_accepted']} tables, {prefetch['reservations_made']} reservations made, "
        f"{prefetch['reservations_used']} used; precision {prefetch['precision']:.2f}, recall {prefetch['recall']:.2f}; "
        f"serving: {prefetch['serving_predictor']}"
    )
    equal(prefetch["tables_refused"], 0, lambda: f"tables refused ({prefetch['last_refusal']})")
    expect(prefetch["tables_accepted"] > 0, "no prediction table was taken")
    expect(prefetch["reservations_used"] > 0, "no reservation was used")
    chains = volume.forerun.json("chain", "list", volume.name)["chains"]
    expect(len(chains) >= 1, "no chain was reported")
    answer = volume.forerun.json("threshold", volume.name, "0.7")
    equal(answer["previous_threshold"], 0.3, "the threshold before")
    equal(volume.status()["prefetch"]["threshold"], 0.7, "the threshold set")
    equal(device.check_all() > 0 and device.errors, [], "what differs on the device")
    device.close()


@test
def predictions_are_told_as_files(lab):
    """A file system in use: `forerun predict` names the file that is written again and again."""
    volume = lab.volume("named", "512M", "256M", "--threshold", "0.3", "--sync-interval", "3600")
    device = volume.add(trainer=True)
    run(["mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", device], 180)
    path = lab.mount(device)
    (path / "base").mkdir()
    table = path / "base/table"
    table.write_bytes(os.urandom(4 * MIB))
    for epoch in range(10):
        with open(table, "r+b") as file:
            for block in range(0, 4 * MIB, BLOCK):
                os.pwrite(file.fileno(), os.urandom(8192), block)
        os.sync()
        snapshot = volume.snapshot(f"e{epoch}")["snapshot"]
        until("a prediction table", TABLE_LIMIT, lambda last=snapshot["epoch"]: volume.status()["prefetch"]["table_epoch"] >= last)
    said = volume.forerun.json("predict", volume.name, "--from-probability", "0.3")
    equal(said["file_system"], "ext4", "the file system")
    paths = {piece.get("path") for expected in said["ranges"] for piece in expected["contents"]}
    expect("/base/table" in paths, f"the file is not named: {said}")
    page = volume.forerun("predict", volume.name, "--from-probability", "0.3", "--limit", "8")
    expect("/base/table" in page, f"the file is not named: {page}")
    lab.note(f"{len(said['ranges'])} ranges; named: {', '.join(sorted(name for name in paths if name))}")
    lab.unmount(path)


@test
def reads_are_expected(lab):
    """Blocks that are read again and again, and never written: they are predicted as reads, and so is what is written as changes."""
    volume = lab.volume("reads", "256M", "128M", "--threshold", "0.3", "--sync-interval", "3600")
    device = lab.device(volume.add(trainer=True))
    read, written = [*range(100, 148), *range(900, 908)], [10, 11, 12]
    for block in read + written:
        device.write(block * BLOCK // 4096, 2)
    for epoch in range(9):
        for block in read:
            device.check(block * BLOCK // 4096, 1)
        for block in written:
            device.write(block * BLOCK // 4096, 1)
        last = volume.snapshot(f"e{epoch}")["snapshot"]["epoch"]
        until("a prediction table", TABLE_LIMIT, lambda last=last: volume.status()["prefetch"]["table_epoch"] >= last)
    said = volume.forerun.json("predict", volume.name, "--from-probability", "0.3", "--no-files")
    expected = {"read": set(), "modified": set(), "added": set(), "deleted": set()}
    for piece in said["ranges"]:
        first, count = piece["offset_bytes"] // BLOCK, piece["length_bytes"] // BLOCK
        expected[piece["kind"]].update(range(first, first + count))
    expect(expected["read"] >= set(read), lambda: f"not all that is read is expected to be: {said['ranges']}")
    expect(expected["modified"] >= set(written), lambda: f"not all that is written is expected to be: {said['ranges']}")
    expect(not expected["read"] & set(written), lambda: f"what is written is expected to be read alone: {said['ranges']}")
    equal(device.errors, [], "what differs on the device")
    score = volume.status()["prefetch"]
    expect(score["read_recall"] > 0.5, lambda: f"reads are not scored: {score}")
    lab.note(f"reads: precision {score['read_precision']:.2f}, recall {score['read_recall']:.2f}")
    device.close()
