//! `nodule image inspect`

use std::fmt::Write as _;

use anyhow::{Context, Result};
use nodule_image::{Inspected, Kind};

use super::cli::{Inspect, Shape};
use super::message::{Ask, Told};
use super::store::Store;
use crate::terminal::{plain, say, size};

pub(super) async fn run(store: &mut Store, inspect: &Inspect) -> Result<()> {
    let mut all = Vec::new();
    for name in &inspect.images {
        let told = store.ask(Ask::Inspect { name: name.clone() }, |_| Ok(())).await?;
        if let Told::Inspected(image) = told {
            all.push(image);
        }
    }
    match inspect.output {
        Shape::Text => {
            let texts: Vec<_> = all.iter().map(|image| text(image)).collect();
            say(&texts.join("\n"))
        }
        Shape::Json => {
            let text = serde_json::to_string_pretty(&all).context("write what they are")?;
            say(&format!("{text}\n"))
        }
    }
}

/// As kubectl describes things: a line for each that is known.
fn text(image: &Inspected) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{:16}{value}", format!("{name}:"));
    };
    let names = [&*image.stocked.tags, &*image.stocked.digests].concat();
    list(&mut line, "Names", &names);
    line("Digest", &image.stocked.digest);
    if image.manifest != image.stocked.digest {
        line("Manifest", &image.manifest);
    }
    line("Size", &size(image.stocked.size));
    if let Some(program) = &image.program {
        line("Program", &format!("{} ({})", program.digest, size(program.size)));
        line("Kind", kind(program.kind));
        line("WASI", program.interface.wasi.as_deref().unwrap_or("none"));
        list(&mut line, "Imports", &program.interface.imports);
        list(&mut line, "Exports", &program.interface.exports);
    }
    list(&mut line, "Entrypoint", &image.config.entrypoint);
    list(&mut line, "Cmd", &image.config.cmd);
    match &image.runs.why {
        None => line("Runs here", "yes"),
        Some(why) => line("Runs here", &format!("no: {}", plain(why))),
    }
    text
}

fn list(line: &mut impl FnMut(&str, &str), name: &str, values: &[String]) {
    for (number, value) in values.iter().enumerate() {
        line(if number == 0 { name } else { "" }, &plain(value));
    }
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Module => "module: a command",
        Kind::Component => "component: a command",
        Kind::Proxy => "component: it answers HTTP requests",
    }
}
