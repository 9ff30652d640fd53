//! Certificates of pods: from a signer of the cluster, through a real API server, to a guest that reads them.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, pin_mut};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::certificates::v1::{ClusterTrustBundle, PodCertificateRequest};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher;
use nodule_e2e::test::{self, Test};
use nodule_e2e::{status, wait};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer, UnixTime};
use serde_json::{Value, json};

pub(crate) const SIGNER: &str = "nodule.example/pods";
/// The shortest life that the API server lets a signer give.
const HOUR: SignedDuration = SignedDuration::from_hours(1);
const DENIED: &str = "this signer wants another key";

/// Signs for pods; or denies.
pub(crate) struct Signer {
    requests: Api<PodCertificateRequest>,
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
    denies: bool,
}

impl Signer {
    pub(crate) fn new(test: &Test<'_>, denies: bool) -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "an authority for pods");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key)?.pem();
        let issuer = Issuer::new(params, key);
        Ok(Self { requests: test.api(), certificate, issuer, denies })
    }

    /// Has the cluster trust it, by a bundle that has the name of the test's namespace.
    pub(crate) async fn bundle(&self, test: &Test<'_>) -> Result<Bundle> {
        let bundles = Api::all(test.client.clone());
        let name = test.namespace.clone();
        let anchors = serde_json::from_value(json!({
            "metadata": { "name": name }, "spec": { "trustBundle": self.certificate } }))?;
        bundles.create(&PostParams::default(), &anchors).await.context("make a trust bundle")?;
        Ok(Bundle { bundles, name })
    }

    /// Answers every request, until it is dropped or fails.
    async fn run(&self) -> Result<()> {
        let seen = watcher(self.requests.clone(), watcher::Config::default());
        pin_mut!(seen);
        while let Some(event) = seen.next().await {
            if let watcher::Event::Apply(request) | watcher::Event::InitApply(request) = event? {
                self.look(&request).await.context("answer a request")?;
            }
        }
        Ok(())
    }

    async fn look(&self, request: &PodCertificateRequest) -> Result<()> {
        let status = request.status.as_ref();
        if status.and_then(|it| it.conditions.as_ref()).is_some_and(|all| !all.is_empty()) {
            return Ok(());
        }
        let status = if self.denies {
            json!({ "conditions": condition("Denied", "UnsupportedKeyType", DENIED) })
        } else {
            self.issue(request)?
        };
        let name = request.metadata.name.as_deref().context("a name")?;
        let patch = Patch::Merge(json!({ "status": status }));
        self.requests.patch_status(name, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    fn issue(&self, request: &PodCertificateRequest) -> Result<Value> {
        let der =
            CertificateSigningRequestDer::from(request.spec.stub_pkc_s10_request.0.as_slice());
        let mut csr = CertificateSigningRequestParams::from_der(&der)?;
        let begin = Timestamp::from_second(Timestamp::now().as_second())?;
        let end = begin.checked_add(HOUR)?;
        csr.params.not_before = moment(begin)?.into();
        csr.params.not_after = moment(end)?.into();
        csr.params.distinguished_name.push(DnType::CommonName, request.spec.pod_name.as_str());
        csr.params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let chain = csr.signed_by(&self.issuer)?.pem();
        Ok(json!({
            "conditions": condition("Issued", "Signed", ""), "certificateChain": chain,
            "notBefore": begin, "notAfter": end,
            "beginRefreshAt": begin.checked_add(SignedDuration::from_mins(30))?,
        }))
    }

    /// That what a pod has is a key and the certificate for it, which this signer has signed.
    fn check(&self, bundle: &str) -> Result<()> {
        let key = PrivateKeyDer::from_pem_slice(bundle.as_bytes())?;
        let chain: Vec<_> =
            CertificateDer::pem_slice_iter(bundle.as_bytes()).collect::<Result<_, _>>()?;
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.certificate.as_bytes())?)?;
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
            roots.into(),
            provider.clone(),
        )
        .build()?;
        let (leaf, rest) = chain.split_first().context("a certificate")?;
        verifier.verify_client_cert(leaf, rest, UnixTime::now()).context("another's work")?;
        rustls::sign::CertifiedKey::from_der(chain.clone(), key, &provider)?.keys_match()?;
        Ok(())
    }
}

