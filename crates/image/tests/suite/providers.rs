//! Programs that know credentials: what they are asked, for how long their answers hold, and what becomes of bad ones.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nodule_image::{
    Identity, Keyring, Provider, Reference, ServiceAccount, TokenAttributes, TokenCache,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::node::{Node, keyring, module};
use crate::registry::{Door, Registry};

const VERSION: &str = "credentialprovider.kubelet.k8s.io/v1";
/// For programs that answer, and for those that never do.
const PATIENCE: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(500);

/// A locked registry with two images, a node with one provider, and the folder where that notes what it is asked.
struct Case {
    registry: Registry,
    node: Node,
    folder: TempDir,
}

/// Writes a program that keeps its question in a file of its own and then does as `body` says.
fn program(folder: &Path, body: &str) -> PathBuf {
    let path = folder.join("provider");
    let script = format!(
        "#!/bin/sh\nquestion=$(cat)\nprintf '%s' \"$question\" > \"$(mktemp \"$ASKED/asked.XXXXXX\")\"\n{body}\n"
    );
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[tokio::test]
async fn providers_are_counted_by_their_names_and_their_configuration_is_told() {
    let good = |key: &str| says(&answer("Image", "0s", key, "right"));
    let body = |key: &str| {
        let first = "[ -e \"$ASKED/again\" ] || { touch \"$ASKED/again\"; exit 3; }";
        format!("{first}\n{}", good(key))
    };
    let case = Case::new(body, |_| ()).await;
    let image = format!("{}/team/a:1", case.registry.host);
    let reference = Reference::parse(&image).unwrap();
    for expected in [1, 0] {
        let (mut keyring, token) = (Keyring::default(), |_| async { Err(String::new()) });
        let failed = case.node.images.provide(&reference, &mut keyring, None, token).await;
        assert_eq!(failed.len(), expected);
    }
    let counted = |series: &str| case.node.counted(series);
    let of = "{plugin_name=\"cloud\"}";
    let durations = "kubelet_credential_provider_plugin_duration_count";
    assert_eq!(counted(&format!("{durations}{of}")), Some(2.0));
    let errors = "kubelet_credential_provider_plugin_errors_total";
    assert_eq!(counted(&format!("{errors}{of}")), Some(1.0));
    let info = "kubelet_credential_provider_config_info{hash=\"sha256:0\"}";
    assert_eq!(counted(info), Some(1.0));
}

/// What a good program says.
fn answer(scope: &str, duration: &str, key: &str, password: &str) -> String {
    let (duration, auth) = (
        if duration.is_empty() {
            String::new()
        } else {
            format!(r#""cacheDuration":"{duration}","#)
        },
        format!(r#"{{"{key}":{{"username":"bob","password":"{password}"}}}}"#),
    );
    let kind = "CredentialProviderResponse";
    format!(
        r#"{{"apiVersion":"{VERSION}","kind":"{kind}","cacheKeyType":"{scope}",{duration}"auth":{auth}}}"#
    )
}

fn says(text: &str) -> String {
    format!("cat <<'END'\n{text}\nEND")
}

impl Case {
    async fn new(body: impl FnOnce(&str) -> String, change: impl FnOnce(&mut Provider)) -> Self {
        Self::within(PATIENCE, body, change).await
    }

    async fn within(
        patience: Duration,
        body: impl FnOnce(&str) -> String,
        change: impl FnOnce(&mut Provider),
    ) -> Self {
        let registry = Registry::start().await;
        for name in ["team/a", "team/b"] {
            registry.artifact(name, "1", &module(name));
        }
        registry.lock_with(Door::Basic("bob", "right"));
        let folder = tempfile::tempdir().unwrap();
        let asked = folder.path().to_str().unwrap().to_owned();
        let mut provider = Provider {
            name: "cloud".to_owned(),
            program: program(folder.path(), &body(&registry.host)),
            images: vec![registry.host.clone()],
            cache: Duration::from_hours(1),
            version: VERSION.to_owned(),
            args: vec!["--as".into(), "node".into()],
            env: vec![("ASKED".to_owned(), asked)],
            token: None,
        };
        change(&mut provider);
        let node = Node::with(&registry, |config| {
            config.providers = vec![provider];
            config.providers_hash = Some("sha256:0".to_owned());
            config.patience.provider = patience;
        });
        Self { node: node.await, registry, folder }
    }

    /// Asks the providers and pulls; what the pull says, and what the providers' failures say.
    async fn pull_with(
        &self,
        image: &str,
        mut keys: Keyring,
        pod: Option<&Identity>,
        token: Result<&str, &str>,
    ) -> (Result<(), String>, String) {
        let name = format!("{}/{image}:1", self.registry.host);
        let reference = Reference::parse(&name).unwrap();
        let token = token.map(ToOwned::to_owned).map_err(ToOwned::to_owned);
        let give = async |audience| token.clone().map(|token| format!("{token} for {audience}"));
        let failed = self.node.images.provide(&reference, &mut keys, pod, give).await;
        let failed: Vec<_> = failed.iter().map(ToString::to_string).collect();
        let pulled = self.node.pull_with(&name, &keys).await;
        (pulled.map(|_| ()).map_err(|error| error.to_string()), failed.join("; "))
    }

    async fn pull(&self, image: &str) -> (Result<(), String>, String) {
        self.pull_with(image, Keyring::default(), None, Err("nobody has one")).await
    }

    /// All that the provider was asked.
    fn asked(&self) -> Vec<Value> {
        let entries = fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().path());
        let questions = entries.filter(|path| path.to_string_lossy().contains("asked."));
        questions.map(|path| serde_json::from_slice(&fs::read(path).unwrap()).unwrap()).collect()
    }
}

#[tokio::test]
async fn a_provider_is_asked_for_an_image_and_its_credentials_open_it() {
    let body = |host: &str| {
        format!("[ \"$*\" = '--as node' ] || exit 3\n{}", says(&answer("Image", "", host, "right")))
    };
    let case = Case::new(body, |_| ()).await;

    let (pulled, failed) = case.pull("team/a").await;

    assert_eq!((pulled, failed.as_str()), (Ok(()), ""));
    let expected = serde_json::json!({ "apiVersion": VERSION, "kind": "CredentialProviderRequest",
                                       "image": format!("{}/team/a", case.registry.host) });
    assert_eq!(case.asked(), [expected]);
    let image = case.node.find(&format!("{}/team/a:1", case.registry.host)).unwrap();
    assert!(case.node.images.permits(&image, &Keyring::default()).unwrap(), "it is the node's own");
}

#[tokio::test]
async fn an_answer_holds_for_what_it_says_that_it_is_for() {
    for (scope, duration, asked) in [
        ("Image", "", 2),
        ("Registry", "", 1),
        ("Global", "1h0m0s", 1),
        ("Global", "0s", 4),
        ("Registry", "-1s", 4),
    ] {
        let body = |host: &str| says(&answer(scope, duration, host, "right"));
        let case = Case::new(body, |_| ()).await;
        for image in ["team/a", "team/b", "team/a", "team/b"] {
            assert_eq!(case.pull(image).await, (Ok(()), String::new()));
        }
        assert_eq!(case.asked().len(), asked, "{scope} {duration}");
    }
}

#[tokio::test]
async fn those_who_ask_at_the_same_time_get_one_answer() {
    let body = |host: &str| says(&answer("Image", "0s", host, "right"));
    let case = Case::new(body, |_| ()).await;

    let pulls = futures::future::join_all((0..8).map(|_| case.pull("team/a"))).await;

    assert!(pulls.iter().all(|pulled| *pulled == (Ok(()), String::new())), "{pulls:?}");
    assert_eq!(case.asked().len(), 1);
}

#[tokio::test]
async fn an_image_of_nobodys_business_is_not_asked_for() {
    let body = |host: &str| says(&answer("Image", "", host, "right"));
    let case = Case::new(body, |provider| provider.images = vec!["*.example".to_owned()]).await;

    let (pulled, failed) = case.pull("team/a").await;

    assert!(pulled.unwrap_err().contains("anonymous"));
    assert_eq!((failed.as_str(), case.asked().len()), ("", 0));
}

#[tokio::test]
async fn a_bad_provider_is_told_and_the_pull_goes_on_with_other_credentials() {
    let other = answer("Image", "", "r", "secret").replace("/v1\"", "/v2\"");
    for (body, told) in [
        ("echo 'my secret' >&2; exit 7".to_owned(), "ended with exit code 7"),
        ("kill -9 $$".to_owned(), "was ended by signal 9"),
        ("exec sleep 1000".to_owned(), "did not answer within 500ms"),
        // What it has started holds its output open.
        ("sleep 1000 &".to_owned(), "did not answer within 500ms"),
        ("head -c 2000000 /dev/zero".to_owned(), "more than 1048576 bytes"),
        ("echo '{\"secret'".to_owned(), "not of the form"),
        (says(&other), "apiVersion or kind is another"),
        (says(&answer("Nobody", "", "r", "secret")), "not of the form"),
        (says(&answer("Image", "secret", "r", "p")), "cacheDuration"),
    ] {
        let patience = if told.contains("500ms") { SHORT } else { PATIENCE };
        let case = Case::within(patience, |_| body.clone(), |_| ()).await;
        let keys = keyring(&[(&case.registry.host, "bob", "right")]);
        let (pulled, failed) = case.pull_with("team/a", keys, None, Err("")).await;
        assert_eq!(pulled, Ok(()), "{body}");
        assert!(failed.starts_with("credential provider \"cloud\" "), "{body}: {failed}");
        assert!(failed.contains(told) && !failed.contains("secret"), "{body}: {failed}");
    }
}

#[tokio::test]
async fn what_a_provider_has_started_ends_with_it() {
    let body = |_: &str| "sleep 1000 & echo $! > \"$ASKED/child\"; wait".to_owned();
    let case = Case::within(SHORT, body, |_| ()).await;

    drop(case.pull("team/a").await);

    let child = fs::read_to_string(case.folder.path().join("child")).unwrap();
    let stat = PathBuf::from(format!("/proc/{}/stat", child.trim()));
    let is_gone = || fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "));
    let gone = async {
        while !is_gone() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), gone).await.expect("the child ends");
}

#[tokio::test]
async fn a_program_that_is_not_there_is_named() {
    let change = |provider: &mut Provider| provider.program = "/nowhere/cloud".into();
    let case = Case::new(|_| String::new(), change).await;

    let (pulled, failed) = case.pull("team/a").await;

    assert!(pulled.is_err());
    assert!(failed.contains("cannot be started: /nowhere/cloud: No such file"), "{failed}");
}

fn pod(name: &str) -> Identity {
    let account = ServiceAccount {
        namespace: "ns".to_owned(),
        name: name.to_owned(),
        uid: format!("uid of {name}"),
    };
    let annotations = [("cloud/role", "reader"), ("other", "unasked")];
    let annotations = annotations.map(|(key, value)| (key.to_owned(), value.to_owned()));
    Identity { account, annotations: BTreeMap::from(annotations) }
}

fn attributes(cache: TokenCache) -> Option<TokenAttributes> {
    Some(TokenAttributes {
        audience: "cloud".to_owned(),
        cache,
        required: true,
        required_annotations: vec!["cloud/role".to_owned()],
        optional_annotations: vec!["cloud/hint".to_owned()],
    })
}

#[tokio::test]
async fn a_provider_that_wants_a_token_gets_it_with_the_annotations_that_it_wants() {
    let body = |host: &str| says(&answer("Registry", "", host, "right"));
    for (cache, asked) in [(TokenCache::ServiceAccount, 2), (TokenCache::Token, 3)] {
        let case = Case::new(body, |provider| provider.token = attributes(cache)).await;
        for (name, token) in [("a", "1"), ("a", "2"), ("b", "3")] {
            let keys = Keyring::default();
            let pulled = case.pull_with("team/a", keys, Some(&pod(name)), Ok(token)).await;
            assert_eq!(pulled, (Ok(()), String::new()));
        }
        let all = case.asked();
        assert_eq!(all.len(), asked, "{cache:?}");
        let tokens: Vec<_> = all.iter().map(|one| one["serviceAccountToken"].clone()).collect();
        assert!(tokens.contains(&"1 for cloud".into()), "{tokens:?}");
        let told = serde_json::json!({ "cloud/role": "reader" });
        assert!(all.iter().all(|one| one["serviceAccountAnnotations"] == told), "{all:?}");
        let image = case.node.find(&format!("{}/team/a:1", case.registry.host)).unwrap();
        let mut keys = Keyring::default();
        assert!(!case.node.images.permits(&image, &keys).unwrap(), "it is not everybody's");
        keys.set_account(pod("b").account);
        assert!(case.node.images.permits(&image, &keys).unwrap(), "it is the account's");
    }
}

#[tokio::test]
async fn a_token_that_comes_back_as_a_password_is_not_kept_for_other_tokens() {
    let body = |host: &str| says(&answer("Registry", "", host, "right for cloud"));
    let of = |cache| async move {
        let case = Case::new(body, |provider| provider.token = attributes(cache)).await;
        case.registry.lock_with(Door::Basic("bob", "right for cloud"));
        case.pull_with("team/a", Keyring::default(), Some(&pod("a")), Ok("right")).await
    };

    assert_eq!(of(TokenCache::Token).await, (Ok(()), String::new()));
    let (pulled, failed) = of(TokenCache::ServiceAccount).await;
    assert!(pulled.is_err() && failed.contains("cacheType must be Token"), "{failed}");
}

#[tokio::test]
async fn without_a_token_a_provider_that_wants_one_is_not_asked() {
    let body = |host: &str| says(&answer("Registry", "", host, "right"));
    let change = |provider: &mut Provider| provider.token = attributes(TokenCache::ServiceAccount);
    let case = Case::new(body, change).await;

    let of = |pod, token| case.pull_with("team/a", Keyring::default(), pod, token);
    let known = pod("a");
    let (_, failed) = of(Some(&known), Err("forbidden")).await;
    assert!(failed.contains("no token of the pod's service account: forbidden"), "{failed}");
    let (_, failed) = of(None, Ok("1")).await;
    assert_eq!(failed, "", "a pod without an account is passed over");
    assert_eq!(case.asked().len(), 0);
}

#[tokio::test]
async fn the_nodes_own_file_opens_images_for_all_pods_and_a_bad_one_is_told() {
    let registry = Registry::start().await;
    registry.artifact("team/a", "1", &module("a"));
    registry.lock_with(Door::Basic("bob", "right"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    let node = Node::with(&registry, |config| config.credentials = Some(path.clone())).await;
    let name = format!("{}/team/a:1", registry.host);
    let reference = Reference::parse(&name).unwrap();
    let auths = |auth: &str| serde_json::json!({ "auths": { &registry.host: { "auth": auth } } });
    let (right, bad) = (auths("Ym9iOnJpZ2h0").to_string(), auths("c2VjcmV0").to_string());
    for (content, failures, opens) in [
        (None, 0, false),
        (Some("{"), 1, false),
        (Some(bad.as_str()), 1, false),
        (Some(right.as_str()), 0, true),
    ] {
        if let Some(content) = content {
            fs::write(&path, content).unwrap();
        }
        let (mut keyring, token) = (Keyring::default(), |_| async { Err(String::new()) });
        let failed = node.images.provide(&reference, &mut keyring, None, token).await;
        let told: Vec<_> = failed.iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), failures, "{told:?}");
        for told in told {
            assert!(told.contains("config.json") && !told.contains("c2VjcmV0"), "{told}");
        }
        let pulled = node.pull_with(&name, &keyring).await;
        assert_eq!(pulled.is_ok(), opens);
        if let Ok(image) = pulled {
            assert!(node.images.permits(&image, &Keyring::default()).unwrap(), "any pod's");
        }
    }
}
