//! Bytes that nobody sane sends, at both ports of every node: an error at most,
//! and the cluster serves on.

#![allow(
    clippy::disallowed_methods,
    reason = "runtime: these tests speak to sockets by hand"
)]

mod harness;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use harness::contents::Contents;
use harness::{Cluster, is_alive};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// Connections that say nothing more, held open while others are served.
const HALF_OPEN: usize = 200;
/// How long an answer to rubbish is looked at; none has to come.
const LOOK_FOR: Duration = Duration::from_millis(200);
/// Bytes of an answer that are looked at.
const LOOK_AT_BYTES: usize = 64 << 10;

/// Every method that takes a message from outside.
const METHODS: &[&str] = &[
    "/catena.v1.Kv/Get",
    "/catena.v1.Kv/Put",
    "/catena.v1.Kv/Append",
    "/catena.v1.Kv/CompareAndSwap",
    "/catena.v1.Kv/Scan",
    "/catena.v1.Kv/Routes",
    "/catena.v1.Kv/CloseSession",
    "/catena.v1.KvStream/Pipe",
    "/catena.v1.Chain/Link",
    "/catena.v1.Admin/NodeStatus",
    "/catena.v1.Nothing/Such",
];

/// Repeatable rubbish (xorshift).
#[derive(Debug)]
struct Rubbish(u64);

impl Rubbish {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next().to_le_bytes()[3]).collect()
    }
}

/// An HTTP/2 frame that says it has `length` bytes.
fn frame_of(length: usize, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(length).expect("a length").to_be_bytes();
    let mut out = length[1..].to_vec();
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
    out
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    frame_of(payload.len(), kind, flags, stream, payload)
}

/// The headers of a gRPC call, as HPACK literals without indexing.
fn call_headers(path: &str) -> Vec<u8> {
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "node"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0);
        for text in [name, value] {
            out.push(u8::try_from(text.len()).expect("short"));
            out.extend(text.as_bytes());
        }
    }
    out
}

/// A whole gRPC call whose body is `body`, in frames as large as HTTP/2 allows without asking.
fn call(path: &str, body: &[u8]) -> Vec<u8> {
    let mut out = [PREFACE, &frame(SETTINGS, 0, 0, b"")].concat();
    out.extend(frame(HEADERS, END_HEADERS, 1, &call_headers(path)));
    for part in body.chunks(16 << 10) {
        out.extend(frame(DATA, 0, 1, part));
    }
    out.extend(frame(DATA, END_STREAM, 1, b""));
    out
}

/// A gRPC message that says it has `length` bytes.
fn message(compressed: u8, length: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![compressed];
    out.extend(length.to_be_bytes());
    out.extend(payload);
    out
}

/// Sends, and gives what comes back in a moment. A node that closes early is in its right.
fn send(addr: &str, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(addr).expect("the node accepts");
    stream.set_read_timeout(Some(LOOK_FOR)).expect("a time-out");
    stream
        .set_write_timeout(Some(LOOK_FOR))
        .expect("a time-out");
    let mut answer = Vec::new();
    if stream.write_all(bytes).is_ok() {
        let _ = stream.take(LOOK_AT_BYTES as u64).read_to_end(&mut answer);
    }
    answer
}

