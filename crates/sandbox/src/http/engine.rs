//! The engine of programs that answer requests, with a pool of instances where there is room for one.

use nodule_sandbox_proto::{Http, Program};
use wasmtime::component::Component;
use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Result,
};

use crate::error::StartError;
use crate::process::diagnose;

/// What one instance may have in the pool. A component that has more of anything is served without a pool: that is slower
/// and otherwise the same.
const MEMORIES: u32 = 2;
const TABLES: u32 = 4;
const TABLE_ELEMENTS: usize = 1 << 16;
const CORE_INSTANCES: u32 = 16;
const INSTANCE_SIZE: usize = 4 << 20;

/// Maps `program`, on an engine for it.
pub(super) fn load(program: &Program, http: &Http) -> Result<Component, StartError> {
    let failed = |source| StartError::Load(program.cwasm.clone(), source);
    // No room for the addresses (39 bits of them on some machines, or a limit) is known when the engine is made.
    if let Ok(engine) = Engine::new(&pooled(http.concurrency))
        && let Ok(component) = map(&engine, program)
        && fits(&component)
    {
        return Ok(component);
    }
    let engine = Engine::new(&nodule_engine::proxy_config()).map_err(StartError::Engine)?;
    let component = map(&engine, program).map_err(failed)?;
    diagnose("instances are made without a pool: there is no room for one of this program's");
    Ok(component)
}

#[expect(unsafe_code, reason = "native code is run: that is what this process is for")]
fn map(engine: &Engine, program: &Program) -> Result<Component> {
    // SAFETY: as for `Loaded::load`: the file is this node's own nodule-compile's, and only the agent can name or write it.
    unsafe { Component::deserialize_file(engine, &program.cwasm) }
}

/// A component that imports a module says nothing of what it needs, and is not pooled.
fn fits(component: &Component) -> bool {
    component.resources_required().is_some_and(|needs| {
        needs.num_memories <= MEMORIES
            && needs.num_tables <= TABLES
            && needs.max_initial_table_size.unwrap_or(0) <= TABLE_ELEMENTS as u64
    })
}

/// How much of what an instance has written stays in memory for the next one, reset, in bytes of each of its memories: giving
/// it back to the kernel and taking it again is most of what a new instance costs. It is never more than the instances had
/// that were there at once.
const KEPT: usize = 512 << 10;
/// The same of its tables and of the stack that it is called on.
const KEPT_TABLE: usize = 64 << 10;
const KEPT_STACK: usize = 64 << 10;

/// A pool costs addresses and a little memory until it is used.
fn pooled(instances: u32) -> Config {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_core_instances(instances.saturating_mul(CORE_INSTANCES))
        .max_core_instances_per_component(CORE_INSTANCES)
        .max_component_instance_size(INSTANCE_SIZE)
        .max_core_instance_size(INSTANCE_SIZE)
        .total_memories(instances.saturating_mul(MEMORIES))
        .max_memories_per_component(MEMORIES)
        .total_tables(instances.saturating_mul(TABLES))
        .max_tables_per_component(TABLES)
        .max_tables_per_module(TABLES)
        .table_elements(TABLE_ELEMENTS)
        // The slots that were used last are used first: as many are ever touched as there were instances at once.
        .max_unused_warm_slots(0)
        // The kernel knows which pages were written (since 6.7): only those are reset.
        .pagemap_scan(Enabled::Auto)
        .linear_memory_keep_resident(KEPT)
        .table_keep_resident(KEPT_TABLE)
        .async_stack_keep_resident(KEPT_STACK)
        // One for the instance, one for a call into it.
        .total_stacks(instances.saturating_mul(2));
    let mut config = nodule_engine::proxy_config();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    config
}
