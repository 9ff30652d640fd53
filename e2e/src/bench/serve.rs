//! How fast an HTTP program answers, beside `wasmtime serve`.
//!
//! All servers run at once and are asked in turns, by the same clients: who is not asked does nothing. The processor time of
//! a server's process says more than its answers per second where others take the processors, too.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nodule_sandbox_proto::{Http, Kind};
use tokio::task::yield_now;

use super::compiler::compile_as;
use super::container::{Guest, Running, Sandboxes, Way};
use super::load::{CLIENTS, Load, ask};
use super::stats::median;
use super::table::Table;
use crate::paths;

/// How often each is asked, and for how long.
const ROUNDS: usize = 9;
const ROUND: Duration = Duration::from_secs(1);
/// How many requests an instance answers where instances are used again: what `wasmtime serve` gives those of WASI 0.3.
const REUSE: u32 = 128;
/// Ticks of a process's times a second (`sysconf(_SC_CLK_TCK)`: Linux shows 100 to every program).
const TICKS: f64 = 100.0;
/// Has `wasmtime` compile checks of an epoch, and never reach its end.
const EPOCHS: [&str; 2] = ["-W", "timeout=86400s"];

/// A server, and what was seen of it.
struct Server {
    name: String,
    address: SocketAddr,
    pid: u32,
    rounds: Vec<Round>,
    _process: Process,
}

/// Dropped, it ends.
enum Process {
    Sandbox { _process: Running },
    Peer(Child),
}

/// Answers per second, and microseconds of the server for each.
struct Round {
    rate: f64,
    cost: f64,
}

/// Measures, and makes a table.
pub(super) async fn measure(sandboxes: &Sandboxes) -> Result<Table> {
    let mut servers = servers(sandboxes)?;
    for _ in 0..ROUNDS {
        for server in &mut servers {
            yield_now().await;
            server.ask()?;
        }
    }
    let title = format!(
        "HTTP, {CLIENTS} connections, medians of {ROUNDS} rounds in turns (targets: of `wasmtime serve` at least 2 \
         with new instances, 1.2 with used ones)"
    );
    let head = ["", "answers/s", "CPU µs/answer", "of serve's answers/s", "of serve's CPU"];
    let mut table = Table::new(&title, &head);
    for server in &servers {
        // The new instances of `wasmtime serve` are asked third, the used ones fourth, if it is there.
        let peer = servers.get(if server.name.contains("used") { 3 } else { 2 });
        table.row(server.row(peer));
    }
    Ok(table)
}

fn servers(sandboxes: &Sandboxes) -> Result<Vec<Server>> {
    let wasm = paths::guest("web.p2.wasm")?;
    let program = compile_as(&wasm, sandboxes.folder(), Kind::Proxy)?;
    let guest = |reuse| {
        let mut http = Http::new(([127, 0, 0, 1], 0).into());
        http.instance_reuse = reuse;
        Guest { program: program.clone(), args: Vec::new(), mounts: Vec::new(), http: Some(http) }
    };
    let mut servers = vec![
        Server::sandbox("sandbox, new", sandboxes, &guest(1))?,
        Server::sandbox("sandbox, used 128 times", sandboxes, &guest(REUSE))?,
    ];
    if let Some(wasmtime) = paths::set("NODULE_WASMTIME") {
        let peer = Peer { wasmtime, wasm };
        let reuse = format!("--max-instance-reuse-count={REUSE}");
        let [epochs, end] = EPOCHS;
        servers.push(peer.serve("wasmtime serve, new", &[])?);
        servers.push(peer.serve("wasmtime serve, used 128 times", &[&reuse])?);
        servers.push(peer.serve("wasmtime serve, new, epochs", &[epochs, end])?);
        servers.push(peer.serve("wasmtime serve, used, epochs", &[epochs, end, &reuse])?);
    }
    Ok(servers)
}

