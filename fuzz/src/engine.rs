//! A whole engine among clients, WebSocket clients and other servers that say anything, while Python asks it for things in
//! any order: no panic, whatever goes out is well formed and in the name of somebody real, and nothing is left at the end.

use moim_plane::xmpp::{Config, Mode};
use moim_wire::xml::ns;

use crate::scene::{element, message, Scene, AUTH, BIND, HEADER};
use crate::Choices;

const MODES: [Mode; 4] = [Mode::StartTls, Mode::StartTls, Mode::WebSocket, Mode::Server];
const PEERS: usize = 8;

/// What somebody may say in one piece.
const SAID: [&str; 36] = [
    HEADER,
    AUTH,
    BIND,
    "<?xml version='1.0'?>",
    "</stream:stream>",
    "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>",
    "<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>AA==</response>",
    "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'/>",
    "<presence/>",
    "<presence type='unavailable'/>",
    "<presence to='a@x'/>",
    "<message to='a@x' type='chat' id='1'><body>hi</body></message>",
    "<message to='b@x' from='a@x/r1' type='chat'><body>forged</body></message>",
    "<message to='a@x/r1'><body>one</body><private xmlns='urn:xmpp:carbons:2'/></message>",
    "<message to='b@x/r2' type='headline'><body>news</body></message>",
    "<message to='c@x' type='groupchat'><body>no room</body></message>",
    "<message to='a@x' type='error'/>",
    "<message to='A@X/r1' type='chat'><body>other spelling</body></message>",
    "<message to='a@x' type='chat'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>",
    "<message to='b@x'><sent xmlns='urn:xmpp:carbons:2'/><stanza-id xmlns='urn:xmpp:sid:0' by='b@x' id='9'/></message>",
    "<message to='p@far' type='chat'><body>out</body></message>",
    "<message><body>to nobody</body></message>",
    "<iq type='get' id='g' to='x'><ping xmlns='urn:xmpp:ping'/></iq>",
    "<enable xmlns='urn:xmpp:sm:3'/>",
    "<enable xmlns='urn:xmpp:sm:3' resume='true'/>",
    "<r xmlns='urn:xmpp:sm:3'/>",
    "<a xmlns='urn:xmpp:sm:3' h='1'/>",
    "<a xmlns='urn:xmpp:sm:3' h='4294967295'/>",
    "<resume xmlns='urn:xmpp:sm:3' previd='1' h='0'/>",
    "<resume xmlns='urn:xmpp:sm:3' previd='2' h='3'/>",
    "<inactive xmlns='urn:xmpp:csi:0'/>",
    "<active xmlns='urn:xmpp:csi:0'/>",
    "<stream:stream from='far' to='x' version='1.0' xmlns='jabber:server' xmlns:db='jabber:server:dialback' \
     xmlns:stream='http://etherx.jabber.org/streams'>",
    "<db:result from='far' to='x'>key</db:result>",
    "<message from='p@far' to='a@x' type='chat'><body>in</body></message>",
    "GET /xmpp-websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
     Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: xmpp\r\n\r\n",
];
const OPEN: &str = "<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='x' version='1.0'/>";
const CLOSE: &str = "<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>";
const PROXY: &str = "PROXY TCP4 192.0.2.7 192.0.2.1 40000 5222\r\n";

/// One input: a row of steps.
pub fn run(data: &[u8]) {
    let mut choices = Choices(data);
    let mut scene = Scene::new(Config {
        max_stanza: 16_384,
        max_stanza_unauthenticated: 4096,
        pending_events: 8,
        write_queue: 32_768,
        server_write_queue: 65_536,
        unacked_stanzas: 20,
        unacked_bytes: 8192,
        ..Config::default()
    });
    scene.sign_in();
    scene.sign_in();
    let (mut number, mut steps) = (0, 0);
    while !choices.is_over() && steps < 400 {
        steps += 1;
        let what = choices.byte();
        let place = choices.below(scene.peers.len());
        let sid = scene.peers[place].sid;
        let server = &scene.hand.server;
        match what % 16 {
            0..=4 => match choices.below(SAID.len() + 3) {
                at if at < SAID.len() => scene.say(place, SAID[at].as_bytes()),
                at => scene.say(place, [OPEN, CLOSE, PROXY][at - SAID.len()].as_bytes()),
            },
            5 => {
                let length = choices.byte().into();
                let bytes = choices.bytes(length);
                scene.say(place, bytes);
            }
            6 => {
                let length = choices.byte().into();
                let bytes = choices.bytes(length);
                scene.say_raw(place, bytes);
            }
            7 => {
                let text = SAID[choices.below(SAID.len())].as_bytes();
                let cut = choices.below(text.len());
                scene.say_raw(place, &text[..cut]);
            }
            8 if scene.peers.len() < PEERS => {
                let mode = MODES[choices.below(MODES.len())];
                let proxied = choices.below(4) == 0;
                scene.connect(mode, proxied);
            }
            9 => scene.peers[place].stream = None,
            10 => {
                number += 1;
                let bound = scene.known.iter().filter(|(_, address)| address.is_some());
                server.fan_out(&message(number), bound.map(|(sid, _)| *sid).collect());
            }
            // Python sends nothing to a session without an address but the answers of its sign-in.
            11 if scene.known.get(&sid).is_some_and(Option::is_some) => match choices.below(10) {
                0 => server.carbons(sid, true),
                1 => server.inactive(sid, choices.below(2) == 0),
                2 => server.tap(sid, choices.below(2) == 0),
                3 => server.presence(sid, [None, Some(-1), Some(5)][choices.below(3)]),
                4 => server.close(sid, None),
                5 => server.unpair(sid, "x", "far"),
                6 => server.archive("a@x", choices.below(2) == 0),
                7 => server.send(sid, vec![element("presence", ns::CLIENT, &[("from", "room@x/nick")])]),
                8 => server.route_domain(sid, "x", "far", false),
                _ => server.send(sid, vec![message(0); 60]),
            },
            12 => {
                if !scene.tickets.is_empty() {
                    let ticket = scene.tickets.remove(choices.below(scene.tickets.len()));
                    server.committed(ticket, choices.below(4) > 0);
                }
            }
            13 if !scene.undone.is_empty() && choices.below(2) == 0 => {
                let at = choices.below(scene.undone.len());
                server.done(vec![scene.undone.remove(at), (sid, u64::from(choices.byte()))]);
            }
            13 => scene.read(place, 65_536),
            _ => scene.serve(),
        }
        if what < 192 {
            scene.serve();
        }
    }
    scene.finish();
}
