//! The kubelet's `CredentialProviderConfig`: which programs know credentials, and for which images.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use nodule_image::{Provider, TokenAttributes, TokenCache};
use ring::digest::{self, SHA256};
use serde::Deserialize;

use super::values::GoDuration;

/// Versions of the file and of the conversation: all have one form.
const VERSIONS: [&str; 3] = ["v1", "v1beta1", "v1alpha1"];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Document {
    api_version: String,
    kind: String,
    #[serde(default)]
    providers: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Entry {
    name: String,
    match_images: Vec<String>,
    default_cache_duration: GoDuration,
    api_version: String,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: Vec<Variable>,
    token_attributes: Option<Attributes>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Variable {
    name: String,
    #[serde(default)]
    value: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Attributes {
    service_account_token_audience: String,
    cache_type: CacheType,
    require_service_account: bool,
    #[serde(default)]
    required_service_account_annotation_keys: Vec<String>,
    #[serde(default)]
    optional_service_account_annotation_keys: Vec<String>,
}

#[derive(Clone, Copy, Deserialize)]
enum CacheType {
    Token,
    ServiceAccount,
}

/// The providers of a file or of the files of a folder, whose programs lie in `programs`, and the hash of what the files say.
/// Both are given, or none.
pub(super) fn providers(
    file: Option<&Path>,
    programs: Option<&Path>,
) -> Result<(Vec<Provider>, Option<String>)> {
    let (file, programs) = match (file, programs) {
        (None, None) => return Ok((Vec::new(), None)),
        (Some(file), Some(programs)) => (file, programs),
        (Some(_), None) => bail!(
            "the folder of the credential providers is not given: set --image-credential-provider-bin-dir or imageCredentialProviderBinDir"
        ),
        (None, Some(_)) => bail!(
            "the configuration of the credential providers is not given: set --image-credential-provider-config or imageCredentialProviderConfigFile"
        ),
    };
    let (mut providers, mut names) = (Vec::new(), BTreeSet::new());
    let mut hash = digest::Context::new(&SHA256);
    for path in files(file)? {
        let place = || format!("credential providers {}", path.display());
        let text = fs::read_to_string(&path).with_context(place)?;
        // As the kubelet computes it, so that nodes of both kinds can be compared.
        hash.update(&(text.len() as u64).to_be_bytes());
        hash.update(text.as_bytes());
        for entry in parse(&text).with_context(place)? {
            ensure!(
                names.insert(entry.name.clone()),
                "{}: two providers are named {:?}: keep one",
                place(),
                entry.name
            );
            let name = entry.name.clone();
            let provider = provider(entry, programs);
            providers.push(provider.with_context(|| format!("{}: provider {name:?}", place()))?);
        }
    }
    let digest = hash.finish();
    let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok((providers, Some(format!("sha256:{hex}"))))
}

/// The file itself; of a folder those that may hold a configuration, by their names.
fn files(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let place = || format!("credential providers {}", path.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(path).with_context(place)? {
        let file = entry.with_context(place)?.path();
        let ending = file.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        if ["json", "yaml", "yml"].contains(&ending) && file.is_file() {
            files.push(file);
        }
    }
    ensure!(!files.is_empty(), "{}: there is no .json, .yaml or .yml file in it", place());
    files.sort();
    Ok(files)
}

fn parse(text: &str) -> Result<Vec<Entry>> {
    let document: Document = serde_saphyr::from_str(text).map_err(|error| anyhow!("{error}"))?;
    let version = document.api_version.strip_prefix("kubelet.config.k8s.io/").unwrap_or_default();
    ensure!(
        VERSIONS.contains(&version) && document.kind == "CredentialProviderConfig",
        "apiVersion \"{}\" and kind \"{}\" are not known: use kubelet.config.k8s.io/v1 CredentialProviderConfig",
        document.api_version,
        document.kind
    );
    ensure!(!document.providers.is_empty(), "field \"providers\": name one or more");
    Ok(document.providers)
}

fn provider(entry: Entry, programs: &Path) -> Result<Provider> {
    let name = &entry.name;
    let is_name = !name.is_empty() && name != "." && name != "..";
    ensure!(
        is_name && !name.contains(|c: char| c == '/' || c.is_whitespace()),
        "field \"name\": use the name of a file"
    );
    ensure!(!entry.match_images.is_empty(), "field \"matchImages\": name one or more");
    for pattern in &entry.match_images {
        ensure!(
            !pattern.is_empty() && !pattern.contains("://"),
            "field \"matchImages\": {pattern:?}: use a host, without a scheme such as https://"
        );
    }
    let version = entry.api_version.strip_prefix("credentialprovider.kubelet.k8s.io/");
    let version = version.filter(|version| VERSIONS.contains(version));
    let version = version.with_context(|| {
        format!(
            "field \"apiVersion\": \"{}\" is not known: use credentialprovider.kubelet.k8s.io/v1",
            entry.api_version
        )
    })?;
    let token = entry.token_attributes.map(|attributes| attributes.read(version)).transpose()?;
    Ok(Provider {
        program: program(&programs.join(name))?,
        images: entry.match_images,
        cache: entry.default_cache_duration.or(std::time::Duration::ZERO),
        version: entry.api_version,
        args: entry.args.into_iter().map(Into::into).collect(),
        env: entry.env.into_iter().map(|variable| (variable.name, variable.value)).collect(),
        token,
        name: entry.name,
    })
}

/// Said at the start and not by the first pull.
fn program(path: &Path) -> Result<PathBuf> {
    let is_program = fs::metadata(path)
        .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0);
    ensure!(is_program, "there is no program {}: install it there", path.display());
    Ok(path.to_owned())
}

impl Attributes {
    fn read(self, version: &str) -> Result<TokenAttributes> {
        ensure!(version == "v1", "field \"tokenAttributes\": it needs apiVersion v1");
        ensure!(
            !self.service_account_token_audience.is_empty(),
            "field \"tokenAttributes.serviceAccountTokenAudience\": say for whom the token is"
        );
        let (required, optional) = (
            self.required_service_account_annotation_keys,
            self.optional_service_account_annotation_keys,
        );
        ensure!(
            self.require_service_account || required.is_empty(),
            "field \"tokenAttributes.requiredServiceAccountAnnotationKeys\": they need requireServiceAccount: true"
        );
        let mut times = BTreeMap::<&str, usize>::new();
        required.iter().chain(&optional).for_each(|key| *times.entry(key).or_default() += 1);
        if let Some((key, _)) = times.iter().find(|(_, times)| **times > 1) {
            bail!("field \"tokenAttributes\": the annotation {key:?} is named twice: keep one");
        }
        Ok(TokenAttributes {
            audience: self.service_account_token_audience,
            cache: match self.cache_type {
                CacheType::Token => TokenCache::Token,
                CacheType::ServiceAccount => TokenCache::ServiceAccount,
            },
            required: self.require_service_account,
            required_annotations: required,
            optional_annotations: optional,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "apiVersion: kubelet.config.k8s.io/v1\nkind: CredentialProviderConfig\n";

    fn entry(name: &str, more: &str) -> String {
        format!(
            "- name: {name}\n  matchImages: [\"*.example\"]\n  defaultCacheDuration: 12h\n  apiVersion: credentialprovider.kubelet.k8s.io/v1\n{more}"
        )
    }

    /// A folder with the programs `a` and `b`.
    fn programs() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a", "b"] {
            let path = folder.path().join(name);
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        fs::write(folder.path().join("text"), "").unwrap();
        folder
    }

    fn read(text: &str) -> Result<Vec<Provider>> {
        let (programs, folder) = (programs(), tempfile::tempdir()?);
        let file = folder.path().join("config");
        fs::write(&file, text)?;
        Ok(providers(Some(&file), Some(programs.path()))?.0)
    }

    #[test]
    fn a_provider_is_read_as_the_kubelet_reads_it() {
        let more = "  args: [get, -v]\n  env: [{name: A, value: b}]\n  tokenAttributes:\n    serviceAccountTokenAudience: cloud\n    cacheType: ServiceAccount\n    requireServiceAccount: true\n    requiredServiceAccountAnnotationKeys: [c/role]\n";
        let text = format!("{HEAD}providers:\n{}{}", entry("a", more), entry("b", ""));
        let all = read(&text).unwrap();
        let [a, b] = &all[..] else { panic!("{all:?}") };
        assert_eq!((a.name.as_str(), a.program.file_name().unwrap()), ("a", "a".as_ref()));
        assert_eq!((a.images.clone(), a.cache.as_secs()), (vec!["*.example".to_owned()], 43200));
        assert_eq!((a.args.len(), a.env.clone()), (2, vec![("A".to_owned(), "b".to_owned())]));
        let token = a.token.as_ref().unwrap();
        assert_eq!((token.audience.as_str(), token.cache), ("cloud", TokenCache::ServiceAccount));
        assert_eq!(token.required_annotations, ["c/role"]);
        assert!(b.token.is_none());
    }

    #[test]
    fn a_folder_is_all_of_its_configurations_by_name() {
        let (programs, folder) = (programs(), tempfile::tempdir().unwrap());
        let write = |file: &str, name: &str| {
            let text = format!("{HEAD}providers:\n{}", entry(name, ""));
            fs::write(folder.path().join(file), text).unwrap();
        };
        write("2.yaml", "a");
        write("1.yml", "b");
        write("notes.txt", "a");
        let of = || providers(Some(folder.path()), Some(programs.path()));
        let (all, hash) = of().unwrap();
        let names: Vec<_> = all.into_iter().map(|one| one.name).collect();
        assert_eq!(names, ["b", "a"]);
        // Of each file its length in eight bytes, the highest first, and what is in it.
        let expected = "sha256:8a6eacc575a70a16c52bcd5721a8b4ab8c062db6220cddbfd7e4b1478d3f684e";
        assert_eq!(hash.as_deref(), Some(expected));
        write("3.json", "a");
        assert!(format!("{:#}", of().unwrap_err()).contains("two providers are named \"a\""));
    }

    #[test]
    fn what_cannot_be_is_refused_with_field_and_remedy() {
        let token = |more: &str| {
            let given = "serviceAccountTokenAudience: c, cacheType: Token, requireServiceAccount: ";
            entry("a", &format!("  tokenAttributes: {{{given}{more}}}\n"))
        };
        for (text, part) in [
            (format!("{HEAD}providers: []\n"), "name one or more"),
            (format!("{HEAD}provider: []\n"), "provider"),
            ("apiVersion: v1\nkind: Pod\n".to_owned(), "are not known"),
            (format!("{HEAD}providers:\n{}", entry("../a", "")), "the name of a file"),
            (format!("{HEAD}providers:\n{}", entry("c", "")), "there is no program"),
            (format!("{HEAD}providers:\n{}", entry("text", "")), "there is no program"),
            (format!("{HEAD}providers:\n{0}{0}", entry("a", "")), "two providers"),
            (
                format!(
                    "{HEAD}providers:\n{}",
                    entry("a", "").replace("*.example", "https://r.io")
                ),
                "without a scheme",
            ),
            (
                format!("{HEAD}providers:\n{}", entry("a", "").replace("io/v1", "io/v9")),
                "use credentialprovider",
            ),
            (
                format!("{HEAD}providers:\n{}", entry("a", "").replace("12h", "often")),
                "not a duration",
            ),
            (
                format!(
                    "{HEAD}providers:\n{}",
                    token("false, requiredServiceAccountAnnotationKeys: [a]")
                ),
                "requireServiceAccount: true",
            ),
            (
                format!(
                    "{HEAD}providers:\n{}",
                    token(
                        "true, requiredServiceAccountAnnotationKeys: [a], optionalServiceAccountAnnotationKeys: [a]"
                    )
                ),
                "named twice",
            ),
            (format!("{HEAD}providers:\n{}", token("maybe")), "requireServiceAccount"),
        ] {
            let error = format!("{:#}", read(&text).unwrap_err());
            assert!(error.contains(part), "{text}\n{error}");
        }
        let only = |file, programs| format!("{:#}", providers(file, programs).unwrap_err());
        assert!(only(Some(Path::new("f")), None).contains("imageCredentialProviderBinDir"));
        assert!(only(None, Some(Path::new("f"))).contains("imageCredentialProviderConfigFile"));
    }
}
