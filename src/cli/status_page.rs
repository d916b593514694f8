//! The page that `status` shows: what matters first, one fact a line, human sizes.

use forerun::api::v1::{GetPrefetchStatusResponse, GetVolumeStatusResponse, Hydration, Tier};
use forerun::config::format_size;

use super::output::{count, counted, span};
use super::table::{Align, Table};

/// The width of the labels, in characters.
const LABEL_WIDTH: usize = 16;

/// The page for a moment in microseconds since 1970.
pub fn render(volume: &GetVolumeStatusResponse, prefetch: &GetPrefetchStatusResponse, now_us: u64) -> String {
    let mut page = Page { text: String::new(), now_us };
    head(&mut page, volume);
    epochs(&mut page, volume);
    tiers(&mut page, volume);
    requests(&mut page, volume);
    prediction(&mut page, prefetch);
    predictors(&mut page, prefetch);
    page.text
}

struct Page {
    text: String,
    now_us: u64,
}

impl Page {
    fn line(&mut self, label: &str, value: &str) {
        let line = format!("{label:<LABEL_WIDTH$}{value}");
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }

    /// A line that is left out where there is nothing to say.
    fn line_if_any(&mut self, label: &str, value: &str) {
        if !value.is_empty() {
            self.line(label, value);
        }
    }

    fn section(&mut self, title: &str) {
        self.text.push_str(&format!("\n{title}\n"));
    }

    fn ago(&self, us: u64) -> String {
        format!("{} ago", span(self.now_us.saturating_sub(us) as f64 / 1e6))
    }
}

fn percent(part: f64, whole: f64) -> String {
    if whole > 0.0 { format!("{:.0} %", 100.0 * part / whole) } else { "-".into() }
}

fn head(page: &mut Page, volume: &GetVolumeStatusResponse) {
    let logical = volume.logical_block_bytes;
    let size = format_size(volume.size_bytes);
    page.line("volume", &format!("{} ({size}, logical blocks of {logical} bytes)", volume.volume_id));
    let shape = format!(
        "{}, {} of depth {}, {}",
        volume.device,
        counted(volume.queues.into(), "queue"),
        volume.queue_depth,
        volume.transfer_mode
    );
    page.line("device", &shape);
    page.line_if_any("not granted", &volume.not_granted);
    page.line("health", &volume.health);
    let started = page.ago(volume.started_us);
    let memory = format_size(volume.memory_bytes);
    page.line("process", &format!("{}, started {started}, {memory} of memory", volume.pid));
}

fn epochs(page: &mut Page, volume: &GetVolumeStatusResponse) {
    let since = page.ago(volume.open_epoch_since_us);
    let interval = volume.sync_interval_seconds;
    page.line("open epoch", &format!("{}, opened {since}; one ends every {interval} s", volume.open_epoch));
    let written = format!(
        "up to epoch {}; {} to go, {}",
        volume.written_back_epoch,
        counted(volume.epochs_not_written_back.into(), "epoch"),
        format_size(volume.write_back_remaining_bytes)
    );
    let eta = volume.write_back_eta_seconds;
    let eta = if eta > 0.0 { format!(", about {}", span(eta)) } else { String::new() };
    page.line("written back", &format!("{written}{eta}"));
    page.line_if_any("write-back error", &volume.write_back_error);
}

fn tiers(page: &mut Page, volume: &GetVolumeStatusResponse) {
    page.section("tiers");
    let fill = |tier: &Tier| {
        let (used, total) = (format_size(tier.used_bytes), format_size(tier.total_bytes));
        if tier.total_bytes == 0 && tier.used_bytes > 0 {
            // An object store, which has no size.
            return format!("{used} used");
        }
        format!("{used} of {total} used ({})", percent(tier.used_bytes as f64, tier.total_bytes as f64))
    };
    let fast = volume.fast_tier.clone().unwrap_or_default();
    let clean = format_size(fast.clean_bytes);
    let dirty = format_size(volume.dirty_bytes);
    page.line("  fast", &format!("{}, {clean} of it clean, {dirty} dirty  {}", fill(&fast), fast.path));
    let capacity = volume.capacity_tier.clone().unwrap_or_default();
    page.line("  capacity", &format!("{}  {}", fill(&capacity), capacity.path));
    if !capacity.conditional_writes.is_empty() {
        page.line("  its server", &format!("conditional writes: {}", capacity.conditional_writes));
    }
    for origin in &volume.origins {
        let copying = if origin.promoting { ", being copied" } else { "" };
        let shared = format_size(origin.shared_bytes);
        page.line("  shared", &format!("{shared} with its origin{copying}  {}", origin.address));
    }
    if let Some(hydration) = &volume.hydration {
        warmth(page, hydration);
    }
    let data = format_size(volume.mapped_bytes);
    page.line(
        "  data",
        &format!("{data} ({} of the volume)", percent(volume.mapped_bytes as f64, volume.size_bytes as f64)),
    );
}

