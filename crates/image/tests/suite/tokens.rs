//! Token services: what they are asked, and what becomes of their failures.

use nodule_image::Keyring;

use crate::node::{Node, keyring, module, told};
use crate::registry::{Door, Fault, Registry};

/// A registry behind a token service of its own, and a pull secret for both.
struct Case {
    registry: Registry,
    node: Node,
    name: String,
    keys: Keyring,
}

async fn case() -> Case {
    let registry = Registry::start().await;
    registry.artifact("team/app", "1", &module(""));
    registry.lock_with(Door::Bearer(Some(("bob", "right"))));
    let node = Node::new(&registry).await;
    let name = format!("{}/team/app:1", registry.host);
    let keys = keyring(&[(&registry.host, "bob", "right")]);
    Case { registry, node, name, keys }
}

impl Case {
    async fn pulls(&self) {
        self.node.pull_with(&self.name, &self.keys).await.unwrap();
    }

    /// The pull fails, with the token service named.
    async fn fails(&self) -> String {
        let (text, reason) =
            told(&self.registry, self.node.pull_with(&self.name, &self.keys).await);
        assert!(text.contains(&format!("token service {}: ", self.registry.host)), "{text}");
        assert_eq!(reason, "ErrImagePull");
        text
    }

    fn tokens(&self) -> usize {
        self.registry.seen("/token").len()
    }
}

fn status(code: u16, body: &str) -> Fault {
    Fault::Status(code, String::new(), body.to_owned())
}

#[tokio::test]
async fn a_busy_token_service_is_asked_again() {
    let case = case().await;
    let later = Fault::Status(429, "retry-after: 3600\r\n".to_owned(), String::new());
    case.registry.fail_token([status(503, ""), later]);
    case.pulls().await;
    assert_eq!(case.tokens(), 3);
}

#[tokio::test]
async fn a_token_service_that_stays_busy_is_told() {
    let case = case().await;
    case.registry.fail_token([status(503, "1"), status(500, "2"), status(502, "no upstream")]);
    let text = case.fails().await;
    assert!(text.contains("not able to answer now: 502 Bad Gateway no upstream"), "{text}");
}

#[tokio::test]
async fn the_words_of_a_token_service_that_refuses_are_told_and_it_is_not_asked_again() {
    for (code, body, words) in [
        (
            401,
            r#"{"errors":[{"code":"UNAUTHORIZED","message":"it expired"}]}"#,
            "401 Unauthorized UNAUTHORIZED: it expired",
        ),
        (
            403,
            r#"{"details":"not on our list"}"#,
            "403 Forbidden {\"details\":\"not on our list\"}",
        ),
    ] {
        let case = case().await;
        case.registry.fail_token([status(code, body)]);
        let text = case.fails().await;
        assert!(text.contains(&format!("access denied to user \"bob\": {words}")), "{text}");
        assert!(text.contains("imagePullSecrets"), "{text}");
        assert_eq!(case.tokens(), 1);
    }
}

#[tokio::test]
async fn a_service_that_is_not_there_is_not_taken_for_an_unknown_image() {
    let case = case().await;
    case.registry.fail_token([status(404, "")]);
    let text = case.fails().await;
    assert!(
        text.contains("unexpected answer: 404") && text.contains("check the token service"),
        "{text}"
    );
    assert_eq!(case.tokens(), 1);
}

#[tokio::test]
async fn a_token_or_a_refusal_without_end_is_left() {
    let case = case().await;
    case.registry.fail_token([Fault::Endless(200)]);
    let text = case.fails().await;
    assert!(text.contains("the token has") && text.contains("the limit of 65536"), "{text}");
    case.registry.fail_token([Fault::Endless(401)]);
    assert!(case.fails().await.contains("access denied"));
}

#[tokio::test]
async fn a_silent_token_service_is_told() {
    let mut case = case().await;
    let shortly = std::time::Duration::from_millis(100);
    case.node = Node::with(&case.registry, |config| config.patience.idle = shortly).await;
    case.registry.fail_token([Fault::Silence(3), Fault::Silence(3), Fault::Silence(3)]);
    assert!(case.fails().await.contains("the token did not arrive within 100ms"));
    assert_eq!(case.tokens(), 3);
}

/// Else a service that sends a byte a minute would hold a pull for weeks.
#[tokio::test]
async fn a_token_is_waited_for_no_longer_than_an_answer() {
    let mut case = case().await;
    case.node = Node::with(&case.registry, |config| {
        config.patience.answer = std::time::Duration::from_secs(1);
        config.retry.tries = 1;
    })
    .await;
    case.registry.fail_token([Fault::Silence(3)]);
    assert!(case.fails().await.contains("the token did not arrive within 1s"));
}

