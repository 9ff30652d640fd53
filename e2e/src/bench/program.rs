//! Programs of any size that do nothing but to say one line and wait.
//!
//! What makes one large is what makes real ones large: functions, all of them in a table as those of a program with
//! dynamic calls are, and initialised data. It runs none of that code and touches none of that data but once: what is
//! measured is what size costs, not what a program does.

use std::borrow::Cow;
use std::fs;
use std::path::Path;

use anyhow::Result;
use wasm_encoder::{
    BlockType, CodeSection, ConstExpr, DataSection, ElementSection, Elements, EntityType,
    ExportKind, ExportSection, Function, FunctionSection, ImportSection, InstructionSink, MemArg,
    MemArgTarget, MemorySection, MemoryType, Module, RefType, TableSection, TableType, TypeSection,
    ValType,
};

use super::compiler::compile;
use super::container::Guest;

/// A program to measure with.
pub(super) struct Sized {
    /// What it is called in tables.
    pub(super) name: String,
    pub(super) guest: Guest,
}

/// The sizes: functions, and bytes of data.
const SMALL: (u32, u32) = (0, 0);
const MIDDLE: (u32, u32) = (2_800, 1 << 20);
const LARGE: (u32, u32) = (28_000, 10 << 20);

const PAGE: u32 = 64 << 10;
/// The functions that are imported.
const IMPORTS: u32 = 2;
/// The first page is the program's own, the data begin after it.
const DATA: u32 = PAGE;

// What lies in the first page: WASI 0.1's `ciovec`, `subscription` and room for what calls give back.
const VECTOR: u32 = 0;
const LINE: (u32, &[u8]) = (16, b"ready\n");
const SUBSCRIPTION: u32 = 64;
const EVENT: u32 = 128;
const GIVEN: u32 = 192;

/// The three of them, compiled into `folder`: 0.2 kB, 3 MB, 30 MB.
pub(super) fn all(folder: &Path) -> Result<[Sized; 3]> {
    Ok([
        sized(folder, "small", SMALL)?,
        sized(folder, "middle", MIDDLE)?,
        sized(folder, "large", LARGE)?,
    ])
}

fn sized(folder: &Path, name: &str, (functions, data): (u32, u32)) -> Result<Sized> {
    let wasm = folder.join(name).with_extension("wasm");
    let bytes = module(functions, data);
    fs::write(&wasm, &bytes)?;
    let guest = Guest {
        program: compile(&wasm, folder)?,
        args: vec![name.into()],
        mounts: vec![],
        http: None,
    };
    Ok(Sized { name: size(bytes.len()), guest })
}

fn size(bytes: usize) -> String {
    match bytes {
        0..10_000 => format!("{}.{} kB", bytes / 1000, bytes % 1000 / 100),
        _ => format!("{}.{} MB", bytes / 1_000_000, bytes % 1_000_000 / 100_000),
    }
}

/// The module.
fn module(functions: u32, data: u32) -> Vec<u8> {
    let mut module = Module::new();
    module.section(&types()).section(&imports());
    let mut declared = FunctionSection::new();
    declared.function(1);
    (0..functions).for_each(|_| {
        declared.function(2);
    });
    module.section(&declared);
    if functions > 0 {
        module.section(&table(functions));
    }
    let mut memories = MemorySection::new();
    memories.memory(MemoryType {
        minimum: u64::from((DATA + data).div_ceil(PAGE)),
        maximum: None,
        memory64: false,
        shared: false,
        page_size_log2: None,
    });
    let mut exports = ExportSection::new();
    exports.export("memory", ExportKind::Memory, 0).export("_start", ExportKind::Func, IMPORTS);
    module.section(&memories).section(&exports);
    if functions > 0 {
        module.section(&entries(functions));
    }
    module.section(&code(functions)).section(&contents(data));
    module.finish()
}

fn types() -> TypeSection {
    let i32s = |count| std::iter::repeat_n(ValType::I32, count);
    let mut types = TypeSection::new();
    types.ty().function(i32s(4), i32s(1));
    types.ty().function(i32s(0), i32s(0));
    types.ty().function(i32s(2), i32s(1));
    types
}

