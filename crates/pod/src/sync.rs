//! What a pod that should run needs, step by step. Each step looks before it acts, and none waits for anything slow.
//!
//! Volumes, then for every container whose turn it is: its image, its configuration, its process.

use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use nodule_image::Purpose;
use nodule_sandbox_proto as proto;
use tracing::warn;

use crate::epilogue;
use crate::etc::Etc;
use crate::events::Kind;
use crate::host::Host;
use crate::links::Links;
use crate::needs::{Needs, Unready};
use crate::order::{self, Role};
use crate::pull::{self, Asked, Need, Ready, chain};
use crate::resources;
use crate::restart::{self, Backoff, Next};
use crate::run::Due;
use crate::sandbox::{self, Place, Sandbox};
use crate::serving::{Serving, serving};
use crate::settings::settings;
use crate::status::Waiting;
use crate::user::Choice;
use crate::view::log_path;
use crate::volumes::{Mounts, image_mounts, mounts};
use crate::want::{self, Want};
use crate::worker::{Fetched, Notice, Worker};

impl Worker {
    /// Brings the pod nearer to running, as far as that goes now.
    pub(crate) async fn sync(&mut self) {
        if !self.admit() || (self.record.restarting && !self.clear()) {
            return;
        }
        let Some(needs) = self.needs() else { return };
        for (role, container) in order::turn(&self.record) {
            self.bring(role, &container, &needs).await;
            if self.holds_back(&container) {
                break;
            }
        }
    }

    /// Something that may mend itself went wrong: look again soon.
    pub(crate) fn again(&mut self) {
        self.wake_at(restart::later(Timestamp::now(), restart::FIRST));
    }

    async fn bring(&mut self, role: Role, container: &Container, needs: &Needs) {
        if self.live.contains_key(&container.name) {
            self.waiting.remove(&container.name);
            return;
        }
        let Some(backoff) = self.may_run(role, container) else { return };
        if !self.settle() {
            let message = "every user of podUsers is taken: allow more of them, or fewer pods";
            self.hold(container, "CreateContainerConfigError", message.to_owned());
            return self.again();
        }
        let Some(mounts) = self.has_images(role, container) else { return };
        let Some(ready) = self.image(role, container) else { return };
        if mounts == Mounts::OnTheWay {
            return self.pulls.keep(Want::of(container), ready);
        }
        let config = match self.configure(container, &ready, needs) {
            Ok(config) => config,
            // The image is taken up again when there is more to say.
            Err(Unready::Unknown) => {
                return self.pulls.keep(Want::of(container), ready);
            }
            Err(Unready::Config(message)) => {
                self.hold(container, "CreateContainerConfigError", message);
                return self.again();
            }
        };
        if self.create(container, &ready, backoff) {
            self.launch(container, config).await;
        }
    }

    /// Whether the container runs now: the back-off that this run earns, or none if it does not.
    fn may_run(&mut self, role: Role, container: &Container) -> Option<Option<Backoff>> {
        let now = Timestamp::now();
        match self.record.due(role, container, now, self.host.config.longest_backoff) {
            Due::First(known) => Some(known),
            Due::Never => None,
            Due::Again(finished, _) if self.shows_failed_hook(&container.name, finished) => None,
            Due::Again(_, Next::Now(backoff)) => Some(Some(backoff)),
            Due::Again(_, Next::At(due, wait)) => {
                self.crash_loop(container, wait.as_secs());
                self.wake_at(due);
                None
            }
        }
    }

    /// Sees that the pod has a user of its own, where this agent can make processes another user's.
    pub(crate) fn settle(&mut self) -> bool {
        let Some(users) = self.host.users.as_ref().filter(|_| self.record.user.is_none()) else {
            return true;
        };
        self.record.user = users.take();
        self.record.user.is_some()
    }

