//! What one session sends to another arrives in order, whether the table decides where it goes or Python does.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use mio::Events;
use moim_wire::xml::Element;

use super::super::super::config::Config;
use super::super::super::event::Event;
use super::super::super::server::Server;
use super::{came, message, signed_in, signed_in_to, text};

const AT_ONCE: Option<Duration> = Some(Duration::ZERO);

/// Python has to route it.
const REQUEST: &[u8] = b"<iq type='get' id='q' to='b@x/r'><ping xmlns='urn:xmpp:ping'/></iq>";

/// Stanzas that came up.
fn taken(server: &Server) -> Vec<Arc<Element>> {
    let events = server.drain(100).into_iter();
    let stanzas = events.filter_map(|event| match event {
        Event::Stanza { element, .. } => Some(element),
        _ => None,
    });
    stanzas.collect()
}

/// Waits until something comes up.
fn wait(server: &Server) {
    let mut poll = libc::pollfd {
        fd: server.fileno(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one valid pollfd, count 1.
    assert_eq!(unsafe { libc::poll(&mut poll, 1, 20_000) }, 1, "nothing comes up");
}

#[test]
fn python_hears_of_nothing_before_what_came_first_was_handed_over() {
    let config = Config {
        threads: 2,
        ..Config::default()
    };
    let (mut hand, mut ends) = signed_in_to(config, &["a", "b"]);
    hand.server.archive("a@x", true);
    taken(&hand.server);
    ends[0].write_all(&[&message("b")[..], REQUEST].concat()).unwrap();
    let shared = hand.server.shared().clone();
    let (ours, theirs) = (shared.owner(1), shared.owner(2));
    assert_ne!(ours, theirs);

    let (server, shard) = (&hand.server, &mut hand.shards[ours]);
    // The thread of `a` is stopped where it hands the message to that of `b`: the record of it goes up before.
    let stopped = shared.inboxes[theirs].lock();
    let told = std::thread::scope(|scope| {
        scope.spawn(|| shard.turn(&mut Events::with_capacity(8), AT_ONCE));
        wait(server);
        let told = server.drain(100);
        drop(stopped);
        told
    });
    assert!(matches!(told[..], [Event::Records { .. }]), "{told:?}");
    assert!(!shared.inboxes[theirs].lock().is_empty());
    assert_eq!(taken(server).len(), 1);
}

#[test]
fn what_python_sends_in_the_middle_of_a_round_is_not_overtaken() {
    let (mut hand, mut ends) = signed_in(&["a", "b"]);
    ends[0].write_all(REQUEST).unwrap();
    hand.round();
    hand.server.gather(true);
    let request = taken(&hand.server);
    ends[0].write_all(&message("b")).unwrap();
    hand.shards[0].hear(&mut Events::with_capacity(8), AT_ONCE).unwrap();
    hand.server.send(2, request);
    hand.server.gather(false);
    hand.shards[0].work();
    assert_eq!(hand.count("routed"), 1, "by then the message is a hit");
    hand.turn();
    let came = text(&mut ends[1]);
    assert!(came.find("<iq").unwrap() < came.find("<message").unwrap(), "{came}");
}

#[test]
fn messages_wait_for_what_python_has_yet_to_route() {
    let (mut hand, mut ends) = signed_in(&["a", "b"]);
    let own: &[u8] = b"<iq type='get' id='o' to='a@x'/><iq type='get' id='s'/><presence/>";
    ends[0].write_all(&[own, &message("b")].concat()).unwrap();
    hand.round();
    assert_eq!(came(&mut ends[1]), 1, "what the server is asked keeps nobody");
    assert_eq!(taken(&hand.server).len(), 3);
    for first in [REQUEST, b"<presence to='b@x'/>", b"<message to='b@x/r' type='error'/>"] {
        ends[0].write_all(&[first, &message("b")].concat()).unwrap();
        hand.round();
        assert_eq!(taken(&hand.server).len(), 2);
        ends[0].write_all(&message("b")).unwrap();
        hand.round();
        hand.server.gather(false);
        assert_eq!((came(&mut ends[1]), taken(&hand.server).len()), (0, 1));
        hand.server.gather(false);
        ends[0].write_all(&message("b")).unwrap();
        hand.round();
        assert_eq!((came(&mut ends[1]), taken(&hand.server).len()), (1, 0));
    }
}

#[test]
fn messages_wait_for_what_python_has_postponed() {
    let (mut hand, mut ends) = signed_in(&["a", "b"]);
    ends[0].write_all(REQUEST).unwrap();
    hand.round();
    assert_eq!(taken(&hand.server).len(), 1);
    hand.server.postpone(1);
    hand.server.gather(false);
    ends[0].write_all(&message("b")).unwrap();
    hand.round();
    assert_eq!((came(&mut ends[1]), taken(&hand.server).len()), (0, 1));
    hand.server.gather(false);
    hand.server.caught_up(1);
    ends[0].write_all(&message("b")).unwrap();
    hand.round();
    assert_eq!((came(&mut ends[1]), taken(&hand.server).len()), (1, 0));
}
