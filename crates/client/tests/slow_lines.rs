//! Lines that carry little.

use std::collections::VecDeque;

use tidelog_sync::{ToServer, encode_message};
use tidelog_testing::Rng;
use tidelog_testing::client::server::{Server, talk};
use tidelog_testing::client::*;

/// The way up, which carries messages one behind the other. What the server says comes at once.
struct Line {
    bytes_per_ms: u64,
    /// With the time at which the last byte of each arrives.
    on_its_way: VecDeque<(u64, ToServer)>,
    free_at_ms: u64,
    /// Connections so far.
    connections: Vec<tidelog_client::SocketId>,
}

impl Line {
    fn new(bytes_per_ms: u64) -> Self {
        let (on_its_way, connections) = (VecDeque::new(), Vec::new());
        Self { bytes_per_ms, on_its_way, free_at_ms: 0, connections }
    }

    /// Lets a tenth of a second pass.
    fn carry(&mut self, device: &mut Device, server: &mut Server) {
        device.pass(100);
        if let Some(socket) = device.socket
            && self.connections.last() != Some(&socket)
        {
            self.connections.push(socket);
            self.on_its_way.clear();
            self.free_at_ms = 0;
        }
        for message in device.take_sent() {
            let size = encode_message(&message).len() as u64;
            self.free_at_ms = self.free_at_ms.max(device.now_ms) + size / self.bytes_per_ms;
            self.on_its_way.push_back((self.free_at_ms, message));
        }
        while let Some((_, message)) =
            self.on_its_way.pop_front_if(|(arrives_at_ms, _)| *arrives_at_ms <= device.now_ms)
        {
            for answer in server.hear(device.number, message) {
                device.hear_server(&answer);
            }
        }
    }
}

/// Goal: bytes that are on their way are waited for. Method: a document of 3 MiB and a line of 64
/// kbit/s, which takes half a minute for a part of the seed and several for what is sent ahead.
#[test]
fn a_line_of_64_kbits_hands_a_document_over_at_the_first_try() {
    let (mut server, mut device, mut rng) = (Server::default(), Device::new(1), Rng::new(1));
    device.open(&todos());
    for n in 0..30 {
        titled(&mut device, &n.to_string(), &rng.letters(100_000));
    }
    device.server_is_up = true;
    let mut line = Line::new(8);
    let call = device.start_open(OTHER_TAB, Some(SERVER), &todos());
    let start_ms = device.now_ms;
    while device.answers(call).is_empty() {
        line.carry(&mut device, &mut server);
    }
    device.opened(call);
    assert!(device.now_ms - start_ms > 300_000, "it was small");
    assert_eq!(line.connections.len(), 1);
    talk(&mut server, &mut [&mut device]);
    assert!(server.document.is_some());
}

/// Goal: a document gets online on any line that carries at all. Method: its doctype takes longer
/// on the way up than a server may be silent.
#[test]
fn who_takes_long_to_ask_is_not_asked_to_begin_anew_for_ever() {
    let mut doctype = todos();
    doctype.migrations[0] += &format!(" -- {}", Rng::new(1).letters(200_000));
    let (mut server, mut device) = (Server::default(), Device::new(1));
    device.server_is_up = true;
    let mut line = Line::new(8);
    let call = device.start_open(TAB, Some(SERVER), &doctype);
    device.opened(call);
    let milk = titled(&mut device, "milk", "milk");
    let start_ms = device.now_ms;
    while device.status().timeline[1] == 1 {
        line.carry(&mut device, &mut server);
        assert!(device.now_ms < start_ms + 180_000, "{:?}", device.status());
    }
    assert_eq!(line.connections.len(), 1);
    talk(&mut server, &mut [&mut device]);
    assert!(device.fate(milk).contains("confirmed"), "{}", device.fate(milk));
}
