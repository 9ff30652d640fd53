//! One question to a provider: a process, a request on its input, an answer on its output.
//!
//! The program is the operator's, what it says may come from anywhere: it is limited in time and length, and nothing of it
//! but its words on standard error is told, to the node's log alone.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use jiff::SignedDuration;
use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::answers::{Answer, Scope};
use super::{Logins, Provider, TokenCache};

/// The longest answer: passwords of clouds have a few KiB.
const LIMIT: usize = 1 << 20;
/// What is kept of its words on standard error.
const WORDS: usize = 1024;

/// A provider of credentials that gave none.
#[derive(Debug, Clone, thiserror::Error)]
#[error("credential provider {provider:?} {failure}")]
pub struct ProviderError {
    provider: String,
    failure: Failure,
    /// What it said on standard error.
    words: String,
}

impl ProviderError {
    pub(super) fn token(provider: &Provider, cause: String) -> Self {
        Self::new(provider, Failure::Token { cause }, &[])
    }

    /// Of the node's own file: what is wrong there is for the node's log alone.
    pub(super) fn file(path: &Path) -> Self {
        let provider = path.display().to_string();
        Self { provider, failure: Failure::File, words: String::new() }
    }

    fn new(provider: &Provider, failure: Failure, words: &[u8]) -> Self {
        let words = String::from_utf8_lossy(words).trim().chars().take(WORDS).collect();
        Self { provider: provider.name.clone(), failure, words }
    }

    /// The program's own words, for the operator of the node.
    pub(super) fn words(&self) -> &str {
        &self.words
    }
}

/// What went wrong. It is shown in the pod's status: nothing in it comes from the program.
#[derive(Debug, Clone, thiserror::Error)]
enum Failure {
    #[error("cannot be read; the log of this node says why")]
    File,
    #[error("was not asked: no token of the pod's service account: {cause}")]
    Token { cause: String },
    #[error("cannot be started: {cause}")]
    Start { cause: String },
    #[error("did not answer within {0:?}")]
    Late(Duration),
    #[error("{0}; the log of this node has its words")]
    Ended(String),
    #[error("gave an answer of more than {LIMIT} bytes")]
    TooLong,
    #[error("gave an answer that is not of the form {version} CredentialProviderResponse: {cause}")]
    Malformed { version: String, cause: String },
    #[error(
        "gave the token as the password, which holds for no other token: its cacheType must be Token"
    )]
    TokenAsPassword,
}

/// What a provider is asked (`CredentialProviderRequest`).
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Request<'r> {
    api_version: &'r str,
    kind: &'static str,
    image: &'r str,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_account_token: Option<&'r str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    service_account_annotations: &'r BTreeMap<String, String>,
}

/// What it answers (`CredentialProviderResponse`).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    api_version: String,
    kind: String,
    cache_key_type: Scope,
    cache_duration: Option<String>,
    auth: Option<Logins>,
}

impl<'r> Request<'r> {
    pub(super) fn new(
        provider: &'r Provider,
        image: &'r str,
        token: Option<&'r str>,
        annotations: &'r BTreeMap<String, String>,
    ) -> Self {
        Self {
            api_version: &provider.version,
            kind: "CredentialProviderRequest",
            image,
            service_account_token: token,
            service_account_annotations: annotations,
        }
    }

    /// Asks, and waits so long. Dropped, it ends the program and what that has started.
    pub(super) async fn run(
        &self,
        provider: &Provider,
        limit: Duration,
    ) -> Result<Answer, ProviderError> {
        let question = serde_json::to_vec(self).expect("strings are JSON");
        let mut words = Vec::new();
        let failed = |failure, words: &[u8]| ProviderError::new(provider, failure, words);
        let started = start(provider);
        let process = started.map_err(|error| {
            failed(
                Failure::Start { cause: format!("{}: {error}", provider.program.display()) },
                &[],
            )
        })?;
        let said = match timeout(limit, process.converse(&question, &mut words)).await {
            Ok(said) => said.map_err(|failure| failed(failure, &words))?,
            Err(_) => return Err(failed(Failure::Late(limit), &words)),
        };
        self.read(provider, &said).map_err(|failure| failed(failure, &words))
    }

