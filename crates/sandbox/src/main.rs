//! The program; what it does is the library's.

use std::process::ExitCode;

fn main() -> ExitCode {
    nodule_sandbox::main(std::env::args_os().skip(1))
}
