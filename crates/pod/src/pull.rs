//! A pod's images, on their way to this node: one task each, so that a slow registry delays only its own container.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use nodule_image::{CompileError, Compiled, Image, Images, Keyring, Program, Purpose, Reference};

use crate::clock::moved;
use crate::credentials;
use crate::events::{Events, Kind};
use crate::host::Host;
use crate::progress;
use crate::restart::{FIRST, LONGEST, later};
use crate::status::Waiting;
use crate::want::Want;

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

/// Images of the pod for one purpose. Owned and changed by its worker.
#[derive(Debug)]
pub(crate) struct Pulls<R = Ready> {
    known: BTreeMap<Want, Pull<R>>,
}

#[derive(Debug)]
enum Pull<R> {
    Running,
    Ready(Arc<R>),
    Failed { waiting: Waiting, since: Timestamp, wait: Duration, told: bool },
}

/// For so long a failure is shown as what it is; then as the wait for the next try.
const SHOWN: Duration = Duration::from_secs(2);

/// What is to be done about an image.
#[derive(Debug)]
pub(crate) enum Need<R = Ready> {
    /// Use it: the image is taken, whoever needs it next asks again.
    Ready(Arc<R>),
    /// Begin to fetch it.
    Fetch,
    /// Someone fetches it.
    Wait,
    /// Wait until then; `news` once, when the wait for the next try begins.
    Failed { waiting: Waiting, until: Timestamp, news: bool },
}

impl<R> Default for Pulls<R> {
    fn default() -> Self {
        Self { known: BTreeMap::new() }
    }
}

impl<R> Pulls<R> {
    /// What to do about what is wanted. An answer of `Fetch` must be followed by `done`.
    pub(crate) fn need(&mut self, want: &Want, now: Timestamp) -> Need<R> {
        match self.known.get_mut(want) {
            Some(Pull::Ready(_)) => match self.known.remove(want) {
                Some(Pull::Ready(ready)) => Need::Ready(ready),
                _ => Need::Wait,
            },
            Some(Pull::Running) => Need::Wait,
            Some(Pull::Failed { waiting, since, .. }) if now < later(*since, SHOWN) => {
                Need::Failed { waiting: waiting.clone(), until: later(*since, SHOWN), news: false }
            }
            Some(Pull::Failed { waiting, since, wait, told }) if now < later(*since, *wait) => {
                let news = !std::mem::replace(told, true);
                Need::Failed {
                    waiting: back_off(&want.image, waiting),
                    until: later(*since, *wait),
                    news,
                }
            }
            Some(Pull::Failed { .. }) | None => Need::Fetch,
        }
    }

    /// The clock was set.
    pub(crate) fn move_by(&mut self, by: SignedDuration) {
        for pull in self.known.values_mut() {
            if let Pull::Failed { since, .. } = pull {
                *since = moved(*since, by);
            }
        }
    }

    /// Gives back an image that was taken and not run.
    pub(crate) fn keep(&mut self, want: Want, ready: Arc<R>) {
        self.known.insert(want, Pull::Ready(ready));
    }

    /// Notes that a fetch has begun. The wait that a failure before it earned is kept for the next one.
    pub(crate) fn begin(&mut self, want: &Want) -> Duration {
        match self.known.insert(want.clone(), Pull::Running) {
            Some(Pull::Failed { wait, .. }) => (wait * 2).min(LONGEST),
            _ => FIRST,
        }
    }

    /// Notes how it ended; `wait` is what `begin` gave.
    pub(crate) fn done(&mut self, want: Want, outcome: Outcome<R>, wait: Duration, now: Timestamp) {
        let pull = match outcome {
            Ok(ready) => Pull::Ready(Arc::new(ready)),
            Err(waiting) => Pull::Failed { waiting, since: now, wait, told: false },
        };
        self.known.insert(want, pull);
    }
}

/// A failure in the words of the time until the next try: the cause stays in sight.
fn back_off(image: &str, failure: &Waiting) -> Waiting {
    match failure.reason {
        "ErrImagePull" | "RegistryUnavailable" => Waiting {
            reason: "ImagePullBackOff",
            message: format!(
                "Back-off pulling image \"{image}\": {}: {}",
                failure.reason, failure.message
            ),
        },
        _ => failure.clone(),
    }
}

