//! What one session does costs that session alone, and little is kept for those who are gone.

use std::io::{ErrorKind, Write};

use moim_wire::xml::{ns, Element, Str};

use super::super::super::config::{Config, Mode};
use super::super::super::event::Event;
use super::super::super::fuzzing::ByHand;
use super::{came, listener, message, signed_in, signed_in_to};

#[test]
fn a_panic_that_takes_the_buffer_along_ends_nobody_else() {
    let (mut hand, mut ends) = signed_in(&["a", "b"]);
    hand.shards[0].context.raw = Vec::new();
    ends[0].write_all(&message("b")).unwrap();
    hand.round();
    assert_eq!((came(&mut ends[1]), hand.sessions()), (1, 2));
}

#[test]
fn a_stranger_who_does_not_read_is_not_waited_for() {
    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: xmpp\r\n\r\n";
    let mut hand = ByHand::new("x", Config::default());
    let (_, mut end) = hand.connect(listener(Mode::WebSocket));
    end.write_all(REQUEST).unwrap();
    hand.turn();
    let ping = [&[0x89, 0x80 | 125, 0, 0, 0, 0][..], &[b'x'; 125]].concat();
    let pings = ping.repeat(100);
    let mut sent = 0;
    loop {
        match end.write(&pings[sent % ping.len()..]) {
            Ok(taken) => sent += taken,
            Err(error) if error.kind() == ErrorKind::WouldBlock => hand.round(),
            Err(_) => break,
        }
        hand.round();
        if hand.count("slow_readers") > 0 {
            break;
        }
    }
    // The two sockets hold some of it.
    assert!(sent < 1 << 20, "{sent} bytes of pings were taken");
}

#[test]
fn a_tap_that_comes_too_late_leaves_nothing() {
    let (mut hand, ends) = signed_in(&["a"]);
    drop(ends);
    hand.turn();
    assert_eq!(hand.sessions(), 0);
    hand.server.tap(1, true);
    hand.turn();
    let routes = &hand.server.shared().routes;
    routes.bind(Str::value("a@x/r"), 3, 1);
    let mut found = Vec::new();
    routes.look("a@x", |account| account.find(Some("r"), true, true, &mut found));
    assert_eq!(found, [1], "its number is not among those that are tapped");
}

#[test]
fn what_others_got_is_not_missed_by_who_ends_over_it() {
    let config = Config {
        threads: 1,
        unacked_stanzas: 2,
        ..Config::default()
    };
    let (mut hand, mut ends) = signed_in_to(config, &["a", "b", "b@x/other"]);
    hand.server.presence(2, Some(0));
    hand.server.presence(3, Some(0));
    hand.server.manage(2, None, true);
    hand.server.inactive(2, true);
    for number in 0..3 {
        let from = format!("c@x/{number}");
        let presence = Element::build("presence", ns::CLIENT, &[("from", &from)], Vec::new());
        hand.server.send(2, vec![presence.into()]);
    }
    hand.turn();
    ends[0]
        .write_all(b"<message to='b@x' type='chat'><body>hello</body></message>")
        .unwrap();
    hand.turn();
    assert_eq!((came(&mut ends[2]), hand.count("overflows")), (1, 1));
    let events = hand.server.drain(100);
    assert!(events.iter().any(|event| matches!(event, Event::Unacknowledged { .. })));
    assert!(
        !events.iter().any(|event| matches!(event, Event::Missed { .. })),
        "{events:?}"
    );
}
