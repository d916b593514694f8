"""The bugs that scripts/mutants plants: each is what one could write by mistake."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Bug:
    name: str
    what: str
    # File below ublk-target/src, the code there, what it becomes.
    changes: tuple[tuple[str, str, str], ...]


BUGS = (
    Bug("skipped-flush", "a commit does not make the data durable before its record", ((
        "fast_tier/rounds.rs",
        "        self.shared.sync().await?;\n        let pages",
        "        let pages",
    ),)),
    Bug("early-acknowledgement", "a commit is told before its record is durable", ((
        "fast_tier/rounds.rs",
        "        self.shared.sync().await?;\n        Ok(pages)",
        "        Ok(pages)",
    ),)),
    Bug("early-free", "the journal is given free before the checkpoint that replaces it is durable", ((
        "fast_tier/checkpointer.rs",
        "    device.write_at(offset, &header)?;\n    shared.sync().await?;\n",
        "    device.write_at(offset, &header)?;\n    shared.lock().ring.free_to(start);\n    shared.sync().await?;\n",
    ),)),
    Bug("checkpoint-ahead", "a checkpoint does not wait for what its walk has seen", ((
        "fast_tier/checkpointer.rs",
        "    if shared.durable.load(Ordering::SeqCst) < seen {\n",
        "    if false && shared.durable.load(Ordering::SeqCst) < seen {\n",
    ),)),
    Bug("journal-wrap", "a commit that goes round the ring's end is written on beyond it", ((
        "fast_tier/journal.rs",
        "            if self.pages.is_full() || (index == 0 && self.pages.filled() > 0) {",
        "            if self.pages.is_full() {",
    ),)),
    Bug("wrong-room", "one page too many counts as free when the journal goes round", ((
        "fast_tier/ring.rs",
        "            self.used = if used == 0 { self.pages } else { used };",
        "            self.used = if used == 0 { self.pages } else { used - 1 };",
    ),)),
    Bug("limbo", "a slot is used again before its being free is durable", ((
        "volume/allocator.rs",
        "            if freed > durable {",
        "            if false && freed > durable {",
    ),)),
    Bug("lost-dirty", "a write into a slot that is there already is not logged", ((
        "volume/write.rs",
        "            volume.log.append(&Delta::Holds(holds));\n            record.set_bits(new);",
        "            if bits.valid.is_empty() {\n                volume.log.append(&Delta::Holds(holds));\n            }\n            record.set_bits(new);",
    ),)),
    Bug("no-tombstone", "a discard leaves no trace in the log", ((
        "volume/discard.rs",
        "            self.log.append(&Delta::Deleted { block, epoch: self.layers.epoch(layer) });\n",
        "",
    ),)),
    Bug("undrained", "a sealed layer is written back while its writes are in flight", ((
        "background/publish.rs",
        "    while !volume.layers().drained(layer) {",
        "    while false && !volume.layers().drained(layer) {",
    ),)),
    Bug("not-joined", "a partial write copies a sub-block that another one is about to change", ((
        "volume/write.rs",
        "            if !here.is_empty() && layer != CLEAN && !self.layers.drained(LayerNumber(layer)) {",
        "            if false && !here.is_empty() && layer != CLEAN && !self.layers.drained(LayerNumber(layer)) {",
    ),)),
    Bug("stale-clean", "recovery keeps a clean slot whose block has a newer place", ((
        "volume/recover.rs",
        "        let current = newest.epoch >= placed && self.volume.places.get(block).is_some();",
        "        let current = placed >= Epoch(0) && self.volume.places.get(block).is_some();",
    ),)),
    Bug("head-first", "HEAD names a layer whose last segment is still on its way", ((
        "capacity_tier/segment_writer.rs",
        "        while !self.in_flight.is_empty() {\n            self.wait_for_first().await?;\n        }\n",
        "        while let Some(first) = self.in_flight.pop_front() {\n            self.written.push(first.written);\n        }\n",
    ),)),
    Bug("lost-deletion", "merging layers drops the tombstones that still hide something", ((
        "capacity_tier/maintain.rs",
        "            if entry.place.is_some() || !from_bottom {",
        "            if entry.place.is_some() || from_bottom {",
    ),)),
    Bug("moved-block", "the map does not follow a block that compaction moved", ((
        "background/capacity.rs",
        "                    shared.volume.relocated(block, old.word(), new.word());",
        "                    let _ = (block, old, new);",
    ),)),
    Bug("stale-promotion", "a promotion ends though the block was deleted meanwhile", ((
        "volume/promote.rs",
        "            && !shard.deleted.contains_key(&block)\n",
        "",
    ),)),
    Bug("unsure-write-back", "HEAD gets a layer that was read from a device that has lost writes since", ((
        "background/write_back.rs",
        "    shared.committer.commit().await?;\n    // From here on",
        "    // From here on",
    ),)),
    Bug("name-in-doubt", "a name is taken off a layer that HEAD may have by now", ((
        "background/write_back.rs",
        "        if !tasks.capacity.is_head_in_doubt() {\n            volume.stay(layer);\n        }",
        "        volume.stay(layer);",
    ),)),
    Bug("void-ignored", "after a failed flush the pending log is replayed all the same", ((
        "fast_tier/committer.rs",
        "        self.pending.void();\n",
        "",
    ),)),
    Bug("unsettled-head", "an opening goes by a HEAD that a killed process left before it was durable", ((
        "capacity_tier/tier.rs",
        "        store.settle_head().await.map_err(|source| {",
        "        std::io::Result::Ok(()).map_err(|source| {",
    ),)),
)
