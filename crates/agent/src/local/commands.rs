//! The commands.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use nodule_logs::Query;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::attach::Attached;
use super::cli::{Command, Form, Local, Logs, Ps, Rm, Run, Stop};
use super::client::Client;
use super::logs::{self, Progress};
use super::place::Place;
use super::pods::{self, find, statuses};
use super::table::table;
use super::{agent, login, manifest};
use crate::lock::Held;
use crate::terminal::say;

/// The exit code of an agent that finds another in its place: that one is asked.
pub(crate) const HELD: u8 = 75;

/// Runs one of the commands.
pub(crate) async fn main(local: Local) -> Result<ExitCode> {
    let place = Place::new(&local.places)?;
    if let Command::Agent = local.command {
        return match agent::run(&place).await {
            Err(error) if error.is::<Held>() => Ok(ExitCode::from(HELD)),
            ended => ended.map(|()| ExitCode::SUCCESS),
        };
    }
    if let Command::Image(image) = local.command {
        return crate::image::main(&local.places, image).await;
    }
    let client = Client::new(place)?;
    match local.command {
        Command::Run(run) => return self::run(&client, run).await,
        Command::Ps(ps) => self::ps(&client, &ps).await?,
        Command::Logs(logs) => self::logs(&client, &logs).await?,
        Command::Stop(stop) => self::stop(&client, &stop).await?,
        Command::Rm(rm) => self::rm(&client, &rm).await?,
        Command::Image(_) | Command::Agent => {}
    }
    Ok(ExitCode::SUCCESS)
}

async fn run(client: &Client, run: Run) -> Result<ExitCode> {
    let volumes = client.place().volumes();
    let manifest::Wanted { pods, mut logins } = manifest::wanted(&run.files, &volumes)?;
    logins.extend(login::of_user(&pods).await?);
    let begun = client.run(pods, logins, run.replace).await?;
    if run.detach {
        let names: Vec<_> = begun.iter().map(|pod| pods::name(pod).to_owned()).collect();
        say(&format!("{}\n", names.join("\n")))?;
        return Ok(ExitCode::SUCCESS);
    }
    Attached::new(client, begun).run().await.map(ExitCode::from)
}

async fn ps(client: &Client, ps: &Ps) -> Result<()> {
    let mut all = client.list().await?;
    all.sort_by_key(|pod| (pods::namespace(pod).to_owned(), pods::name(pod).to_owned()));
    match ps.output {
        Form::Table => say(&table(&all, Timestamp::now())),
        Form::Name => {
            say(&all.iter().fold(String::new(), |text, pod| text + pods::name(pod) + "\n"))
        }
        Form::Json => {
            let list = json!({"apiVersion": "v1", "kind": "PodList", "items": all});
            say(&format!("{list:#}\n"))
        }
    }
}

async fn logs(client: &Client, asked: &Logs) -> Result<()> {
    let all = client.list().await?;
    let pod = find(&all, &asked.pod)?.clone();
    let known: Vec<String> = statuses(&pod).iter().map(|status| status.name.clone()).collect();
    let wanted = match &asked.container {
        Some(container) => {
            let name = pods::name(&pod);
            ensure!(
                known.contains(container),
                "pod \"{name}\" has no container \"{container}\", but {}",
                known.join(", ")
            );
            vec![container.clone()]
        }
        None => known,
    };
    let uids = [pods::uid(&pod).to_owned()];
    let (sender, progress) = watch::channel(Progress::of(&all, &uids));
    let mut readers = JoinSet::new();
    for container in wanted {
        readers.spawn(print(
            client.place().logs(),
            pod.clone(),
            container,
            query(asked),
            asked.previous,
            progress.clone(),
        ));
    }
    if !asked.follow {
        return finished(&mut readers).await;
    }
    let told = client.until(|all| {
        sender.send_replace(Progress::of(all, &uids));
        !all.iter().any(|other| pods::uid(other) == pods::uid(&pod) && !pods::has_ended(other))
    });
    tokio::select! {
        told = told => told?,
        shown = finished(&mut readers) => return shown,
    }
    finished(&mut readers).await
}

async fn finished(readers: &mut JoinSet<Result<()>>) -> Result<()> {
    while let Some(read) = readers.join_next().await {
        read.context("read a log")??;
    }
    Ok(())
}

fn query(asked: &Logs) -> Query {
    Query {
        follow: asked.follow,
        timestamps: asked.timestamps,
        tail_lines: asked.tail,
        ..Query::default()
    }
}

/// Prints a container's newest run, or the one before; followed, also those that come.
async fn print(
    logs: std::path::PathBuf,
    pod: Pod,
    container: String,
    query: Query,
    previous: bool,
    progress: watch::Receiver<Progress>,
) -> Result<()> {
    let newest = statuses(&pod)
        .into_iter()
        .find(|status| status.name == container)
        .and_then(pods::newest_run);
    let path = |run| logs::path(&logs, &pod, &container, run);
    let show = |text: &[u8]| io::stdout().write_all(text).context("print a log");
    let key = (pods::uid(&pod).to_owned(), container.clone());
    if query.follow {
        return logs::follow(path, &key, newest.unwrap_or(0), &query, progress, show).await;
    }
    let run = if previous { newest.and_then(|run| run.checked_sub(1)) } else { newest };
    let Some(run) = run else {
        ensure!(!previous, "container \"{container}\" has no earlier run");
        return Ok(());
    };
    let mut text = std::pin::pin!(nodule_logs::read(path(run), query, watch::channel(true).1));
    while let Some(piece) = futures::StreamExt::next(&mut text).await {
        show(&piece.context("read a log")?)?;
    }
    Ok(())
}

/// The UIDs of pods that are named.
fn named(all: &[Pod], names: &[String], every: bool) -> Result<Vec<String>> {
    if every {
        return Ok(all.iter().map(|pod| pods::uid(pod).to_owned()).collect());
    }
    names.iter().map(|name| find(all, name).map(|pod| pods::uid(pod).to_owned())).collect()
}

async fn stop(client: &Client, stop: &Stop) -> Result<()> {
    let all = client.list().await?;
    let uids = named(&all, &stop.pods, stop.all)?;
    client.stop(uids.clone(), stop.time).await?;
    let ended = |pod: &Pod| !uids.iter().any(|uid| uid == pods::uid(pod)) || pods::has_ended(pod);
    client.until(|all| all.iter().all(ended)).await
}

async fn rm(client: &Client, rm: &Rm) -> Result<()> {
    let all = client.list().await?;
    let uids = named(&all, &rm.pods, rm.all)?;
    let runs = |pod: &&Pod| uids.iter().any(|uid| uid == pods::uid(pod)) && !pods::has_ended(pod);
    if let Some(pod) = all.iter().find(runs).filter(|_| !rm.force) {
        let name = pods::name(pod);
        anyhow::bail!(
            "pod \"{name}\" has not ended: stop it with nodule stop {name}, or use --force"
        );
    }
    client.remove(uids.clone(), None).await?;
    client.until(|all| !all.iter().any(|pod| uids.iter().any(|uid| uid == pods::uid(pod)))).await
}
