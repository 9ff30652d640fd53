//! The layers of an image's files: downloaded, and unpacked once for all images that have the same.

use crate::Inner;
use crate::classify::Plan;
use crate::digest::Digest;
use crate::error::Problem;
use crate::fetch::{digest_of, malformed};
use crate::image::Gathered;
use crate::registry::Repository;
use crate::store::blocking;
use crate::tree::{self, Layer, TreeError};

/// How messages name such a layer.
pub(crate) const FILES: &str = "a layer";

impl Inner {
    /// Sees that the tree of the plan's layers is there; its name, if there are any.
    pub(crate) async fn tree(
        &self,
        repository: &Repository<'_>,
        plan: &Plan,
        diffs: &[String],
        gathered: &mut Gathered,
    ) -> Result<Option<Digest>, Problem> {
        let (count, limit) = (plan.layers.len(), self.config.limits.layers);
        if count > limit {
            return Err(Problem::TooManyLayers { count, limit });
        }
        // All are looked at before the first is fetched.
        let diffs = own_diffs(plan, diffs)?;
        let mut layers = Vec::new();
        for (descriptor, diff) in plan.layers.iter().zip(diffs) {
            let blob = self.blob(repository, descriptor, FILES, gathered).await?;
            layers.push(Layer { blob, diff });
        }
        let Some(chain) = tree::chain(&layers) else { return Ok(None) };
        gathered.holds.push(self.holds.hold(self.store.tree(&chain)));
        self.grow(&chain, layers, plan).await.map(|()| Some(chain))
    }

    async fn grow(&self, chain: &Digest, layers: Vec<Layer>, plan: &Plan) -> Result<(), Problem> {
        let turn = self.trees.turn(chain.hex()).await;
        if self.store.tree(chain).is_dir() {
            return Ok(());
        }
        let (store, limits, chain) =
            (self.store.clone(), self.config.limits.clone(), chain.clone());
        // It goes on if the caller is dropped: the turn ends after it.
        let grow = move || {
            let grown = tree::grow(&store, &chain, &layers, &limits);
            drop(turn);
            Ok(grown)
        };
        match blocking(grow).await? {
            Ok(()) => Ok(()),
            Err(TreeError::Store(error)) => Err(error.into()),
            Err(TreeError::Layer(number, cause)) => {
                self.forget(plan, number).await?;
                Err(Problem::Layer { number: number + 1, cause })
            }
        }
    }

    /// Removes a layer that is not what it should be.
    async fn forget(&self, plan: &Plan, number: usize) -> Result<(), Problem> {
        let Some(descriptor) = plan.layers.get(number) else { return Ok(()) };
        Ok(self.reject(self.store.blob(&digest_of(descriptor)?)).await?)
    }
}

/// The digests of the layers of files: where there are other layers, the configuration may speak of all or of these.
fn own_diffs(plan: &Plan, diffs: &[String]) -> Result<Vec<Digest>, Problem> {
    let what = "the configuration";
    let (places, all) = &plan.places;
    let own: Vec<_> = match diffs.len() {
        count if count == places.len() => diffs.iter().collect(),
        count if count == *all => places.iter().filter_map(|place| diffs.get(*place)).collect(),
        count => {
            let layers = places.len();
            let cause = format!("it has {count} diff_ids for {layers} layers of files");
            return Err(malformed(what, &cause));
        }
    };
    let parse = |text: &String| {
        Digest::parse(text).ok_or_else(|| malformed(what, &format!("unknown diff_id {text:?}")))
    };
    own.into_iter().map(parse).collect()
}
