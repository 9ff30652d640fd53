//! A pod's images, on their way to this node: one task each, so that a slow registry delays only its own container.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use nodule_image::{CompileError, Compiled, Image, Images, Keyring, Program, Purpose, Reference};

use crate::credentials;
use crate::events::Kind;
use crate::host::Host;
use crate::progress;
use crate::status::Waiting;
use crate::teller::Teller;
use crate::want::Want;
use crate::words::{chain, short};

/// An image that can be run now.
#[derive(Debug, Clone)]
pub(crate) struct Ready {
    pub(crate) image: Image,
    pub(crate) compiled: Compiled,
    /// By which name the program was found, and where it begins.
    pub(crate) argv0: String,
    pub(crate) cwd: String,
}

impl Ready {
    /// Sees that a program that was sought by its name is the one that the arguments begin with.
    pub(crate) fn check(&self, argv: &[String]) -> Result<(), String> {
        let is_sought = self.image.program.is_none();
        match argv.first().filter(|name| is_sought && **name != self.argv0) {
            None => Ok(()),
            Some(name) => Err(format!(
                "command \"{name}\": which program of the image runs cannot depend on a value from outside of the pod's spec: write it there"
            )),
        }
    }
}

/// What becomes of a try to get an image that can be run, or one that can be mounted.
pub(crate) type Outcome<R = Ready> = Result<R, Waiting>;

/// Who asks for which image, and in which words.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) want: Want,
    /// `Always`, `IfNotPresent` or `Never`.
    pub(crate) policy: String,
    /// Images that the pod has run already: it needs no other proof, and its secrets may be out of reach by now.
    pub(crate) ran: BTreeSet<String>,
    /// `spec.containers{NAME}`, for Events; none for those of the pod itself.
    pub(crate) field: Option<String>,
    pub(crate) purpose: Purpose,
}

/// Gets the image by its policy, and its compiled code.
pub(crate) async fn fetch(host: Arc<Host>, pod: Arc<Pod>, asked: Asked) -> Outcome {
    let teller = Teller::new(&host, &pod, &asked);
    let image = get(&host, &pod, &teller).await?;
    let (argv0, cwd) = (asked.want.argv0(&image), asked.want.cwd(&image));
    let program = host.images.program(&image, &argv0, &cwd).await.map_err(|error| {
        let message = format!("image \"{}\": {}", asked.want.image, chain(&error));
        teller.fail("Failed", Waiting { reason: "CreateContainerError", message })
    })?;
    let compiled = compile(&host.images, &image, &program, &teller).await?;
    Ok(Ready { image, compiled, argv0, cwd })
}

/// Gets an image to be mounted. What the pod has already, `known` by its digest, is taken without a word if it is here.
pub(crate) async fn mount(
    host: Arc<Host>,
    pod: Arc<Pod>,
    asked: Asked,
    known: Option<Reference>,
) -> Outcome<Image> {
    let here = match &known {
        Some(known) => host.images.present(known, Purpose::Mount).await,
        None => None,
    };
    match here {
        Some(image) => Ok(image),
        None => get(&host, &pod, &Teller::new(&host, &pod, &asked)).await,
    }
}

/// The image by its policy, with the pod's credentials.
async fn get(host: &Arc<Host>, pod: &Arc<Pod>, teller: &Teller<'_>) -> Result<Image, Waiting> {
    let Asked { want, policy, .. } = teller.asked;
    let mut request = host.metrics.images.request(policy);
    let reference = &reference(teller)?;
    let mut keyring = credentials::keyring(host, teller).await?;
    let identity = credentials::identity(host, pod, reference, &mut keyring).await;
    match present(host, reference, &keyring, teller).await? {
        Here::Usable(image) => {
            (request.is_here, request.is_pulled) = (Some(true), Some(false));
            return Ok(*image);
        }
        Here::Unproven => request.is_here = Some(true),
        Here::Missing => request.is_here = Some(false),
        Here::Unasked => {}
    }
    request.is_pulled = (policy != "Never" || request.is_here == Some(true)).then_some(true);
    // An image that the pod may not use is as one that is not there: who may not have it learns nothing of it.
    if policy == "Never" {
        let message =
            format!("Container image \"{}\" is not present with pull policy of Never", want.image);
        return Err(
            teller.fail("ErrImageNeverPull", Waiting { reason: "ErrImageNeverPull", message })
        );
    }
    let (identity, unknown) = identity.map_or_else(|why| (None, Some(why)), |one| (one, None));
    let provide = credentials::provide(host, pod, reference, &mut keyring, identity.as_ref());
    let failed: Vec<_> = unknown.into_iter().chain(provide.await).collect();
    pull(host, reference, &keyring, &failed, teller).await
}