#[tokio::test]
async fn an_answer_without_a_token_is_told_but_not_shown() {
    for body in
        ["hush-hush", r#"{"token":["hush-hush"]}"#, r#""hush-hush""#, r#"{"token":"hush-hush\n"}"#]
    {
        let case = case().await;
        case.registry.fail_token([Fault::Body(body.into())]);
        let text = case.fails().await;
        assert!(text.contains("the token is malformed") && !text.contains("hush"), "{text}");
    }
}

#[tokio::test]
async fn the_token_is_asked_for_however_the_challenges_are_written() {
    for challenge in [
        r#"Basic realm="a, b", Bearer realm="http://HOST/token",service="s""#,
        r#"Bearer realm="http://HOST/token",service="s", Basic realm="here""#,
        "Basic realm=\"here\"\r\nwww-authenticate: bearer Service=s, Realm=\"http://HOST/token\"",
        r#"Negotiate, Bearer error="invalid_token",service="s",realm="http://HOST/token""#,
    ] {
        let case = case().await;
        case.registry.lock_with(Door::Challenge(challenge.to_owned()));
        case.pulls().await;
        let tokens = case.registry.seen("/token");
        assert_eq!(tokens.len(), 1, "{challenge}");
        assert!(tokens[0].path.contains("service=s"), "{challenge}: {tokens:?}");
        assert!(tokens[0].headers["authorization"].starts_with("Basic "), "{challenge}");
    }
}

#[tokio::test]
async fn every_scope_of_the_challenge_is_asked_for() {
    let case = case().await;
    let scopes = r#"scope="repository:team/app:pull repository:base:pull""#;
    let challenge = format!(r#"Bearer realm="http://HOST/token",{scopes}"#);
    case.registry.lock_with(Door::Challenge(challenge));
    case.pulls().await;
    let path = &case.registry.seen("/token")[0].path;
    let scopes = "scope=repository%3Ateam%2Fapp%3Apull&scope=repository%3Abase%3Apull";
    assert!(path.ends_with(scopes), "{path}");
}

#[tokio::test]
async fn a_password_is_not_given_to_who_does_not_ask_for_it() {
    for challenge in ["Negotiate", "Bearer error=\"none\"", "Digest realm=\"Basic\""] {
        let case = case().await;
        case.registry.lock_with(Door::Challenge(challenge.to_owned()));
        let result = case.node.pull_with(&case.name, &case.keys).await;
        let (text, _) = told(&case.registry, result);
        assert!(text.contains("access denied to user \"bob\": 401"), "{text}");
        assert_eq!(case.registry.seen("/").len(), 1, "{challenge}");
    }
}

#[tokio::test]
async fn a_token_service_that_moved_to_another_host_gets_no_password() {
    let (case, other) = (case().await, Registry::start().await);
    let location = format!("location: http://{}/token\r\n", other.host);
    case.registry.fail_token([Fault::Status(307, location, String::new())]);

    case.pulls().await;

    assert!(case.registry.seen("/token")[0].headers.contains_key("authorization"));
    let redirected = other.seen("/token");
    assert_eq!(redirected.len(), 1);
    assert!(!redirected[0].headers.contains_key("authorization"));
}

#[tokio::test]
async fn a_challenge_of_another_host_is_not_answered() {
    let (case, other) = (case().await, Registry::start().await);
    other.lock_with(Door::Bearer(Some(("bob", "right"))));
    case.registry.lock_with(Door::Open);
    let location = format!("location: http://{}/v2/team/app/manifests/1\r\n", other.host);
    case.registry.fail("team/app/manifests/1", [Fault::Status(307, location, String::new())]);

    let (text, _) = told(&case.registry, case.node.pull_with(&case.name, &case.keys).await);

    assert!(text.contains("access denied"), "{text}");
    assert_eq!(other.seen("/manifests/").len(), 1);
    assert!(other.seen("/token").is_empty());
}

#[tokio::test]
async fn a_token_service_that_does_not_run_is_named() {
    let (case, gone) = (case().await, Registry::start().await);
    let challenge = format!(r#"Bearer realm="http://{}/token""#, gone.host);
    case.registry.lock_with(Door::Challenge(challenge));
    let host = gone.host.clone();
    drop(gone);
    // The listener closes with its task.
    let text = loop {
        let error = case.node.pull_with(&case.name, &case.keys).await.unwrap_err();
        match error.reason() {
            "RegistryUnavailable" => break error.to_string(),
            _ => tokio::task::yield_now().await,
        }
    };
    assert!(text.contains(&format!("token service {host}: cannot connect")), "{text}");
    assert!(text.contains("check the token service"), "{text}");
}
