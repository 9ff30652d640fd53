//! Certificates of pods, whose signer is the test.

use std::fs;

use axum::http::Method;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use rcgen::{CertificateParams, CertificateSigningRequestParams, Issuer, KeyPair};
use rustls::pki_types::CertificateSigningRequestDer;
use serde_json::{Value, json};

use crate::Agent;
use crate::api::{Api, Fault};
use crate::on_disk;
use crate::registry::Registry;
use crate::root::Root;
use crate::volumes::{end, failed_mount, node, pod, running, secret_folder};

const REQUESTS: &str = "podcertificaterequests";

async fn begin() -> (Api, Registry, Root, Agent) {
    let (api, registry, root) = node().await;
    api.put("serviceaccounts", json!({"metadata": {"name": "default", "uid": "account-uid"}}));
    let agent = Agent::with(&api, root.path(), &[&registry.host]).await;
    (api, registry, root, agent)
}

fn web(registry: &Registry) -> Value {
    let source = json!({"signerName": "example.com/s", "keyType": "ECDSAP256",
        "credentialBundlePath": "k", "userAnnotations": {"example.com/a": "b"}});
    let volume = json!({"projected": {"sources": [{"podCertificate": source}]}});
    let mut web = pod("web", "u1", &registry.image("reads"), &volume);
    web["spec"]["serviceAccountName"] = json!("default");
    web
}

/// The request that there is beside so many older ones.
async fn asked(api: &Api, older: usize) -> Value {
    api.until("a request", |api| {
        let all = api.all(REQUESTS);
        let open = all.iter().find(|request| request["status"].is_null())?;
        (all.len() == older + 1).then(|| open.clone())
    })
    .await
}

fn condition(kind: &str) -> Value {
    json!([{"type": kind, "status": "True", "reason": "Because", "message": "of the test",
            "lastTransitionTime": Timestamp::now()}])
}

fn answer(api: &Api, mut request: Value, status: Value) {
    request["status"] = status;
    api.put(REQUESTS, request);
}

/// Signs, for a life of an hour, and asks for a renewal after so many milliseconds. The chain, as the pod should read it.
fn issue(api: &Api, request: Value, refresh: i64) -> String {
    let der: ByteString =
        serde_json::from_value(request["spec"]["stubPKCS10Request"].clone()).unwrap();
    let der = CertificateSigningRequestDer::from(der.0);
    let key = KeyPair::generate().unwrap();
    let issuer = Issuer::new(CertificateParams::default(), key);
    let chain = CertificateSigningRequestParams::from_der(&der).unwrap();
    let chain = chain.signed_by(&issuer).unwrap().pem();
    let now = Timestamp::now();
    let at = now + SignedDuration::from_millis(refresh);
    // The jitter is a quarter of what is left then, at most.
    let end = if refresh < 60_000 { at + SignedDuration::from_secs(2) } else { at };
    let status = json!({"conditions": condition("Issued"), "certificateChain": format!("# noise\n{chain}"),
        "notBefore": now, "beginRefreshAt": at, "notAfter": end});
    answer(api, request, status);
    chain
}

#[tokio::test]
async fn a_certificate_is_renewed_with_another_key_when_its_signer_says() {
    let (api, registry, root, agent) = begin().await;
    let are = |state: &str| {
        let labels = format!("signer_name=\"example.com/s\",state=\"{state}\"");
        agent.counted(&format!("kubelet_podcertificate_states{{{labels}}}")).unwrap_or_default()
    };
    api.apply(web(&registry));
    let request = asked(&api, 0).await;
    on_disk("a count of who waits", || are("not_yet_issued") == 1).await;
    let spec = &request["spec"];
    for (field, value) in [
        ("signerName", json!("example.com/s")),
        ("podName", json!("web")),
        ("podUID", json!("u1")),
        ("serviceAccountName", json!("default")),
        ("serviceAccountUID", json!("account-uid")),
        ("nodeName", json!("n1")),
        ("nodeUID", json!("node-uid")),
        ("unverifiedUserAnnotations", json!({"example.com/a": "b"})),
    ] {
        assert_eq!(spec[field], value, "{field}");
    }
    assert_eq!(request["metadata"]["ownerReferences"][0]["uid"], "u1");
    assert_eq!(api.pod("web").unwrap()["status"]["phase"], "Pending");
    let first = issue(&api, request, 500);
    running(&api, "web").await;
    let file = secret_folder(root.path(), "u1").join("v/k");
    let before = fs::read_to_string(&file).unwrap();
    assert!(before.starts_with("-----BEGIN PRIVATE KEY-----\n") && before.ends_with(&first));
    let request = asked(&api, 1).await;
    assert_eq!(fs::read_to_string(&file).unwrap(), before, "the old one serves meanwhile");
    let second = issue(&api, request, 3_600_000);
    on_disk("the next one", || fs::read_to_string(&file).unwrap().ends_with(&second)).await;
    assert_eq!((are("not_yet_issued"), are("fresh")), (0, 1));
    let after = fs::read_to_string(&file).unwrap();
    assert_ne!(before.strip_suffix(&first), after.strip_suffix(&second), "and its key");
    assert!(api.events().iter().all(|(reason, _)| reason != "FailedMount"), "{:?}", api.events());
    end(&api, root.path(), "web", "u1").await;
    on_disk("no count of who is gone", || are("fresh") == 0).await;
}

#[tokio::test]
async fn a_signer_that_refuses_is_told_of_and_not_asked_again() {
    let (api, registry, root, _agent) = begin().await;
    // Not served for the moment, in either version and in each of four tries; then in the older one.
    for _ in 0..8 {
        api.fail(Method::POST, "/apis/certificates.k8s.io/", Fault::Code(404));
    }
    api.fail(Method::POST, "/apis/certificates.k8s.io/v1/", Fault::Code(404));
    api.apply(web(&registry));
    failed_mount(&api, "the API server does not serve PodCertificateRequests").await;
    let request = asked(&api, 0).await;
    assert_eq!(request["apiVersion"], "certificates.k8s.io/v1beta1");
    answer(&api, request, json!({"conditions": condition("Failed")}));
    let told = failed_mount(&api, "permanently failed").await;
    assert!(told.ends_with("reason=\"Because\" message=\"of the test\""), "{told}");
    assert!(api.events().iter().any(|(reason, _)| reason == "Failed"));
    // Two tries more.
    let tries = |api: &Api| {
        api.events().iter().filter(|(_, message)| message.contains("permanently failed")).count()
    };
    api.until("the next try", |api| (tries(api) > 1).then_some(())).await;
    assert_eq!(api.all(REQUESTS).len(), 1);
    end(&api, root.path(), "web", "u1").await;
}
