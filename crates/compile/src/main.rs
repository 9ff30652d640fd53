//! Compiles one WebAssembly program to native code for this machine, in a process that may die of it.
//!
//! Cranelift reads what strangers publish: it may need more memory or time than the node has, crash, or be made to do
//! what its author did not mean. So the program opens its files and starts itself once more as a worker, which gives up
//! all but what is open before it looks at its input (see [`jail`] and [`worker`]). It then tells in one line how that
//! ended (see [`supervise`]).
//!
//! Exit code 0: compiled, a line of JSON on standard output says what. 2: the input is no program for this node, a line
//! on standard error says why and what to do. 1: something else went wrong.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

mod ending;
mod engine;
mod input;
mod jail;
mod key;
mod output;
mod program;
mod report;
mod supervise;
mod worker;

use input::InputError;

/// Compiles WebAssembly for this node's sandboxes.
#[derive(Parser)]
#[command(name = "nodule-compile", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Prints what compiled code depends on beside its source: code of another key is not loaded.
    Key,
    /// Compiles a program, and prints what it is as JSON.
    Compile(Job),
    /// What `compile` starts: reads the program from standard input, writes the code to standard output and what it has
    /// to say to standard error.
    #[command(hide = true)]
    Work(Limits),
}

/// One compilation.
#[derive(Args)]
struct Job {
    /// The program: a core module or a component.
    input: PathBuf,
    /// Where the compiled code goes: a file that is not there yet. It is removed again if nothing comes of it.
    output: PathBuf,
    #[command(flatten)]
    limits: Limits,
}

/// What a compilation may take, and who it is.
#[derive(Debug, Clone, Args)]
struct Limits {
    /// Memory that compiling may take, in MiB. About 35 times the program's size is needed.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(16..))]
    max_memory_mib: u32,
    /// CPU time that compiling may take, in seconds, over all threads.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_seconds: u32,
    /// How large the compiled code may be, in MiB. It is about three times the program's size.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), default_value_t = 1024)]
    max_output_mib: u32,
    /// The user and group that the worker becomes where it is root: nothing else on the machine should have it. The
    /// default is the one before those of pods.
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(u32).range(1..), default_value_t = 1_999_999_999)]
    user: u32,
    /// The process without which this one ends at once.
    #[arg(long, value_name = "PID")]
    parent: Option<u32>,
}

/// The exit code for an input that is no program for this node.
const BAD_INPUT: u8 = 2;

fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(cli) => run(&cli.command),
        Err(usage) => {
            _ = usage.print();
            // Its own code for a wrong usage would read as a bad input.
            ExitCode::from(u8::from(usage.use_stderr()))
        }
    }
}

fn run(command: &Command) -> ExitCode {
    let result = match command {
        Command::Key => engine::key(),
        Command::Compile(job) => supervise::compile(job),
        Command::Work(limits) => return end(io::stderr(), worker::compile(limits)),
    };
    end(io::stdout(), result)
}

fn end(to: impl Write, result: anyhow::Result<String>) -> ExitCode {
    match result {
        Ok(line) => say(to, &line, 0),
        Err(error) => {
            let code = if error.is::<InputError>() { BAD_INPUT } else { 1 };
            say(io::stderr(), &format!("{error:#}"), code)
        }
    }
}

/// Writes one line, whatever is in it. An agent that does not listen any more has lost interest.
fn say(mut to: impl Write, text: &str, code: u8) -> ExitCode {
    let line: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    _ = writeln!(to, "{}", line.join("; "));
    ExitCode::from(code)
}
