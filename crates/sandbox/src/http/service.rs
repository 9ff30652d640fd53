//! A program that answers requests, and where it does.

use nodule_sandbox_proto::{Http, Program};
use wasmtime::component::Component;
use wasmtime::{Engine, Result};
use wasmtime_wasi_http::handler::ProxyPre;
use wasmtime_wasi_http::{p2, p3};

use super::engine;
use super::listener::Listener;
use crate::error::StartError;
use crate::guest::Host;
use crate::linker;

/// A program that lacks nothing but requests.
pub(crate) struct Service {
    pub(super) pre: ProxyPre<Host>,
    pub(super) http: Http,
    pub(super) listener: Listener,
}

impl Service {
    /// Maps the program, finds what it imports, and binds its address: while the process may bind any, and open files.
    pub(crate) fn open(program: &Program, http: &Http) -> Result<Self, StartError> {
        let component = engine::load(program, http)?;
        let pre = link(&component).map_err(StartError::Link)?;
        Ok(Self { pre, http: http.clone(), listener: Listener::bind(http.address)? })
    }
}

/// Finds everything that the program imports. By which version of WASI it is asked, its exports say.
fn link(component: &Component) -> Result<ProxyPre<Host>> {
    let linked = linker::components(component.engine())?.instantiate_pre(component)?;
    let old = format!("{}@", nodule_engine::imports::HTTP_INCOMING_HANDLER);
    let ty = component.component_type();
    let mut exports = ty.exports(component.engine());
    if exports.any(|(name, _)| name.starts_with(&old)) {
        p2::bindings::ProxyPre::new(linked).map(ProxyPre::P2)
    } else {
        p3::bindings::ServicePre::new(linked).map(ProxyPre::P3)
    }
}

/// What the program is run with.
pub(super) fn engine(pre: &ProxyPre<Host>) -> &Engine {
    match pre {
        ProxyPre::P2(pre) => pre.engine(),
        ProxyPre::P3(pre) => pre.engine(),
    }
}