    fn crash_loop(&mut self, container: &Container, seconds: u64) {
        let (name, meta) = (&container.name, &self.record.pod.metadata);
        let part = |text: &Option<String>| text.clone().unwrap_or_default();
        let pod = format!("{}_{}({})", part(&meta.name), part(&meta.namespace), part(&meta.uid));
        let wait = if seconds < 60 {
            format!("{seconds}s")
        } else {
            format!("{}m{}s", seconds / 60, seconds % 60)
        };
        let message = format!("back-off {wait} restarting failed container={name} pod={pod}");
        let waiting = Waiting { reason: "CrashLoopBackOff", message };
        if self.waiting.insert(name.clone(), waiting.clone()) != Some(waiting) {
            let message = format!("Back-off restarting failed container {name} in pod {pod}");
            self.say(name, Kind::Warning, "BackOff", &message);
        }
    }

    /// The container's image if it is here; if not, it is on its way.
    fn image(&mut self, role: Role, container: &Container) -> Option<Arc<Ready>> {
        let want = Want::of(container);
        match self.pulls.need(&want, Timestamp::now()) {
            Need::Ready(ready) => return Some(ready),
            Need::Wait => {}
            Need::Fetch => self.fetch(role, container, want),
            Need::Failed { waiting, until, news } => {
                if news {
                    self.tell_back_off(&want, &waiting, Some(role.field(&container.name)));
                }
                self.waiting.insert(container.name.clone(), waiting);
                self.wake_at(until);
            }
        }
        None
    }

    /// Tells that the next pull of an image has to wait.
    pub(crate) fn tell_back_off(&self, want: &Want, waiting: &Waiting, field: Option<String>) {
        if waiting.reason == "ImagePullBackOff" {
            let message = format!("Back-off pulling image \"{}\"", want.image);
            let (events, pod) = (&self.host.events, &self.record.pod);
            events.say(pod, field.clone(), Kind::Normal, "BackOff", &message);
            events.say(pod, field, Kind::Warning, "Failed", "Error: ImagePullBackOff");
        }
    }

    fn fetch(&mut self, role: Role, container: &Container, want: Want) {
        let wait = self.pulls.begin(&want);
        let policy =
            container.image_pull_policy.clone().unwrap_or_else(|| "IfNotPresent".to_owned());
        let runs = self.record.containers.values().filter_map(|history| history.run.as_ref());
        let ran = runs.map(|run| run.image_id.clone()).collect();
        let field = Some(role.field(&container.name));
        let asked = Asked { want: want.clone(), ran, policy, field, purpose: Purpose::Run };
        let (host, pod) = (Arc::clone(&self.host), Arc::clone(&self.record.pod));
        self.fetches.spawn(async move {
            Fetched::Program(want, Box::new(pull::fetch(host, pod, asked).await), wait)
        });
    }

    /// The container waits for a person, and that is told once.
    fn hold(&mut self, container: &Container, reason: &'static str, message: String) {
        let told = format!("Error: {message}");
        let waiting = Waiting { reason, message };
        if self.waiting.insert(container.name.clone(), waiting.clone()) != Some(waiting) {
            self.say(&container.name, Kind::Warning, "Failed", &told);
        }
    }