    fn read(&self, provider: &Provider, said: &[u8]) -> Result<Answer, Failure> {
        let malformed = |cause: &str| Failure::Malformed {
            version: provider.version.clone(),
            cause: cause.to_owned(),
        };
        // The parser's own words may quote a password.
        let place = |error: serde_json::Error| {
            malformed(&format!("line {}, column {}", error.line(), error.column()))
        };
        let response: Response = serde_json::from_slice(said).map_err(place)?;
        if (response.api_version.as_str(), response.kind.as_str())
            != (self.api_version, "CredentialProviderResponse")
        {
            return Err(malformed("apiVersion or kind is another"));
        }
        let holds = match &response.cache_duration {
            None => provider.cache,
            Some(text) => duration(text).ok_or_else(|| malformed("cacheDuration"))?,
        };
        let logins = response.auth.unwrap_or_default();
        let of_account =
            provider.token.as_ref().is_some_and(|token| token.cache == TokenCache::ServiceAccount);
        let mut passwords = logins.values().map(|login| login.password.as_str());
        if of_account && passwords.any(|password| Some(password) == self.service_account_token) {
            return Err(Failure::TokenAsPassword);
        }
        Ok(Answer { logins: Ok(logins), scope: response.cache_key_type, holds })
    }
}

/// Reads an answer as if the provider had given it.
#[cfg(any(test, feature = "fuzz"))]
pub(crate) fn read(provider: &Provider, said: &[u8]) {
    let none = BTreeMap::new();
    drop(Request::new(provider, "r.io/a", None, &none).read(provider, said));
}

/// As Go writes one. Less than nothing is nothing: it is not kept.
fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let parsed: SignedDuration = text.parse().ok()?;
    Some(Duration::try_from(parsed).unwrap_or_default())
}

/// A process and its group, which ends with it.
struct Process {
    child: Child,
    /// None once the process was waited for: its number may be another's then.
    group: Option<Pid>,
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(group) = self.group {
            // It may be gone already.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// Its environment is the agent's and its own, as for the kubelet.
fn start(provider: &Provider) -> io::Result<Process> {
    let mut command = Command::new(&provider.program);
    command.args(&provider.args).envs(provider.env.iter().map(|(name, value)| (name, value)));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.process_group(0).kill_on_drop(true).spawn()?;
    let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    Ok(Process { child, group })
}

impl Process {
    async fn converse(mut self, question: &[u8], words: &mut Vec<u8>) -> Result<Vec<u8>, Failure> {
        let (stdin, stdout, stderr) =
            (self.child.stdin.take(), self.child.stdout.take(), self.child.stderr.take());
        let ask = async {
            if let Some(mut stdin) = stdin {
                // Who does not read the question has no need of it; the answer tells.
                drop(stdin.write_all(question).await);
            }
        };
        let mut said = Vec::new();
        tokio::join!(ask, drain(stdout, LIMIT + 1, &mut said), drain(stderr, WORDS, words));
        let status = self.child.wait().await;
        self.group = None;
        let status = status.map_err(|error| Failure::Ended(format!("was lost: {error}")))?;
        if !status.success() {
            return Err(Failure::Ended(ended(status)));
        }
        if said.len() > LIMIT { Err(Failure::TooLong) } else { Ok(said) }
    }
}

fn ended(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match status.code() {
        Some(code) => format!("ended with exit code {code}"),
        None => format!("was ended by signal {}", status.signal().unwrap_or_default()),
    }
}

/// Keeps up to a limit; the rest is read and thrown away, so that the program does not block.
async fn drain(pipe: Option<impl AsyncRead + Unpin>, limit: usize, kept: &mut Vec<u8>) {
    if let Some(mut pipe) = pipe {
        drop((&mut pipe).take(limit as u64).read_to_end(kept).await);
        drop(tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        for (text, seconds) in [
            ("12h0m0s", Some(43200)),
            ("0s", Some(0)),
            ("0", Some(0)),
            ("-5s", Some(0)),
            ("soon", None),
        ] {
            assert_eq!(duration(text), seconds.map(Duration::from_secs), "{text}");
        }
    }
}