/// Gets the image by its policy, and its compiled code.
pub(crate) async fn fetch(host: Arc<Host>, pod: Arc<Pod>, asked: Asked) -> Outcome {
    let teller = Teller { events: &host.events, pod: &pod, asked: &asked };
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
        None => get(&host, &pod, &Teller { events: &host.events, pod: &pod, asked: &asked }).await,
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

/// Tells what becomes of an image, as Events of who asked.
pub(crate) struct Teller<'a> {
    events: &'a Events,
    pub(crate) pod: &'a Pod,
    pub(crate) asked: &'a Asked,
}

impl Teller<'_> {
    pub(crate) fn say(&self, kind: Kind, reason: &'static str, message: &str) {
        self.events.say(self.pod, self.asked.field.clone(), kind, reason, message);
    }

    pub(crate) fn fail(&self, reason: &'static str, waiting: Waiting) -> Waiting {
        let message = if reason == "Failed" {
            format!("Error: {}", waiting.message)
        } else {
            waiting.message.clone()
        };
        self.say(Kind::Warning, reason, &message);
        waiting
    }
}

/// An error and its causes on one line, as a user reads it.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        next = cause.source();
    }
    text
}

/// A duration as Go prints one, to the millisecond.
fn short(took: Duration) -> String {
    let took = SignedDuration::try_from(took).unwrap_or_default();
    match took.as_secs() {
        0 => format!("{}ms", took.as_millis()),
        1..60 => format!("{:.3}s", took.as_secs_f64()),
        seconds => format!("{}m{:.3}s", seconds / 60, took.as_secs_f64() % 60.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn want() -> Want {
        let image = Some("a".to_owned());
        Want::of(&k8s_openapi::api::core::v1::Container { image, ..Default::default() })
    }

    fn failure(reason: &'static str) -> Waiting {
        Waiting { reason, message: "no route".to_owned() }
    }

    #[test]
    fn a_pull_that_fails_is_tried_again_after_ten_seconds_and_then_half_as_often() {
        let mut pulls = Pulls::<Ready>::default();
        let mut now = Timestamp::from_second(1000).unwrap();
        for seconds in [10, 20, 40, 80, 160, 300, 300] {
            assert!(matches!(pulls.need(&want(), now), Need::Fetch));
            let wait = pulls.begin(&want());
            assert!(matches!(pulls.need(&want(), now), Need::Wait));
            pulls.done(want(), Err(failure("ErrImagePull")), wait, now);
            let Need::Failed { waiting, until, news } = pulls.need(&want(), now) else {
                panic!("failed")
            };
            assert_eq!((waiting.reason, until, news), ("ErrImagePull", later(now, SHOWN), false));
            let Need::Failed { waiting, until: due, news } = pulls.need(&want(), until) else {
                panic!("failed")
            };
            assert_eq!(due, later(now, Duration::from_secs(seconds)));
            assert_eq!(waiting.reason, "ImagePullBackOff");
            assert_eq!(waiting.message, "Back-off pulling image \"a\": ErrImagePull: no route");
            assert!(news);
            assert!(matches!(pulls.need(&want(), until), Need::Failed { news: false, .. }));
            now = due;
        }
    }

    #[test]
    fn a_failure_that_is_no_pull_keeps_its_reason() {
        let mut pulls = Pulls::<Ready>::default();
        let now = Timestamp::from_second(1000).unwrap();
        let wait = pulls.begin(&want());
        pulls.done(want(), Err(failure("ErrImageNeverPull")), wait, now);
        let Need::Failed { waiting, .. } = pulls.need(&want(), now) else { panic!("failed") };
        assert_eq!(waiting, failure("ErrImageNeverPull"));
    }

    #[test]
    fn durations_read_as_go_prints_them() {
        assert_eq!(short(Duration::from_micros(1500)), "1ms");
        assert_eq!(short(Duration::from_millis(2345)), "2.345s");
        assert_eq!(short(Duration::from_millis(62_500)), "1m2.500s");
    }
}
