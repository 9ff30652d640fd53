//! Who is let in.

use std::collections::BTreeSet;
use std::sync::Mutex;

use futures::future::join_all;
use hyper::StatusCode;
use nodule_api::Authorization::{AlwaysAllow, Webhook};
use serde_json::{Value, json};

use crate::api_server::{ApiServer, Reply};
use crate::certificates::Authority;
use crate::served::Served;

const TOKENS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const ACCESS: &str = "/apis/authorization.k8s.io/v1/subjectaccessreviews";

fn object(review: &Value, status: Value) -> Value {
    let mut object = review.clone();
    object["status"] = status;
    object
}

/// Knows the token `good`, and lets users use these subresources of the node.
pub(crate) async fn knowing(allowed: &'static [&'static str]) -> ApiServer {
    ApiServer::start(move |path, review| {
        let status = if path == TOKENS {
            let user = json!({"username": "ada", "uid": "7", "groups": ["readers"], "extra": {"k": ["v"]}});
            json!({"authenticated": review["spec"]["token"] == "good", "user": user})
        } else {
            let subresource = review["spec"]["resourceAttributes"]["subresource"].as_str().unwrap();
            json!({"allowed": allowed.contains(&subresource)})
        };
        Reply::Object(201, object(review, status))
    })
    .await
}

/// How often a review is asked for that fails as it may for a moment.
const TRIES: usize = 5;

/// Every way in which a review can fail, by what it is, with how often it is asked for.
async fn failures() -> Vec<(String, ApiServer, usize)> {
    let mut failures = Vec::new();
    for (code, tries) in [(401, 1), (403, 1), (429, TRIES), (500, TRIES), (503, TRIES)] {
        failures.push((code.to_string(), ApiServer::failing(code).await, tries));
    }
    let yes = || json!({"authenticated": true, "allowed": true, "user": {"username": "ada"}});
    let cut = move |_: &str, review: &Value| Reply::Cut(object(review, yes()));
    failures.push(("cut body".to_owned(), ApiServer::start(cut).await, TRIES));
    failures.push(("no JSON".to_owned(), ApiServer::start(|_, _| Reply::Garbage).await, 1));
    failures
}

#[tokio::test]
async fn who_shows_nothing_gets_401_and_loses_the_connection() {
    let served = Served::open().await;
    for path in ["/pods", "/healthz", "/containerLogs/ns/pod/runs", "/", "/nothing"] {
        let mut client = served.stranger().await;
        assert_eq!(
            client.get(path).await,
            (StatusCode::UNAUTHORIZED, "Unauthorized".to_owned()),
            "{path}"
        );
        client.tasks.join_next().await.unwrap().unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_certificate_of_the_client_authority_is_enough_where_all_is_allowed() {
    let served = Served::open().await;
    let (status, body) = served.admin().await.get("/pods").await;
    assert_eq!(status, StatusCode::OK);
    let list: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&list["kind"], &list["apiVersion"]), (&json!("PodList"), &json!("v1")));
    assert_eq!(list["items"][0]["metadata"]["name"], "pod");
}

#[tokio::test]
async fn other_certificates_do_not_pass_the_handshake() {
    let served = Served::open().await;
    let foreign = Authority::new("clients").client("kube-apiserver", ["masters", "others"]);
    let expired = served.clients.expired_client("kube-apiserver");
    for identity in [&foreign, &expired] {
        // In TLS 1.3 the client has finished when the server refuses: it learns of it when it reads.
        let dial = served.dial(Some(identity));
        let stream = dial.tls().await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream))
                .await
                .unwrap();
        let request = hyper::Request::get("/pods")
            .header("host", "x")
            .body(axum::body::Body::empty())
            .unwrap();
        let (answer, ended) = tokio::join!(sender.send_request(request), connection);
        answer.unwrap_err();
        ended.unwrap_err();
    }
}

