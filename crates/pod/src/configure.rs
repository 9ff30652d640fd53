//! What a container's sandbox is told, from its pod, its image and what it needs.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::Container;
use nodule_sandbox_proto as proto;

use crate::needs::{Needs, Unready};
use crate::pull::Ready;
use crate::resources;
use crate::serving::{Serving, serving};
use crate::settings::settings;
use crate::user::Choice;
use crate::volumes::mounts;
use crate::want;
use crate::worker::Worker;

impl Worker {
    /// All that the sandbox is told but its log and its name; or what is wrong with the pod.
    pub(crate) fn configure(
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
}

fn memory_limit(container: &Container) -> Result<Option<u64>, String> {
    let limits = container.resources.as_ref().and_then(|resources| resources.limits.as_ref());
    let Some(limit) = limits.and_then(|limits| limits.get("memory")) else { return Ok(None) };
    let bytes = crate::quantity::bytes(limit);
    bytes
        .map(Some)
        .ok_or_else(|| format!("resources.limits.memory: \"{}\" is not a quantity", limit.0))
}