/// How far hydration is, while it is under way and once it has fetched anything.
fn warmth(page: &mut Page, hydration: &Hydration) {
    let fetched = format_size(hydration.fetched_bytes);
    let took = span(hydration.seconds);
    let share = |done: u64, of: u64| percent(done as f64, of as f64);
    let progress = match hydration.state.as_str() {
        "listed" => {
            let (done, of) = (hydration.listed_done, hydration.listed_blocks);
            format!("{} of {} that are expected to be used first", share(done, of), counted(of, "block"))
        }
        "rest" => {
            let (done, of) = (hydration.rest_done, hydration.rest_blocks);
            format!(
                "what is expected to be used is there; {} of {} in all",
                share(done, of),
                counted(of, "block")
            )
        }
        "done" if hydration.fetched_bytes > 0 => "done".to_owned(),
        "full" if hydration.fetched_bytes > 0 => "done, the fast tier is full".to_owned(),
        _ => return,
    };
    let left = if hydration.eta_seconds > 0.0 {
        format!(", about {} left", span(hydration.eta_seconds))
    } else {
        String::new()
    };
    let failed = match hydration.failed_blocks {
        0 => String::new(),
        failed => format!(", {} could not be fetched", counted(failed, "block")),
    };
    page.line("  warming up", &format!("{progress}; {fetched} fetched in {took}{left}{failed}"));
    let (now, steady) = (hydration.request_seconds, hydration.steady_request_seconds);
    if steady <= 0.0 || now <= 0.0 {
        return;
    }
    let again = if hydration.steady {
        format!("; steady again after {}", format_size(hydration.steady_after_bytes))
    } else {
        String::new()
    };
    let hits = format!(
        "{:.0} % of reads hit, {:.0} % before",
        100.0 * hydration.read_hits,
        100.0 * hydration.steady_read_hits
    );
    page.line("  latency", &format!("{} of what it was{again}; {hits}", percent(now, steady)));
}

fn requests(page: &mut Page, volume: &GetVolumeStatusResponse) {
    page.section("requests since the start");
    let (hits, misses) = (volume.read_hits, volume.read_misses);
    let hit_rate = percent(hits as f64, hits as f64 + misses as f64);
    let read = format!(
        "{}, {}; {hit_rate} of blocks from the fast tier, {} waited for the capacity tier",
        count(volume.read_requests),
        format_size(volume.read_bytes),
        count(misses)
    );
    page.line("  read", &read);
    page.line("  write", &format!("{}, {}", count(volume.write_requests), format_size(volume.write_bytes)));
    let (discards, flushes) = (count(volume.discard_requests), count(volume.flush_requests));
    page.line(
        "  other",
        &format!("{discards} discards, {flushes} flushes, {} failed", count(volume.failed_requests)),
    );
    let degraded = degraded(volume);
    page.line_if_any("  degraded", &degraded);
    page.line(
        "  moved",
        &format!("{} promoted, {} evicted", count(volume.promotions), count(volume.evictions)),
    );
}

/// How often each degraded mode was met; empty where none was.
fn degraded(volume: &GetVolumeStatusResponse) -> String {
    let counts = [
        (volume.waits_for_room, "waits for a slot"),
        (volume.fast_tier_errors, "failures of the fast tier"),
        (volume.journal_failures, "of its journal"),
        (volume.write_back_failures, "of write-back"),
        (volume.capacity_read_errors, "of reads from the capacity tier"),
    ];
    if counts.iter().all(|(number, _)| *number == 0) {
        return String::new();
    }
    let words: Vec<_> = counts.iter().map(|(number, what)| format!("{} {what}", count(*number))).collect();
    words.join(", ")
}