#[tokio::test]
async fn unknown_paths_are_404_and_wrong_methods_405() {
    let served = Served::open().await;
    let mut client = served.admin().await;
    for path in [
        "/",
        "/nothing",
        "/exec/ns/pod/runs",
        "/containerLogs/ns/pod",
        "/pods/pod",
        "/%70ods",
        "/metrics/other",
    ] {
        assert_eq!(client.get(path).await.0, StatusCode::NOT_FOUND, "{path}");
    }
    let request =
        hyper::Request::post("/pods").header("host", "x").body(axum::body::Body::empty()).unwrap();
    assert_eq!(client.send(request).await.unwrap().status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn a_token_is_reviewed_once() {
    let api_server = knowing(&[]).await;
    let served = Served::with(AlwaysAllow, &api_server).await;
    for _ in 0..3 {
        assert_eq!(
            served.stranger().await.get_with_token("/healthz", "good").await.0,
            StatusCode::OK
        );
        assert_eq!(
            served.stranger().await.get_with_token("/healthz", "bad").await.0,
            StatusCode::UNAUTHORIZED
        );
    }
    let asked: Vec<_> = api_server
        .asked()
        .into_iter()
        .map(|(path, review)| (path, review["spec"]["token"].clone()))
        .collect();
    assert_eq!(asked, [(TOKENS.to_owned(), json!("good")), (TOKENS.to_owned(), json!("bad"))]);
}

#[tokio::test]
async fn a_token_that_can_not_be_reviewed_is_nobodys_and_asked_again() {
    let nobodys = async |(failure, api_server, tries): (String, ApiServer, usize)| {
        let served = Served::with(AlwaysAllow, &api_server).await;
        for _ in 0..2 {
            let answer = served.stranger().await.get_with_token("/healthz", "good").await;
            assert_eq!(answer, (StatusCode::UNAUTHORIZED, "Unauthorized".to_owned()), "{failure}");
        }
        assert_eq!(api_server.asked().len(), 2 * tries, "{failure}");
    };
    join_all(failures().await.into_iter().map(nobodys)).await;
}

#[tokio::test]
async fn a_review_that_fails_once_is_asked_for_again_and_nobody_sees_it() {
    let failed = Mutex::new(BTreeSet::new());
    let once = move |path: &str, review: &Value| {
        if failed.lock().unwrap().insert(path.to_owned()) {
            return Reply::status(500);
        }
        let status = json!({"authenticated": true, "allowed": true, "user": {"username": "ada"}});
        Reply::Object(201, object(review, status))
    };
    let api_server = ApiServer::start(once).await;
    let served = Served::with(Webhook, &api_server).await;
    let answer = served.stranger().await.get_with_token("/healthz", "good").await;
    assert_eq!(answer.0, StatusCode::OK);
    let asked: Vec<_> = api_server.asked().into_iter().map(|(path, _)| path).collect();
    assert_eq!(asked, [TOKENS, TOKENS, ACCESS, ACCESS]);
}

#[tokio::test]
async fn the_first_subresource_that_is_allowed_is_enough_and_remembered() {
    let api_server = knowing(&["proxy"]).await;
    let served = Served::with(Webhook, &api_server).await;
    let mut client = served.admin().await;
    for _ in 0..2 {
        assert_eq!(client.get("/pods").await.0, StatusCode::OK);
    }
    let asked = api_server.asked();
    assert!(asked.iter().all(|(path, _)| path == ACCESS), "{asked:?}");
    let reviews: Vec<_> = asked.iter().map(|(_, review)| review["spec"].clone()).collect();
    let review = |subresource: &str| {
        json!({
            "user": "kube-apiserver",
            "groups": ["masters", "others", "system:authenticated"],
            "extra": {},
            "resourceAttributes":
                {"verb": "get", "version": "v1", "resource": "nodes", "subresource": subresource, "name": "node-1"},
        })
    };
    assert_eq!(reviews, [review("pods"), review("proxy")]);
}

#[tokio::test]
async fn a_token_s_user_is_reviewed_with_all_that_is_known_of_them() {
    let api_server = knowing(&["healthz"]).await;
    let served = Served::with(Webhook, &api_server).await;
    assert_eq!(served.stranger().await.get_with_token("/healthz", "good").await.0, StatusCode::OK);
    let spec = api_server.asked().pop().unwrap().1["spec"].clone();
    assert_eq!(
        (&spec["user"], &spec["uid"], &spec["groups"], &spec["extra"]),
        (&json!("ada"), &json!("7"), &json!(["readers"]), &json!({"k": ["v"]}))
    );
}

#[tokio::test]
async fn who_may_not_gets_403_and_is_remembered_too() {
    let api_server = knowing(&["log"]).await;
    let served = Served::with(Webhook, &api_server).await;
    let mut client = served.admin().await;
    for _ in 0..2 {
        let text = "Forbidden (user=kube-apiserver, verb=get, resource=nodes, subresource(s)=[pods proxy])\n";
        assert_eq!(client.get("/pods").await, (StatusCode::FORBIDDEN, text.to_owned()));
    }
    assert_eq!(api_server.asked().len(), 2);
    let text =
        "Forbidden (user=kube-apiserver, verb=get, resource=nodes, subresource(s)=[proxy])\n";
    assert_eq!(
        client.get("/containerLogs/ns/pod/runs").await,
        (StatusCode::FORBIDDEN, text.to_owned())
    );
    assert_eq!(api_server.asked().len(), 2);
}

#[tokio::test]
async fn an_explicit_denial_outweighs() {
    let both = |_: &str, review: &Value| {
        Reply::Object(201, object(review, json!({"allowed": true, "denied": true})))
    };
    let api_server = ApiServer::start(both).await;
    let served = Served::with(Webhook, &api_server).await;
    assert_eq!(served.admin().await.get("/pods").await.0, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_review_that_fails_is_500_and_asked_again() {
    let unknown = async |(failure, api_server, tries): (String, ApiServer, usize)| {
        let served = Served::with(Webhook, &api_server).await;
        let mut client = served.admin().await;
        for _ in 0..2 {
            let text = "Authorization error (user=kube-apiserver, verb=get, resource=nodes, subresource=pods)";
            assert_eq!(
                client.get("/pods").await,
                (StatusCode::INTERNAL_SERVER_ERROR, text.to_owned()),
                "{failure}"
            );
        }
        assert_eq!(api_server.asked().len(), 2 * tries, "{failure}");
    };
    join_all(failures().await.into_iter().map(unknown)).await;
}