    /// All that the sandbox is told but its log and its name; or what is wrong with the pod.
    fn configure(
        &self,
        container: &Container,
        ready: &Ready,
        needs: &Needs,
    ) -> Result<proto::Container, Unready> {
        let config = &self.host.config;
        let spec = self.record.pod.spec.clone().unwrap_or_default();
        let choice = Choice {
            spec: &spec,
            container,
            own: self.record.user,
            users: self.host.users.as_ref(),
        };
        let user = choice.user()?;
        let mut env = self.environment(container, ready, needs)?;
        let command = env.expand_all(container.command.as_ref());
        let args = env.expand_all(container.args.as_ref());
        want::tell_cwd(&mut env.all, &ready.cwd);
        let args = ready.image.argv(&command, &args);
        ready.check(&args)?;
        let kind = match ready.compiled.kind {
            nodule_image::Kind::Module => proto::Kind::Module,
            nodule_image::Kind::Component => proto::Kind::Component,
            nodule_image::Kind::Proxy => proto::Kind::Proxy,
        };
        let Serving { http, roots } = serving(&self.record.pod, container, &config.addresses)?;
        let held = container.stdin == Some(true);
        Ok(proto::Container {
            version: proto::VERSION,
            id: String::new(),
            program: proto::Program { cwasm: ready.compiled.code.clone(), kind },
            args,
            mounts: want::with_root(
                &ready.image,
                container,
                mounts(&self.record.pod, container, &needs.volumes, &env)?,
            ),
            env: env.all,
            stdin: if held { proto::Stdin::Held } else { proto::Stdin::Empty },
            limits: proto::Limits { memory: memory_limit(container)? },
            user,
            cgroup: None,
            oom_score_adj: self.score(container),
            nice: (!self.host.groups.are_there())
                .then(|| resources::niceness(resources::qos(&self.record.pod))),
            net: self.net()?,
            config: settings(&self.record.pod, &needs.known)?,
            http: (kind == proto::Kind::Proxy).then_some(http),
            roots: config.network.roots(kind, roots),
            log: proto::Log {
                path: PathBuf::new(),
                max_size: config.log_max_size,
                max_files: config.log_max_files,
            },
        })
    }

    /// How ready the kernel is to kill the container. Only root may make it less so than for the agent.
    fn score(&self, container: &Container) -> Option<i32> {
        let config = &self.host.config;
        let score = resources::oom_score_adj(&self.record.pod, container, config.memory);
        (config.privileged || score >= 0).then_some(score)
    }

    /// Records a new run, unless the newest was recorded and never started. False if it could not be kept.
    fn create(&mut self, container: &Container, ready: &Ready, backoff: Option<Backoff>) -> bool {
        let name = &container.name;
        let Some(attempt) = self.record.begin(container, new_id(), ready.image.id(), backoff)
        else {
            return self.save();
        };
        self.waiting.remove(name);
        if !self.save() {
            return false;
        }
        self.forget(name, attempt);
        self.say(name, Kind::Normal, "Created", "Container created");
        true
    }

    /// Removes what is kept of runs that nobody can ask for any more: all but the newest and the one before.
    fn forget(&mut self, container: &str, newest: u32) {
        let Some(old) = newest.checked_sub(2) else { return };
        let log = log_path(&self.host.config.logs, &self.record.pod, container, old);
        let run = self.folder.run(container, old);
        let (links, pod) = (Links::new(&self.host.config), Arc::clone(&self.record.pod));
        let container = container.to_owned();
        self.tasks.spawn_blocking(move || {
            let mut errors = Vec::new();
            errors.extend(crate::record::remove(&run).err().map(Into::into));
            errors.extend(links.forget(&pod, &container, old).err().map(Into::into));
            errors.extend(remove_log(&log).err().map(Into::into));
            Notice::Forgotten { container, errors }
        });
    }

    async fn launch(&mut self, container: &Container, mut config: proto::Container) {
        let name = &container.name;
        let etc = match self.etc(&config.net.names) {
            Ok(etc) => (self.folder.etc(), etc),
            Err(message) => {
                self.hold(container, "CreateContainerConfigError", message);
                return self.again();
            }
        };
        let (Some(place), Some(run)) = (self.place(name), self.record.run_mut(name)) else {
            return;
        };
        config.id.clone_from(&run.id);
        run.user.clone_from(&config.user);
        let attempt = run.attempt;
        config.log.path = log_path(&self.host.config.logs, &self.record.pod, name, attempt);
        config.mounts.extend(epilogue::mount(container, &config.mounts, &place.state));
        // An earlier try may have come further than anybody could say.
        if proto::State::new(&place.state).has_container() && self.recover(name).await {
            return;
        }
        let host = Arc::clone(&self.host);
        let Ok(_turn) = host.starts.acquire().await else { return };
        let (host, pod) = (Arc::clone(&self.host), Arc::clone(&self.record.pod));
        let asked = container.clone();
        let start = move || start(&host, &pod, &asked, &place, &etc, config);
        let started = tokio::task::spawn_blocking(start).await;
        let of_images = image_mounts(&self.record.pod, container);
        let is_mounted = !matches!(started, Ok(Err(sandbox::Error::ImageSubPath { .. })));
        self.host.metrics.images.volumes.mounted(of_images, is_mounted);
        match started {
            Ok(Ok(sandbox)) => {
                self.attend(name, sandbox);
                self.save();
            }
            Ok(Err(error)) => {
                self.hold(container, error.reason(), chain(&error));
                self.again();
            }
            Err(error) => warn!(container = name, %error, "start was broken off"),
        }
    }
}

