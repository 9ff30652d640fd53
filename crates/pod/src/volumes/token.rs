//! Service-account tokens: asked of the API server for one pod, kept in memory, renewed before they end.
//!
//! How long a token lives is what the API server says of it (`spec.expirationSeconds` of its answer), counted from then: when it ends
//! is said by another machine's clock. What is written in the token may be a year later, for old clients, and is never looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount, ServiceAccountTokenProjection};
use kube::api::{Api, PostParams};
use tracing::warn;

use super::patience::patiently;
use crate::clock::moved;
use crate::host::Host;

/// The API server's own default (`expirationSeconds`).
const SECONDS: i64 = 3600;
/// A token is renewed when it is so old, whatever its life (the kubelet's `token_manager.go`).
const OLDEST: SignedDuration = SignedDuration::from_hours(24);
/// Up to so much earlier, so that not all pods ask at once (there too, `maxJitter`).
const JITTER: SignedDuration = SignedDuration::from_secs(10);
/// After a failure.
const AGAIN: SignedDuration = SignedDuration::from_secs(10);

/// A token that a pod wants.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Wish {
    /// Empty: the API server's own.
    audience: String,
    seconds: i64,
}

impl Wish {
    pub(super) fn of(source: &ServiceAccountTokenProjection) -> Self {
        Self {
            audience: source.audience.clone().unwrap_or_default(),
            seconds: source.expiration_seconds.unwrap_or(SECONDS),
        }
    }
}

/// All that a pod's volumes want.
pub(super) fn wishes(pod: &Pod) -> BTreeSet<Wish> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let projected = volumes.filter_map(|volume| volume.projected.as_ref());
    let sources = projected.flat_map(|projected| projected.sources.iter().flatten());
    sources.filter_map(|source| source.service_account_token.as_ref()).map(Wish::of).collect()
}

#[derive(Clone)]
struct Token {
    text: String,
    expires: Timestamp,
    renew: Timestamp,
}

/// Says nothing of the token itself: it would be in a log.
impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Token").field("expires", &self.expires).finish_non_exhaustive()
    }
}

/// A pod's tokens.
#[derive(Debug, Default, Clone)]
pub(super) struct Tokens {
    all: BTreeMap<Wish, Result<Token, String>>,
}

impl Tokens {
    /// Gets those that are missing or due. When the next is due; none if none is wanted.
    pub(super) async fn renew(
        &mut self,
        host: &Host,
        pod: &Pod,
        wishes: &BTreeSet<Wish>,
        now: Timestamp,
    ) -> Option<Timestamp> {
        self.all.retain(|wish, _| wishes.contains(wish));
        for wish in wishes {
            if self.is_due(wish, now) {
                let got = ask(host, pod, wish, now).await;
                self.take(wish, got, now);
            }
        }
        self.all.values().flatten().map(|token| token.renew).min()
    }

    fn is_due(&self, wish: &Wish, now: Timestamp) -> bool {
        !matches!(self.all.get(wish), Some(Ok(token)) if now < token.renew)
    }

    /// An old token is kept as long as it holds.
    fn take(&mut self, wish: &Wish, got: Result<Token, String>, now: Timestamp) {
        match (got, self.all.get_mut(wish)) {
            (Err(why), Some(Ok(old))) if now < old.expires => {
                warn!(why, "token not renewed: the old one is kept");
                old.renew = soon(now);
            }
            (got, _) => {
                self.all.insert(wish.clone(), got);
            }
        }
    }

    /// The clock was set.
    pub(super) fn move_by(&mut self, by: SignedDuration) {
        for token in self.all.values_mut().flatten() {
            (token.expires, token.renew) = (moved(token.expires, by), moved(token.renew, by));
        }
    }

    /// The token; or why there is none.
    pub(super) fn find(&self, wish: &Wish) -> Result<&str, String> {
        match self.all.get(wish) {
            Some(Ok(token)) => Ok(&token.text),
            Some(Err(why)) => Err(format!("failed to fetch token: {why}")),
            None => Err("failed to fetch token: it was not asked for".to_owned()),
        }
    }

    #[cfg(test)]
    pub(super) fn with(audience: &str, text: &str) -> Self {
        let wish = Wish { audience: audience.to_owned(), seconds: SECONDS };
        let (expires, renew) = (Timestamp::MAX, Timestamp::MAX);
        Self { all: BTreeMap::from([(wish, Ok(Token { text: text.to_owned(), expires, renew }))]) }
    }
}

fn soon(now: Timestamp) -> Timestamp {
    now.saturating_add(AGAIN).unwrap_or(now)
}

/// When a token that was given now is asked for again: after four fifths of its life, or a day.
fn renewal(now: Timestamp, expires: Timestamp, jitter: SignedDuration) -> Timestamp {
    let life = expires.duration_since(now);
    let age = (life / 5 * 4).min(OLDEST) - jitter;
    now.saturating_add(age.max(AGAIN)).unwrap_or(expires)
}

/// A token of the pod's account for one audience, which is not kept.
pub(crate) async fn fresh(host: &Host, pod: &Pod, audience: String) -> Result<String, String> {
    let wish = Wish { audience, seconds: SECONDS };
    ask(host, pod, &wish, Timestamp::now()).await.map(|token| token.text)
}

/// The name of the pod's service account.
pub(super) fn account(pod: &Pod) -> &str {
    let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref());
    account.filter(|name| !name.is_empty()).unwrap_or("default")
}

