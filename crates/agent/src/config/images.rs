//! What the images of this node are to do.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result, anyhow, ensure};
use nodule_image::{Collect, CompileLimits, Config};
use nodule_node::quantity;

use super::kubelet::{Kubelet, Verification};
use super::nodule::Compile;
use super::providers::providers;
use super::{File, Host, pods::users, program, rates};
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
    images.credentials = Some(arguments.root_dir.join("config.json"));
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
    (images.providers, images.providers_hash) = providers(
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::testing::{KUBELET, NODULE, settings};
    use super::*;

    #[test]
    fn images_are_pulled_side_by_side_unless_told_otherwise() {
        for (fields, pulls) in [
            ("", 4),
            ("serializeImagePulls: true\n", 1),
            ("maxParallelImagePulls: 9\n", 9),
            ("serializeImagePulls: false\nmaxParallelImagePulls: 2\n", 2),
        ] {
            assert_eq!(
                settings(&[], &format!("{KUBELET}{fields}")).unwrap().images.parallel_pulls,
                pulls,
                "{fields}"
            );
        }
    }

    #[test]
    fn mirrors_are_where_the_configuration_says() {
        let hosts = |fields: &str| {
            settings(&[], &format!("{NODULE}{fields}")).unwrap().images.hosts.unwrap()
        };
        assert_eq!(hosts(""), Path::new("/etc/nodule/certs.d"));
        let theirs = "/etc/containerd/certs.d";
        assert_eq!(hosts(&format!("registryConfigPath: {theirs}\n")), Path::new(theirs));
    }

    #[test]
    fn who_may_use_an_image_that_is_here_is_the_kubelets_to_say() {
        use nodule_image::Verification;
        let policy = |fields: &str| {
            settings(&[], &format!("{KUBELET}{fields}"))
                .map(|settings| settings.images.verification)
        };
        assert_eq!(policy("").unwrap(), Verification::NeverPreloaded);
        let field = "imagePullCredentialsVerificationPolicy:";
        assert_eq!(policy(&format!("{field} AlwaysVerify\n")).unwrap(), Verification::Always);
        let list = "preloadedImagesVerificationAllowlist: [\"r.io/*\"]\n";
        let allowed = policy(&format!("{field} NeverVerifyAllowlistedImages\n{list}")).unwrap();
        assert_eq!(allowed, Verification::NeverAllowed(vec!["r.io/*".to_owned()]));
        assert!(policy(list).is_err() && policy(&format!("{field} Sometimes\n")).is_err());
    }

    #[test]
    fn unused_images_are_removed_as_by_the_kubelet() {
        let collect = |fields: &str| {
            settings(&[], &format!("{KUBELET}{fields}")).map(|settings| settings.images.collect)
        };
        assert_eq!(collect("").unwrap(), nodule_image::Collect::default());
        let fields = "imageGCHighThresholdPercent: 70\nimageGCLowThresholdPercent: 60\n\
                      imageMinimumGCAge: 1m\nimageMaximumGCAge: 24h\n";
        let set = collect(fields).unwrap();
        assert_eq!((set.high, set.low, set.youngest), (70, 60, Duration::from_mins(1)));
        assert_eq!(set.oldest, Some(Duration::from_hours(24)));
        for (fields, word) in [
            ("imageGCHighThresholdPercent: 101\n", "100 or less"),
            ("imageGCHighThresholdPercent: 50\n", "is not below"),
            ("imageMaximumGCAge: 1m\n", "more than imageMinimumGCAge"),
        ] {
            let error = format!("{:#}", collect(fields).unwrap_err());
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn compilations_have_limits_and_a_user_of_their_own() {
        let compile =
            |fields: &str| settings(&[], &format!("{NODULE}{fields}")).map(|s| s.images.compile);
        let limits =
            compile("compile: {memory: 1Gi, timeout: 90s, output: 1500k, user: 7, parallel: 2}\n");
        let limits = limits.unwrap();
        assert_eq!((limits.memory_mib, limits.seconds, limits.output_mib), (1024, 90, 2));
        assert_eq!((limits.user, limits.parallel), (7, 2));
        assert_eq!(compile("").unwrap().user, 1_999_999_999);
        for (wrong, part) in [
            ("{memory: 1Mi}", "compile.memory\": use 16Mi or more"),
            ("{output: much}", "compile.output"),
            ("{user: 0}", "compile.user"),
            ("{user: 2000000001}", "compile.user\": use a user that is not of `podUsers`"),
            ("{parallel: 0}", "compile.parallel"),
        ] {
            let error = compile(&format!("compile: {wrong}\n")).unwrap_err();
            assert!(format!("{error:#}").contains(part), "{error:#}");
        }
    }
}
