//! Shows how far downloads are: bars on a terminal, else a line for each that begins.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};

use crate::terminal::size;
use anyhow::{Context, Result};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use nodule_image::Download;

const BAR: &str = "{prefix:12} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}";

/// The downloads of one command, on standard error: what is printed for other programs stays clean.
pub(super) struct Progress {
    bars: Option<MultiProgress>,
    known: BTreeMap<String, ProgressBar>,
}

impl Progress {
    pub(super) fn new() -> Self {
        let bars = io::stderr().is_terminal().then(|| {
            let bars = MultiProgress::new();
            bars.set_draw_target(ProgressDrawTarget::stderr());
            bars
        });
        Self { bars, known: BTreeMap::new() }
    }

    /// Takes in what is under way. What is not any more has come.
    pub(super) fn show(&mut self, downloads: &[Download]) -> Result<()> {
        for (digest, bar) in &self.known {
            if !downloads.iter().any(|download| download.digest == *digest) {
                bar.finish();
            }
        }
        for download in downloads {
            match self.known.get(&download.digest) {
                Some(bar) => bar.set_position(download.done),
                None => self.begin(download)?,
            }
        }
        Ok(())
    }

    fn begin(&mut self, download: &Download) -> Result<()> {
        let name: String = download.digest.chars().skip("sha256:".len()).take(12).collect();
        let bar = match &self.bars {
            Some(bars) => bars.add(ProgressBar::new(download.size)),
            None => {
                let line = format!("{name} {}\n", size(download.size));
                io::stderr().write_all(line.as_bytes()).context("print")?;
                ProgressBar::hidden()
            }
        };
        let style = ProgressStyle::with_template(BAR).context("draw a bar")?;
        bar.set_style(style.progress_chars("=> "));
        bar.set_prefix(name);
        bar.set_position(download.done);
        self.known.insert(download.digest.clone(), bar);
        Ok(())
    }
}
