//! Who waits for whom, by rounds instead of clocks.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;

use super::super::READ_PER_ROUND;
use super::{came, message, signed_in};

/// Writes messages until the socket is full; how many went in whole.
fn fill(end: &mut UnixStream, to: &str) -> usize {
    let one = message(to);
    let many = one.repeat(1000);
    let mut written = 0;
    loop {
        match end.write(&many[written % one.len()..]) {
            Ok(taken) => written += taken,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                return written / one.len();
            }
        }
    }
}

#[test]
fn one_message_does_not_wait_for_those_who_have_very_many() {
    let (mut hand, mut ends) = signed_in(&["a", "b", "c", "d", "quiet", "friend"]);
    for (from, to) in [(0, "b"), (1, "a"), (2, "d"), (3, "c")] {
        assert!(fill(&mut ends[from], to) > 1000);
    }
    hand.round();
    hand.round();
    let before = hand.count("routed") as usize;
    ends[4].write_all(&message("friend")).unwrap();
    hand.round();
    assert_eq!(came(&mut ends[5]), 1, "it is out when the next round is over");
    let others = hand.count("routed") as usize - before - 1;
    assert!(others > 0, "who has much to say goes on");
    assert!(
        others <= READ_PER_ROUND / message("a").len(),
        "{others} messages went before it"
    );
}

#[test]
fn everybody_who_has_much_to_say_gets_the_same_share() {
    let (mut hand, mut ends) = signed_in(&["a", "b", "c", "d"]);
    for end in &mut ends[..3] {
        fill(end, "d");
    }
    for _ in 0..6 {
        hand.round();
    }
    let mut bytes = vec![0; 1 << 20];
    let length = ends[3].read(&mut bytes).unwrap();
    let text = String::from_utf8_lossy(&bytes[..length]);
    let of = |name: &str| text.matches(&format!("from='{name}@x/r'")).count();
    let (least, most) = (of("a").min(of("b")).min(of("c")), of("a").max(of("b")).max(of("c")));
    let turn = crate::xmpp::shared::READ_SIZE / message("d").len() + 1;
    assert!(least > 0 && most - least <= turn, "between {least} and {most}");
}

#[test]
fn nothing_is_lost_between_rounds() {
    let (mut hand, mut ends) = signed_in(&["a", "b"]);
    let (sent, mut got) = (fill(&mut ends[0], "b"), 0);
    for _ in 0..1000 {
        hand.round();
        got += came(&mut ends[1]);
    }
    assert_eq!(got, sent);
}
