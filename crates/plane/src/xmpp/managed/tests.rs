//! The counters of stream management.

use super::*;

fn managed() -> Managed {
    Managed::new(Str::value("a@x.test/r"), true)
}

fn message(id: &str) -> Parcel {
    Parcel::sole(Element::build("message", ns::CLIENT, &[("id", id)], Vec::new()).into())
}

fn ids(elements: &[Arc<Element>]) -> Vec<&str> {
    elements.iter().map(|element| element.attr("id").unwrap()).collect()
}

#[test]
fn what_is_acknowledged_is_forgotten_and_the_rest_comes_back() {
    let mut managed = managed();
    for id in ["1", "2", "3"] {
        managed.send(&message(id), 10);
    }
    assert_eq!(managed.acknowledge(2), Handled::Fine);
    assert_eq!(managed.acknowledge(1), Handled::Fine, "late news");
    assert_eq!(managed.acknowledge(4), Handled::TooHigh { sent: 3 });
    assert!(managed.fits(1, 10) && !managed.fits(0, 10) && !managed.fits(1, 9));
    assert_eq!(managed.reconnected().count(), 1);
    managed.receive();
    let (left, received) = managed.end();
    assert_eq!((ids(&left), received), (vec!["3"], 1));
}

#[test]
fn beyond_the_bounds_the_oldest_counts_as_acknowledged() {
    let mut managed = managed();
    for id in ["1", "2", "3", "4"] {
        managed.send(&message(id), 10);
    }
    managed.trim(4, 39);
    managed.trim(2, 100);
    let left: Vec<_> = managed.unacknowledged().cloned().collect();
    assert_eq!(ids(&left), ["3", "4"]);
    assert!(managed.request(false, Instant::now()));
    assert_eq!(managed.acknowledge(1), Handled::Fine, "its count comes late");
    assert!(managed.asked_since.is_none(), "but it lives");
    assert_eq!(managed.acknowledge(3), Handled::Fine);
    assert_eq!(managed.unacknowledged().count(), 1);
    assert_eq!(managed.acknowledge(5), Handled::TooHigh { sent: 4 });
}

#[test]
fn counters_wrap() {
    let mut managed = managed();
    managed.acknowledged = u32::MAX - 1;
    managed.received = u32::MAX;
    for id in ["1", "2", "3"] {
        managed.send(&message(id), 1);
    }
    assert_eq!(managed.check(2), Handled::TooHigh { sent: 1 });
    assert_eq!(managed.acknowledge(0), Handled::Fine);
    assert_eq!(managed.acknowledge(2), Handled::TooHigh { sent: 1 });
    assert_eq!(managed.reconnected().count(), 1);
    managed.receive();
    managed.ask();
    assert_eq!(managed.answer(true), Some(0));
}

#[test]
fn a_session_goes_on_in_another_engine_as_it_was() {
    let mut managed = managed();
    managed.receive();
    for id in ["1", "2", "3"] {
        managed.send(&message(id), 10);
    }
    managed.send(&Parcel::own(message("4").element), 10);
    assert_eq!(managed.acknowledge(1), Handled::Fine);
    let (received, acknowledged, sent) = managed.move_out();
    assert_eq!((received, acknowledged), (1, 1));
    assert_eq!(sent[2].0.attr("to"), Some("a@x.test/r"));
    let mut moved = Managed::moved_in(Str::value("a@x.test/r"), received, acknowledged);
    for (element, sole) in sent {
        let own = false;
        moved.send(&Parcel { element, own, sole }, 10);
    }
    assert_eq!(moved.check(5), Handled::TooHigh { sent: 4 });
    assert_eq!(moved.acknowledge(2), Handled::Fine);
    let (left, received) = moved.end();
    assert_eq!((ids(&left), received), (vec!["3"], 1));
}

#[test]
fn an_answer_waits_for_the_disk_but_not_for_ever() {
    let mut managed = managed();
    managed.receive();
    managed.receive();
    assert!(managed.wait_for(7) && !managed.wait_for(7));
    managed.receive();
    assert!(managed.wait_for(8));
    managed.receive();
    managed.ask();
    assert_eq!(managed.answer(true), None);
    managed.committed(8);
    assert_eq!(managed.answer(true), None);
    assert_eq!(
        managed.answer(false),
        Some(1),
        "the first is not on disk yet, the one before it needs none"
    );
    assert_eq!(managed.answer(false), None, "that was said");
    managed.committed(7);
    assert_eq!(managed.answer(true), Some(4), "and this is what was asked for");
    assert_eq!(managed.answer(false), None);
}