fn imports() -> ImportSection {
    let mut imports = ImportSection::new();
    for name in ["fd_write", "poll_oneoff"] {
        imports.import("wasi_snapshot_preview1", name, EntityType::Function(0));
    }
    imports
}

fn table(functions: u32) -> TableSection {
    let mut tables = TableSection::new();
    tables.table(TableType {
        element_type: RefType::FUNCREF,
        table64: false,
        minimum: u64::from(functions),
        maximum: Some(u64::from(functions)),
        shared: false,
    });
    tables
}

fn entries(functions: u32) -> ElementSection {
    let all: Vec<u32> = (IMPORTS + 1..=IMPORTS + functions).collect();
    let mut elements = ElementSection::new();
    elements.active(Some(0), &ConstExpr::i32_const(0), Elements::Functions(Cow::Owned(all)));
    elements
}

fn code(functions: u32) -> CodeSection {
    let mut code = CodeSection::new();
    code.function(&start(functions));
    for number in 0..functions {
        code.function(&filler(number));
    }
    code
}

/// Says the line, and waits for a day.
fn start(functions: u32) -> Function {
    let address = |value: u32| value.cast_signed();
    let mut function = Function::new([]);
    let mut code = function.instructions();
    if functions > 0 {
        code.i32_const(1).i32_const(2).call(IMPORTS + 1).drop();
    }
    code.i32_const(1).i32_const(address(VECTOR)).i32_const(1).i32_const(address(GIVEN));
    code.call(0).drop();
    code.i32_const(address(SUBSCRIPTION)).i32_const(address(EVENT)).i32_const(1);
    code.i32_const(address(GIVEN)).call(1).drop().end();
    function
}

/// About 700 bytes of arithmetic, branches and memory, unlike that of any other.
fn filler(number: u32) -> Function {
    const ROUNDS: u32 = 14;
    let mut function = Function::new([]);
    let mut code = function.instructions();
    for round in 0..ROUNDS {
        step(&mut code, number.wrapping_mul(ROUNDS).wrapping_add(round));
    }
    code.local_get(0).local_get(1).i32_xor().end();
    function
}

fn step(code: &mut InstructionSink<'_>, seed: u32) {
    let word = MemArg { offset: 0, align: 2, target: MemArgTarget::Memory(0), ordering: None };
    let mixed = seed.wrapping_mul(0x9e37_79b9) | 0x4000_0000;
    code.local_get(0).i32_const(mixed.cast_signed()).i32_mul().local_get(1).i32_add().local_set(0);
    code.local_get(0).i32_const(1).i32_and().if_(BlockType::Empty);
    code.local_get(0).i32_const(0xfff0).i32_and().i32_load(word);
    code.local_get(1).i32_xor().local_set(1);
    code.else_();
    code.local_get(1).i32_const((mixed >> 3).cast_signed()).i32_rotl().local_set(1).end();
}

/// The first page, and data that are no zeros.
fn contents(size: u32) -> DataSection {
    let mut vector = LINE.0.to_le_bytes().to_vec();
    vector.extend(6_u32.to_le_bytes());
    // `subscription`: a clock (tag 0 at 8), the monotonic one (1 at 16), nanoseconds (at 24), any precision.
    let mut subscription = vec![0; 48];
    let day: u64 = 24 * 3600 * 1_000_000_000;
    subscription.splice(16..20, 1_u32.to_le_bytes());
    subscription.splice(24..32, day.to_le_bytes());
    let mut data = DataSection::new();
    let at = |address: u32| ConstExpr::i32_const(address.cast_signed());
    data.active(0, &at(VECTOR), vector);
    data.active(0, &at(LINE.0), LINE.1.to_vec());
    data.active(0, &at(SUBSCRIPTION), subscription);
    if size > 0 {
        data.active(0, &at(DATA), (0..size).map(|n| n.wrapping_mul(0x9e37_79b9).to_be_bytes()[0]));
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_are_as_large_as_their_names() {
        let near = |(functions, data), bytes: f64| {
            let length = module(functions, data).len() as f64;
            assert!((length / bytes - 1.0).abs() < 0.15, "{length}");
        };
        near(MIDDLE, 3e6);
        near(LARGE, 30e6);
        assert!(module(0, 0).len() < 400);
    }
}
