//! What the images of this node are to do.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result, anyhow, ensure};
use nodule_image::{Collect, CompileLimits, Config};
use nodule_node::quantity;

use super::kubelet::{Kubelet, Verification};
use super::nodule::Compile;
use super::providers::providers;
use super::{File, Host, program, rates, users};
use crate::cli::Arguments;

/// Where containerd's files about registries are, unless the configuration says it. It need not be there.
const HOSTS: &str = "/etc/nodule/certs.d";

/// The settings of images, pulls and compilations.
pub(super) fn images(arguments: &Arguments, file: &File, host: &Host) -> Result<Config> {
    let nodule = &file.nodule;
    let compiler = program(&nodule.compile_path, host, "nodule-compile");
    let mut images = Config::new(arguments.root_dir.join("images"), compiler);
    images.plain_http.clone_from(&nodule.plain_http_registries);
    let hosts = nodule.registry_config_path.clone();
    images.hosts = hosts.or_else(|| Some(PathBuf::from(HOSTS)));
    images.compile = limits(&nodule.compile)?;
    let pods = users(&nodule.pod_users, host)?;
    ensure!(
        !pods.is_some_and(|pods| pods.contains(&images.compile.user)),
        "field \"compile.user\": use a user that is not of `podUsers`"
    );
    images.parallel_pulls = parallel_pulls(&file.kubelet, images.parallel_pulls)?;
    images.rate = rates::pulls(&file.kubelet);
    images.collect = collect(&file.kubelet)?;
    images.verification = verification(&file.kubelet)?;
    images.providers = providers(
        arguments
            .image_credential_provider_config
            .as_deref()
            .or(nodule.image_credential_provider_config_file.as_deref()),
        arguments
            .image_credential_provider_bin_dir
            .as_deref()
            .or(nodule.image_credential_provider_bin_dir.as_deref()),
    )?;
    Ok(images)
}

fn limits(compile: &Compile) -> Result<CompileLimits> {
    let default = CompileLimits::default();
    let seconds = compile.timeout.or(Duration::from_secs(default.seconds.into())).as_secs().max(1);
    let limits = CompileLimits {
        memory_mib: mib("compile.memory", compile.memory.as_ref(), default.memory_mib, 16)?,
        seconds: u32::try_from(seconds).context("field \"compile.timeout\"")?,
        output_mib: mib("compile.output", compile.output.as_ref(), default.output_mib, 1)?,
        user: compile.user.unwrap_or(default.user),
        parallel: compile.parallel.unwrap_or(default.parallel),
    };
    ensure!(limits.user > 0, "field \"compile.user\": use another user than root");
    ensure!(limits.parallel > 0, "field \"compile.parallel\": use 1 or more");
    Ok(limits)
}

/// A quantity of bytes in MiB, rounded up.
fn mib(field: &str, quantity: Option<&String>, default: u32, least: u32) -> Result<u32> {
    let Some(text) = quantity else { return Ok(default) };
    let bytes = quantity::units(text).with_context(|| format!("field \"{field}\""))?;
    let mib = u32::try_from(bytes.div_ceil(1 << 20)).ok().filter(|mib| *mib >= least);
    mib.with_context(|| format!("field \"{field}\": use {least}Mi or more, and less than 4Pi"))
}

/// The kubelet's policies, and that the list belongs to one of them.
fn verification(kubelet: &Kubelet) -> Result<nodule_image::Verification> {
    use nodule_image::Verification as Of;
    let policy = kubelet.image_pull_credentials_verification_policy;
    let list = kubelet.preloaded_images_verification_allowlist.clone();
    ensure!(
        list.is_empty() || policy == Some(Verification::NeverVerifyAllowlistedImages),
        "field \"preloadedImagesVerificationAllowlist\": it needs imagePullCredentialsVerificationPolicy: NeverVerifyAllowlistedImages"
    );
    Ok(match policy {
        Some(Verification::NeverVerify) => Of::Never,
        Some(Verification::NeverVerifyPreloadedImages) | None => Of::NeverPreloaded,
        Some(Verification::NeverVerifyAllowlistedImages) => Of::NeverAllowed(list),
        Some(Verification::AlwaysVerify) => Of::Always,
    })
}

/// When unused images are removed. The kubelet's defaults and its checks.
fn collect(kubelet: &Kubelet) -> Result<Collect> {
    let default = Collect::default();
    let high = kubelet.image_gc_high.unwrap_or(default.high);
    let low = kubelet.image_gc_low.unwrap_or(default.low);
    ensure!(high <= 100, "field \"imageGCHighThresholdPercent\": use 100 or less");
    ensure!(
        low < high,
        "field \"imageGCLowThresholdPercent\": {low} is not below imageGCHighThresholdPercent, {high}: use less"
    );
    let youngest = kubelet.image_gc_youngest.or(default.youngest);
    let oldest = kubelet.image_gc_oldest.is_set().then(|| kubelet.image_gc_oldest.or(youngest));
    ensure!(
        oldest.is_none_or(|oldest| oldest > youngest),
        "field \"imageMaximumGCAge\": use more than imageMinimumGCAge"
    );
    Ok(Collect { high, low, youngest, oldest })
}

fn parallel_pulls(kubelet: &Kubelet, default: usize) -> Result<usize> {
    match (kubelet.serialize_image_pulls, kubelet.max_parallel_image_pulls) {
        (_, Some(0)) => Err(anyhow!("field \"maxParallelImagePulls\": use 1 or more")),
        (Some(true), Some(2..)) => Err(anyhow!(
            "field \"maxParallelImagePulls\": more than 1 contradicts serializeImagePulls: set that to false"
        )),
        (Some(true), _) => Ok(1),
        (_, Some(pulls)) => Ok(pulls),
        (_, None) => Ok(default),
    }
}