#[test]
fn every_question_is_answered_in_time_however_little_there_is_to_say() {
    let mut managed = managed();
    managed.receive();
    let number = managed.wait_for_python();
    managed.ask();
    assert_eq!((managed.answer(true), managed.answer(false)), (None, Some(0)));
    managed.ask();
    assert_eq!((managed.answer(true), managed.answer(false)), (None, Some(0)));
    managed.done(number);
    assert_eq!((managed.answer(true), managed.owes()), (Some(1), false));
}

#[test]
fn nothing_counts_before_what_came_first_is_done() {
    let mut managed = managed();
    let mut numbers = Vec::new();
    for _ in 0..3 {
        managed.receive();
        numbers.push(managed.wait_for_python());
    }
    managed.receive();
    managed.wait_for(9);
    managed.done(numbers[1]);
    managed.committed(9);
    managed.done(77);
    assert_eq!(managed.handled(), 0);
    managed.done(numbers[0]);
    managed.done(numbers[0]);
    assert_eq!(managed.handled(), 2, "the second was done before");
    assert!(!managed.waits_for_disk());
    managed.done(numbers[2]);
    assert_eq!(managed.handled(), 4);
}

#[test]
fn a_client_that_comes_back_sends_again_what_is_not_done() {
    let mut managed = managed();
    managed.receive();
    managed.receive();
    let early = managed.wait_for_python();
    managed.receive();
    assert_eq!(managed.begin_again(), 1);
    managed.receive();
    let late = managed.wait_for_python();
    managed.done(early);
    assert_eq!(
        managed.handled(),
        1,
        "a late word about the first time says nothing about the second"
    );
    managed.done(late);
    assert_eq!((managed.handled(), managed.end().1), (2, 2));
}

#[test]
fn what_was_sent_after_the_question_does_not_keep_its_answer() {
    let mut managed = managed();
    for ticket in 1..=3 {
        managed.receive();
        managed.wait_for(ticket);
        managed.ask();
    }
    assert_eq!(managed.answer(true), None);
    managed.committed(1);
    assert_eq!(managed.answer(true), Some(1));
    managed.committed(2);
    assert_eq!(managed.answer(true), None, "the last question is about three");
    assert!(managed.owes());
    managed.committed(3);
    assert_eq!(managed.answer(true), Some(3));
    assert_eq!(managed.answer(false), None);
    assert!(!managed.owes());
}

#[test]
fn the_client_is_asked_by_number_or_by_time() {
    let mut managed = managed();
    let now = Instant::now();
    managed.send(&message("0"), 1);
    assert!(!managed.request(true, now) && managed.is_pending());
    assert!(managed.request(false, now) && !managed.is_pending());
    for _ in 0..ASK_EVERY {
        managed.send(&message("0"), 1);
    }
    assert!(!managed.request(false, now), "one question at a time");
    assert_eq!(managed.acknowledge(1), Handled::Fine);
    assert!(managed.request(true, now));
}

#[test]
fn copies_and_answers_need_nobody_to_hear_of_their_loss() {
    let mut managed = managed();
    let iq = |kind| Parcel::sole(Element::build("iq", ns::CLIENT, &[("type", kind), ("id", kind)], Vec::new()).into());
    managed.send(&iq("get"), 1);
    managed.send(&iq("result"), 1);
    managed.send(&Parcel::own(message("carbon").element), 1);
    let presence = Element::build("presence", ns::CLIENT, &[], Vec::new());
    managed.send(&Parcel::sole(presence.into()), 1);
    let sole = Parcel {
        own: true,
        ..message("m")
    };
    managed.send(&sole, 1);
    let (left, _) = managed.end();
    assert_eq!(ids(&left), ["get", "m"]);
    assert_eq!(left[1].attr("to"), Some("a@x.test/r"));
}
