use std::fmt::Debug;
use std::time::Duration;

use kube::Resource;
use kube::api::{Api, PostParams};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{error::Elapsed, sleep, timeout};

/// How long the API server may take to answer, all tries together.
const PATIENCE: Duration = Duration::from_secs(10);

/// The waits between tries (Kubernetes' `DefaultAuthWebhookRetryBackoff`, which the kubelet has: five tries, the first wait half
/// a second, each half as long again as the one before).
const WAITS: [Duration; 4] = [
    Duration::from_millis(500),
    Duration::from_millis(750),
    Duration::from_millis(1125),
    Duration::from_millis(1688),
];

/// Why there is no review.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the API server does not review")]
    Refused(#[from] kube::Error),
    #[error("no answer of the API server within {} s", PATIENCE.as_secs())]
    Late(#[from] Elapsed),
}

/// What the API server says of `asked`; asked again where it fails as it may for a moment.
pub(crate) async fn review<K>(client: &kube::Client, asked: &K) -> Result<K, Error>
where
    K: Resource<DynamicType = ()> + Serialize + DeserializeOwned + Clone + Debug,
{
    let api = Api::<K>::all(client.clone());
    let tries = async {
        for wait in WAITS {
            match api.create(&PostParams::default(), asked).await {
                Err(error) if may_pass(&error) => sleep(wait).await,
                answer => return answer,
            }
        }
        api.create(&PostParams::default(), asked).await
    };
    Ok(timeout(PATIENCE, tries).await??)
}

/// Whether it may be otherwise at once (Kubernetes' `webhook.DefaultShouldRetry`).
fn may_pass(error: &kube::Error) -> bool {
    if let kube::Error::Api(status) = error {
        return status.code >= 500 || status.code == 429;
    }
    !matches!(error, kube::Error::SerdeError(_))
}
