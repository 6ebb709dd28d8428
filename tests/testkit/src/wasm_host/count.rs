//! A module that counts the instructions it executes.
//!
//! An interpreter's fuel doesn't tell: it is charged by whole blocks, whether a branch leaves them early or not, so that
//! entering a large function costs more than running a small one.

use walrus::ir::{BinaryOp, Instr, InstrLocId, InstrSeqId, Value, VisitorMut, dfs_pre_order_mut};
use walrus::{ConstExpr, FunctionKind, GlobalId, InstrSeqBuilder, LocalFunction, ValType};

/// The exported global that counts.
pub(super) const EXECUTED: &str = "executed_instructions";

/// The same module with a counter in front of every run of instructions that are executed together.
///
/// # Errors
/// Where the module can't be read.
pub(super) fn instrumented(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut module = walrus::Module::from_buffer(bytes).map_err(|error| format!("{error:#}"))?;
    let counter =
        module
            .globals
            .add_local(ValType::I64, true, false, ConstExpr::Value(Value::I64(0)));
    module.exports.add(EXECUTED, counter);
    for function in module.funcs.iter_mut() {
        if let FunctionKind::Local(function) = &mut function.kind {
            count(function, counter);
        }
    }
    Ok(module.emit_wasm())
}

/// The same module with a counter for each function, exported under [`BY_FUNCTION`] and the function's name.
///
/// # Errors
/// Where the module can't be read.
pub(super) fn instrumented_by_function(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut module = walrus::Module::from_buffer(bytes).map_err(|error| format!("{error:#}"))?;
    let functions: Vec<_> = module.funcs.iter_local().map(|(id, _)| id).collect();
    for (index, id) in functions.into_iter().enumerate() {
        let counter =
            module
                .globals
                .add_local(ValType::I64, true, false, ConstExpr::Value(Value::I64(0)));
        let function = module.funcs.get_mut(id);
        let name = function.name.clone().unwrap_or_default();
        if let FunctionKind::Local(function) = &mut function.kind {
            count(function, counter);
        }
        module
            .exports
            .add(&format!("{BY_FUNCTION}{index}:{name}"), counter);
    }
    Ok(module.emit_wasm())
}

/// What the exported counters' names begin with.
pub(super) const BY_FUNCTION: &str = "executed:";

fn count(function: &mut LocalFunction, counter: GlobalId) {
    struct Sequences(Vec<InstrSeqId>);
    impl VisitorMut for Sequences {
        fn start_instr_seq_mut(&mut self, sequence: &mut walrus::ir::InstrSeq) {
            self.0.push(sequence.id());
        }
    }
    let mut sequences = Sequences(Vec::new());
    let entry = function.entry_block();
    dfs_pre_order_mut(&mut sequences, function, entry);
    for id in sequences.0 {
        let old = std::mem::take(&mut function.block_mut(id).instrs);
        let mut builder = function.builder_mut().instr_seq(id);
        let mut run: Vec<(Instr, InstrLocId)> = Vec::new();
        for (instruction, place) in old {
            let ends = ends_run(&instruction);
            run.push((instruction, place));
            if ends {
                flush(&mut builder, &mut run, counter);
            }
        }
        flush(&mut builder, &mut run, counter);
    }
}

/// Whether what follows may be executed another number of times.
fn ends_run(instruction: &Instr) -> bool {
    matches!(
        instruction,
        Instr::Block(_)
            | Instr::Loop(_)
            | Instr::IfElse(_)
            | Instr::Br(_)
            | Instr::BrIf(_)
            | Instr::BrTable(_)
            | Instr::Return(_)
            | Instr::Unreachable(_)
    )
}

fn flush(builder: &mut InstrSeqBuilder<'_>, run: &mut Vec<(Instr, InstrLocId)>, counter: GlobalId) {
    let counted = run
        .iter()
        .filter(|(instruction, _)| !matches!(instruction, Instr::Block(_) | Instr::Loop(_)))
        .count();
    if counted > 0 {
        builder
            .global_get(counter)
            .i64_const(i64::try_from(counted).expect("functions are small"))
            .binop(BinaryOp::I64Add)
            .global_set(counter);
    }
    for (instruction, _) in run.drain(..) {
        builder.instr(instruction);
    }
}
