//! A pod's life by its containers: what starts after what, what runs again, what stops first, and the last words.

use axum::http::Method;
use serde_json::{Value, json};

use crate::api::{Api, Fault};
use crate::gone;
use crate::node::Node;

fn pod(name: &str, policy: &str, init: &Value, containers: &Value) -> Value {
    let mut pod = crate::pod(name, name);
    pod["spec"]["restartPolicy"] = json!(policy);
    pod["spec"]["initContainers"] = init.clone();
    pod["spec"]["containers"] = containers.clone();
    pod
}

fn state<'a>(told: &'a Value, list: &str, place: usize) -> &'a Value {
    &told["status"][list][place]["state"]
}

#[tokio::test]
async fn sidecars_start_before_the_others_and_stop_after_them_the_last_first() {
    let node = Node::new().await;
    let _agent = node.agent().await;
    // The second one takes all of the grace period, and the first would not if it were told before.
    let init = json!([
        node.sidecar("first", "waits"),
        node.container("prepare", "done"),
        node.sidecar("second", "deaf"),
    ]);
    node.api.apply(pod("web", "Always", &init, &json!([node.container("app", "waits")])));
    let told = node.api.status("web", "/phase", "Running").await;
    for place in [0, 2] {
        assert!(!state(&told, "initContainerStatuses", place)["running"].is_null(), "{told}");
    }
    assert_eq!(state(&told, "initContainerStatuses", 1)["terminated"]["reason"], "Completed");
    node.api.delete("web", 5);
    node.api.until("removal", |api| api.pod("web").is_none().then_some(())).await;
    node.api.until("three kills", |_| (node.killed().len() == 3).then_some(())).await;
    assert_eq!(node.killed(), ["app", "second", "first"]);
    let (_, last) = node.api.requests(&Method::PATCH, "/pods/web/status").pop().unwrap();
    let end = |list: &str, place: usize| state(&last, list, place)["terminated"].clone();
    let (app, first, second) = (
        end("containerStatuses", 0),
        end("initContainerStatuses", 0),
        end("initContainerStatuses", 2),
    );
    let codes = [&app, &first, &second].map(|end| end["exitCode"].as_i64().unwrap());
    assert_eq!(codes, [0, 0, 137]);
    assert!(time(&app) < time(&second) && time(&second) <= time(&first), "{last}");
}

#[tokio::test]
async fn who_asks_to_be_stopped_by_sigkill_is_killed_at_once() {
    let node = Node::new().await;
    let _agent = node.agent().await;
    let mut app = node.container("app", "waits");
    app["lifecycle"] = json!({"stopSignal": "SIGKILL"});
    let others = json!([app, node.container("other", "waits")]);
    node.api.apply(pod("web", "Always", &json!([]), &others));
    node.api.status("web", "/phase", "Running").await;
    node.api.delete("web", 3600);
    node.api.until("removal", |api| api.pod("web").is_none().then_some(())).await;
    let (_, last) = node.api.requests(&Method::PATCH, "/pods/web/status").pop().unwrap();
    let code = |place: usize| &state(&last, "containerStatuses", place)["terminated"]["exitCode"];
    assert_eq!((code(0), code(1)), (&json!(137), &json!(0)), "the other one hears the notice");
    assert_eq!(last["status"]["containerStatuses"][0]["stopSignal"], "SIGKILL");
}

