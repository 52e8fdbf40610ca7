//! What the XMPP engine itself costs, without Python: CPU per delivered message, bare, with stream management and carbons,
//! and with archive records on top; and memory per idle TLS connection.
//!
//! `openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -out chain.pem -subj /CN=moim.test`
//! `cargo run --release -p moim-plane --example xmpp_cost -- chain.pem key.pem [pairs] [messages each] [idle] [threads]`

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use moim_plane::tls::client_config;
use moim_plane::xmpp::{Config, Event, ListenerOptions, Mode, Server};
use moim_wire::xml::{ns, Element, Node, Str};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

const HEADER: &[u8] = b"<stream:stream to='moim.test' version='1.0' xmlns='jabber:client' \
    xmlns:stream='http://etherx.jabber.org/streams'>";

type Tls = StreamOwned<ClientConnection, TcpStream>;

/// As in the product.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |index: usize, default: usize| arguments.get(index).map_or(default, |text| text.parse().unwrap());
    let (chain, key) = (
        std::fs::read(&arguments[0]).unwrap(),
        std::fs::read(&arguments[1]).unwrap(),
    );
    let (pairs, each, idle, threads) = (number(2, 100), number(3, 2000), number(4, 5000), number(5, 1));
    let server = Arc::new(
        Server::start(
            "moim.test",
            &[],
            Config {
                threads,
                ..Config::default()
            },
        )
        .unwrap(),
    );
    server.set_tls(&chain, &key, None).unwrap();
    let options = ListenerOptions {
        mode: Mode::Tls,
        proxy_protocol: false,
        origins: Vec::new(),
        path: "/xmpp-websocket".into(),
    };
    let (_, port) = server.listen("127.0.0.1", 0, options).unwrap();
    let running = Arc::new(AtomicBool::new(true));
    let policy = std::thread::spawn({
        let (server, running) = (server.clone(), running.clone());
        move || answer(&server, &running)
    });

    let cpu = engine_cpu();
    let logins = Instant::now();
    let mut clients: Vec<(Side, Side)> = (0..pairs)
        .map(|pair| {
            let side = |name: &str| Side::new(login(port, &format!("{name}{pair}")));
            (side("a"), side("b"))
        })
        .collect();
    let count = 2 * pairs;
    println!(
        "login: {:.0} µs of engine CPU, {:.0} µs on the clock",
        per(engine_cpu() - cpu, count),
        per(logins.elapsed(), count)
    );

    for mode in ["bare", "managed", "archived"] {
        match mode {
            "managed" => clients
                .iter_mut()
                .for_each(|(a, b)| [a, b].into_iter().for_each(manage)),
            "archived" => archive(&server, pairs),
            _ => {}
        }
        for burst in [1, 20] {
            exchange(&mut clients, mode, burst, each / burst);
        }
    }
    let stats: HashMap<_, _> = server.stats().into_iter().collect();
    assert_eq!(stats["missed"], 0);

    if idle > 0 {
        idle_memory(&server, port, idle);
    }
    running.store(false, Ordering::Relaxed);
    policy.join().unwrap();
    server.stop();
}

/// Everybody's messages are archived from now on, and everybody wants carbons, which the other of the pair never causes.
fn archive(server: &Server, pairs: usize) {
    for pair in 0..pairs {
        for side in ["a", "b"] {
            server.archive(&format!("{side}{pair}@moim.test"), true);
        }
    }
}

