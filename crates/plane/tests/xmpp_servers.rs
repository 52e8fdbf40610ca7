//! Two engines as two servers over real sockets: STARTTLS and direct TLS with certificates of every common kind, then
//! stanzas in both directions of one stream.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use moim_plane::tls::TlsInfo;
use moim_plane::xmpp::{Config, ConnectOptions, Event, ListenerOptions, Mode, Server};
use moim_wire::xml::{ns, Element, Node, Str};

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A self-signed certificate and its key in PEM, made by openssl with these options of `req -newkey`.
fn certificate(domain: &str, options: &[&str]) -> (Vec<u8>, Vec<u8>) {
    let place = std::env::temp_dir().join(format!(
        "moim-{}-{domain}-{}",
        std::process::id(),
        options.join("-").replace(':', "-")
    ));
    std::fs::create_dir_all(&place).unwrap();
    let file = |name: &str| -> PathBuf { place.join(name) };
    let status = Command::new("openssl")
        .args(["req", "-x509", "-nodes", "-days", "2", "-subj"])
        .arg(format!("/CN={domain}"))
        .arg("-newkey")
        .args(options)
        .arg("-keyout")
        .arg(file("key"))
        .arg("-out")
        .arg(file("chain"))
        .stderr(Stdio::null())
        .status()
        .expect("openssl is installed");
    assert!(status.success());
    let read = (
        std::fs::read(file("chain")).unwrap(),
        std::fs::read(file("key")).unwrap(),
    );
    std::fs::remove_dir_all(place).unwrap();
    read
}

/// One of the two; the test is its policy.
struct Side {
    server: Server,
    domain: &'static str,
    waiting: std::collections::VecDeque<Event>,
}

impl Side {
    fn new(domain: &'static str, options: &[&str]) -> Self {
        let config = Config {
            threads: 1,
            ..Config::default()
        };
        let server = Server::start(domain, &[], config).unwrap();
        let (chain, key) = certificate(domain, options);
        server.set_tls(&chain, &key, None).unwrap();
        Self {
            server,
            domain,
            waiting: Default::default(),
        }
    }

    fn listen(&self, mode: Mode) -> u16 {
        let options = ListenerOptions {
            mode,
            proxy_protocol: false,
            origins: Vec::new(),
            path: String::new(),
        };
        self.server.listen("127.0.0.1", 0, options).unwrap().1
    }

    fn next(&mut self) -> Event {
        while self.waiting.is_empty() {
            let mut poll = libc::pollfd {
                fd: self.server.fileno(),
                events: libc::POLLIN,
                revents: 0,
            };
            // SAFETY: one valid pollfd, count 1.
            assert_eq!(
                unsafe { libc::poll(&mut poll, 1, 20_000) },
                1,
                "nothing happens at {}",
                self.domain
            );
            self.waiting.extend(self.server.drain(100));
        }
        self.waiting.pop_front().unwrap()
    }

    fn connected(&mut self) -> u64 {
        match self.next() {
            Event::Connected { sid, .. } => sid,
            other => panic!("{other:?}"),
        }
    }

    fn secured(&mut self) -> TlsInfo {
        match self.next() {
            Event::Tls { info, .. } => *info,
            other => panic!("{other:?}"),
        }
    }

    fn opened(&mut self) {
        let event = self.next();
        assert!(matches!(event, Event::Open { .. }), "{event:?}");
    }

    fn stanza(&mut self) -> Arc<Element> {
        match self.next() {
            Event::Stanza { element, .. } => element,
            other => panic!("{other:?}"),
        }
    }

    fn open(&self, sid: u64, to: &str) {
        let attrs = [("from", self.domain), ("to", to), ("version", "1.0")];
        self.server
            .open_stream(sid, Element::build("open", ns::FRAMING, &attrs, Vec::new()).into());
    }

    fn send(&self, sid: u64, element: Element) {
        self.server.send(sid, vec![Arc::new(element)]);
    }
}

fn element(name: &'static str, namespace: &'static str) -> Element {
    Element::build(name, namespace, &[], Vec::new())
}

/// A stream from one to the other under TLS, with the header of the first sent; both numbers, and what each saw of TLS.
fn secure(from: &mut Side, to: &mut Side, direct: bool) -> (u64, u64, TlsInfo, TlsInfo) {
    let port = to.listen(if direct { Mode::ServerTls } else { Mode::Server });
    let out = from
        .server
        .connect(ConnectOptions {
            address: LOCALHOST,
            port,
            source: None,
            timeout: Duration::from_secs(20),
            tls: direct,
            server_name: to.domain.into(),
            local: Some(from.domain.into()),
        })
        .unwrap();
    assert_eq!(from.connected(), out);
    if direct {
        let seen = from.secured();
        from.open(out, to.domain);
        let into = to.connected();
        let shown = to.secured();
        to.opened();
        return (out, into, seen, shown);
    }
    from.open(out, to.domain);
    let into = to.connected();
    to.opened();
    to.open(into, from.domain);
    from.opened();
    from.send(out, element("starttls", ns::TLS));
    assert!(to.stanza().is("starttls", ns::TLS));
    to.server.start_tls(into);
    assert!(from.stanza().is("proceed", ns::TLS));
    from.server.start_tls(out);
    let (seen, shown) = (from.secured(), to.secured());
    from.open(out, to.domain);
    to.opened();
    (out, into, seen, shown)
}

fn message(from: &str, to: &str) -> Element {
    let body = Element::build("body", ns::CLIENT, &[], vec![Node::Text(Str::value("hello"))]);
    Element::build(
        "message",
        ns::CLIENT,
        &[("from", from), ("to", to)],
        vec![Node::Element(body.into())],
    )
}

#[test]
fn servers_talk_under_tls_with_certificates_both_ways() {
    let curve: &[&str] = &["ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
    let large: &[&str] = &["ec", "-pkeyopt", "ec_paramgen_curve:P-384"];
    for (ours, theirs) in [(curve, &["rsa:2048"][..]), (&["ed25519"][..], large)] {
        for direct in [false, true] {
            let (mut a, mut b) = (Side::new("a.test", ours), Side::new("b.test", theirs));
            let (out, into, seen, shown) = secure(&mut a, &mut b, direct);
            for (info, peer) in [(&seen, "b.test"), (&shown, "a.test")] {
                assert_eq!(info.chain.len(), 1);
                let name = peer.as_bytes();
                assert!(
                    info.chain[0].windows(name.len()).any(|part| part == name),
                    "it is {peer}'s"
                );
                assert_eq!(info.sni.as_deref(), Some("b.test"));
                assert_eq!(info.alpn.as_deref(), direct.then_some("xmpp-server"));
            }
            b.open(into, "a.test");
            a.opened();
            b.send(into, element("features", ns::STREAMS));
            assert!(a.stanza().is("features", ns::STREAMS));
            b.server.pair(into, "b.test", "a.test", false);
            a.server.pair(out, "a.test", "b.test", false);
            for _ in 0..100 {
                a.send(out, message("u@a.test/r", "v@b.test"));
                b.send(into, message("v@b.test/r", "u@a.test"));
            }
            for _ in 0..100 {
                assert_eq!(*b.stanza(), message("u@a.test/r", "v@b.test"));
                assert_eq!(*a.stanza(), message("v@b.test/r", "u@a.test"));
            }
            b.server.close(into, None);
            assert!(matches!(a.next(), Event::Close { .. }));
            a.server.close(out, None);
            for side in [&mut a, &mut b] {
                let event = side.next();
                assert!(matches!(event, Event::Closed { .. }), "{event:?}");
                side.server.stop();
            }
        }
    }
}
