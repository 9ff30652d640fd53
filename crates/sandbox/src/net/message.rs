//! A question to a name server, and what its answer says (RFC 1035).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rand::TryRng;
use rand::rngs::{SysError, SysRng};
use simple_dns::rdata::RData;
use simple_dns::{
    CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, ResourceRecord, TYPE,
    header_buffer,
};

/// How many names may stand for one another in an answer.
const CHAIN: usize = 16;

/// How many addresses of one answer are taken: as many as a guest can do something with.
const ADDRESSES: usize = 64;

/// The kinds of addresses that can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

/// One question, with the number by which its answer is known.
#[derive(Debug, Clone)]
pub(super) struct Query<'a> {
    id: u16,
    name: Name<'a>,
    family: Family,
}

/// What a name server answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// The name's addresses of that family: none if there are none, or no such name.
    Addresses(Vec<IpAddr>),
    /// There is more than a datagram holds.
    Truncated,
    /// The server could not say.
    Failed,
}

impl<'a> Query<'a> {
    /// A question under a number that nobody can foresee.
    pub(super) fn new(name: Name<'a>, family: Family) -> Result<Self, SysError> {
        let mut id = [0; size_of::<u16>()];
        SysRng.try_fill_bytes(&mut id)?;
        Ok(Self { id: u16::from_ne_bytes(id), name, family })
    }

    /// The question as it is sent; none if the name is longer than a message allows.
    pub(super) fn bytes(&self) -> Option<Vec<u8>> {
        let mut packet = Packet::new_query(self.id);
        packet.set_flags(PacketFlag::RECURSION_DESIRED);
        packet.questions.push(self.question());
        packet.build_bytes_vec().ok()
    }

    fn question(&self) -> Question<'a> {
        let kind = match self.family {
            Family::V4 => TYPE::A,
            Family::V6 => TYPE::AAAA,
        };
        Question::new(self.name.clone(), QTYPE::TYPE(kind), QCLASS::CLASS(CLASS::IN), false)
    }

    /// What `bytes` answer; none if they are no answer to this question.
    pub(super) fn answer(&self, bytes: &[u8]) -> Option<Answer> {
        let flag = |flag| header_buffer::has_flags(bytes, flag).is_ok_and(|set| set);
        if header_buffer::id(bytes).ok()? != self.id || !flag(PacketFlag::RESPONSE) {
            return None;
        }
        // What is cut off may be cut anywhere: no more than the beginning is looked at.
        if flag(PacketFlag::TRUNCATION) {
            return Some(Answer::Truncated);
        }
        self.whole(&Packet::parse(bytes).ok()?)
    }

    fn whole(&self, packet: &Packet<'_>) -> Option<Answer> {
        // Servers that fail need not repeat the question.
        let repeated = packet.questions.first().is_some_and(|question| self.is_asked(question));
        let code = packet.rcode();
        let answer = if code == RCODE::NoError {
            Answer::Addresses(self.addresses(packet))
        } else if code == RCODE::NameError {
            Answer::Addresses(Vec::new())
        } else {
            return (repeated || packet.questions.is_empty()).then_some(Answer::Failed);
        };
        repeated.then_some(answer)
    }

    fn is_asked(&self, question: &Question<'_>) -> bool {
        let own = self.question();
        question.qname == own.qname && question.qtype == own.qtype && question.qclass == own.qclass
    }

    /// The addresses of the name, or of the name that it stands for. What an answer says of other names is not believed.
    fn addresses(&self, packet: &Packet<'_>) -> Vec<IpAddr> {
        let mut owner = &self.name;
        for _ in 0..CHAIN {
            let alias = |record: &&ResourceRecord<'_>| {
                record.name == *owner && matches!(record.rdata, RData::CNAME(_))
            };
            let Some(RData::CNAME(alias)) =
                packet.answers.iter().find(alias).map(|record| &record.rdata)
            else {
                break;
            };
            owner = &alias.0;
        }
        let records = packet.answers.iter().filter(|record| record.name == *owner);
        records.filter_map(|record| self.address(&record.rdata)).take(ADDRESSES).collect()
    }

    fn address(&self, data: &RData<'_>) -> Option<IpAddr> {
        match self.family {
            Family::V4 => {
                let RData::A(data) = data else { return None };
                Some(Ipv4Addr::from(data.address).into())
            }
            Family::V6 => {
                let RData::AAAA(data) = data else { return None };
                Some(Ipv6Addr::from(data.address).into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn query() -> Query<'static> {
        Query { id: 7, name: Name::new_unchecked("www.example.com"), family: Family::V4 }
    }

    #[test]
    fn a_question_is_no_answer() {
        let bytes = query().bytes().unwrap();
        assert_eq!(bytes[..2], [0, 7]);
        assert_eq!(query().answer(&bytes), None);
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_without_a_panic(bytes: Vec<u8>) {
            query().answer(&bytes);
        }

        #[test]
        fn whatever_follows_a_right_beginning_is_read_without_a_panic(
            counts: [u8; 3],
            records: Vec<u8>,
        ) {
            let mut bytes = query().bytes().unwrap();
            bytes[2] |= 0x80;
            for (place, count) in [7, 9, 11].into_iter().zip(counts) {
                bytes[place] = count;
            }
            bytes.extend(records);
            query().answer(&bytes);
        }
    }
}
