//! What a worker's tasks have to say, and what it does about that.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use nodule_image::Image;
use nodule_sandbox_proto::{Exit, Started};
use tracing::{debug, warn};

use crate::hook::{self, Moment};
use crate::links;
use crate::pull::Outcome;
use crate::resize::Applied;
use crate::sandbox;
use crate::volumes::{Answered, Mounted};
use crate::want::Want;
use crate::worker::Worker;

/// What a task of the worker has to say.
#[derive(Debug)]
pub(crate) enum Notice {
    /// The guest runs since then; or its sandbox ended before.
    Started { container: String, attempt: u32, seen: Result<Option<Started>, sandbox::Error> },
    /// The process is gone, and this is on disk.
    Ended { container: String, attempt: u32, exit: Exit },
    /// The stop notice was given, or could not be.
    Told { container: String, result: Result<(), sandbox::Error> },
    /// The link to the log was made, or could not be.
    Linked { container: String, result: Result<(), links::Error> },
    /// What was kept of an old run was removed, or could not be.
    Forgotten { container: String, errors: Vec<Box<dyn std::error::Error + Send + Sync>> },
    /// The pod's use of the disk was measured: the limit that it exceeds, and how long that took.
    Measured { exceeded: Option<String>, took: Duration },
    /// A lifecycle hook was run.
    Hooked { container: String, attempt: u32, moment: Moment, result: Result<(), hook::Failed> },
    /// A container was given other resources, or could not be.
    Resized(Applied),
    /// The Node was read once more, or may not be.
    Reread(Option<Arc<Node>>),
    /// A round of setting up the volumes is over.
    Mounted(Box<Mounted>),
    /// A request for a certificate of the pod has its answer.
    Answered(Box<Answered>),
    /// The API server has nothing more to be told.
    Published,
}

/// An image that was fetched: its name, what became of it, and the wait that a failure earns.
#[derive(Debug)]
pub(crate) enum Fetched {
    /// To run it.
    Program(Want, Box<Outcome>, Duration),
    /// To mount it.
    Files(Want, Box<Outcome<Image>>, Duration),
}

impl Worker {
    pub(crate) fn fetched(&mut self, fetched: Fetched) {
        let now = Timestamp::now();
        match fetched {
            Fetched::Program(want, outcome, wait) => self.pulls.done(want, *outcome, wait, now),
            Fetched::Files(want, outcome, wait) => {
                self.pictures.pulls.done(want, *outcome, wait, now);
            }
        }
    }

    pub(crate) fn note(&mut self, notice: Notice) {
        match notice {
            Notice::Started { container, attempt, seen } => self.started(&container, attempt, seen),
            Notice::Ended { container, attempt, exit } => {
                if self.record.run(&container).is_some_and(|run| run.attempt == attempt) {
                    self.end(&container, &exit);
                }
            }
            Notice::Hooked { container, attempt, moment, result } => {
                self.hooked(&container, attempt, moment, result);
            }
            Notice::Measured { exceeded, took } => self.measured(exceeded, took),
            Notice::Resized(applied) => self.applied(applied),
            Notice::Reread(node) => self.read(node),
            Notice::Mounted(mounted) => self.mounted(*mounted),
            Notice::Answered(answered) => self.answered(*answered),
            Notice::Linked { container, result: Err(error) } => {
                warn!(container, error = &error as &dyn std::error::Error, "log not linked");
            }
            Notice::Forgotten { container, errors } => {
                for error in errors {
                    warn!(
                        container,
                        error = &*error as &dyn std::error::Error,
                        "old run not removed"
                    );
                }
            }
            Notice::Told { container, result: Err(error) } => {
                debug!(
                    container,
                    error = &error as &dyn std::error::Error,
                    "stop notice not given"
                );
            }
            Notice::Told { result: Ok(()), .. }
            | Notice::Linked { result: Ok(()), .. }
            | Notice::Published => {}
        }
    }
}