impl Server {
    fn sandbox(name: &str, sandboxes: &Sandboxes, guest: &Guest) -> Result<Self> {
        let mut running = sandboxes.start(guest, Way::Fork)?;
        let address = running.attend()?.served.context("the container serves nothing")?;
        let (name, pid) = (name.to_owned(), running.pid);
        Ok(Self {
            name,
            address,
            pid,
            rounds: vec![],
            _process: Process::Sandbox { _process: running },
        })
    }

    fn ask(&mut self) -> Result<()> {
        let before = cpu(self.pid)?;
        let Load { requests, seconds } =
            ask(self.address, ROUND).with_context(|| format!("ask {}", self.name))?;
        let used = cpu(self.pid)? - before;
        self.rounds.push(Round { rate: requests / seconds, cost: used * 1e6 / requests });
        Ok(())
    }

    /// A row of the table.
    fn row(&self, peer: Option<&Self>) -> Vec<String> {
        let of = |part: fn(&Round) -> f64| {
            let mine = self.rounds.iter().map(part);
            let ratio = |peer: &Self| {
                let pairs = self.rounds.iter().zip(&peer.rounds);
                median(&mut pairs.map(|(mine, its)| part(mine) / part(its)).collect::<Vec<_>>())
            };
            (median(&mut mine.collect::<Vec<_>>()), peer.map_or(f64::NAN, ratio))
        };
        let ((rate, faster), (cost, dearer)) = (of(|round| round.rate), of(|round| round.cost));
        vec![
            self.name.clone(),
            format!("{rate:.0}"),
            format!("{cost:.0}"),
            format!("{faster:.2}"),
            format!("{dearer:.2}"),
        ]
    }
}

/// `wasmtime serve`.
struct Peer {
    wasmtime: PathBuf,
    wasm: PathBuf,
}

impl Peer {
    /// With these options. It compiles the program itself before it serves.
    fn serve(&self, name: &str, options: &[&str]) -> Result<Server> {
        let mut command = Command::new(&self.wasmtime);
        command.args(["serve", "--addr=127.0.0.1:0", "-Scli"]).args(options).arg(&self.wasm);
        command.stdin(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().context("start wasmtime serve")?;
        let errors = child.stderr.take();
        let (name, pid, process) = (name.to_owned(), child.id(), Process::Peer(child));
        let address = said(BufReader::new(errors.context("its standard error")?))?;
        Ok(Server { name, address, pid, rounds: vec![], _process: process })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Self::Peer(child) = self {
            let _killed = child.kill();
            let _ended = child.wait();
        }
    }
}

/// Where it says that it serves: `Serving HTTP on http://ADDRESS/`.
fn said(mut errors: impl BufRead) -> Result<SocketAddr> {
    let mut all = String::new();
    while errors.read_line(&mut all)? > 0 {
        if let Some((_, address)) = all.split_once("http://") {
            return address.trim().trim_end_matches('/').parse().context("its address");
        }
    }
    anyhow::bail!("wasmtime serve says: {all}")
}

/// The processor time of a process in seconds: `utime` and `stime` (proc_pid_stat(5)).
pub(super) fn cpu(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("a server has ended")?;
    let (_, fields) = stat.rsplit_once(')').context("a line of /proc")?;
    let fields: Vec<f64> = fields
        .split_ascii_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse().ok())
        .collect();
    ensure!(fields.len() == 2, "a line of /proc: {stat}");
    Ok(fields.iter().sum::<f64>() / TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_used_some_time_and_none_that_is_not_there() {
        assert!(cpu(std::process::id()).unwrap() >= 0.0);
        assert!(cpu(u32::MAX).is_err());
    }

    #[test]
    fn the_address_is_read_from_what_the_server_says() {
        let text = "warning: x\nServing HTTP on http://127.0.0.1:8080/\n";
        assert_eq!(said(text.as_bytes()).unwrap(), ([127, 0, 0, 1], 8080).into());
        assert!(said(&b"no port\n"[..]).is_err());
    }
}
