use std::{future::Future, time::Duration};

use kube::{Client, core::Status};

use crate::reach::Reach;

/// The API server as one task asks it: no request takes longer than a while.
pub(crate) struct Server {
    pub(crate) client: Client,
    pub(crate) reach: Reach,
    timeout: Duration,
}

/// Why a request did not do what it was made for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The API server would not.
    #[error("refused with {}: {}", .0.code, .0.message)]
    Refused(Box<Status>),
    /// It could not be asked, or its answer made no sense.
    #[error("no answer")]
    Unreachable(#[source] kube::Error),
    /// It did not answer in time. The connection is closed with the request.
    #[error("no answer within {0:?}")]
    Late(Duration),
}

impl Server {
    pub(crate) fn new(client: Client, timeout: Duration, reach: Reach) -> Self {
        Self { client, reach, timeout }
    }

    /// Waits for an answer, but not for ever.
    pub(crate) async fn ask<T>(
        &self,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, Failure> {
        match tokio::time::timeout(self.timeout, request).await {
            Ok(Err(kube::Error::Api(status))) => Err(Failure::Refused(status)),
            Ok(answer) => answer.map_err(Failure::Unreachable),
            Err(_) => Err(Failure::Late(self.timeout)),
        }
    }
}

impl Failure {
    /// The API server says that there is no such object. A bare 404 may come from a proxy that does not find *it*.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused(status) if status.reason == "NotFound")
    }

    /// 409: somebody else was first.
    pub(crate) fn is_conflict(&self) -> bool {
        self.code() == Some(409)
    }

    /// 403.
    pub(crate) fn is_forbidden(&self) -> bool {
        self.code() == Some(403)
    }

    /// The API server will say the same again, whenever it is asked.
    pub(crate) fn is_final(&self) -> bool {
        self.code().is_some_and(|code| (400..500).contains(&code) && code != 429)
    }

    /// How long the API server asks to be left alone. It names no time when it is overloaded: a second then, which is
    /// what its `Retry-After` header says.
    pub(crate) fn retry_after(&self) -> Duration {
        let Self::Refused(status) = self else { return Duration::ZERO };
        let named = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
        let least = u32::from(status.code == 429);
        Duration::from_secs(u64::from(named.max(least)))
    }

    fn code(&self) -> Option<u16> {
        if let Self::Refused(status) = self { Some(status.code) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use kube::core::response::StatusDetails;

    use super::*;

    fn refused(code: u16, retry_after_seconds: u32) -> Failure {
        let details = StatusDetails {
            retry_after_seconds,
            name: String::new(),
            group: String::new(),
            kind: String::new(),
            uid: String::new(),
            causes: Vec::new(),
        };
        let status =
            Status { details: Some(details), ..Status::failure("no", "No").with_code(code) };
        Failure::Refused(Box::new(status))
    }

    #[test]
    fn an_overloaded_api_server_is_left_alone_as_long_as_it_asks() {
        for (failure, seconds) in
            [(refused(429, 0), 1), (refused(429, 7), 7), (refused(503, 2), 2), (refused(500, 0), 0)]
        {
            assert_eq!(failure.retry_after(), Duration::from_secs(seconds), "{failure:?}");
        }
    }

    #[test]
    fn only_refusals_of_the_request_itself_are_final() {
        let table = [
            (refused(403, 0), true),
            (refused(422, 0), true),
            (refused(429, 0), false),
            (refused(500, 0), false),
        ];
        for (failure, expected) in table {
            assert_eq!(failure.is_final(), expected, "{failure:?}");
        }
        assert!(!Failure::Late(Duration::ZERO).is_final());
    }
}
