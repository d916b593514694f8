//! `chain list`: the epochs that the trainer linked because their change vectors are alike.

use forerun::api::v1::{Chain, ListChainsRequest};
use forerun::config::{Paths, format_size};
use forerun::geometry::BLOCK_BYTES;
use forerun::utc::Utc;

use super::args::ChainListOptions;
use super::table::{Align, Table};
use super::{client, output};

/// Runs the command.
pub fn list(paths: &Paths, options: &ChainListOptions) -> anyhow::Result<()> {
    let answer = client::block_on(async {
        let mut client = client::connect(paths, &options.volume, client::CALL_LIMIT).await?;
        let request = ListChainsRequest { volume_id: options.volume.to_string() };
        client.list_chains(request).await.map_err(client::failure)
    })?
    .into_inner();
    if options.json {
        return Ok(output::json(&answer)?);
    }
    if answer.reported_us == 0 {
        return Ok(output::text(
            "no trainer has reported yet; chains appear after the first sealed epochs\n",
        )?);
    }
    if options.explain {
        return Ok(output::text(&explain(&answer.chains))?);
    }
    Ok(output::text(&table(&answer.chains).render())?)
}

/// Why each chain is one, and what has left it. JSON has the same in its own fields.
fn explain(chains: &[Chain]) -> String {
    let mut text = String::new();
    for chain in chains {
        let epochs = output::count(chain.epochs.len() as u64);
        text += &format!(
            "chain {}: {epochs} epochs, {} to {} (UTC), {} an epoch\n",
            chain.id,
            Utc::from_us(chain.first_us),
            Utc::from_us(chain.last_us),
            format_size(chain.mean_changed_blocks.saturating_mul(BLOCK_BYTES)),
        );
        if chain.epochs.len() < 2 {
            text += "  a single epoch: none since was as much like it as is wanted\n";
        } else {
            text += &format!("  linked because each is like the one before, {:.2} of 1", chain.similarity);
            text += &chain.likeness.as_ref().map_or_else(String::new, |parts| {
                format!(
                    ": blocks {:.2}, regions {:.2}, run lengths {:.2}, kinds {:.2}, volume {:.2}",
                    parts.blocks, parts.regions, parts.run_lengths, parts.kinds, parts.volume,
                )
            });
            text += "\n";
        }
        // A trainer that does not say has zeros here, and pruned nothing by them.
        if chain.pruned_after_hours > 0 {
            text += &format!(
                "  an epoch joins from {:.2} on; it leaves after {} days, below {:.2}, or as one more than {}\n",
                chain.linked_from_similarity,
                output::count((chain.pruned_after_hours / 24).into()),
                chain.pruned_below_similarity,
                output::count(chain.pruned_above_epochs.into()),
            );
        }
        text += &format!(
            "  pruned: {} by age, {} by divergence, {} by number\n",
            output::count(chain.pruned_by_age.into()),
            output::count(chain.pruned_by_divergence.into()),
            output::count(chain.pruned_by_number.into()),
        );
    }
    // Numbers are never used twice: what is missing from the first to the highest has gone.
    let highest = chains.iter().map(|chain| chain.id).max().unwrap_or(0);
    let gone = u64::from(highest).saturating_sub(chains.len() as u64);
    if gone > 0 {
        text += &format!(
            "{} chains have gone as a whole: all their epochs were pruned by age, or too many chains were newer\n",
            output::count(gone),
        );
    }
    text
}

fn table(chains: &[Chain]) -> Table {
    let mut table = Table::new(&[
        ("CHAIN", Align::Right),
        ("EPOCHS", Align::Right),
        ("FIRST (UTC)", Align::Left),
        ("LAST (UTC)", Align::Left),
        ("ALIKE", Align::Right),
        ("CHANGES AN EPOCH", Align::Right),
        ("PRUNED: AGE", Align::Right),
        ("DIVERGED", Align::Right),
        ("NEWEST EPOCHS", Align::Left),
    ]);
    for chain in chains {
        table.row(vec![
            chain.id.to_string(),
            output::count(chain.epochs.len() as u64),
            Utc::from_us(chain.first_us).to_string(),
            Utc::from_us(chain.last_us).to_string(),
            format!("{:.2}", chain.similarity),
            format_size(chain.mean_changed_blocks.saturating_mul(BLOCK_BYTES)),
            output::count(chain.pruned_by_age.into()),
            output::count(chain.pruned_by_divergence.into()),
            newest(&chain.epochs),
        ]);
    }
    table
}

/// The last few epochs of a chain, the newest first.
fn newest(epochs: &[u32]) -> String {
    const SHOWN: usize = 5;
    let mut shown: Vec<String> = epochs.iter().rev().take(SHOWN).map(ToString::to_string).collect();
    if epochs.len() > SHOWN {
        shown.push("...".into());
    }
    shown.join(" ")
}
