//! What a worker says of its pod: its status and its view, and Events.

use std::sync::Arc;

use jiff::Timestamp;

use crate::events::Kind;
use crate::publish::{Wanted, is_overwritten, version};
use crate::record::Phase;
use crate::source::Origin;
use crate::status::{self, Seen};
use crate::view::View;
use crate::worker::Worker;

impl Worker {
    /// Says what there is now: to the API server and to those who look on.
    pub(crate) fn tell(&mut self) {
        let status = Arc::new(status::status(
            &Seen {
                record: &self.record,
                waiting: &self.waiting,
                prepared: self.record.admitted && self.has_volumes(),
                addresses: &self.host.config.addresses,
                now: Timestamp::now(),
            },
            &self.status,
        ));
        let settled = self.is_settled();
        if !settled {
            self.status = status;
        }
        if self.is_current || Origin::of(&self.record.pod) == Origin::Hand {
            self.publish(settled);
        }
        let view = View::of(&self.record, &self.status, &self.host.config.logs, &mut self.ends);
        self.view.send_replace(view);
    }

    /// Has the API server told what is new. One that shows the pod's end hears of no other.
    fn publish(&self, settled: bool) {
        let meta = &self.record.pod.metadata;
        let next = Wanted {
            status: (!settled).then(|| Arc::clone(&self.status)),
            over: self.overwritten(),
            delete: self.record.phase == Phase::Terminated && meta.deletion_timestamp.is_some(),
        };
        self.wanted.send_if_modified(|wanted| {
            let news = (!settled && wanted.status != next.status)
                || wanted.delete != next.delete
                || next.over > wanted.over;
            if news {
                *wanted = next;
            }
            news
        });
    }

    /// Whether the API server shows that the pod has ended.
    fn is_settled(&self) -> bool {
        let shown = self.record.pod.status.as_ref();
        matches!(shown.and_then(|it| it.phase.as_deref()), Some("Succeeded" | "Failed"))
    }

    /// The version of the object in which somebody else has written over what was last sent.
    fn overwritten(&self) -> Option<u64> {
        let known = self.known.borrow();
        let version = version(&self.record.pod).filter(|version| Some(*version) > known.version)?;
        let shown = self.record.pod.status.as_ref()?;
        is_overwritten(shown, known.status.as_ref()?).then_some(version)
    }

    /// Says an Event of a container.
    pub(crate) fn say(&self, container: &str, kind: Kind, reason: &'static str, message: &str) {
        let field = crate::order::Role::of(&self.record.pod, container).field(container);
        self.host.events.say(&self.record.pod, Some(field), kind, reason, message);
    }
}
