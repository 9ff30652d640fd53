//! From a name to verified content on disk.
//!
//! Every pod fetches the manifest with its own credentials: that proves that it may have the
//! image. Blobs are then downloaded once, by whoever comes first.

use crate::Inner;
use crate::credential::Credential;
use crate::error::{Problem, PullError};
use crate::hosts::{self, Host};
use crate::image::Image;
use crate::keyring::Keyring;
use crate::reference::Reference;
use crate::registry::Repository;
use crate::store::blocking;
use crate::volume::Purpose;

impl Inner {
    /// Asks the registry's mirrors and then the registry itself, which decides what is wrong.
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
        let is_plain = self.config.plain_http.iter().any(|host| host == reference.registry());
        let hosts = hosts::hosts(self.config.hosts.as_deref(), reference, is_plain);
        let hosts = hosts.map_err(|error| failed(error.into(), Vec::new()))?;
        let mut earlier = Vec::new();
        for host in hosts.iter().filter(|host| host.resolves || reference.digest().is_some()) {
            if host.is_own {
                let asked = (reference, purpose);
                return self.pull_as_each(host, asked, keyring, earlier).await;
            }
            match Box::pin(self.pull_as(host, (reference, purpose), None)).await {
                Ok(image) => return Ok(image),
                Err(problem) => {
                    tracing::debug!(mirror = host.base, %problem, "mirror not used");
                    let mirror = host.base.clone();
                    earlier.push(Problem::Mirror { mirror, problem: Box::new(problem) });
                }
            }
        }
        let last = earlier.pop().unwrap_or(Problem::Nobody);
        Err(failed(last, earlier))
    }

    /// Tries every credential that the pod has for the repository; without any, once as nobody.
    async fn pull_as_each(
        &self,
        host: &Host,
        asked: (&Reference, Purpose),
        keyring: &Keyring,
        mut earlier: Vec<Problem>,
    ) -> Result<Image, PullError> {
        let (reference, _) = asked;
        let mut accounts: Vec<_> = keyring.credentials(reference).into_iter().map(Some).collect();
        if accounts.is_empty() {
            accounts.push(None);
        }
        for account in accounts {
            match Box::pin(self.pull_as(host, asked, account)).await {
                Ok(image) => return Ok(image),
                Err(problem) if problem.is_answer_to_the_credential() => earlier.push(problem),
                Err(problem) => return Err(PullError::new(reference, problem, earlier)),
            }
        }
        let last = earlier.pop().expect("there is at least one account, and each was refused");
        Err(PullError::new(reference, last, earlier))
    }

    async fn pull_as(
        &self,
        host: &Host,
        (reference, purpose): (&Reference, Purpose),
        credential: Option<&Credential>,
    ) -> Result<Image, Problem> {
        let client = self.clients.client(&host.trust, &self.config.patience)?;
        let repository = Repository::new(client, &self.config, host, reference, credential);
        self.pull_from(&repository, reference, purpose).await
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
