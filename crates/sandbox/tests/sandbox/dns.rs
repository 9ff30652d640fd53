//! A name server on loopback that answers as a test tells it.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread;

use simple_dns::rdata::{A, AAAA, CNAME, RData};
use simple_dns::{CLASS, Name, Packet, PacketFlag, QTYPE, RCODE, ResourceRecord, TYPE};

/// How a question came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    Udp,
    Tcp,
}

/// A question, as the server got it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) by: By,
    pub(crate) name: String,
    /// Whether it is for IPv6 addresses, not IPv4.
    pub(crate) six: bool,
    pub(crate) bytes: Vec<u8>,
}

/// A server. Its threads wait for questions until the test program ends.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    /// Sends whatever `answer` makes of a question: none, one or several messages.
    pub(crate) fn start(answer: impl Fn(&Asked) -> Vec<Vec<u8>> + Send + Sync + 'static) -> Self {
        let (udp, tcp) = sockets();
        let (answer, asked) = (Arc::new(answer), Arc::new(Mutex::new(Vec::new())));
        let server = Self { address: udp.local_addr().unwrap(), asked: Arc::clone(&asked) };
        let (note, make) = (Arc::clone(&asked), Arc::clone(&answer));
        thread::spawn(move || {
            let mut buffer = [0; 512];
            loop {
                let (length, peer) = udp.recv_from(&mut buffer).unwrap();
                let question = read(By::Udp, &buffer[..length]);
                note.lock().unwrap().push(question.clone());
                let (udp, make) = (udp.try_clone().unwrap(), Arc::clone(&make));
                // An answer may wait for another question.
                thread::spawn(move || {
                    make(&question).iter().for_each(|bytes| _ = udp.send_to(bytes, peer));
                });
            }
        });
        thread::spawn(move || {
            for stream in tcp.incoming() {
                serve(&mut stream.unwrap(), &asked, &*answer);
            }
        });
        server
    }

    /// The questions so far, without their bytes, each name once: both families are asked for.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        for asked in self.asked() {
            if !names.contains(&asked.name) {
                names.push(asked.name);
            }
        }
        names
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

/// One port of both.
fn sockets() -> (UdpSocket, TcpListener) {
    loop {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()) {
            return (udp, tcp);
        }
    }
}

fn serve(
    stream: &mut TcpStream,
    asked: &Mutex<Vec<Asked>>,
    answer: &dyn Fn(&Asked) -> Vec<Vec<u8>>,
) {
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut bytes = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut bytes).unwrap();
    let question = read(By::Tcp, &bytes);
    asked.lock().unwrap().push(question.clone());
    for bytes in answer(&question) {
        stream.write_all(&u16::try_from(bytes.len()).unwrap().to_be_bytes()).unwrap();
        stream.write_all(&bytes).unwrap();
    }
}

fn read(by: By, bytes: &[u8]) -> Asked {
    let packet = Packet::parse(bytes).unwrap();
    assert!(packet.has_flags(PacketFlag::RECURSION_DESIRED));
    assert_eq!(packet.questions.len(), 1);
    let question = &packet.questions[0];
    let six = question.qtype == QTYPE::TYPE(TYPE::AAAA);
    assert!(six || question.qtype == QTYPE::TYPE(TYPE::A));
    Asked { by, name: question.qname.to_string(), six, bytes: bytes.to_vec() }
}

impl Asked {
    /// These of the addresses that were asked for.
    pub(crate) fn addresses(&self, addresses: &[&str]) -> Vec<u8> {
        let own = |address: &&str| (self.name.clone(), (*address).to_owned());
        self.records(&addresses.iter().map(own).collect::<Vec<_>>(), |_| {})
    }

    /// That there is no such name.
    pub(crate) fn unknown(&self) -> Vec<u8> {
        self.records(&[], |packet| *packet.rcode_mut() = RCODE::NameError)
    }

    /// That the server cannot say.
    pub(crate) fn failed(&self) -> Vec<u8> {
        self.records(&[], |packet| *packet.rcode_mut() = RCODE::ServerFailure)
    }

    /// That there is more than this.
    pub(crate) fn truncated(&self) -> Vec<u8> {
        self.records(&[], |packet| packet.set_flags(PacketFlag::TRUNCATION))
    }

    /// Records of a name and what it has: an address, or another name. `change` has the last word.
    pub(crate) fn records(
        &self,
        records: &[(String, String)],
        change: impl FnOnce(&mut Packet<'_>),
    ) -> Vec<u8> {
        let mut packet = Packet::parse(&self.bytes).unwrap().into_reply();
        for (owner, value) in records {
            let data = match value.parse() {
                Ok(IpAddr::V4(address)) => RData::A(A { address: address.into() }),
                Ok(IpAddr::V6(address)) => RData::AAAA(AAAA { address: address.into() }),
                Err(_) => RData::CNAME(CNAME(Name::new(value).unwrap())),
            };
            let other = if self.six { TYPE::A } else { TYPE::AAAA };
            if data.type_code() != other {
                let owner = Name::new(owner).unwrap();
                packet.answers.push(ResourceRecord::new(owner, CLASS::IN, 60, data));
            }
        }
        change(&mut packet);
        packet.build_bytes_vec().unwrap()
    }
}
