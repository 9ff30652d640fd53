use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, task::spawn_blocking, time::Instant};

use crate::{
    config::Config,
    machine::Measure,
    pressure::{Pressure, Shortage, Starved},
};

/// Measures the node, and tells whoever evicts pods what for.
pub(crate) struct Gauge {
    config: Arc<Config>,
    pressure: Pressure,
    /// Told at each measure.
    starved: watch::Sender<Vec<Starved>>,
    /// What was measured last, and when.
    last: Option<(Instant, Measure, Shortage)>,
}

impl Gauge {
    pub(crate) fn new(config: Arc<Config>, starved: watch::Sender<Vec<Starved>>) -> Self {
        let pressure = Pressure::new(&config.eviction);
        Self { config, pressure, starved, last: None }
    }

    /// Measures, once in a period however often it is asked: each measure may end a pod. Blocking reads are made off the runtime's
    /// threads.
    pub(crate) async fn measure(&mut self) {
        let since = self.last.as_ref().map_or(Duration::MAX, |(at, ..)| at.elapsed());
        if since < self.config.periods.update {
            return;
        }
        let root = self.config.root.clone();
        let measure = spawn_blocking(move || Measure::take(&root)).await.unwrap_or_default();
        let now = Instant::now();
        let shortage = self.pressure.observe(&measure, now, self.config.periods.pressure);
        self.starved.send_replace(self.pressure.starved(&measure));
        self.last = Some((now, measure, shortage));
    }

    /// What was measured last; nothing before the first time.
    pub(crate) fn last(&self) -> (Measure, Shortage) {
        let last = self.last.as_ref();
        last.map(|(_, measure, shortage)| (measure.clone(), *shortage)).unwrap_or_default()
    }
}
