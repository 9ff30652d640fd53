//! A guest that does what a test tells it: see `USAGE`.
//!
//! The same source is a WASI 0.1 module and a WASI 0.2 component; only the component has sockets and HTTP.

use std::process::ExitCode;

#[cfg(target_env = "p2")]
#[path = "../../web/src/ask.rs"]
mod ask;
mod files;
mod net;
mod show;
mod trap;
mod work;

const USAGE: &str = "\
probe show                  arguments, environment, working directory, preopened folders
probe exit N                exits with N
probe lines COUNT PERIOD_MS `line 1`, `line 2`, ...; COUNT 0 is for ever
probe sleep SECONDS
probe spin                  never returns and never calls the host
probe alloc MIB             takes memory, touches it, keeps it for ever
probe trap unreachable|memory|stack|divide
probe flood BYTES           writes so much to standard output, in lines of 64 bytes
probe cat                   standard input to standard output
probe read PATH
probe follow PATH           what the file says, and again whenever it says something else
probe write PATH TEXT
probe ls PATH
probe random N              N random bytes in hexadecimal
probe clock                 Unix milliseconds, and that the monotonic clock runs
probe listen PORT           answers every line that it is sent; one connection at a time
probe connect ADDR TEXT     sends a line, prints the answer
probe send ADDR TEXT        sends a datagram
probe resolve NAME...
probe get URL               asks by wasi:http, prints the answer
Without any: says hello and writes a line a second.";

/// What went wrong, for standard error.
type Failure = String;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(arguments.get(1..).unwrap_or_default()) {
        Some(Ok(())) => ExitCode::SUCCESS,
        Some(Err(failure)) => {
            eprintln!("probe: {failure}");
            ExitCode::FAILURE
        }
        None => {
            eprintln!("probe: this is none of:\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

/// None if the arguments are not understood.
fn run(arguments: &[&str]) -> Option<Result<(), Failure>> {
    Some(match *arguments {
        [] => {
            println!("Hello from WebAssembly! I am a probe and count the seconds.");
            work::lines(0, 1000)
        }
        ["show"] => show::show(),
        ["exit", code] => std::process::exit(code.parse().ok()?),
        ["lines", count, period] => work::lines(count.parse().ok()?, period.parse().ok()?),
        ["sleep", seconds] => work::sleep(seconds.parse().ok()?),
        ["spin"] => work::spin(),
        ["alloc", mib] => work::alloc(mib.parse().ok()?),
        ["trap", kind] => trap::trap(kind)?,
        ["flood", bytes] => work::flood(bytes.parse().ok()?),
        ["cat"] => files::cat(),
        ["read", path] => files::read(path),
        ["follow", path] => files::follow(path),
        ["write", path, text] => files::write(path, text),
        ["ls", path] => files::ls(path),
        ["random", count] => show::random(count.parse().ok()?),
        ["clock"] => show::clock(),
        ["listen", port] => net::listen(port.parse().ok()?),
        ["connect", address, text] => net::connect(address, text),
        ["send", address, text] => net::send(address, text),
        ["resolve", ref names @ ..] => net::resolve(names),
        #[cfg(target_env = "p2")]
        ["get", url] => {
            println!("{}", ask::ask(url, &[]));
            Ok(())
        }
        _ => return None,
    })
}
