//! The credentials of `docker login` and `podman login`, and of the helpers that they name (docker's documentation,
//! "Credential stores").

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use nodule_image::Reference;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Docker Hub's name in these files.
const HUB: &str = "https://index.docker.io/v1/";

/// Docker's `config.json`, podman's `auth.json`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Config {
    auths: BTreeMap<String, Value>,
    creds_store: Option<String>,
    cred_helpers: BTreeMap<String, String>,
}

/// What a helper answers.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// What there is for an image's registry, as a docker configuration without helpers.
pub(crate) async fn credentials(image: &Reference) -> Result<String> {
    for path in places() {
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        };
        let config: Config = serde_json::from_str(&text)
            .with_context(|| format!("{} is no docker configuration", path.display()))?;
        let auths = config.of(image, &path).await?;
        if !auths.is_empty() {
            return Ok(json!({ "auths": auths }).to_string());
        }
    }
    Ok(json!({ "auths": {} }).to_string())
}

/// Where the files are, docker's first.
fn places() -> Vec<PathBuf> {
    let set =
        |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let docker = set("DOCKER_CONFIG").or_else(|| Some(std::env::home_dir()?.join(".docker")));
    let podman = set("REGISTRY_AUTH_FILE")
        .or_else(|| Some(set("XDG_RUNTIME_DIR")?.join("containers/auth.json")));
    docker.map(|folder| folder.join("config.json")).into_iter().chain(podman).collect()
}

impl Config {
    async fn of(&self, image: &Reference, path: &Path) -> Result<BTreeMap<String, Value>> {
        let server = if image.registry() == "docker.io" { HUB } else { image.registry() };
        let own = self.cred_helpers.get(image.registry()).or(self.creds_store.as_ref());
        if let Some(helper) = own
            && let Some(Answer { username, secret }) = ask(helper, server).await?
        {
            ensure!(
                username != "<token>",
                "helper docker-credential-{helper} has an identity token for {server}, which is not supported: log in with a password or an access token"
            );
            let entry = json!({ "username": username, "password": secret });
            return Ok(BTreeMap::from([(server.to_owned(), entry)]));
        }
        // An entry that is empty says only that a helper knows the rest.
        let has = |entry: &Value, key: &str| entry.get(key).is_some_and(|text| text != "");
        let full = |entry: &Value| has(entry, "auth") || has(entry, "username");
        if self.auths.get(server).is_some_and(|entry| !full(entry) && has(entry, "identitytoken")) {
            bail!(
                "{} has an identity token for {server}, which is not supported: log in with a password or an access token",
                path.display()
            );
        }
        let entries = self.auths.iter().filter(|(_, entry)| full(entry));
        Ok(entries.map(|(server, entry)| (server.clone(), entry.clone())).collect())
    }
}

/// Asks a helper; none if it knows nobody there.
async fn ask(helper: &str, server: &str) -> Result<Option<Answer>> {
    let program = format!("docker-credential-{helper}");
    ensure!(!helper.contains('/'), "{helper:?} is no name of a credential helper");
    let failed = || format!("ask credential helper {program}");
    let mut command = Command::new(&program);
    command.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut child = command.kill_on_drop(true).spawn().with_context(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(server.as_bytes()).await.with_context(failed)?;
    }
    let output = child.wait_with_output().await.with_context(failed)?;
    // It says so on standard output; nothing else tells that from other failures.
    if String::from_utf8_lossy(&output.stdout).contains("credentials not found") {
        return Ok(None);
    }
    ensure!(output.status.success(), "credential helper {program} has no answer for {server}");
    serde_json::from_slice(&output.stdout).with_context(failed).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn of(config: &Value, image: &str) -> Result<Vec<String>> {
        let config: Config = serde_json::from_value(config.clone()).unwrap();
        let entries = config.of(&Reference::parse(image).unwrap(), Path::new("c.json")).await?;
        Ok(entries.into_iter().map(|(server, entry)| format!("{server} {entry}")).collect())
    }

    #[tokio::test]
    async fn entries_that_hold_something_are_taken() {
        let config = json!({"auths": {"a.io": {"auth": "eDp5"}, "b.io": {}}, "psFormat": "x"});
        assert_eq!(of(&config, "a.io/x").await.unwrap(), [r#"a.io {"auth":"eDp5"}"#]);
        let token = json!({"auths": {"a.io": {"identitytoken": "t"}}});
        assert!(of(&token, "a.io/x").await.unwrap_err().to_string().contains("identity token"));
    }

    #[tokio::test]
    async fn a_helper_that_is_missing_is_named() {
        let config = json!({"credHelpers": {"a.io": "no-such-helper"}});
        let error = of(&config, "a.io/x").await.unwrap_err();
        assert!(error.to_string().contains("docker-credential-no-such-helper"), "{error}");
        assert!(of(&config, "b.io/x").await.unwrap().is_empty());
    }
}
