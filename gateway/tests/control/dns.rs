//! A DNS server on loopback that says what a test wants.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread;

use hickory_resolver::proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};

/// Name, record. Several of one name are several records.
pub(crate) type Zone = Vec<(&'static str, RData)>;

/// A running server. It ends with the test's process.
pub(crate) struct Dns {
    pub(crate) addr: SocketAddr,
    zone: Arc<Mutex<Zone>>,
}

impl Dns {
    pub(crate) fn start(zone: Zone) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let addr = socket.local_addr().unwrap();
        let zone = Arc::new(Mutex::new(zone));
        let told = Arc::clone(&zone);
        thread::spawn(move || {
            let mut datagram = [0; 4096];
            while let Ok((len, peer)) = socket.recv_from(&mut datagram) {
                let question = Message::from_vec(&datagram[..len]).unwrap();
                let answer = answer(&question, &told.lock().unwrap());
                socket.send_to(&answer.to_vec().unwrap(), peer).unwrap();
            }
        });
        Self { addr, zone }
    }

    pub(crate) fn tell(&self, zone: Zone) {
        *self.zone.lock().unwrap() = zone;
    }
}

pub(crate) fn address(ip: &str) -> RData {
    match ip.parse().unwrap() {
        IpAddr::V4(ip) => RData::A(ip.into()),
        IpAddr::V6(ip) => RData::AAAA(ip.into()),
    }
}

pub(crate) fn service(priority: u16, weight: u16, port: u16, target: &str) -> RData {
    RData::SRV(SRV::new(priority, weight, port, Name::from_ascii(target).unwrap()))
}

fn answer(question: &Message, zone: &Zone) -> Message {
    let mut answer = Message::new(question.metadata.id, MessageType::Response, OpCode::Query);
    answer.metadata.recursion_desired = true;
    answer.metadata.recursion_available = true;
    let asked = &question.queries[0];
    answer.add_query(asked.clone());
    let same = |name: &str| Name::from_ascii(name).unwrap() == asked.name;
    let known = zone.iter().any(|(name, _)| same(name));
    for (_, data) in zone.iter().filter(|(name, _)| same(name)) {
        let kind: RecordType = data.record_type();
        if kind == asked.query_type {
            // Long: what is asked again is asked because of the interval, not of this.
            answer.add_answer(Record::from_rdata(asked.name.clone(), 3600, data.clone()));
        }
    }
    if !known {
        answer.metadata.response_code = ResponseCode::NXDomain;
    }
    answer
}
