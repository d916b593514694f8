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
    Ok(output::text(&table(&answer.chains).render())?)
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
