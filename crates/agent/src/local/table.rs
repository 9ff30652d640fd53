//! The list of pods, for people.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::pods::{self, statuses};
use crate::terminal::{age, columns};

/// As `kubectl get pods` shows them.
pub(crate) fn table(pods: &[Pod], now: Timestamp) -> String {
    let mut rows = vec![["POD", "READY", "STATUS", "RESTARTS", "AGE", "IMAGE"].map(str::to_owned)];
    rows.extend(pods.iter().map(|pod| row(pod, now)));
    columns(&rows)
}

fn row(pod: &Pod, now: Timestamp) -> [String; 6] {
    let all = statuses(pod);
    let ready = all.iter().filter(|status| status.ready).count();
    let restarts: i32 = all.iter().map(|status| status.restart_count).sum();
    let started = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let age = started.map(|started| age(now.duration_since(started)));
    let images = pod.spec.iter().flat_map(|spec| &spec.containers);
    let image = images.filter_map(|container| container.image.clone()).next().unwrap_or_default();
    let namespace = pods::namespace(pod);
    let name = pods::name(pod);
    [
        if namespace == "default" { name.to_owned() } else { format!("{namespace}/{name}") },
        format!("{ready}/{}", all.len()),
        state(pod),
        restarts.to_string(),
        age.unwrap_or_default(),
        image.split('@').next().unwrap_or_default().to_owned(),
    ]
}

/// What the pod waits for, or how it ended, or its phase.
fn state(pod: &Pod) -> String {
    let ends = pod.metadata.deletion_timestamp.is_some() && !pods::has_ended(pod);
    if ends {
        return "Terminating".to_owned();
    }
    let mut reasons = statuses(pod).into_iter().filter_map(|status| {
        let state = status.state.as_ref()?;
        let waiting = state.waiting.as_ref().and_then(|waiting| waiting.reason.clone());
        let ended = state.terminated.as_ref().filter(|end| end.exit_code != 0);
        waiting.or_else(|| {
            ended.map(|end| {
                format!("{} ({})", end.reason.as_deref().unwrap_or("Error"), end.exit_code)
            })
        })
    });
    let own = pod.status.as_ref().and_then(|status| status.reason.clone());
    let phase = match pods::phase(pod) {
        "Succeeded" => "Completed",
        phase => phase,
    };
    own.or_else(|| reasons.next_back()).unwrap_or_else(|| phase.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_table_reads_as_kubectls() {
        let pod = |name: &str, namespace: &str, status: serde_json::Value| -> Pod {
            serde_json::from_value(json!({
                "metadata": {"name": name, "namespace": namespace, "creationTimestamp": "2026-01-01T00:00:00Z"},
                "spec": {"containers": [{"name": "c", "image": "localhost/app@sha256:0"}]}, "status": status}))
            .unwrap()
        };
        let status = |state: serde_json::Value| {
            json!({"phase": "Running", "containerStatuses": [{"name": "c", "image": "", "imageID": "",
                "ready": state["running"].is_object(), "restartCount": 2, "state": state}]})
        };
        let pods = [
            pod("web", "default", status(json!({"running": {}}))),
            pod("job", "other", status(json!({"waiting": {"reason": "CrashLoopBackOff"}}))),
            pod(
                "end",
                "default",
                status(json!({"terminated": {"exitCode": 3, "reason": "Error"}})),
            ),
        ];
        let text = table(&pods, "2026-01-01T00:05:00Z".parse().unwrap());
        let expected = "\
POD         READY   STATUS             RESTARTS   AGE   IMAGE
web         1/1     Running            2          5m    localhost/app
other/job   0/1     CrashLoopBackOff   2          5m    localhost/app
end         0/1     Error (3)          2          5m    localhost/app
";
        assert_eq!(text, expected);
    }
}