fn moment(at: Timestamp) -> Result<SystemTime> {
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(at.as_second().try_into()?))
}

fn condition(kind: &str, reason: &str, message: &str) -> Value {
    json!([{ "type": kind, "status": "True", "reason": reason, "message": message,
             "lastTransitionTime": Timestamp::now() }])
}

/// A pod that prints what it has in `/own/bundle.pem`, and again when it is another.
fn pod(test: &Test<'_>, key: &str, beside: &[Value]) -> Value {
    let mut spec = test.spec(&["follow", "/own/bundle.pem"]);
    let mut sources = vec![json!({ "podCertificate": {
        "signerName": SIGNER, "keyType": key, "maxExpirationSeconds": 3600,
        "credentialBundlePath": "bundle.pem", "userAnnotations": { "nodule.example/why": "test" },
    } })];
    sources.extend_from_slice(beside);
    spec["volumes"] = json!([{ "name": "own", "projected": { "sources": sources } }]);
    spec["containers"][0]["volumeMounts"] = json!([{ "name": "own", "mountPath": "/own" }]);
    spec
}

/// A signer's trust bundle, which is the whole cluster's.
pub(crate) struct Bundle {
    bundles: Api<ClusterTrustBundle>,
    name: String,
}

impl Bundle {
    pub(crate) async fn remove(self) -> Result<()> {
        self.bundles.delete(&self.name, &DeleteParams::default()).await?;
        Ok(())
    }
}

/// The bundles that a pod has printed, as far as they are whole.
fn bundles(test: &Test<'_>, pod: &str, container: &str) -> Vec<String> {
    const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
    let log = test.kubectl(&["logs", pod, "-c", container]).unwrap_or_default();
    let all = log.split(BEGIN).skip(1).map(|rest| format!("{BEGIN}{rest}"));
    all.filter(|bundle| bundle.trim_end().ends_with("-----END CERTIFICATE-----")).collect()
}

/// Waits until the pod has printed a bundle that is none of `old`.
async fn another(test: &Test<'_>, pod: &str, old: &[String]) -> Result<String> {
    let look = || bundles(test, pod, "main").into_iter().rfind(|bundle| !old.contains(bundle));
    wait::found(&format!("pod {pod} to have a certificate"), look).await
}

/// Runs a test beside its signer.
pub(crate) async fn signed(signer: &Signer, body: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::select! {
        ended = Box::pin(signer.run()) => ended.context("the signer ended"),
        done = body => done,
    }
}

/// What `kubectl describe` says of a pod once it says all of this.
async fn described(test: &Test<'_>, pod: &str, words: &[&str]) -> Result<()> {
    let mut last = String::new();
    let look = || {
        last = test.kubectl(&["describe", "pod", pod]).unwrap_or_default();
        words.iter().all(|word| last.contains(word)).then_some(())
    };
    wait::found(&format!("kubectl describe of {pod} to say {words:?}"), look).await
}

#[tokio::test]
async fn a_pod_has_a_certificate_and_an_agent_that_starts_again_gives_it_another() -> Result<()> {
    test::run(async |test| {
        let signer = Signer::new(test, false)?;
        let bundle = signer.bundle(test).await?;
        let outcome = signed(&signer, own_and_trusted(test, &signer)).await;
        bundle.remove().await?;
        outcome
    })
    .await
}