/// What is said to the gRPC port.
fn hostile_calls(rubbish: &mut Rubbish) -> Vec<Vec<u8>> {
    let hello = [PREFACE, &frame(SETTINGS, 0, 0, b"")].concat();
    let after_hello = |bytes: Vec<u8>| [hello.clone(), bytes].concat();
    let mut all = vec![
        PREFACE[..10].to_vec(),
        PREFACE.to_vec(),
        [PREFACE, &[0, 0]].concat(),
        b"GET / HTTP/1.1\r\nHost: node\r\n\r\n".to_vec(),
        // A TLS hello.
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        after_hello(frame_of(100, HEADERS, END_HEADERS, 1, &[0; 10])),
        after_hello(frame_of((1 << 24) - 1, DATA, 0, 1, &[0; 99])),
        after_hello(frame(HEADERS, END_HEADERS, 1, &rubbish.bytes(200))),
        after_hello(frame(HEADERS, END_HEADERS, 2, &call_headers(METHODS[0]))),
        after_hello(frame(9, END_HEADERS, 1, b"a continuation of nothing")),
        after_hello(frame(8, 0, 0, &[0; 4])),
        after_hello(frame(3, 0, 7, &[0; 4])),
        after_hello(frame(SETTINGS, 0, 0, &[0xff; 12])),
        after_hello(frame(0xee, 0xff, 0x7fff_ffff, &rubbish.bytes(50))),
    ];
    for path in METHODS {
        let random = rubbish.bytes(300);
        all.push(call(path, &[]));
        all.push(call(path, &[0, 0]));
        all.push(call(path, &message(0, 300, &random)));
        all.push(call(path, &message(0, 5000, &random)));
        all.push(call(path, &message(1, 300, &random)));
        all.push(call(path, &message(7, 300, &random)));
        all.push(call(path, &message(0, u32::MAX, &random)));
        // A field of 2^63 bytes, and a group that never ends.
        all.push(call(
            path,
            &message(0, 10, b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f"),
        ));
        all.push(call(path, &message(0, 64, &[0x0b; 64])));
    }
    for _ in 0..40 {
        let count = 1 + usize::try_from(rubbish.next() % 2000).expect("small");
        all.push(rubbish.bytes(count));
        all.push(after_hello(rubbish.bytes(count)));
    }
    all
}

/// What is said to the HTTP port.
fn hostile_requests(rubbish: &mut Rubbish) -> Vec<Vec<u8>> {
    let mut all = vec![
        b"GET".to_vec(),
        b"GET /metrics HTTP/9.9\r\n\r\n".to_vec(),
        b"POST /livez HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n".to_vec(),
        b"POST /livez HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n".to_vec(),
        [b"GET /".as_slice(), &[b'a'; 200_000]].concat(),
        [b"GET / HTTP/1.1\r\n".as_slice(), &b"a: b\r\n".repeat(5000)].concat(),
        b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        PREFACE.to_vec(),
    ];
    all.extend((0..20).map(|_| rubbish.bytes(500)));
    all
}

/// Every node runs as before, said nothing of a panic, and serves.
#[track_caller]
fn unharmed(cluster: &Cluster, contents: &Contents) {
    for node in &cluster.ready().nodes {
        assert!(
            is_alive(node.pid),
            "node {} died\n{}",
            node.id,
            cluster.evidence()
        );
        assert!(
            !cluster.log(node.id).contains("panicked"),
            "{}",
            cluster.log(node.id)
        );
        assert!(cluster.page(node.id, "/livez").starts_with("HTTP/1.1 200"));
        assert!(cluster.page(node.id, "/readyz").starts_with("HTTP/1.1 200"));
    }
    cluster.wait_healthy();
    contents.check(cluster);
    cluster.json(&["put", "k", "v"]);
}

#[test]
fn hostile_bytes_at_both_ports_are_an_error_at_most() {
    const SEED: u64 = 0x0ca7_e4a5;
    let cluster = Cluster::start(&[]);
    let contents = Contents::write(&cluster, "h/", 100);
    // What is written by hand here does reach the methods: this call makes sense, and is answered.
    let good = send(
        &cluster.node(1).addr,
        &call("/catena.v1.Admin/NodeStatus", &message(0, 0, b"")),
    );
    let version = env!("CARGO_PKG_VERSION").as_bytes();
    assert!(
        good.windows(version.len()).any(|part| part == version),
        "no answer to a good call: {good:?}"
    );
    std::thread::scope(|scope| {
        for node in &cluster.ready().nodes {
            scope.spawn(move || {
                let mut rubbish = Rubbish(SEED + node.id);
                for bytes in hostile_calls(&mut rubbish) {
                    send(&node.addr, &bytes);
                }
                for bytes in hostile_requests(&mut rubbish) {
                    send(&node.http, &bytes);
                }
            });
        }
    });
    unharmed(&cluster, &contents);
}

#[test]
fn connections_that_say_nothing_more_keep_nobody_from_being_served() {
    let cluster = Cluster::start(&[]);
    let contents = Contents::write(&cluster, "h/", 100);
    let half = call(METHODS[1], &message(0, 300, b"only a part of it"));
    let begun: [&[u8]; 4] = [b"", PREFACE, &half[..half.len() - 20], b"GET /livez HT"];
    let mut held = Vec::new();
    for node in &cluster.ready().nodes {
        for no in 0..HALF_OPEN {
            let bytes = begun[no % begun.len()];
            let addr = if no % begun.len() == 3 {
                &node.http
            } else {
                &node.addr
            };
            let mut stream = TcpStream::connect(addr).expect("the node accepts");
            stream.write_all(bytes).expect("it listens");
            held.push(stream);
        }
    }
    unharmed(&cluster, &contents);
    drop(held);
    unharmed(&cluster, &contents);
}