fn prediction(page: &mut Page, prefetch: &GetPrefetchStatusResponse) {
    page.section("prediction");
    let horizon = counted(prefetch.prediction_horizon.into(), "epoch");
    page.line("  state", &format!("{}; threshold {}, horizon {horizon}", prefetch.state, prefetch.threshold));
    let table = if prefetch.table_published_us == 0 {
        "none yet".to_owned()
    } else {
        format!(
            "{}, {} above the threshold; made after epoch {}, {}",
            counted(prefetch.predictions_published, "prediction"),
            count(prefetch.predictions_above_threshold),
            prefetch.table_epoch,
            page.ago(prefetch.table_published_us)
        )
    };
    page.line("  table", &table);
    if prefetch.tables_refused > 0 {
        let refused = counted(prefetch.tables_refused, "table");
        let taken = count(prefetch.tables_accepted);
        page.line("  refused", &format!("{refused} ({taken} taken), the last: {}", prefetch.last_refusal));
    }
    let (used, wasted) = (prefetch.reservations_used, prefetch.reservations_wasted);
    let reservations = format!(
        "{} made, {} used ({}), {} wasted, {} held; {} queued",
        count(prefetch.reservations_made),
        count(used),
        percent(used as f64, used as f64 + wasted as f64),
        count(wasted),
        count(prefetch.reservations_held),
        count(prefetch.queue_length)
    );
    page.line("  reservations", &reservations);
    let redirects = prefetch.redirects;
    let met = percent(used as f64, redirects as f64);
    page.line(
        "  redirects",
        &format!("{} first writes in an epoch, {met} into reserved room", count(redirects)),
    );
    let fetched = format!(
        "{} fetched ahead, {} of it used ({})",
        format_size(prefetch.prefetched_bytes),
        format_size(prefetch.prefetched_used_bytes),
        percent(prefetch.prefetched_used_bytes as f64, prefetch.prefetched_bytes as f64)
    );
    page.line("  prefetch", &fetched);
    if prefetch.score_window_epochs > 0 {
        let window = counted(prefetch.score_window_epochs.into(), "epoch");
        let (precision, recall) = (prefetch.precision, prefetch.recall);
        let (read_precision, read_recall) = (prefetch.read_precision, prefetch.read_recall);
        let reads = if read_precision > 0.0 || read_recall > 0.0 {
            format!("; of reads {read_precision:.2} and {read_recall:.2}")
        } else {
            String::new()
        };
        page.line("  score", &format!("precision {precision:.2}, recall {recall:.2} over {window}{reads}"));
    }
    benefit(page, prefetch);
}

/// What acting is worth, as measured against the control group, and the room kept for growth.
fn benefit(page: &mut Page, prefetch: &GetPrefetchStatusResponse) {
    let rate = |missed: f64, blocks: f64| 100.0 * missed / blocks.max(1.0);
    if prefetch.control_blocks > 0.0 && prefetch.acted_blocks > 0.0 {
        let acted = rate(prefetch.acted_missed, prefetch.acted_blocks);
        let control = rate(prefetch.control_missed, prefetch.control_blocks);
        let wait = format!("{:.1} ms", 1e3 * prefetch.capacity_read_seconds);
        let benefit = format!(
            "requests waited ({wait}) for {acted:.1} % of the blocks acted on, {control:.1} % of {:.0} left alone to compare",
            prefetch.control_blocks
        );
        page.line("  benefit", &benefit);
    }
    if prefetch.acts_from > prefetch.threshold {
        let from = format!(
            "from a probability of {:.2}: {:.0} % of what is evicted is missed again",
            prefetch.acts_from,
            100.0 * prefetch.missed_after_eviction
        );
        page.line("  acts", &from);
    }
    if prefetch.growth_bytes > 0 {
        let growth = format!(
            "{} expected within the horizon, {} kept free for it",
            format_size(prefetch.growth_bytes),
            format_size(prefetch.growth_kept_bytes)
        );
        page.line("  growth", &growth);
    }
}

fn predictors(page: &mut Page, prefetch: &GetPrefetchStatusResponse) {
    if prefetch.trainer_reported_us == 0 {
        page.line("  trainer", "has not reported");
        return;
    }
    let reported = page.ago(prefetch.trainer_reported_us);
    page.line("  serving", &format!("{}: {}", prefetch.serving_predictor, prefetch.serving_reason));
    page.line("  trainer", &format!("reported {reported}"));
    if prefetch.predictors.is_empty() {
        return;
    }
    let mut table = Table::new(&[
        ("PREDICTOR", Align::Left),
        ("MEAN AVG PRECISION", Align::Right),
        ("PRECISION", Align::Right),
        ("RECALL", Align::Right),
        ("EPOCHS", Align::Right),
    ]);
    for predictor in &prefetch.predictors {
        let mark = if predictor.name == prefetch.serving_predictor { " *" } else { "" };
        table.row(vec![
            format!("{}{mark}", predictor.name),
            format!("{:.3}", predictor.mean_average_precision),
            format!("{:.2}", predictor.precision),
            format!("{:.2}", predictor.recall),
            count(predictor.epochs.into()),
        ]);
    }
    let indented: String = table.render().lines().map(|line| format!("  {line}\n")).collect();
    page.text.push_str(&format!("\n{indented}"));
}

#[cfg(test)]
mod tests;
