//! Who pulls: challenges, credentials, and where credentials must not go.

use nodule_image::{Keyring, Reference, Secret, Verification};
use serde_json::json;

use crate::node::{Node, keyring, module, told};
use crate::registry::{Door, Fault, Registry, sha};

async fn locked(door: Door) -> (Registry, Node, String) {
    let registry = Registry::start().await;
    registry.artifact("team/app", "1", &module(""));
    registry.lock_with(door);
    let node = Node::new(&registry).await;
    let name = format!("{}/team/app:1", registry.host);
    (registry, node, name)
}

#[tokio::test]
async fn a_basic_challenge_is_answered_with_the_pull_secret() {
    let (registry, node, name) = locked(Door::Basic("bob", "right")).await;

    node.pull_with(&name, &keyring(&[(&registry.host, "bob", "right")])).await.unwrap();

    let first = &registry.seen("/manifests/")[0];
    assert!(!first.headers.contains_key("authorization"), "sent before it was asked for");
}

#[tokio::test]
async fn a_wrong_password_is_told_and_not_tried_again() {
    let (registry, node, name) = locked(Door::Basic("bob", "right")).await;

    let keys = keyring(&[(&registry.host, "bob", "wrong")]);
    let (text, reason) = told(&registry, node.pull_with(&name, &keys).await);

    assert!(
        text.contains("access denied to user \"bob\"") && text.contains("imagePullSecrets"),
        "{text}"
    );
    assert!(text.contains("401") && !text.contains("wrong"), "{text}");
    assert_eq!(reason, "ErrImagePull");
    assert_eq!(registry.seen("/manifests/").len(), 2, "one challenge, one answer");
}

#[tokio::test]
async fn without_a_pull_secret_a_locked_registry_says_so() {
    for door in [Door::Basic("bob", "right"), Door::Bearer(Some(("bob", "right")))] {
        let (registry, node, name) = locked(door).await;
        let (text, _) = told(&registry, node.pull(&name).await);
        assert!(text.contains("access denied to anonymous"), "{text}");
    }
}

#[tokio::test]
async fn a_bearer_challenge_is_answered_with_a_token_that_serves_for_all_requests() {
    let (registry, node, name) = locked(Door::Bearer(Some(("bob", "right")))).await;
    let keys = keyring(&[(&registry.host, "bob", "right")]);

    node.pull_with(&name, &keys).await.unwrap();

    let tokens = registry.seen("/token");
    assert_eq!(tokens.len(), 1);
    assert!(tokens[0].path.contains("scope=repository%3Ateam%2Fapp%3Apull"), "{tokens:?}");
    let blobs = registry.seen("/blobs/");
    assert!(blobs.iter().all(|blob| blob.headers["authorization"] == "Bearer pass"));
}

#[tokio::test]
async fn a_public_image_behind_tokens_is_pulled_by_nobody() {
    let (_registry, node, name) = locked(Door::Bearer(None)).await;
    node.pull(&name).await.unwrap();
}

#[tokio::test]
async fn a_token_service_that_refuses_the_password_is_told() {
    let (registry, node, name) = locked(Door::Bearer(Some(("bob", "right")))).await;
    let keys = keyring(&[(&registry.host, "bob", "wrong")]);

    let (text, _) = told(&registry, node.pull_with(&name, &keys).await);

    assert!(text.contains("user \"bob\"") && text.contains("token service"), "{text}");
}

#[tokio::test]
async fn every_credential_that_matches_is_tried_and_none_but_those() {
    let (registry, node, name) = locked(Door::Basic("bob", "right")).await;
    let team = format!("{}/team", registry.host);
    let keys = keyring(&[
        (&team, "eve", "first"),
        (&registry.host, "bob", "right"),
        ("other.example", "mallory", "never"),
    ]);

    node.pull_with(&name, &keys).await.unwrap();

    let sent = registry.seen("/manifests/");
    assert_eq!(sent.len(), 4, "a challenge and an answer for each of two: {sent:?}");
}

#[tokio::test]
async fn when_every_credential_is_refused_all_answers_are_told() {
    let (registry, node, name) = locked(Door::Basic("bob", "right")).await;
    let team = format!("{}/team", registry.host);
    let keys = keyring(&[(&team, "eve", "1"), (&registry.host, "mallory", "2")]);

    let (text, _) = told(&registry, node.pull_with(&name, &keys).await);

    assert!(
        text.contains("\"mallory\"") && text.contains("before that: access denied to user \"eve\""),
        "{text}"
    );
}

#[tokio::test]
async fn another_credential_is_tried_whatever_the_answer_to_one() {
    let busy = Fault::Status(429, String::new(), String::new());
    for (status, times, to_token) in [(400, 1, false), (400, 1, true), (404, 1, false)] {
        let fault = Fault::Status(status, String::new(), String::new());
        another(vec![fault; times], to_token).await;
    }
    another(vec![busy.clone(); 3], false).await;
    another(vec![busy; 3], true).await;
}

