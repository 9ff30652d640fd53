//! What a guest may import. `nodule-engine`'s lists say the same to the compiler.

use nodule_engine::imports::WASI_P1;
use wasmtime::component;
use wasmtime::{Engine, Linker, Result};
use wasmtime_wasi::{I32Exit, p1, p2, p3};
use wasmtime_wasi_config::WasiConfig;
use wasmtime_wasi_http as http;

use crate::guest::Host;
use crate::net::lookup;

/// The functions of WASI 0.1, for modules.
pub(crate) fn modules(engine: &Engine) -> Result<Linker<Host>> {
    let mut linker = Linker::new(engine);
    p1::add_to_linker_async(&mut linker, |host: &mut Host| &mut host.wasi)?;
    // The library knows no exit code above 125; a native program's goes to 255, and Kubernetes shows it.
    linker.allow_shadowing(true);
    linker
        .func_wrap(WASI_P1, "proc_exit", |code: i32| -> Result<()> { Err(I32Exit(code).into()) })?;
    linker.allow_shadowing(false);
    Ok(linker)
}

/// The interfaces of WASI 0.2 and 0.3, and what else there is for components.
pub(crate) fn components(engine: &Engine) -> Result<component::Linker<Host>> {
    let mut linker = component::Linker::new(engine);
    p2::add_to_linker_async(&mut linker)?;
    p3::add_to_linker(&mut linker)?;
    lookup::add_p2(&mut linker)?;
    lookup::add_p3(&mut linker)?;
    wasmtime_wasi_config::add_to_linker(&mut linker, |host| WasiConfig::from(&*host.config))?;
    http::p2::add_only_http_to_linker_async(&mut linker)?;
    http::p3::add_to_linker(&mut linker)?;
    Ok(linker)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use nodule_engine::imports::{
        WASI_CONFIG, WASI_HTTP_P2_INTERFACES, WASI_P1_FUNCTIONS, WASI_P2_INTERFACES,
        WASI_P3_INTERFACES,
    };
    use nodule_sandbox_proto::Net;
    use wasmtime::{Extern, Func, FuncType, Store, ValType};
    use wasmtime_wasi::WasiCtxBuilder;

    use super::*;
    use crate::http::client::Client;
    use crate::memory::{Budget, Memory};
    use crate::net::Network;
    use crate::output::Log;

    fn letters(types: impl Iterator<Item = ValType>) -> String {
        types.map(|value| if matches!(value, ValType::I64) { 'I' } else { 'i' }).collect()
    }

    fn signature(function: &FuncType) -> String {
        format!("{}:{}", letters(function.params()), letters(function.results()))
    }

    /// Interfaces that are types alone, for which there is nothing to provide.
    const TYPES: &[&str] = &["wasi:cli/types", "wasi:clocks/types"];

    /// Whether something of this name is there: a name is defined once.
    fn taken(linker: &mut component::Linker<Host>, name: &str) -> bool {
        let kind = component::ResourceType::host::<()>();
        linker.root().resource(name, kind, |_, _| Ok(())).is_err()
    }

    #[test]
    fn what_the_compiler_lets_components_import_is_there() {
        let engine = Engine::new(&nodule_engine::config()).unwrap();
        let mut linker = components(&engine).unwrap();
        let p2 = WASI_P2_INTERFACES.iter().chain(WASI_HTTP_P2_INTERFACES);
        let p2 = p2.map(|interface| format!("{interface}@0.2.12"));
        let p3 = WASI_P3_INTERFACES.iter().filter(|interface| !TYPES.contains(interface));
        let p3 = p3.map(|interface| format!("{interface}@0.3.0"));
        for name in p2.chain(p3).chain([WASI_CONFIG.to_owned()]) {
            assert!(taken(&mut linker, &name), "{name} is not defined");
        }
        assert!(!taken(&mut linker, "wasi:http/none@0.2.0"));
    }

    #[test]
    fn the_compiler_knows_what_modules_may_import() {
        let engine = Engine::new(&nodule_engine::config()).unwrap();
        let memory = Memory::new(&Budget::new(None));
        let folder = tempfile::tempdir().unwrap();
        let log = nodule_sandbox_proto::Log {
            path: folder.path().join("0.log"),
            max_size: 1 << 20,
            max_files: 2,
        };
        let network = Network::new(&Net::default());
        let log = Log::open(&log, folder.path()).unwrap().0;
        let client = Client::new(Vec::new(), Arc::clone(&network), log);
        let wasi = WasiCtxBuilder::new().build_p1();
        let host = Host::new(wasi, memory, network, Arc::default(), Arc::new(client));
        let mut store = Store::new(&engine, host);
        let linker = modules(&engine).unwrap();
        let provided: Vec<_> = linker.iter(&mut store).collect();
        let function = |external: Extern| -> Func { external.into_func().unwrap() };
        let mut provided: Vec<_> = provided
            .into_iter()
            .filter(|(module, ..)| *module == WASI_P1)
            .map(|(_, name, external)| (name.to_owned(), signature(&function(external).ty(&store))))
            .collect();
        provided.sort();
        let listed: Vec<_> =
            WASI_P1_FUNCTIONS.iter().map(|(name, ty)| ((*name).into(), (*ty).into())).collect();
        assert_eq!(provided, listed);
    }
}
