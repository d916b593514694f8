//! `snapshot diff`: the changed blocks, page by page from the API straight to the reader.

use std::io::{self, BufWriter, Write};

use forerun::api::v1::{BlockChange, ChangeKind, DiffSnapshotsRequest};
use forerun::config::{Paths, format_size};
use forerun::geometry::BLOCK_BYTES;
use serde::Serialize;

use super::args::SnapshotDiffOptions;
use super::{client, output};

/// How many blocks there are of each kind.
#[derive(Default, Serialize)]
struct Summary {
    added: u64,
    modified: u64,
    deleted: u64,
}

#[derive(Serialize)]
struct Line<'a> {
    block: u32,
    offset_bytes: u64,
    kind: &'a str,
    sub_blocks: u32,
}

/// Runs the command.
pub fn run(paths: &Paths, options: SnapshotDiffOptions) -> anyhow::Result<()> {
    let name = |snapshot: &Option<_>| snapshot.as_ref().map(ToString::to_string).unwrap_or_default();
    let mut request = DiffSnapshotsRequest {
        volume_id: options.volume.to_string(),
        from: name(&options.from),
        to: name(&options.to),
        page_size: 0,
        page_token: String::new(),
    };
    let mut printer = Printer::new(&options);
    client::block_on(async {
        let mut client = client::connect(paths, &options.volume, client::CALL_LIMIT).await?;
        loop {
            let page = client.diff_snapshots(request.clone()).await.map_err(client::failure)?.into_inner();
            printer.page(&page.changes)?;
            if page.next_page_token.is_empty() {
                return Ok(());
            }
            request.page_token = page.next_page_token;
        }
    })?;
    Ok(printer.end()?)
}

fn kind_name(kind: ChangeKind) -> &'static str {
    match kind {
        ChangeKind::Added => "added",
        ChangeKind::Modified => "modified",
        ChangeKind::Deleted => "deleted",
        ChangeKind::Unspecified => "unknown",
    }
}

/// Prints changes as they come. Nothing is printed before the first answer, so that an error stands alone.
struct Printer {
    out: BufWriter<io::Stdout>,
    json: bool,
    summary_only: bool,
    begun: bool,
    summary: Summary,
    from: String,
    to: String,
}

impl Printer {
    fn new(options: &SnapshotDiffOptions) -> Self {
        let name = |snapshot: &Option<_>| snapshot.as_ref().map(ToString::to_string).unwrap_or_default();
        Self {
            out: BufWriter::new(io::stdout()),
            json: options.json,
            summary_only: options.summary,
            begun: false,
            summary: Summary::default(),
            from: name(&options.from),
            to: name(&options.to),
        }
    }

    fn page(&mut self, changes: &[BlockChange]) -> io::Result<()> {
        for change in changes {
            match change.kind() {
                ChangeKind::Added => self.summary.added += 1,
                ChangeKind::Modified => self.summary.modified += 1,
                ChangeKind::Deleted => self.summary.deleted += 1,
                ChangeKind::Unspecified => {}
            }
            let kind = kind_name(change.kind());
            let offset_bytes = u64::from(change.block) * BLOCK_BYTES;
            let line = Line { block: change.block, offset_bytes, kind, sub_blocks: change.sub_blocks };
            if self.json {
                let separator = if self.begun { ",\n" } else { &self.json_head()? };
                write!(self.out, "{separator}    {}", serde_json::to_string(&line)?)?;
            } else if !self.summary_only {
                if !self.begun {
                    writeln!(self.out, "{:>10}  {:>20}  {:<8}  SUB-BLOCKS", "BLOCK", "OFFSET", "KIND")?;
                }
                writeln!(
                    self.out,
                    "{:>10}  {offset_bytes:>20}  {kind:<8}  {:>10}",
                    line.block, line.sub_blocks
                )?;
            }
            self.begun = true;
        }
        // A page is shown as soon as it is there.
        self.out.flush()
    }

    fn json_head(&self) -> io::Result<String> {
        let (from, to) = (serde_json::to_string(&self.from)?, serde_json::to_string(&self.to)?);
        Ok(format!("{{\n  \"from\": {from},\n  \"to\": {to},\n  \"changes\": [\n"))
    }

    fn end(mut self) -> io::Result<()> {
        let Summary { added, modified, deleted } = self.summary;
        if self.json {
            let head = if self.begun { String::new() } else { self.json_head()? };
            let summary = serde_json::to_string(&self.summary)?;
            writeln!(self.out, "{head}\n  ],\n  \"summary\": {summary}\n}}")?;
        } else {
            let count = output::count;
            let size = format_size((added + modified + deleted) * BLOCK_BYTES);
            let (added, modified, deleted) = (count(added), count(modified), count(deleted));
            writeln!(self.out, "{added} added, {modified} modified, {deleted} deleted: {size} of blocks")?;
        }
        self.out.flush()
    }
}
