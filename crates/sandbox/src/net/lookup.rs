//! How guests ask for names: `wasi:sockets/ip-name-lookup` of WASI 0.2 and 0.3, put in the place of the library's own,
//! which ask the C library.

use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::vec;

use wasmtime::component::{Linker, Resource, ResourceType};
use wasmtime::{Result, StoreContextMut};
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, IpAddress};
use wasmtime_wasi::p2::{DynPollable, Network, Pollable, subscribe};
use wasmtime_wasi::p3::bindings::sockets::{ip_name_lookup, types};
use wasmtime_wasi::runtime::{AbortOnDropJoinHandle, spawn};
use wasmtime_wasi::{WasiView, async_trait};

use super::resolver::LookupError;
use crate::guest::Host;

/// The interfaces, of the library's own versions: they take those ones' place only under the same names.
const P3: &str = "wasi:sockets/ip-name-lookup@0.3.0";
const P2: &str = "wasi:sockets/ip-name-lookup@0.2.12";

type Found = Result<vec::IntoIter<IpAddr>, LookupError>;

/// The guest's `resolve-address-stream`.
enum Addresses {
    /// On their way. Dropped, they are no longer wanted.
    Asked(AbortOnDropJoinHandle<Result<Vec<IpAddr>, LookupError>>),
    Answered(Found),
}

impl Addresses {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<&mut Found> {
        if let Self::Asked(task) = self {
            match Pin::new(task).poll(context) {
                Poll::Ready(found) => *self = Self::Answered(found.map(Vec::into_iter)),
                Poll::Pending => return Poll::Pending,
            }
        }
        match self {
            Self::Answered(found) => Poll::Ready(found),
            Self::Asked(_) => Poll::Pending,
        }
    }
}

#[async_trait]
impl Pollable for Addresses {
    async fn ready(&mut self) {
        poll_fn(|context| self.poll(context).map(|_| ())).await;
    }
}

/// Gives the interface of WASI 0.2 to components, in the place of the one that is there.
pub(crate) fn add_p2(linker: &mut Linker<Host>) -> Result<()> {
    linker.allow_shadowing(true);
    let mut interface = linker.instance(P2)?;
    let kind = ResourceType::host::<Addresses>();
    interface.resource("resolve-address-stream", kind, |mut store, stream| {
        let table = store.data_mut().ctx().table;
        table.delete(Resource::<Addresses>::new_own(stream))?;
        Ok(())
    })?;
    interface.func_wrap("resolve-addresses", resolve)?;
    interface.func_wrap("[method]resolve-address-stream.resolve-next-address", next)?;
    interface.func_wrap("[method]resolve-address-stream.subscribe", ready)?;
    linker.allow_shadowing(false);
    Ok(())
}

fn resolve(
    mut store: StoreContextMut<'_, Host>,
    (network, name): (Resource<Network>, String),
) -> Result<(Result<Resource<Addresses>, ErrorCode>,)> {
    let host = store.data_mut();
    let own = Arc::clone(&host.network);
    let table = host.ctx().table;
    // The resource is the guest's right to ask.
    table.get(&network)?;
    let task = spawn(async move { own.resolver.lookup(&name).await });
    Ok((Ok(table.push(Addresses::Asked(task))?),))
}

fn next(
    mut store: StoreContextMut<'_, Host>,
    (stream,): (Resource<Addresses>,),
) -> Result<(Result<Option<IpAddress>, ErrorCode>,)> {
    let stream = store.data_mut().ctx().table.get_mut(&stream)?;
    let next = match stream.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Pending => Err(ErrorCode::WouldBlock),
        Poll::Ready(Ok(addresses)) => Ok(addresses.next().map(IpAddress::from)),
        Poll::Ready(Err(error)) => Err(code(*error)),
    };
    Ok((next,))
}

fn ready(
    mut store: StoreContextMut<'_, Host>,
    (stream,): (Resource<Addresses>,),
) -> Result<(Resource<DynPollable>,)> {
    Ok((subscribe(store.data_mut().ctx().table, stream)?,))
}

/// Gives the interface of WASI 0.3 to components, in the place of the one that is there.
pub(crate) fn add_p3(linker: &mut Linker<Host>) -> Result<()> {
    linker.allow_shadowing(true);
    let mut interface = linker.instance(P3)?;
    interface.func_wrap_concurrent("resolve-addresses", |store, (name,): (String,)| {
        let network = store.with(|mut store| Arc::clone(&store.get().network));
        Box::pin(async move { Ok((concurrent(&network, &name).await,)) })
    })?;
    linker.allow_shadowing(false);
    Ok(())
}

async fn concurrent(
    network: &super::Network,
    name: &str,
) -> Result<Vec<types::IpAddress>, ip_name_lookup::ErrorCode> {
    use ip_name_lookup::ErrorCode;
    let found = network.resolver.lookup(name).await;
    found.map(|addresses| addresses.into_iter().map(Into::into).collect()).map_err(|error| {
        match error {
            LookupError::Invalid => ErrorCode::InvalidArgument,
            LookupError::Unknown => ErrorCode::NameUnresolvable,
            LookupError::Temporary => ErrorCode::TemporaryResolverFailure,
            LookupError::NoServer => ErrorCode::PermanentResolverFailure,
        }
    })
}

fn code(error: LookupError) -> ErrorCode {
    match error {
        LookupError::Invalid => ErrorCode::InvalidArgument,
        LookupError::Unknown => ErrorCode::NameUnresolvable,
        LookupError::Temporary => ErrorCode::TemporaryResolverFailure,
        LookupError::NoServer => ErrorCode::PermanentResolverFailure,
    }
}