/// Sends `rounds` bursts from one half of each pair to the other. With stream management the sender asks for its count
/// after each burst, and the receiver answers when it is asked.
fn exchange(clients: &mut [(Side, Side)], mode: &str, burst: usize, rounds: usize) {
    // 147 bytes, as the comparison with other servers has them.
    let out: Vec<Vec<u8>> = (0..clients.len())
        .map(|pair| {
            let start = format!("<message to='b{pair}@moim.test/r' type='chat' id='m'><body>");
            let end = "</body></message>";
            let message = format!("{start}{}{end}", "x".repeat(147 - start.len() - end.len())).into_bytes();
            let mut all = message.repeat(burst);
            if mode != "bare" {
                all.extend_from_slice(b"<r xmlns='urn:xmpp:sm:3'/>");
            }
            all
        })
        .collect();
    let (cpu, clock) = (engine_cpu(), Instant::now());
    for _ in 0..rounds {
        for ((sender, _), bytes) in clients.iter_mut().zip(&out) {
            sender.tls.write_all(bytes).unwrap();
            sender.tls.flush().unwrap();
        }
        for (sender, receiver) in clients.iter_mut() {
            receiver.read_messages(burst);
            if mode != "bare" {
                sender.read_answer();
            }
        }
    }
    let total = rounds * burst * clients.len();
    println!(
        "{mode}: {total} messages, {burst} at once: {:.2} µs of engine CPU each, {:.0} per second",
        per(engine_cpu() - cpu, total),
        total as f64 / clock.elapsed().as_secs_f64()
    );
}

/// One client, and what it counted.
struct Side {
    tls: Tls,
    received: u32,
    /// The end of what was read, which may be half of something to look for.
    tail: Vec<u8>,
}

const KEPT: usize = 12;

impl Side {
    fn new(tls: Tls) -> Self {
        Self {
            tls,
            received: 0,
            tail: Vec::new(),
        }
    }

    fn read(&mut self) -> Vec<u8> {
        let mut buffer = vec![0u8; 1 << 16];
        let length = self.tls.read(&mut buffer).unwrap();
        assert_ne!(length, 0, "the engine ended the connection");
        let mut all = std::mem::take(&mut self.tail);
        all.extend_from_slice(&buffer[..length]);
        all
    }

    fn read_messages(&mut self, count: usize) {
        let mut left = count;
        while left > 0 {
            let all = self.read();
            let (mut done, mut asked) = (0, false);
            for at in 0..all.len() {
                if all[at..].starts_with(b"</message>") {
                    self.received += 1;
                    left -= 1;
                    done = at + 10;
                } else if all[at..].starts_with(b"<r xmlns") {
                    asked = true;
                    done = at + 8;
                }
            }
            self.tail = all[done.max(all.len().saturating_sub(KEPT))..].to_vec();
            if asked {
                let answer = format!("<a xmlns='urn:xmpp:sm:3' h='{}'/>", self.received);
                self.tls.write_all(answer.as_bytes()).unwrap();
            }
        }
    }

    fn read_answer(&mut self) {
        loop {
            let all = self.read();
            if all.windows(9).any(|part| part == b"<a xmlns=") {
                self.tail.clear();
                return;
            }
            self.tail = all[all.len().saturating_sub(KEPT)..].to_vec();
        }
    }
}

/// Turns stream management on.
fn manage(side: &mut Side) {
    side.received = 0;
    side.tls
        .write_all(b"<enable xmlns='urn:xmpp:sm:3' resume='true'/>")
        .unwrap();
    let mut seen = Vec::new();
    while !seen.windows(8).any(|part| part == b"<enabled") {
        let mut buffer = [0u8; 4096];
        let length = side.tls.read(&mut buffer).unwrap();
        seen.extend_from_slice(&buffer[..length]);
    }
}

/// Memory of connections whose client halves are dropped after the login, so that only the engine's are counted.
fn idle_memory(server: &Server, port: u16, idle: usize) {
    let sessions = || {
        server
            .stats()
            .into_iter()
            .find(|(name, _)| *name == "sessions")
            .unwrap()
            .1 as usize
    };
    let keep = |count: usize, sockets: &mut Vec<TcpStream>| {
        for _ in 0..count {
            let mut side = Side::new(login(port, &format!("idle{}", sockets.len())));
            manage(&mut side);
            sockets.push(side.tls.sock);
        }
    };
    let mut sockets = Vec::new();
    keep(idle / 5, &mut sockets);
    let (before, had) = (resident(), sessions());
    keep(idle - idle / 5, &mut sockets);
    std::thread::sleep(Duration::from_millis(300));
    let (after, have) = (resident(), sessions());
    println!(
        "idle TLS connection with stream management: {} bytes each over {}",
        (after - before) / (have - had),
        have - had
    );
}

