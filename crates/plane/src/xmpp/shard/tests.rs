//! Whole rounds, turned by hand.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use super::super::config::{Config, ListenerOptions, Mode};
use super::super::fuzzing::ByHand;

mod bounds;
mod fairness;
mod order;

const HEADER: &[u8] =
    b"<stream:stream to='x' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>";

/// How clients connect.
fn listener(mode: Mode) -> ListenerOptions {
    ListenerOptions {
        mode,
        proxy_protocol: false,
        origins: Vec::new(),
        path: "/".into(),
    }
}

/// One thread with sessions that are signed in, numbered from 1, each at the peer's end of its connection.
fn signed_in(names: &[&str]) -> (ByHand, Vec<UnixStream>) {
    let config = Config {
        threads: 1,
        ..Config::default()
    };
    signed_in_to(config, names)
}

/// The same with other bounds. A name is a full JID, or stands for `name@x/r`.
fn signed_in_to(config: Config, names: &[&str]) -> (ByHand, Vec<UnixStream>) {
    let mut hand = ByHand::new("x", config);
    let ends = names.iter().map(|name| {
        let (sid, mut end) = hand.connect(listener(Mode::StartTls));
        end.write_all(HEADER).unwrap();
        hand.turn();
        hand.server.drain(100);
        hand.server.authenticated(sid);
        let full = if name.contains('/') {
            (*name).to_owned()
        } else {
            format!("{name}@x/r")
        };
        hand.server.bind(sid, &full);
        hand.turn();
        end
    });
    let ends = ends.collect();
    (hand, ends)
}

fn message(to: &str) -> Vec<u8> {
    format!("<message to='{to}@x/r' type='chat'><body>hello</body></message>").into_bytes()
}

/// What came since the last look.
fn text(end: &mut UnixStream) -> String {
    let mut bytes = vec![0; 1 << 20];
    let length = end.read(&mut bytes).unwrap_or(0);
    String::from_utf8_lossy(&bytes[..length]).into_owned()
}

/// Messages that came since the last look.
fn came(end: &mut UnixStream) -> usize {
    text(end).matches("</message>").count()
}