/// These are the answers to the first of two credentials; with the second the image is pulled.
async fn another(faults: Vec<Fault>, to_token: bool) {
    let (registry, node, name) = locked(Door::Bearer(Some(("bob", "right")))).await;
    match to_token {
        true => registry.fail_token(faults),
        // The first request is challenged, whatever was to go wrong with it.
        false => registry.fail("team/app/manifests/1", [&faults[..1], &faults].concat()),
    }
    let team = format!("{}/team", registry.host);
    let keys = keyring(&[(&team, "bob", "right"), (&registry.host, "bob", "right")]);
    node.pull_with(&name, &keys).await.unwrap();
    let asked = registry.seen("/manifests/1");
    let nobody = asked.iter().filter(|seen| !seen.headers.contains_key("authorization"));
    assert!(nobody.count() >= 2, "both began without a password");
}

#[tokio::test]
async fn credentials_of_one_pod_do_not_serve_the_next() {
    let (registry, node, name) = locked(Door::Basic("bob", "right")).await;
    node.pull_with(&name, &keyring(&[(&registry.host, "bob", "right")])).await.unwrap();

    let (text, _) = told(&registry, node.pull_with(&name, &Keyring::default()).await);

    assert!(text.contains("access denied to anonymous"), "{text}");
}

#[tokio::test]
async fn a_redirect_to_another_host_gets_no_authorization() {
    let (registry, node, name) = locked(Door::Basic("bob", "right")).await;
    let store = Registry::start().await;
    let wasm = module("");
    store.put("elsewhere", "application/wasm", &wasm);
    let location = format!("location: http://{}/v2/elsewhere\r\n", store.host);
    let blob = format!("team/app/blobs/{}", sha(&wasm));
    registry.fail(&blob, [Fault::Status(307, location, String::new())]);

    node.pull_with(&name, &keyring(&[(&registry.host, "bob", "right")])).await.unwrap();

    assert!(registry.seen(&blob)[0].headers.contains_key("authorization"));
    let redirected = store.seen("elsewhere");
    assert_eq!(redirected.len(), 1);
    assert!(!redirected[0].headers.contains_key("authorization"));
}

/// A keyring of one secret of the cluster.
fn secret(registry: &Registry, name: &str, password: &str) -> Keyring {
    let secret =
        Secret { namespace: "ns".to_owned(), name: name.to_owned(), uid: format!("uid of {name}") };
    let entry = json!({ "username": "user", "password": password });
    let content = json!({ "auths": { &registry.host: entry } }).to_string();
    let mut keyring = Keyring::default();
    let data = [(".dockerconfigjson", content.as_bytes())];
    keyring.add_secret_of(Some(&secret), "kubernetes.io/dockerconfigjson", data).unwrap();
    keyring
}

#[tokio::test]
async fn an_image_that_is_here_is_for_those_who_have_proven_that_they_may_have_it() {
    let registry = Registry::start().await;
    registry.artifact("private", "1", &module(""));
    registry.artifact("public", "1", &module("p"));
    let node = Node::new(&registry).await;
    let (nobody, name) = (Keyring::default(), format!("{}/private:1", registry.host));
    let public = node.pull(&format!("{}/public:1", registry.host)).await.unwrap();
    registry.lock_with(Door::Basic("user", "right"));
    let right = secret(&registry, "a", "right");
    assert!(node.pull_with(&name, &secret(&registry, "b", "wrong")).await.is_err());
    let image = node.pull_with(&name, &right).await.unwrap();

    let permits = |keyring: &Keyring| node.images.permits(&image, keyring).unwrap();
    assert!(permits(&right) && permits(&secret(&registry, "b", "right")));
    assert!(permits(&secret(&registry, "a", "changed")), "the same secret");
    assert!(!permits(&nobody) && !permits(&secret(&registry, "b", "wrong")));
    assert!(node.images.permits(&public, &nobody).unwrap());
    let other = Reference::parse(&name.replace("private", "other")).unwrap();
    let mut elsewhere = image.clone();
    elsewhere.reference = other;
    assert!(!node.images.permits(&elsewhere, &right).unwrap(), "another repository");
}

#[tokio::test]
async fn an_image_without_a_proof_is_everybodys_unless_the_policy_says_otherwise() {
    let registry = Registry::start().await;
    registry.artifact("app", "1", &module(""));
    for (policy, preloaded, pulled) in [
        (Verification::NeverPreloaded, true, false),
        (Verification::Never, true, true),
        (Verification::Always, false, false),
        (Verification::NeverAllowed(vec![format!("{}/*", registry.host)]), true, true),
    ] {
        registry.lock_with(Door::Basic("user", "right"));
        let node = Node::with(&registry, |config| config.verification = policy.clone()).await;
        let keys = secret(&registry, "a", "right");
        let image = node.pull_with(&format!("{}/app:1", registry.host), &keys).await.unwrap();
        let permits = || node.images.permits(&image, &Keyring::default()).unwrap();
        assert_eq!(permits(), pulled, "{policy:?}");
        std::fs::remove_dir_all(node.root().join("access")).unwrap();
        assert_eq!(permits(), preloaded, "{policy:?}");
    }
}