async fn ask(host: &Host, pod: &Pod, wish: &Wish, now: Timestamp) -> Result<Token, String> {
    let meta = &pod.metadata;
    let account = account(pod);
    let api: Api<ServiceAccount> =
        Api::namespaced(host.server()?, meta.namespace.as_deref().unwrap_or_default());
    let request = request(pod, wish);
    let _slot = host.slots.acquire().await;
    let params = PostParams::default();
    let given = patiently(|| {
        api.create_subresource::<_, TokenRequest>("token", account, &params, &request)
    });
    let given = given.await?;
    let life = life(&given, now);
    let status = given.status.unwrap_or_default();
    let jitter = SignedDuration::from_millis(rand::random_range(0..JITTER.as_millis() as i64));
    match (status.token, life) {
        (Some(text), Some(life)) => {
            let expires = moved(now, life);
            Ok(Token { text, expires, renew: renewal(now, expires, jitter) })
        }
        _ => Err("the API server's answer has no token".to_owned()),
    }
}

/// How long a token lives that was given now.
fn life(given: &TokenRequest, now: Timestamp) -> Option<SignedDuration> {
    let seconds = given.spec.as_ref().and_then(|spec| spec.expiration_seconds);
    let until = given.status.as_ref()?.expiration_timestamp.as_ref()?.0;
    Some(seconds.map_or(until.duration_since(now), SignedDuration::from_secs))
}

/// A token that holds while the pod is there.
fn request(pod: &Pod, wish: &Wish) -> TokenRequest {
    let audience = Some(wish.audience.clone()).filter(|audience| !audience.is_empty());
    TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: Some(audience.into_iter().collect()),
            expiration_seconds: Some(wish.seconds),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: pod.metadata.name.clone(),
                uid: pod.metadata.uid.clone(),
            }),
            ..TokenRequestSpec::default()
        }),
        ..TokenRequest::default()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::authentication::v1::TokenRequestStatus;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    fn token(text: &str, expires: i64, renew: i64) -> Token {
        Token { text: text.to_owned(), expires: at(expires), renew: at(renew) }
    }

    #[test]
    fn a_token_is_renewed_after_four_fifths_of_its_life_or_a_day() {
        for (life, jitter, wanted) in [
            (600, 0, 480),
            (3600, 0, 2880),
            (3600, 10, 2870),
            (365 * 86400, 0, 86400),
            // What the API server gives for less than that is asked for again in a while.
            (5, 0, 10),
        ] {
            let jitter = SignedDuration::from_secs(jitter);
            assert_eq!(renewal(at(0), at(life), jitter), at(wanted), "{life}");
        }
    }

    #[test]
    fn a_token_lives_as_long_as_is_said_whatever_clock_says_when_it_ends() {
        let given = |seconds: Option<i64>| TokenRequest {
            spec: seconds.map(|seconds| TokenRequestSpec {
                expiration_seconds: Some(seconds),
                ..TokenRequestSpec::default()
            }),
            status: Some(TokenRequestStatus {
                expiration_timestamp: Some(Time(at(600))),
                ..TokenRequestStatus::default()
            }),
            ..TokenRequest::default()
        };
        let seconds = |given: &TokenRequest, now| life(given, at(now)).map(|life| life.as_secs());
        // This machine's clock is ahead, behind.
        for now in [600, 5000, -5000] {
            assert_eq!(seconds(&given(Some(600)), now), Some(600), "{now}");
        }
        assert_eq!(seconds(&given(None), 100), Some(500));
    }

    #[test]
    fn a_token_is_renewed_in_time_though_the_clock_was_set() {
        let wish = Wish { audience: String::new(), seconds: 600 };
        for set in [3600, -3600] {
            let mut tokens = Tokens::default();
            tokens.take(&wish, Ok(token("old", 600, 480)), at(0));
            tokens.move_by(SignedDuration::from_secs(set));
            assert!(!tokens.is_due(&wish, at(479 + set)) && tokens.is_due(&wish, at(480 + set)));
            tokens.take(&wish, Err("away".to_owned()), at(590 + set));
            assert_eq!(tokens.find(&wish), Ok("old"), "it holds for ten seconds");
        }
    }

    #[test]
    fn an_old_token_is_kept_until_its_end_where_there_is_no_new_one() {
        let wish = Wish { audience: String::new(), seconds: 600 };
        let mut tokens = Tokens::default();
        tokens.take(&wish, Ok(token("old", 600, 480)), at(0));
        assert!(!tokens.is_due(&wish, at(479)) && tokens.is_due(&wish, at(480)));
        tokens.take(&wish, Err("away".to_owned()), at(480));
        assert_eq!(tokens.find(&wish), Ok("old"));
        assert!(!tokens.is_due(&wish, at(485)) && tokens.is_due(&wish, at(490)));
        tokens.take(&wish, Err("away".to_owned()), at(600));
        assert_eq!(tokens.find(&wish), Err("failed to fetch token: away".to_owned()));
        tokens.take(&wish, Ok(token("new", 1200, 1080)), at(610));
        assert_eq!(tokens.find(&wish), Ok("new"));
    }

    #[test]
    fn no_token_is_in_what_is_printed_of_it() {
        let tokens = Tokens::with("a", "verysecret");
        assert!(!format!("{tokens:?}").contains("verysecret"));
    }
}
