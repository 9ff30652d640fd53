//! From a name to verified content on disk.
//!
//! Every pod fetches the manifest with its own credentials: that proves that it may have the
//! image. Blobs are then downloaded once, by whoever comes first.

use std::sync::Arc;

use crate::Inner;
use crate::credential::Credential;
use crate::error::{Problem, PullError};
use crate::hosts::{self, Host};
use crate::image::Image;
use crate::keyring::Keyring;
use crate::reference::Reference;
use crate::registry::Repository;
use crate::silence::Silence;
use crate::store::blocking;
use crate::volume::Purpose;

/// What is pulled.
struct Wanted<'w> {
    reference: &'w Reference,
    purpose: Purpose,
    silence: Arc<Silence>,
}

impl Inner {
    /// Pulls, unless that may not begin now or nothing comes for too long.
    pub(crate) async fn pull(
        &self,
        reference: &Reference,
        keyring: &Keyring,
        purpose: Purpose,
    ) -> Result<Image, PullError> {
        let failed = |problem, earlier| PullError::new(reference, problem, earlier);
        if !self.rate.admits(self.config.rate) {
            self.underway.ended(reference).await;
            return Err(failed(Problem::TooOften, Vec::new()));
        }
        let _mark = self.underway.mark(reference);
        let within = self.config.patience.silence;
        let silence = self.silences.join(&reference.to_string(), || Silence::new(within));
        let wanted = Wanted { reference, purpose, silence };
        tokio::select! {
            pulled = Box::pin(self.pull_from_any(&wanted, keyring)) => pulled,
            () = wanted.silence.lasts() => Err(failed(Problem::Silent { within }, Vec::new())),
        }
    }

    /// Asks the registry's mirrors and then the registry itself, which decides what is wrong.
    async fn pull_from_any(
        &self,
        wanted: &Wanted<'_>,
        keyring: &Keyring,
    ) -> Result<Image, PullError> {
        let Wanted { reference, .. } = wanted;
        let failed = |problem, earlier| PullError::new(reference, problem, earlier);
        let is_plain = self.config.plain_http.iter().any(|host| host == reference.registry());
        let hosts = hosts::hosts(self.config.hosts.as_deref(), reference, is_plain);
        let hosts = hosts.map_err(|error| failed(error.into(), Vec::new()))?;
        let mut earlier = Vec::new();
        for host in hosts.iter().filter(|host| host.resolves || reference.digest().is_some()) {
            match self.pull_as_each(host, wanted, keyring).await {
                Ok(image) => return Ok(image),
                Err(problems) => {
                    tracing::debug!(server = host.base, ?problems, "server not used");
                    earlier.extend(problems);
                }
            }
        }
        let last = earlier.pop().unwrap_or(Problem::Nobody);
        Err(failed(last, earlier))
    }

    /// Tries every credential that the pod has for the repository where that is the server's; without any, once as nobody.
    async fn pull_as_each(
        &self,
        host: &Host,
        wanted: &Wanted<'_>,
        keyring: &Keyring,
    ) -> Result<Image, Vec<Problem>> {
        let credentials = match host.is_own {
            true => keyring.credentials(wanted.reference),
            false => Vec::new(),
        };
        let nobody = credentials.is_empty().then_some(None);
        let mut problems = Vec::new();
        for account in credentials.into_iter().map(Some).chain(nobody) {
            let problem = match Box::pin(self.pull_as(host, wanted, account)).await {
                Ok(image) => return Ok(image),
                Err(problem) => problem,
            };
            let is_last = !problem.is_answer_to_the_credential();
            problems.push(host.tell(problem));
            if is_last {
                break;
            }
        }
        Err(problems)
    }

    /// Over TLS, and without it where there is none and need not be.
    async fn pull_as(
        &self,
        host: &Host,
        wanted: &Wanted<'_>,
        credential: Option<&Credential>,
    ) -> Result<Image, Problem> {
        let pulled = self.pull_at(host, wanted, credential).await;
        match (pulled, host.plain()) {
            (Err(problem), Some(plain)) if host.is_not_secure(&problem) => {
                self.pull_at(&plain, wanted, credential).await
            }
            (pulled, _) => pulled,
        }
    }

    async fn pull_at(
        &self,
        host: &Host,
        wanted: &Wanted<'_>,
        credential: Option<&Credential>,
    ) -> Result<Image, Problem> {
        let Wanted { reference, purpose, silence } = wanted;
        let (client, added) = host.way(&self.clients, &self.config.patience)?;
        let silence = Arc::clone(silence);
        let repository =
            Repository::new(client, &self.config, host, reference, credential, silence);
        self.pull_from(&repository.adding(added), reference, *purpose).await
    }

    /// Pulls from this repository, which is the reference's.
    pub(crate) async fn pull_from(
        &self,
        repository: &Repository<'_>,
        reference: &Reference,
        purpose: Purpose,
    ) -> Result<Image, Problem> {
        let top = self.manifest(repository, reference.target(), reference.digest()).await?;
        let digest = top.digest.clone();
        let hold = self.holds.hold(self.store.record_path(&digest));
        if !repository.is_local() {
            self.prove(&digest, reference, repository.credential()).await?;
        }
        let record = match self.store.record(&digest).filter(|record| record.serves(purpose)) {
            Some(record) => record,
            None => self.fetch(repository, reference, top, purpose).await?,
        };
        let (store, name, meant) = (self.store.clone(), reference.clone(), digest.clone());
        blocking(move || store.put_name(&name, &meant)).await?;
        tracing::info!(image = %reference, %digest, size = record.size(), "image pulled");
        self.uses.note(&digest);
        Ok(purpose.image(record, reference, &self.store, hold))
    }
}
