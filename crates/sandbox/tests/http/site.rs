//! A served program.

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::Duration;

use nodule_sandbox_proto::{Http, Program, Request};
use tokio::time::Instant;

use super::client::{Answer, Client};
use crate::guests::{web, web3};
use crate::setup::{Agent, Ended, Sandbox, Setup};

/// Nothing that is waited for takes so long; a test that hangs fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// How it is served, before it is.
pub(super) struct Plan {
    pub(super) setup: Setup,
    pub(super) http: Http,
}

/// A program that is served.
pub(super) struct Site {
    pub(super) sandbox: Sandbox,
    pub(super) agent: Agent,
    address: OnceLock<SocketAddr>,
}

impl Plan {
    pub(super) fn new(program: Program) -> Self {
        let setup = Setup::new(program, &[]);
        Self { setup, http: Http::new(([127, 0, 0, 1], 0).into()) }
    }

    pub(super) fn with(mut self, set: impl FnOnce(&mut Http)) -> Self {
        set(&mut self.http);
        self
    }

    pub(super) fn start(self) -> Site {
        let Self { mut setup, http } = self;
        setup.container.http = Some(http);
        let sandbox = setup.start();
        let mut agent = sandbox.connect();
        agent.greet();
        Site { sandbox, agent, address: OnceLock::new() }
    }
}

impl Plan {
    /// Started, and where it is served.
    pub(super) fn start_at(self) -> (Site, SocketAddr) {
        let mut site = self.start();
        let address = site.address();
        (site, address)
    }
}

/// The program of WASI 0.2.
pub(super) fn plan() -> Plan {
    Plan::new(web())
}

/// Both, for what must not differ between them.
pub(super) fn plans() -> [Plan; 2] {
    [plan(), Plan::new(web3())]
}

impl Site {
    /// Where it is served, once it is.
    pub(super) fn address(&mut self) -> SocketAddr {
        let agent = &mut self.agent;
        *self.address.get_or_init(|| agent.started().served.unwrap())
    }

    /// A new connection.
    pub(super) fn connect(&mut self) -> Client {
        Client::connect(self.address())
    }

    /// One request on a connection of its own.
    pub(super) fn get(&mut self, target: &str) -> Answer {
        let mut client = self.connect();
        client.get(target);
        client.answer()
    }

    /// Waits until there is a pass for a request.
    pub(super) fn serves(&mut self) {
        eventually(|| (self.get("/hello").body == "hello").then_some(()));
    }

    /// The stop notice.
    pub(super) fn stop(&mut self) {
        self.address();
        self.agent.say(&Request::Stop);
    }

    pub(super) fn wait(self) -> Ended {
        self.sandbox.wait()
    }

    /// Waits until the log has a line with all of `words`, and gives it.
    pub(super) fn told(&self, words: &[&str]) -> String {
        eventually(|| {
            let lines = self.sandbox.log();
            let found = lines.iter().find(|line| words.iter().all(|word| line.text.contains(word)));
            found.map(|line| line.text.clone())
        })
    }
}

/// Polls until there is something.
pub(super) fn eventually<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Some(found) = look() {
            return found;
        }
        std::thread::yield_now();
    }
    panic!("it never came to pass");
}
