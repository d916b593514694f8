//! `predict --plot`: a heat map of the volume: the past epochs' changes and, beside them, what is expected.
//!
//! Across: epochs, then the predictions, set apart. Down: the offset in the volume; long stretches in which nothing
//! changes are left out, with a mark. A cell's colour is the kind of change, the darker the more of its blocks changed.
//!
//! | file | what it is |
//! |---|---|
//! | `past` | the change vectors, from the volume's API |
//! | `touched` | the set of blocks that are in any of them |
//! | `rows` | which part of the volume each row of the picture is |
//! | `cells` | how much of each cell changed, and what is expected there |
//! | `picture` | where everything is drawn |
//! | `scale` | ticks and their words |
//! | `drawing` | rectangles and text in a few colours, which `svg` and `png` write |
//! | `font` | the letters for `png` |
//!
//! The vectors are read twice: first for the rows, then for the cells. So memory follows the number of blocks that ever
//! change (a bit each) and the picture's size, not the number of changes. Nothing of the volume is changed.

mod cells;
mod drawing;
mod font;
mod past;
mod picture;
mod png;
mod rows;
mod scale;
mod svg;
#[cfg(test)]
mod tests;
mod touched;

use std::fs;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::Context;
use forerun::config::{Paths, VolumeConfig};
use forerun::prediction::Prediction;
use forerun::prediction_table::Table;
use thiserror::Error;

use super::super::args::PredictOptions;
use cells::Cells;
use drawing::Drawing;
use past::Past;
use picture::Subject;
use rows::Rows;
use touched::Touched;

/// Where the picture goes, and in which format.
#[derive(Clone, Debug)]
pub struct PlotFile {
    path: PathBuf,
    format: Format,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Format {
    Svg,
    Png,
}

/// A name that does not say which format is wanted.
#[derive(Debug, Error)]
#[error("a picture is SVG or PNG: the file's name has to end in .svg or .png")]
pub struct UnknownFormat;

impl FromStr for PlotFile {
    type Err = UnknownFormat;

    fn from_str(text: &str) -> Result<Self, UnknownFormat> {
        let path = PathBuf::from(text);
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        let format = match extension.to_ascii_lowercase().as_str() {
            "svg" => Format::Svg,
            "png" => Format::Png,
            _ => return Err(UnknownFormat),
        };
        Ok(Self { path, format })
    }
}

/// Reads the past, draws it with the predictions, and writes the file.
///
/// # Errors
/// The volume's answers; a file that cannot be written. A volume that is not running has no past to show, which the
/// picture says.
pub fn write(
    paths: &Paths,
    options: &PredictOptions,
    config: &VolumeConfig,
    table: Option<&Table>,
    from_probability: f64,
    file: &PlotFile,
) -> anyhow::Result<()> {
    let predictions = table.map_or(&[][..], |table| &table.predictions);
    let mut past = Past::new(paths, options, config.geometry.blocks())?;
    let drawing = draw(&mut past, config, predictions, |cells, past| Subject {
        volume: options.volume.to_string(),
        size_bytes: config.geometry.size_bytes(),
        from_probability,
        table: table.map(|table| &table.info),
        note: past.note(),
        cells,
    })?;
    let bytes = match file.format {
        Format::Svg => svg::encode(&drawing).into_bytes(),
        Format::Png => png::encode(&drawing).context("the picture cannot be encoded")?,
    };
    let path = file.path.display();
    fs::write(&file.path, bytes).with_context(|| format!("the picture {path} cannot be written"))?;
    // Standard output is the list's.
    eprintln!("the picture is in {path}");
    Ok(())
}

fn draw<'t>(
    past: &mut Past,
    config: &VolumeConfig,
    predictions: &[Prediction],
    subject: impl FnOnce(Cells, &Past) -> Subject<'t>,
) -> anyhow::Result<Drawing> {
    let mut touched = Touched::default();
    predictions.iter().for_each(|prediction| touched.add(prediction.block.0));
    past.each(&mut |_, changes| changes.iter().for_each(|change| touched.add(change.block.0)))?;
    let rows = Rows::new(&touched, config.geometry.blocks(), picture::MAP_HEIGHT);
    let mut cells = Cells::new(rows);
    past.each(&mut |moment, changes| cells.add(moment, changes))?;
    let subject = subject(cells, past);
    Ok(picture::draw(&subject, predictions))
}
