use std::sync::Arc;

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
    /// What was measured last.
    last: (Measure, Shortage),
    /// The time for the next measure.
    due: Instant,
}

impl Gauge {
    pub(crate) fn new(config: Arc<Config>, starved: watch::Sender<Vec<Starved>>) -> Self {
        let pressure = Pressure::new(&config.eviction);
        let last = (Measure::default(), Shortage::default());
        Self { config, pressure, starved, last, due: Instant::now() }
    }

    /// Measures, once in a period however often it is asked: each measure may end a pod. Blocking reads are made off the runtime's
    /// threads.
    pub(crate) async fn measure(&mut self) {
        if Instant::now() < self.due {
            return;
        }
        let root = self.config.root.clone();
        let measure = spawn_blocking(move || Measure::take(&root)).await.unwrap_or_default();
        let now = Instant::now();
        let shortage = self.pressure.observe(&measure, now, self.config.periods.pressure);
        self.starved.send_replace(self.pressure.starved(&measure));
        self.last = (measure, shortage);
        self.due = now + self.config.periods.update;
    }

    /// When it is time for the next measure.
    pub(crate) const fn due(&self) -> Instant {
        self.due
    }

    /// What was measured last; nothing before the first time.
    pub(crate) fn last(&self) -> (Measure, Shortage) {
        self.last.clone()
    }
}