/// Plays Python: any password, any resource, resumable sessions, carbons for all, and a disk that is always done.
fn answer(server: &Server, running: &AtomicBool) {
    let mut users: HashMap<u64, String> = HashMap::new();
    while running.load(Ordering::Relaxed) {
        let events = server.drain(1000);
        if events.is_empty() {
            std::thread::sleep(Duration::from_micros(200));
        }
        for event in events {
            match event {
                Event::Open { sid, .. } => {
                    let attrs = [("from", "moim.test"), ("id", "1"), ("version", "1.0")];
                    server.open_stream(sid, Element::build("open", ns::FRAMING, &attrs, Vec::new()).into());
                    server.send(
                        sid,
                        vec![Element::build("features", ns::STREAMS, &[], Vec::new()).into()],
                    );
                }
                Event::Stanza { sid, element, .. } if element.name() == "auth" => {
                    users.insert(sid, format!("{}@moim.test", element.text()));
                    server.authenticated(sid);
                    server.send(sid, vec![Element::build("success", ns::SASL, &[], Vec::new()).into()]);
                    server.restart(sid, None);
                }
                Event::Stanza { sid, element, .. } if element.name() == "enable" => {
                    server.carbons(sid, true);
                    let attrs = [("id", "0123456789abcdefghijklmn"), ("resume", "true")];
                    let enabled = Element::build("enabled", ns::SM, &attrs, Vec::new());
                    server.manage(sid, Some(enabled.into()), true);
                }
                Event::Records { ticket, .. } => server.committed(ticket, true),
                Event::Stanza { sid, element, .. } if element.name() == "iq" => {
                    server.bind(sid, &format!("{}/r", users.remove(&sid).unwrap()));
                    let text = vec![Node::Text(Str::value("."))];
                    server.send(
                        sid,
                        vec![Element::build("iq", ns::CLIENT, &[("type", "result")], text).into()],
                    );
                }
                _ => {}
            }
        }
    }
}

fn login(port: u16, user: &str) -> Tls {
    let config = client_config(None, false).unwrap();
    let name = ServerName::try_from("moim.test").unwrap();
    let socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
    socket.set_nodelay(true).unwrap();
    let mut tls = StreamOwned::new(ClientConnection::new(config, name).unwrap(), socket);
    let mut step = |send: &[u8], until: &str| {
        tls.write_all(send).unwrap();
        let mut seen = String::new();
        let mut buffer = [0u8; 4096];
        while !seen.contains(until) {
            let length = tls.read(&mut buffer).unwrap();
            seen.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
        }
    };
    step(HEADER, "features/>");
    step(
        format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{user}</auth>").as_bytes(),
        "<success",
    );
    step(HEADER, "features/>");
    step(b"<iq type='set' id='b'/>", "</iq>");
    tls
}

/// CPU time of the engine's threads, from the kernel's nanosecond account.
fn engine_cpu() -> Duration {
    let mut total = 0;
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let path = task.unwrap().path();
        if std::fs::read_to_string(path.join("comm"))
            .unwrap()
            .starts_with("moim-xmpp")
        {
            let account = std::fs::read_to_string(path.join("schedstat")).unwrap();
            total += account.split(' ').next().unwrap().parse::<u64>().unwrap();
        }
    }
    Duration::from_nanos(total)
}

fn per(total: Duration, count: usize) -> f64 {
    total.as_secs_f64() * 1e6 / count as f64
}

/// Resident bytes of this process.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    status.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}