async fn own_and_trusted(test: &mut Test<'_>, signer: &Signer) -> Result<()> {
    let trust = json!({ "clusterTrustBundle": { "name": test.namespace, "path": "ca.pem" } });
    let mut spec = pod(test, "ECDSAP256", &[trust]);
    let mut second = spec["containers"][0].clone();
    second["name"] = json!("trusts");
    second["args"] = json!(["follow", "/own/ca.pem"]);
    spec["containers"] = json!([spec["containers"][0], second]);
    test.pod("it", spec).await?;

    let first = another(test, "it", &[]).await?;
    signer.check(&first)?;
    test.pod_until("it", "to be Ready", status::is_ready).await?;
    let trusted = || test.kubectl(&["logs", "it", "-c", "trusts"]).ok();
    wait::found("the authority", || trusted().filter(|log| *log == signer.certificate)).await?;

    test.agent.kill()?;
    test.agent.start_again()?;
    let second = another(test, "it", std::slice::from_ref(&first)).await?;
    signer.check(&second)?;
    let keys = [&first, &second].map(|bundle| bundle.split("-----END").next().map(str::to_owned));
    ensure!(keys[0] != keys[1], "each certificate has a key of its own");
    let pod = test.pod_until("it", "to be there", |_| true).await?;
    ensure!(status::restarts(&pod) == 0, "the guest that runs has seen both");
    Ok(())
}

#[tokio::test]
async fn every_kind_of_key_that_this_node_makes_is_one_that_the_api_server_takes() -> Result<()> {
    test::run(async |test| {
        let signer = Signer::new(test, false)?;
        signed(&signer, async {
            for key in ["ECDSAP384", "ED25519"] {
                let name = key.to_lowercase();
                test.pod(&name, pod(test, key, &[])).await?;
                signer.check(&another(test, &name, &[]).await?)?;
            }
            let all = test.api::<PodCertificateRequest>().list(&Default::default()).await?.items;
            ensure!(all.len() == 2, "one request for each pod: {all:?}");
            for request in all {
                let why = request.spec.unverified_user_annotations.unwrap_or_default();
                ensure!(why.get("nodule.example/why").is_some_and(|why| why == "test"));
                ensure!(request.spec.max_expiration_seconds == Some(3600));
            }
            Ok(())
        })
        .await
    })
    .await
}

#[tokio::test]
async fn why_a_pod_has_no_certificate_is_told_where_users_look() -> Result<()> {
    test::run(async |test| {
        let signer = Signer::new(test, true)?;
        test.pod("rsa", pod(test, "RSA3072", &[])).await?;
        described(test, "rsa", &["FailedMount", "keyType RSA3072 is not supported"]).await?;
        test.pod("it", pod(test, "ED25519", &[])).await?;
        described(test, "it", &["FailedMount", SIGNER, "has not answered PodCertificateRequest"])
            .await?;
        signed(&signer, async {
            let why = "PodCertificateRequest was permanently denied: reason=\"UnsupportedKeyType\"";
            described(test, "it", &["Denied", DENIED, why]).await
        })
        .await?;
        let pod = test.pod_until("it", "to be there", |_| true).await?;
        let reason = status::waiting(&pod).and_then(|waiting| waiting.reason.as_deref());
        ensure!(reason == Some("ContainerCreating"), "{reason:?}");
        let requests = test.api::<PodCertificateRequest>().list(&Default::default()).await?;
        ensure!(requests.items.len() == 1, "a denied request is not made again");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_request_that_is_removed_without_an_answer_is_made_again() -> Result<()> {
    test::run(async |test| {
        let requests: Api<PodCertificateRequest> = test.api();
        test.pod("it", pod(test, "ED25519", &[])).await?;
        let made = |all: &[PodCertificateRequest]| !all.is_empty();
        let first = wait::until(requests.clone(), wait::all(), "a request", made).await?;
        let name = first[0].metadata.name.clone().context("a name")?;
        requests.delete(&name, &DeleteParams::default()).await?;
        let signer = Signer::new(test, false)?;
        signed(&signer, async { signer.check(&another(test, "it", &[]).await?) }).await?;
        let is_it = |pod: &Pod| status::is_ready(pod);
        test.pod_until("it", "to run", is_it).await?;
        Ok(())
    })
    .await
}