fn reference(teller: &Teller<'_>) -> Result<Reference, Waiting> {
    let name = &teller.asked.want.image;
    Reference::parse(name).map_err(|error| {
        let message = format!("Failed to apply default image tag \"{name}\": {}", chain(&error));
        teller.fail("InspectFailed", Waiting { reason: "InvalidImageName", message })
    })
}

/// What is here already of what a pod asks for.
enum Here {
    /// The image, and the pod may use it.
    Usable(Box<Image>),
    /// It has not proven that it may.
    Unproven,
    Missing,
    /// By its policy it does not matter.
    Unasked,
}

/// The image that is here already, if the policy lets it be taken and the pod may use it.
async fn present(
    host: &Host,
    reference: &Reference,
    keyring: &Keyring,
    teller: &Teller<'_>,
) -> Result<Here, Waiting> {
    let Asked { want, policy, purpose, .. } = teller.asked;
    if policy == "Always" {
        return Ok(Here::Unasked);
    }
    let Some(image) = host.images.present(reference, *purpose).await else {
        return Ok(Here::Missing);
    };
    let Some(image) = permitted(host, image, keyring, teller)? else { return Ok(Here::Unproven) };
    let message = format!(
        "Container image \"{}\" already present on machine and can be accessed by the pod",
        want.image
    );
    teller.say(Kind::Normal, "Pulled", &message);
    Ok(Here::Usable(Box::new(image)))
}

/// The image, if the pod has proven that it may use it, or need not.
fn permitted(
    host: &Host,
    image: Image,
    keyring: &Keyring,
    teller: &Teller<'_>,
) -> Result<Option<Image>, Waiting> {
    if teller.asked.ran.contains(&image.id()) {
        return Ok(Some(image));
    }
    let permits = host.images.permits(&image, keyring).map_err(|error| {
        let message = format!("image \"{}\": {}", teller.asked.want.image, chain(&error));
        teller.fail("InspectFailed", Waiting { reason: "ImageInspectError", message })
    })?;
    Ok(permits.then_some(image))
}

async fn pull(
    host: &Host,
    reference: &Reference,
    keyring: &Keyring,
    providers: &[String],
    teller: &Teller<'_>,
) -> Result<Image, Waiting> {
    let name = &teller.asked.want.image;
    teller.say(Kind::Normal, "Pulling", &format!("Pulling image \"{name}\""));
    let since = tokio::time::Instant::now();
    let pull = host.images.pull_for(reference, keyring, teller.asked.purpose);
    let pulled = tokio::select! {
        pulled = pull => pulled,
        never = progress::tell(host, reference, teller) => match never {},
    };
    match pulled {
        Ok(image) => {
            let took = short(since.elapsed());
            let message = format!(
                "Successfully pulled image \"{name}\" in {took} ({took} including waiting). Image size: {} bytes.",
                image.size
            );
            teller.say(Kind::Normal, "Pulled", &message);
            Ok(image)
        }
        Err(error) => {
            // Another pod may have pulled it meanwhile.
            if error.is_throttled()
                && let Here::Usable(image) = present(host, reference, keyring, teller).await?
            {
                return Ok(*image);
            }
            // What a provider could not give may be why.
            let failed = providers.iter().map(|failure| format!(" ({failure})"));
            let cause = chain(&error) + &failed.collect::<String>();
            let message = format!("Failed to pull image \"{name}\": {cause}");
            let waiting = Waiting { reason: error.reason(), message: cause };
            teller.say(Kind::Warning, "Failed", &message);
            teller.say(Kind::Warning, "Failed", &format!("Error: {}", waiting.reason));
            Err(waiting)
        }
    }
}

async fn compile(
    images: &Images,
    image: &Image,
    program: &Program,
    teller: &Teller<'_>,
) -> Result<Compiled, Waiting> {
    let name = &teller.asked.want.image;
    let compiled = images.compile(image, program).await.map_err(|error| {
        let message = match &error {
            CompileError::BadProgram { .. } => {
                format!("image \"{name}\" cannot run here: {}", chain(&error))
            }
            CompileError::Failed { .. } => {
                format!("image \"{name}\" could not be compiled: {}", chain(&error))
            }
        };
        teller.fail("Failed", Waiting { reason: "CreateContainerError", message })
    })?;
    if let Some(took) = compiled.took {
        let (took, size) = (short(took), compiled.size);
        let message = format!("Compiled image \"{name}\" in {took}, {size} bytes of code");
        teller.say(Kind::Normal, "Compiled", &message);
    }
    Ok(compiled)
}