/// When a run ended.
fn time(end: &Value) -> jiff::Timestamp {
    end["finishedAt"].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_container_that_ends_at_once_is_told_to_have_started_too() {
    let node = Node::new().await;
    let _agent = node.agent().await;
    let all = ["a", "b", "c", "d"].map(|name| node.container(name, "done"));
    let names = ["one", "two", "three", "four"];
    for name in names {
        node.api.apply(pod(name, "Never", &json!([]), &json!(all)));
    }
    for name in names {
        node.api.status(name, "/phase", "Succeeded").await;
    }
    let all_started = |api: &Api| {
        let events = api.events().into_iter();
        (events.filter(|(reason, _)| reason == "Started").count() == 16).then_some(())
    };
    node.api.until("sixteen starts", all_started).await;
}

#[tokio::test]
async fn an_event_that_the_api_server_cannot_take_for_a_moment_is_posted_again() {
    let node = Node::new().await;
    let _agent = node.agent().await;
    for fault in [Fault::Code(429), Fault::Code(500)] {
        node.api.fail(Method::POST, "/events", fault);
    }
    node.api.apply(pod("web", "Never", &json!([]), &json!([node.container("app", "done")])));
    let told = |api: &Api| {
        let events = api.events();
        events.iter().any(|(reason, _)| reason == "Started").then_some(events)
    };
    let told = node.api.until("the Events of a start", told).await;
    assert_eq!(told[0].0, "Pulling", "{told:?}");
    // What is refused is not asked for again, and holds up nothing.
    node.api.fail(Method::POST, "/events", Fault::Code(403));
    node.api.apply(pod("next", "Never", &json!([]), &json!([node.container("app", "fails")])));
    let posts = |api: &Api| -> Vec<String> {
        let posts = api.requests(&Method::POST, "/events").into_iter();
        let of_next = posts.filter(|(_, event)| event["involvedObject"]["name"] == "next");
        of_next.map(|(_, event)| event["reason"].as_str().unwrap().to_owned()).collect()
    };
    let all = |api: &Api| posts(api).contains(&"Started".to_owned()).then(|| posts(api));
    let all = node.api.until("the Events of the next", all).await;
    assert_eq!(all.iter().filter(|reason| *reason == "Pulling").count(), 1, "{all:?}");
}

#[tokio::test]
async fn an_init_container_that_fails_runs_again_with_back_off_and_holds_the_others_back() {
    let node = Node::new().await;
    let _agent = node.agent().await;
    let init = json!([node.container("prepare", "fails"), node.container("next", "done")]);
    node.api.apply(pod("web", "OnFailure", &init, &json!([node.container("app", "waits")])));
    let said = "back-off 10s restarting failed container=prepare pod=web_default(web)";
    let told = node.api.status("web", "/initContainerStatuses/0/state/waiting/message", said).await;
    let prepare = &told["status"]["initContainerStatuses"][0];
    assert_eq!(prepare["restartCount"], 1);
    assert_eq!(prepare["lastState"]["terminated"]["exitCode"], 3);
    assert_eq!(told["status"]["phase"], "Pending");
    for (list, place) in [("initContainerStatuses", 1), ("containerStatuses", 0)] {
        assert_eq!(state(&told, list, place)["waiting"]["reason"], "PodInitializing");
    }
    let conditions = told["status"]["conditions"].as_array().unwrap();
    let initialized = conditions.iter().find(|one| one["type"] == "Initialized").unwrap();
    assert_eq!(initialized["message"], "containers with incomplete status: [prepare next]");
    node.api.delete("web", 1);
    gone(node.root.path(), "web").await;
}

#[tokio::test]
async fn a_grace_period_is_not_lengthened_by_who_deletes_again() {
    let node = Node::new().await;
    let _agent = node.agent().await;
    node.api.apply(pod("web", "Always", &json!([]), &json!([node.container("app", "deaf")])));
    node.api.status("web", "/phase", "Running").await;
    node.api.delete("web", 3);
    node.api.until("the kill", |_| (node.killed() == ["app"]).then_some(())).await;
    node.api.delete("web", 3600);
    node.api.until("removal", |api| api.pod("web").is_none().then_some(())).await;
    let (_, last) = node.api.requests(&Method::PATCH, "/pods/web/status").pop().unwrap();
    assert_eq!(state(&last, "containerStatuses", 0)["terminated"]["exitCode"], 137);
}

#[tokio::test]
async fn a_pod_whose_containers_are_done_ends_its_sidecars_and_has_succeeded() {
    let node = Node::new().await;
    let _agent = node.agent().await;
    let init = json!([node.sidecar("side", "waits")]);
    node.api.apply(pod("job", "Never", &init, &json!([node.container("app", "done")])));
    let told = node.api.status("job", "/phase", "Succeeded").await;
    assert_eq!(state(&told, "initContainerStatuses", 0)["terminated"]["exitCode"], 0);
    assert_eq!(state(&told, "containerStatuses", 0)["terminated"]["reason"], "Completed");
}

#[tokio::test]
async fn an_init_container_that_may_not_run_again_fails_the_pod_whatever_the_pods_policy() {
    let node = Node::new().await;
    let _agent = node.agent().await;
    let mut prepare = node.container("prepare", "fails");
    prepare["restartPolicy"] = json!("Never");
    let containers = json!([node.container("app", "waits")]);
    node.api.apply(pod("web", "Always", &json!([prepare]), &containers));
    let told = node.api.status("web", "/phase", "Failed").await;
    assert_eq!(state(&told, "initContainerStatuses", 0)["terminated"]["exitCode"], 3);
    assert!(told["status"]["containerStatuses"][0]["containerID"].is_null(), "{told}");
}

#[tokio::test]
async fn a_containers_own_rule_goes_before_the_policies() {
    let node = Node::new().await;
    let _agent = node.agent().await;
    let mut app = node.container("app", "once");
    app["restartPolicy"] = json!("Never");
    app["restartPolicyRules"] =
        json!([{"action": "Restart", "exitCodes": {"operator": "In", "values": [3]}}]);
    app["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
    let mut pod = pod("web", "Never", &json!([]), &json!([app]));
    pod["spec"]["volumes"] = json!([{"name": "data", "emptyDir": {}}]);
    node.api.apply(pod);
    let told = node.api.until("second run", |api| {
        let pod = api.pod("web")?;
        let status = &pod["status"]["containerStatuses"][0];
        (status["restartCount"] == 1 && !status["state"]["running"].is_null()).then_some(pod)
    });
    let told = told.await;
    assert_eq!(told["status"]["containerStatuses"][0]["lastState"]["terminated"]["exitCode"], 3);
    assert_eq!(told["status"]["phase"], "Running");
}

#[tokio::test]
async fn a_container_that_crashes_waits_in_the_kubelets_words_until_it_is_another() {
    let node = Node::new().await;
    let agent = node.agent().await;
    let crashes = pod("web", "Always", &json!([]), &json!([node.container("app", "fails")]));
    node.api.apply(crashes.clone());
    let waits = |api: &Api, restarts: u32, wait: &str| {
        let status = api.pod("web")?["status"]["containerStatuses"][0].clone();
        let waiting = &status["state"]["waiting"];
        let said = format!("back-off {wait} restarting failed container=app pod=web_default(web)");
        let so = status["restartCount"] == restarts
            && waiting["reason"] == "CrashLoopBackOff"
            && waiting["message"] == said;
        so.then_some(status)
    };
    let status = node.api.until("its first wait", |api| waits(api, 1, "10s")).await;
    assert_eq!(status["lastState"]["terminated"]["exitCode"], 3);
    let said = "Back-off restarting failed container app in pod web_default(web)";
    let told = ("BackOff".to_owned(), said.to_owned());
    node.api.until("the Event", |api| api.events().contains(&told).then_some(())).await;
    // The next agent has not forgotten it.
    drop(agent);
    let _next = node.agent().await;
    node.api.until("its second wait", |api| waits(api, 2, "20s")).await;
    let asked: Vec<_> = node.api.requests(&Method::PATCH, "/pods/web/status");
    let ran = asked.iter().map(|(_, body)| &body["status"]["containerStatuses"][0]["restartCount"]);
    assert!(ran.into_iter().all(|count| count.as_u64().unwrap() <= 2));
    // With another image it has done nothing wrong yet.
    let mut mended = node.api.pod("web").unwrap();
    mended["spec"]["containers"] = json!([node.container("app", "waits")]);
    let before = jiff::Timestamp::now();
    node.api.apply(mended);
    let runs = node.api.until("the other image", |api| {
        let status = api.pod("web")?["status"]["containerStatuses"][0].clone();
        (!status["state"]["running"].is_null()).then_some(status)
    });
    let runs = runs.await;
    assert_eq!(runs["restartCount"], 3);
    let ended = runs["lastState"]["terminated"]["finishedAt"].as_str().unwrap();
    let due = ended.parse::<jiff::Timestamp>().unwrap() + jiff::SignedDuration::from_secs(20);
    let started = runs["state"]["running"]["startedAt"].as_str().unwrap().parse().unwrap();
    assert!(due < before || due > started, "it has waited for what the other one did");
    node.api.delete("web", 1);
    gone(node.root.path(), "web").await;
}

#[tokio::test]
async fn a_container_may_ask_for_all_of_them_to_run_again() {
    let node = Node::new().await;
    let _agent = node.agent().await;
    let mut app = node.container("app", "once");
    app["restartPolicy"] = json!("Never");
    app["restartPolicyRules"] = json!([
        {"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [3]}}]);
    app["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
    let init = json!([node.container("prepare", "done")]);
    let containers = json!([app, node.container("other", "deaf")]);
    let mut pod = pod("web", "Never", &init, &containers);
    pod["spec"]["volumes"] = json!([{"name": "data", "emptyDir": {}}]);
    node.api.apply(pod);
    let told = node.api.until("all of them again", |api| {
        let pod = api.pod("web")?;
        let again = |list: &str, place: usize| pod["status"][list][place]["restartCount"] == 1;
        let running = |place: usize| !state(&pod, "containerStatuses", place)["running"].is_null();
        // The other one may not have begun yet when it was asked for.
        let all = again("initContainerStatuses", 0)
            && again("containerStatuses", 0)
            && running(0)
            && running(1);
        all.then_some(pod)
    });
    let told = told.await;
    assert_eq!(told["status"]["phase"], "Running");
    let conditions = told["status"]["conditions"].as_array().unwrap();
    let restarting =
        conditions.iter().find(|one| one["type"] == "AllContainersRestarting").unwrap();
    assert_eq!(restarting["status"], "False");
    let said = node.api.requests(&Method::PATCH, "/pods/web/status");
    let waited = said.iter().any(|(_, body)| {
        body["status"]["conditions"]
            .as_array()
            .unwrap()
            .iter()
            .any(|one| one["type"] == "AllContainersRestarting" && one["status"] == "True")
    });
    // Without another one to wait for, it is true for less time than a request takes.
    let alone = told["status"]["containerStatuses"][1]["restartCount"] == 0;
    assert!(waited || alone, "it was never said that they restart");
    node.api.delete("web", 1);
    gone(node.root.path(), "web").await;
}

#[tokio::test]
async fn a_pod_that_is_active_for_too_long_has_failed() {
    let node = Node::new().await;
    let _agent = node.agent().await;
    let containers = json!([node.container("app", "waits")]);
    let mut pod = pod("late", "Always", &json!([]), &containers);
    pod["spec"]["activeDeadlineSeconds"] = json!(3600);
    node.api.apply(pod);
    node.api.status("late", "/phase", "Running").await;
    // It may be made shorter.
    let mut pod = node.api.pod("late").unwrap();
    pod["spec"]["activeDeadlineSeconds"] = json!(1);
    node.api.apply(pod);
    let told = node.api.status("late", "/reason", "DeadlineExceeded").await;
    assert_eq!(told["status"]["phase"], "Failed");
    let message = "Pod was active on the node longer than the specified deadline";
    assert_eq!(told["status"]["message"], message);
    let event = node.api.until("event", |api| {
        let posts = api.requests(&Method::POST, "/events").into_iter();
        posts.map(|(_, event)| event).find(|event| event["reason"] == "DeadlineExceeded")
    });
    let event = event.await;
    assert_eq!((&event["type"], &event["message"]), (&json!("Normal"), &json!(message)));
}

/// The message of a container that runs `image` and ends, under a policy.
async fn last_words(node: &Node, name: &str, image: &str, change: Value) -> String {
    let mut container = node.container("app", image);
    for (key, value) in change.as_object().unwrap() {
        container[key] = value.clone();
    }
    let mut pod = pod(name, "Never", &json!([]), &json!([container]));
    pod["spec"]["volumes"] = json!([{"name": "data", "emptyDir": {}}]);
    node.api.apply(pod);
    let told = node.api.status(name, "/phase", "Failed").await;
    let ended = &state(&told, "containerStatuses", 0)["terminated"];
    ended["message"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_containers_last_words_are_its_message() {
    let node = Node::new().await;
    let _agent = node.agent().await;
    let by_file = last_words(&node, "file", "says", json!({})).await;
    assert_eq!(by_file, "these are the last words");
    let in_volume = json!({
        "terminationMessagePath": "/data/been",
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    });
    assert_eq!(last_words(&node, "volume", "once", in_volume).await, "here");
    let fallback = json!({"terminationMessagePolicy": "FallbackToLogsOnError"});
    let by_log = last_words(&node, "log", "traps", fallback).await;
    assert!(by_log.starts_with("something is wrong\n"), "{by_log}");
    let by_trap = last_words(&node, "trap", "traps", json!({})).await;
    assert!(by_trap.contains("unreachable"), "{by_trap}");
    assert_eq!(last_words(&node, "silent", "fails", json!({})).await, "");
}

#[tokio::test]
async fn an_ephemeral_container_runs_once_at_any_time_and_nothing_asks_for_it() {
    let node = Node::new().await;
    let _agent = node.agent().await;
    let init = json!([node.container("prepare", "deaf")]);
    let mut web = pod("web", "Always", &init, &json!([node.container("app", "waits")]));
    node.api.apply(web.clone());
    node.api
        .until("an init container that runs", |api| {
            let pod = api.pod("web")?;
            (!state(&pod, "initContainerStatuses", 0)["running"].is_null()).then_some(())
        })
        .await;
    let mut debugger = node.container("debugger", "says");
    debugger["targetContainerName"] = json!("app");
    web["spec"]["ephemeralContainers"] = json!([debugger]);
    node.api.apply(web);
    let told = node.api.until("its end", |api| {
        let pod = api.pod("web")?;
        let ended = !state(&pod, "ephemeralContainerStatuses", 0)["terminated"].is_null();
        ended.then_some(pod)
    });
    let told = told.await;
    let status = &told["status"]["ephemeralContainerStatuses"][0];
    assert_eq!((&status["name"], &status["restartCount"]), (&json!("debugger"), &json!(0)));
    assert_eq!(status["state"]["terminated"]["message"], "these are the last words");
    assert_eq!(told["status"]["phase"], "Pending");
    node.api.delete("web", 1);
    node.api.until("removal", |api| api.pod("web").is_none().then_some(())).await;
}
