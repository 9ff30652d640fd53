use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// The words that make a call one of these.
pub(crate) const COMMANDS: [&str; 7] = ["run", "ps", "logs", "stop", "rm", "image", AGENT];
/// The agent in the background: started by the others.
pub(crate) const AGENT: &str = "local-agent";

/// Runs Pods on this machine, without a cluster, and looks after its images.
#[derive(Debug, Parser)]
#[command(name = "nodule", version)]
pub(crate) struct Local {
    #[command(flatten)]
    pub(crate) places: Places,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Where pods are kept. Each place has an agent and pods of its own.
#[derive(Debug, Clone, Args)]
pub(crate) struct Places {
    /// Where images, pods and logs are kept. [default: ~/.local/state/nodule, or /var/lib/nodule/local for root]
    #[arg(long, global = true, value_name = "DIRECTORY")]
    pub(crate) root_dir: Option<PathBuf>,

    /// Where sockets are. [default: $XDG_RUNTIME_DIR/nodule, or /run/nodule/local for root]
    #[arg(long, global = true, value_name = "DIRECTORY")]
    pub(crate) run_dir: Option<PathBuf>,

    /// A NoduleConfiguration, read when the agent in the background starts.
    /// [default: ~/.config/nodule/config.yaml, or /etc/nodule/config.yaml for root, if there is one]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs the Pods of manifests, shows their logs, and removes them when they have ended.
    ///
    /// A manifest may have ConfigMaps, Secrets and PersistentVolumeClaims beside Pods and Deployments. An image may be a
    /// Wasm file (./app.wasm) or a folder in the form of the OCI image layout (./images or ./images:TAG), relative to the
    /// manifest. The exit code is that of the first container that failed, 0 if none did.
    Run(Run),
    /// Lists the pods.
    Ps(Ps),
    /// Prints the logs of a pod's containers.
    Logs(Logs),
    /// Stops pods, within their grace periods. Their logs stay.
    Stop(Stop),
    /// Removes pods that have ended.
    Rm(Rm),
    /// Looks at and changes the images of this machine.
    Image(crate::image::Arguments),
    /// The agent in the background.
    #[command(hide = true, name = AGENT)]
    Agent,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Manifests; - is standard input.
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,

    /// Leave the pods running in the background.
    #[arg(short, long)]
    pub(crate) detach: bool,

    /// Remove pods of the same names first.
    #[arg(long)]
    pub(crate) replace: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Ps {
    /// The form of the list.
    #[arg(short, long, value_name = "FORM", value_enum, default_value_t = Form::Table)]
    pub(crate) output: Form,
}

/// The form of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Form {
    /// For people.
    Table,
    /// All that is known, for programs; of pods a PodList.
    Json,
    /// Names alone.
    Name,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// The pod's name, or NAMESPACE/NAME.
    pub(crate) pod: String,

    /// Only of this container.
    #[arg(short, long, value_name = "NAME")]
    pub(crate) container: Option<String>,

    /// Go on until the pod has ended.
    #[arg(short, long)]
    pub(crate) follow: bool,

    /// Of the run before the newest.
    #[arg(short, long, conflicts_with = "follow")]
    pub(crate) previous: bool,

    /// Begin each line with its time.
    #[arg(short, long)]
    pub(crate) timestamps: bool,

    /// The last so many lines.
    #[arg(long, value_name = "LINES")]
    pub(crate) tail: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct Stop {
    /// Pods, by name or NAMESPACE/NAME.
    #[arg(required_unless_present = "all", value_name = "POD")]
    pub(crate) pods: Vec<String>,

    /// All pods.
    #[arg(short, long, conflicts_with = "pods")]
    pub(crate) all: bool,

    /// Seconds until what still runs is killed, instead of the pod's own grace period.
    #[arg(short, long, value_name = "SECONDS")]
    pub(crate) time: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// Pods, by name or NAMESPACE/NAME.
    #[arg(required_unless_present = "all", value_name = "POD")]
    pub(crate) pods: Vec<String>,

    /// All pods.
    #[arg(short, long, conflicts_with = "pods")]
    pub(crate) all: bool,

    /// Stop those that run first.
    #[arg(short, long)]
    pub(crate) force: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_commands_are_consistent_and_all_known() {
        let program = Local::command();
        program.clone().debug_assert();
        let names: Vec<_> = program.get_subcommands().map(clap::Command::get_name).collect();
        assert_eq!(names, COMMANDS);
    }
}
