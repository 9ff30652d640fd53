//! What a hook does.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, HTTPGetAction, LifecycleHandler, Pod};
use tokio::time::sleep;

use super::Moment;
use crate::events::{Events, Kind};
use crate::probe::action::{Asker, Get, get};
use crate::probe::{exec, http};

/// One hook of one container.
pub(super) struct Hook {
    pub(super) moment: Moment,
    pub(super) pod: Arc<Pod>,
    pub(super) container: Container,
    pub(super) events: Events,
    /// The pod's primary address.
    pub(super) address: String,
    /// The kubelet's version that the node reports.
    pub(super) version: String,
}

/// Why a hook failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failed {
    /// For the pod's author: all that is known.
    pub(crate) message: String,
    /// What may be told in an Event: nothing that a server said, which might be a secret.
    pub(crate) event: Option<String>,
}

impl Moment {
    pub(super) fn of(self, container: &Container) -> Option<&LifecycleHandler> {
        let lifecycle = container.lifecycle.as_ref()?;
        match self {
            Self::PostStart => lifecycle.post_start.as_ref(),
            Self::PreStop => lifecycle.pre_stop.as_ref(),
        }
    }
}

impl Hook {
    /// Does what the hook says, for as long as that takes. May be dropped at any moment.
    pub(super) async fn run(self) -> Result<(), Failed> {
        let Some(handler) = self.moment.of(&self.container) else { return Ok(()) };
        if let Some(action) = &handler.exec {
            let command = action.command.clone().unwrap_or_default();
            return match exec(&command) {
                Ok(_) => Ok(()),
                Err(said) => Err(Failed {
                    message: self.failed("Exec", &format!("[{}]", command.join(" ")), &said),
                    event: Some(said),
                }),
            };
        }
        if let Some(http) = &handler.http_get {
            return self.http(http).await.map_err(|said| Failed {
                message: self.failed("HTTP", http.path.as_deref().unwrap_or_default(), &said),
                event: None,
            });
        }
        if let Some(nap) = &handler.sleep {
            sleep(Duration::from_secs(u64::try_from(nap.seconds).unwrap_or(0))).await;
            return Ok(());
        }
        let kind = if handler.tcp_socket.is_some() { "tcpSocket is no" } else { "there is no" };
        let said = format!("invalid handler: {kind} lifecycle hook");
        Err(Failed { message: format!("Cannot run handler: {said}"), event: Some(said) })
    }

    fn failed(&self, kind: &str, what: &str, said: &dyn Display) -> String {
        let meta = &self.pod.metadata;
        let part = |text: &Option<String>| text.clone().unwrap_or_default();
        let pod = format!("{}_{}({})", part(&meta.name), part(&meta.namespace), part(&meta.uid));
        let name = &self.container.name;
        format!(
            "{kind} lifecycle hook ({what}) for Container \"{name}\" in Pod \"{pod}\" failed - error: {said}"
        )
    }

    /// Any answer will do. Where a server that is asked by HTTPS speaks HTTP, it is asked by that, without the credentials
    /// (kubernetes/kubernetes, PR 86139).
    async fn http(&self, http: &HTTPGetAction) -> Result<(), String> {
        let asker =
            Asker { address: &self.address, name: "kube-lifecycle", version: &self.version };
        let asked = get(http, &self.container, asker)?;
        match http::request(&asked).await {
            Ok(_) => Ok(()),
            Err(said) if said.ends_with(crate::probe::PLAIN) => {
                let plain = downgraded(asked).ok_or_else(|| said.clone())?;
                let host = plain.url.host_str().unwrap_or_default();
                let host = format!("{host}:{}", plain.url.port_or_known_default().unwrap_or(80));
                http::request(&plain).await.map_err(|_| said)?;
                let message = format!(
                    "request to HTTPS lifecycle hook {host} got HTTP response, retry with HTTP succeeded"
                );
                let reason = "LifecycleHTTPFallback";
                self.events.say(&self.pod, None, Kind::Warning, reason, &message);
                Ok(())
            }
            Err(said) => Err(said),
        }
    }
}

/// The same by HTTP, on the same port.
fn downgraded(mut get: Get) -> Option<Get> {
    let port = get.url.port_or_known_default();
    get.url.set_scheme("http").ok()?;
    get.url.set_port(port).ok()?;
    get.headers.remove(::http::header::AUTHORIZATION);
    Some(get)
}
