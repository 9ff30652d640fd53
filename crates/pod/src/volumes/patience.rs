//! How the API server is asked for what a pod's volumes need.

use std::future::Future;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::host::PATIENCE;
use crate::words::chain;

/// The waits after a refusal. The API server refuses for the moment that it needs to hear of the pod.
const WAITS: [Duration; 3] =
    [Duration::from_millis(20), Duration::from_millis(80), Duration::from_millis(320)];
/// Its words for that: it knows of no relationship between pod and node (403), of no such pod (404), or of its predecessor of the
/// same name (409).
const NOT_YET: [u16; 3] = [403, 404, 409];

/// Asks, and asks again after a refusal, a few times. The error is the API server's own words, where it is one that refused.
pub(super) async fn patiently<T, F>(ask: impl Fn() -> F) -> Result<T, String>
where
    F: Future<Output = kube::Result<T>>,
{
    let asked = timeout(PATIENCE, async {
        for wait in WAITS {
            match ask().await {
                Err(kube::Error::Api(status)) if NOT_YET.contains(&status.code) => {
                    sleep(wait).await;
                }
                answer => return answer,
            }
        }
        ask().await
    });
    match asked.await {
        Ok(answer) => answer.map_err(|error| words(&error)),
        Err(_) => Err(format!("the API server did not answer within {} s", PATIENCE.as_secs())),
    }
}

/// The API server's own words, where it is one that refused.
pub(super) fn words(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error { status.message.clone() } else { chain(error) }
}