/// Makes the container's cgroup and starts its process. Blocks.
fn start(
    host: &Host,
    pod: &Pod,
    container: &Container,
    place: &Place,
    (folder, etc): &(PathBuf, Etc),
    mut config: proto::Container,
) -> Result<Sandbox, sandbox::Error> {
    for mount in &config.mounts {
        if let Some(path) = &mount.sub_path {
            find(host, container, mount, path)?;
        }
    }
    etc.write(folder).map_err(|source| sandbox::Error::Create { path: folder.clone(), source })?;
    let mut roots = config.mounts.iter().filter(|mount| mount.guest == "/");
    let image = roots.find(|root| host.images.shares(&root.host)).map(|root| root.host.clone());
    etc.mount(folder, image.as_deref(), &mut config.mounts);
    config.cgroup = host
        .groups
        .make(pod, container, &config.id)
        .map_err(|source| sandbox::Error::Cgroup { source })?;
    let words = epilogue::folder(&place.state);
    if config.mounts.iter().any(|mount| mount.host == words) {
        epilogue::make(container, &words, config.user.as_ref())
            .map_err(|source| sandbox::Error::Create { path: words, source })?;
    }
    sandbox::start(&host.config.sandbox, &host.zygote, place, &config)
}

/// Sees that there is a part of a volume. What all who use an image share is never added to.
fn find(
    host: &Host,
    container: &Container,
    mount: &proto::Mount,
    path: &str,
) -> Result<(), sandbox::Error> {
    if host.images.shares(&mount.host) {
        return nodule_volume::look(&mount.host, path)
            .map_err(|source| sandbox::Error::ImageSubPath { path: path.to_owned(), source });
    }
    nodule_volume::make(&mount.host, path).map_err(|source| {
        let mut asked = container.volume_mounts.iter().flatten();
        let name = asked.find(|asked| asked.mount_path == mount.guest);
        sandbox::Error::SubPath {
            mount: name.map_or_else(|| mount.guest.clone(), |asked| asked.name.clone()),
            container: container.name.clone(),
            source,
        }
    })
}

/// Removes a run's log and the files it was turned into.
fn remove_log(path: &std::path::Path) -> Result<(), crate::record::Error> {
    let error = |source| crate::record::Error::Remove { path: path.to_owned(), source };
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(()) };
    for entry in entries.flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(name.as_encoded_bytes()) {
            std::fs::remove_file(entry.path()).map_err(error)?;
        }
    }
    Ok(())
}

fn memory_limit(container: &Container) -> Result<Option<u64>, String> {
    let limits = container.resources.as_ref().and_then(|resources| resources.limits.as_ref());
    let Some(limit) = limits.and_then(|limits| limits.get("memory")) else { return Ok(None) };
    let bytes = crate::quantity::bytes(limit);
    bytes
        .map(Some)
        .ok_or_else(|| format!("resources.limits.memory: \"{}\" is not a quantity", limit.0))
}

/// 64 hex digits that no other container has.
fn new_id() -> String {
    rand::random::<[u8; 32]>().iter().map(|byte| format!("{byte:02x}")).collect()
}
