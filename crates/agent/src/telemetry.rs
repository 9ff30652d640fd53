use std::io::{self, IsTerminal};

use anyhow::{Context, Result};
use tracing_subscriber::EnvFilter;

use crate::{cli::LogFormat, config::Log};

/// What libraries write that the agent says better, or not at all. The client's layer logs every request that fails,
/// the client and the watcher what breaks off or is refused, each without measure while the API server is away.
const QUIET: &str = "kube_client::client::builder=off,kube_client=error,kube_runtime=error,hyper=warn,hyper_util=warn,\
                     h2=warn,tower=warn,reqwest=warn,rustls=warn";

/// Logs to standard error: lines for people, coloured on a terminal, or JSON. `RUST_LOG` overrides what is logged.
pub(crate) fn start(log: Log) -> Result<()> {
    let filter = match std::env::var(EnvFilter::DEFAULT_ENV) {
        Ok(own) if !own.is_empty() => {
            EnvFilter::try_new(format!("{},{own}", directives(log.verbosity)))
        }
        _ => EnvFilter::try_new(directives(log.verbosity)),
    };
    let filter = filter.with_context(|| format!("read {}", EnvFilter::DEFAULT_ENV))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let started = match log.format {
        LogFormat::Human => builder.with_ansi(io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!(error)).context("start the log")
}

/// The kubelet's verbosity in our levels.
fn directives(verbosity: u8) -> String {
    let level = match verbosity {
        0..=3 => "info",
        4..=5 => "debug",
        6.. => "trace",
    };
    format!("{level},{QUIET}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verbosity_is_a_filter() {
        for (verbosity, level) in
            [(0, "info"), (3, "info"), (4, "debug"), (5, "debug"), (6, "trace"), (255, "trace")]
        {
            let directives = directives(verbosity);
            assert!(directives.starts_with(level), "{directives}");
            EnvFilter::try_new(directives).unwrap();
        }
    }
}
