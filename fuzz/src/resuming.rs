//! Sessions that lose their connections at any byte and come back, with honest clients: everything sent to them arrives, in
//! order, nothing is lost and nothing comes twice; and what cannot arrive any more comes back. What they send is counted
//! when it is done with, and what was not they send again.

use moim_plane::xmpp::{Config, Mode};
use moim_wire::xml::{ns, Element};

use crate::scene::{element, message, Scene, AUTH, HEADER};
use crate::Choices;

/// A client, as it sees itself.
struct Client {
    place: usize,
    /// The session that it comes back to.
    token: u64,
    /// Stanzas that it took since stream management began.
    handled: u32,
    /// Numbers of the messages among them.
    got: Vec<u32>,
    /// How far it has looked at what came on this connection.
    looked: usize,
    /// Whether what comes counts: not before `<resumed/>`.
    counting: bool,
    given: Vec<u32>,
    /// Numbers of the messages that it sent since stream management began, as far as they count.
    sent: Vec<u32>,
    /// How many of them the server has told it that it has.
    told: usize,
}

impl Client {
    /// Takes what came; whether its session is gone.
    fn look(&mut self, inbox: &[Element]) -> bool {
        let mut failed = false;
        for element in &inbox[self.looked..] {
            if element.ns() == ns::SM {
                let count = element.attr("h").and_then(|text| text.parse::<usize>().ok());
                match element.name().as_str() {
                    "resumed" | "enabled" => self.counting = true,
                    "failed" => failed = true,
                    _ => {}
                }
                if let Some(count) = count.filter(|_| matches!(element.name().as_str(), "resumed" | "a")) {
                    assert!(
                        self.told <= count && count <= self.sent.len(),
                        "counts rise, as far as there is something"
                    );
                    self.told = count;
                }
            } else if self.counting && element.is_stanza() {
                self.handled += 1;
                if element.name() == "message" {
                    self.got
                        .push(element.attr("id").and_then(|id| id.parse().ok()).expect("a number"));
                }
            }
        }
        self.looked = inbox.len();
        failed
    }
}

/// One input: a row of steps.
pub fn run(data: &[u8]) {
    let mut choices = Choices(data);
    let mut scene = Scene::new(Config::default());
    let mut clients: Vec<Client> = (0..2)
        .map(|_| {
            let place = scene.sign_in();
            scene.say(place, b"<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
            scene.serve();
            Client {
                place,
                token: scene.peers[place].sid,
                handled: 0,
                got: Vec::new(),
                looked: 0,
                counting: false,
                given: Vec::new(),
                sent: Vec::new(),
                told: 0,
            }
        })
        .collect();
    for client in &mut clients {
        read(&mut scene, client, usize::MAX);
        assert!(client.counting, "stream management is on");
    }
    let (mut number, mut steps) = (0, 0);
    while !choices.is_over() && steps < 300 {
        steps += 1;
        let what = choices.byte();
        let client = &mut clients[usize::from(what / 16) % 2];
        match what % 16 {
            0..=4 => {
                for _ in 0..=choices.below(6) {
                    number += 1;
                    client.given.push(number);
                    scene.hand.server.fan_out(&message(number), vec![client.token]);
                }
                scene.serve();
            }
            5 => scene.hand.server.send(
                client.token,
                vec![element("presence", ns::CLIENT, &[("from", "room@x/nick")])],
            ),
            6 | 7 => read(&mut scene, client, choices.byte().into()),
            8 => read(&mut scene, client, usize::MAX),
            9 => {
                let answer = format!("<a xmlns='urn:xmpp:sm:3' h='{}'/>", client.handled);
                scene.say(client.place, answer.as_bytes());
            }
            10 => scene.say(client.place, b"<r xmlns='urn:xmpp:sm:3'/>"),
            11 if scene.peers[client.place].stream.is_some() => {
                // To itself; kept in archives, or given to Python, so that acknowledgements wait.
                number += 1;
                write(&mut scene, client, number);
            }
            12 => {
                match choices.below(4) {
                    choice @ (0 | 1) => scene.hand.server.inactive(client.token, choice == 0),
                    choice => scene.hand.server.tap(client.token, choice == 2),
                }
                scene.hand.turn();
            }
            13 => scene.peers[client.place].stream = None,
            14 => {
                if choices.below(2) == 0 {
                    let ticket = scene.tickets.pop();
                    ticket
                        .into_iter()
                        .for_each(|ticket| scene.hand.server.committed(ticket, true));
                } else if !scene.undone.is_empty() {
                    let at = choices.below(scene.undone.len());
                    scene.hand.server.done(vec![scene.undone.remove(at)]);
                }
                scene.hand.turn();
            }
            _ => come_back(&mut scene, client),
        }
        if what < 128 {
            scene.serve();
        }
    }
    for client in &mut clients {
        come_back(&mut scene, client);
        scene.hand.server.done(std::mem::take(&mut scene.undone));
        for ticket in std::mem::take(&mut scene.tickets) {
            scene.hand.server.committed(ticket, true);
        }
        scene.say(client.place, b"<r xmlns='urn:xmpp:sm:3'/>");
        // An inactive client gets what is held back once it is active again.
        scene.hand.server.inactive(client.token, false);
        scene.serve();
        read(&mut scene, client, usize::MAX);
        assert_eq!(client.got, client.given, "everything, in order, once");
        assert_eq!(client.told, client.sent.len(), "what is done with is acknowledged");
    }
    assert!(scene.back.is_empty(), "nothing was lost, so nothing comes back");
    scene.finish();
}

/// Reads what came, up to so many bytes.
fn read(scene: &mut Scene, client: &mut Client, most: usize) {
    let mut left = most;
    while left > 0 {
        let before = scene.peers[client.place].inbox.len();
        scene.read(client.place, left.min(65_536));
        if most < usize::MAX {
            break;
        }
        scene.serve();
        if scene.peers[client.place].inbox.len() == before {
            break;
        }
        left = most;
    }
    let failed = client.look(&scene.peers[client.place].inbox);
    assert!(!failed, "a session that waits can be resumed");
}

/// Sends a message to itself.
fn write(scene: &mut Scene, client: &mut Client, number: u32) {
    client.given.push(number);
    client.sent.push(number);
    let full = scene.known[&client.token].clone().expect("a bound session");
    let text = format!("<message to='{full}' type='chat' id='{number}'><body>hi</body></message>");
    scene.say(client.place, text.as_bytes());
    scene.serve();
}

/// Leaves the connection, if there is one, and goes on over another one.
fn come_back(scene: &mut Scene, client: &mut Client) {
    scene.serve();
    client.place = scene.connect(Mode::StartTls, false);
    client.looked = 0;
    client.counting = false;
    for said in [HEADER, AUTH, HEADER] {
        scene.say(client.place, said.as_bytes());
        scene.serve();
    }
    let resume = format!(
        "<resume xmlns='urn:xmpp:sm:3' previd='{}' h='{}'/>",
        client.token, client.handled
    );
    scene.say(client.place, resume.as_bytes());
    scene.serve();
    read(scene, client, usize::MAX);
    assert!(client.counting, "the session goes on");
    for number in client.sent.split_off(client.told) {
        write(scene, client, number);
    }
}
