//! The counters and the queue of stream management against a model: nothing lost, nothing twice, whatever the peer counts.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use moim_plane::xmpp::fuzzing::{Handled, Managed, Parcel};
use moim_wire::xml::{ns, Element, Str};

use crate::Choices;

/// One input: a row of steps.
pub fn run(data: &[u8]) {
    let mut choices = Choices(data);
    let mut managed = Managed::new(Str::value("a@x/r"), true);
    // The model: ids that wait, how many were ever acknowledged and taken, and what keeps the count back, each with the
    // count before it: tickets, and numbers that Python has, which are odd here.
    let (mut queue, mut acknowledged, mut sent) = (VecDeque::<u32>::new(), 0_u32, 0_u32);
    let (mut received, mut waits) = (0_u32, VecDeque::<(u64, u32)>::new());
    let now = Instant::now();
    // What was taken when the client asked first, and when it asked last since.
    let (mut asked, mut again) = (None, None);
    let (mut last_told, mut said, mut given) = (0, None, 0);
    while !choices.is_over() {
        match choices.below(12) {
            0 => {
                managed.send(&message(sent), 10);
                queue.push_back(sent);
                sent += 1;
            }
            1 => {
                managed.receive();
                received += 1;
            }
            2 => {
                // Any count, near the truth or not.
                let near = acknowledged.wrapping_add(choices.byte().into());
                let handled = if choices.below(4) == 0 {
                    near.wrapping_sub(128)
                } else {
                    near
                };
                let ahead = handled.wrapping_sub(acknowledged);
                let fits = ahead as usize <= queue.len();
                let expected = if fits || ahead > u32::MAX / 2 {
                    Handled::Fine
                } else {
                    Handled::TooHigh { sent }
                };
                assert_eq!(managed.check(handled), expected);
                assert_eq!(managed.acknowledge(handled), expected);
                if fits {
                    queue.drain(..ahead as usize);
                    acknowledged = handled;
                }
            }
            3 if received > 0 => {
                let ticket = u64::from(choices.byte() % 8) + u64::from(received) * 8;
                managed.receive();
                received += 1;
                assert!(managed.wait_for(ticket));
                assert!(!managed.wait_for(ticket), "once for each ticket");
                waits.push_back((ticket * 2, received - 1));
            }
            9 => {
                managed.receive();
                received += 1;
                given += 1;
                assert_eq!(managed.wait_for_python(), given);
                waits.push_back((given * 2 + 1, received - 1));
            }
            4 | 10 if !waits.is_empty() => {
                let (number, _) = waits.remove(choices.below(waits.len())).expect("one of them");
                if number % 2 == 0 {
                    managed.committed(number / 2);
                } else {
                    managed.done(number / 2);
                    managed.done(number / 2);
                }
            }
            11 => {
                managed.disconnected();
                (asked, again, said) = (None, None, None);
                received = waits.front().map_or(received, |(_, before)| *before);
                waits.clear();
                assert_eq!(managed.begin_again(), received, "the client sends the rest again");
                last_told = received;
            }
            5 => {
                managed.ask();
                said = None;
                match asked {
                    None => asked = Some(received),
                    Some(_) => again = Some(received),
                }
            }
            6 => {
                let patient = choices.below(2) == 0;
                let told = managed.answer(patient);
                let safe = waits.front().map_or(received, |(_, before)| *before);
                let owed = asked.is_some_and(|count| count <= safe || (!patient && said != Some(safe)));
                assert_eq!(
                    told.is_some(),
                    owed,
                    "what was sent before the question is waited for, and no more"
                );
                if let Some(told) = told {
                    assert_eq!(told, safe, "nothing counts before it is on disk");
                    assert!(told >= last_told, "counts do not fall");
                    last_told = told;
                    if asked.is_some_and(|count| count > told) {
                        said = Some(told);
                    } else {
                        (asked, said) = (again.take().filter(|count| *count > told), None);
                    }
                }
            }
            7 => {
                managed.disconnected();
                (asked, again, said) = (None, None, None);
                let sent_again: Vec<u32> = managed.reconnected().map(|parcel| number(&parcel.element)).collect();
                assert_eq!(
                    sent_again,
                    Vec::from(queue.clone()),
                    "what was not acknowledged comes again, in order"
                );
            }
            _ => {
                let _ = managed.request(choices.below(2) == 0, now);
            }
        }
        assert!(managed.fits(queue.len(), 10 * queue.len()));
        assert!(queue.is_empty() || !managed.fits(queue.len() - 1, usize::MAX));
        let safe = waits.front().map_or(received, |(_, before)| *before);
        assert_eq!(managed.handled(), safe);
    }
    let safe = waits.front().map_or(received, |(_, before)| *before);
    let (left, handled) = managed.end();
    assert_eq!(
        left.iter().map(|element| number(element)).collect::<Vec<_>>(),
        Vec::from(queue)
    );
    assert_eq!(handled, safe);
}

fn message(number: u32) -> Parcel {
    let element = Element::build("message", ns::CLIENT, &[("id", &number.to_string())], Vec::new());
    Parcel::sole(Arc::new(element))
}

fn number(element: &Element) -> u32 {
    element.attr("id").and_then(|id| id.parse().ok()).expect("a number")
}
