//! A guest of WASI 0.3 that does what a test tells it: see `USAGE`. Where it can it says what `probe` says.

use std::net::SocketAddr;

use wasip3::cli::{environment, exit, stderr, stdin, stdout};
use wasip3::clocks::{monotonic_clock, system_clock};
use wasip3::filesystem::preopens;
use wasip3::filesystem::types::{DescriptorFlags, OpenFlags, PathFlags};
use wasip3::random::random;
use wasip3::sockets::ip_name_lookup;
use wasip3::sockets::types::{
    IpAddress, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, TcpSocket,
};
use wasip3::wit_stream;

const USAGE: &str = "\
probe3 show                 arguments, environment, preopened folders
probe3 exit N               exits with N
probe3 fail                 returns an error
probe3 trap                 executes `unreachable`
probe3 sleep SECONDS
probe3 alloc MIB            takes memory
probe3 cat                  standard input to standard output
probe3 read PATH            of the first preopened folder
probe3 write PATH TEXT
probe3 random N             N random bytes in hexadecimal
probe3 clock                Unix milliseconds, and that the monotonic clock runs
probe3 connect ADDR TEXT    sends a line, prints the answer
probe3 resolve NAME";

type Failure = String;

struct Probe;

wasip3::cli::command::export!(Probe);

impl wasip3::exports::cli::run::Guest for Probe {
    async fn run() -> Result<(), ()> {
        let arguments = environment::get_arguments();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        match run(arguments.get(1..).unwrap_or_default()).await {
            Ok(text) => {
                let (writer, reader) = wit_stream::new();
                both(stdout::write_via_stream(reader), writer, text).await.map_err(|_| ())
            }
            Err(failure) => {
                let (writer, reader) = wit_stream::new();
                let text = format!("probe3: {failure}\n").into_bytes();
                _ = both(stderr::write_via_stream(reader), writer, text).await;
                Err(())
            }
        }
    }
}

/// Writes all while it is read, and hears how that went.
async fn both<T>(
    end: impl std::future::IntoFuture<Output = T>,
    mut writer: wasip3::wit_bindgen::rt::async_support::StreamWriter<u8>,
    bytes: Vec<u8>,
) -> T {
    let write = async {
        writer.write_all(bytes).await;
        drop(writer);
    };
    futures::join!(end.into_future(), write).0
}

/// What to print.
async fn run(arguments: &[&str]) -> Result<Vec<u8>, Failure> {
    Ok(match *arguments {
        ["show"] => show().into_bytes(),
        ["exit", code] => {
            exit::exit_with_code(number(code)?);
            Vec::new()
        }
        ["fail"] => return Err("as told".into()),
        ["trap"] => core::arch::wasm32::unreachable(),
        ["sleep", seconds] => {
            monotonic_clock::wait_for(number::<u64>(seconds)? * 1_000_000_000).await;
            Vec::new()
        }
        ["alloc", mib] => {
            let memory = vec![1_u8; number::<usize>(mib)? << 20];
            format!("{}\n", std::hint::black_box(&memory).len()).into_bytes()
        }
        ["cat"] => {
            let (reader, end) = stdin::read_via_stream();
            let bytes = reader.collect().await;
            end.await.map_err(|error| format!("{error:?}"))?;
            bytes
        }
        ["read", path] => read(path).await?,
        ["write", path, text] => write(path, text).await?,
        ["random", count] => {
            let bytes = random::get_random_bytes(number(count)?);
            bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into_bytes()
        }
        ["clock"] => clock().await.into_bytes(),
        ["connect", address, text] => connect(address, text).await?,
        ["resolve", name] => resolve(name).await?.into_bytes(),
        _ => return Err(format!("this is none of:\n{USAGE}")),
    })
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, Failure> {
    text.parse().map_err(|_| format!("{text} is no number"))
}

fn show() -> String {
    let arguments = environment::get_arguments().into_iter().map(|text| format!("arg {text}\n"));
    let environment = environment::get_environment();
    let environment = environment.into_iter().map(|(name, value)| format!("env {name}={value}\n"));
    let folders = preopens::get_directories();
    let folders = folders.into_iter().map(|(_, path)| format!("preopen {path}\n"));
    arguments.chain(environment).chain(folders).collect()
}

async fn clock() -> String {
    let now = system_clock::now();
    let before = monotonic_clock::now();
    monotonic_clock::wait_for(1_000_000).await;
    let runs = if monotonic_clock::now() > before { "runs" } else { "stands" };
    let milliseconds = now.seconds * 1000 + i64::from(now.nanoseconds) / 1_000_000;
    format!("now {milliseconds}\nthe monotonic clock {runs}\n")
}

async fn read(path: &str) -> Result<Vec<u8>, Failure> {
    let (folder, _) = preopens::get_directories().into_iter().next().ok_or("no folder")?;
    let failure = |error| format!("read {path}: {error:?}");
    let flags = (PathFlags::empty(), OpenFlags::empty(), DescriptorFlags::READ);
    let file = folder.open_at(flags.0, path.into(), flags.1, flags.2).await.map_err(failure)?;
    let (reader, end) = file.read_via_stream(0);
    let bytes = reader.collect().await;
    end.await.map_err(failure)?;
    Ok(bytes)
}

async fn write(path: &str, text: &str) -> Result<Vec<u8>, Failure> {
    let (folder, _) = preopens::get_directories().into_iter().next().ok_or("no folder")?;
    let failure = |error| format!("write {path}: {error:?}");
    let flags = (PathFlags::empty(), OpenFlags::CREATE, DescriptorFlags::WRITE);
    let file = folder.open_at(flags.0, path.into(), flags.1, flags.2).await.map_err(failure)?;
    let (writer, reader) = wit_stream::new();
    both(file.write_via_stream(reader, 0), writer, text.into()).await.map_err(failure)?;
    Ok(Vec::new())
}

async fn connect(address: &str, text: &str) -> Result<Vec<u8>, Failure> {
    let failure = |error| format!("connect {address}: {error:?}");
    let Ok(SocketAddr::V4(peer)) = address.parse() else { return Err("no address".into()) };
    let [a, b, c, d] = peer.ip().octets();
    let peer = Ipv4SocketAddress { port: peer.port(), address: (a, b, c, d) };
    let socket = TcpSocket::create(IpAddressFamily::Ipv4).map_err(failure)?;
    socket.connect(IpSocketAddress::Ipv4(peer)).await.map_err(failure)?;
    let (writer, reader) = wit_stream::new();
    let line = format!("{text}\n").into_bytes();
    both(socket.send(reader), writer, line).await.map_err(failure)?;
    let (reader, end) = socket.receive();
    let answer = reader.collect().await;
    end.await.map_err(failure)?;
    Ok(answer)
}

async fn resolve(name: &str) -> Result<String, Failure> {
    let found = ip_name_lookup::resolve_addresses(name.into()).await;
    let found = found.map_err(|error| format!("resolve {name}: {error:?}"))?;
    Ok(found.into_iter().map(|address| format!("{}\n", text(address))).collect())
}

fn text(address: IpAddress) -> std::net::IpAddr {
    match address {
        IpAddress::Ipv4((a, b, c, d)) => [a, b, c, d].into(),
        IpAddress::Ipv6((a, b, c, d, e, f, g, h)) => [a, b, c, d, e, f, g, h].into(),
    }
}
