//! Meetings of two and three browsers over a link with latency and loss.

mod support;

use std::time::Duration;

use moim_sfu::{Config, ConfigError, Event, Kind, Reason, Sfu, SfuError};
use support::{World, SERVER};

const BOTH: [bool; 2] = [true, true];

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[test]
fn two_browsers_hear_and_see_each_other() {
    let mut world = World::new();
    world.join(1, BOTH);
    world.join(2, BOTH);
    world.run(seconds(4));
    assert!(world.saw(&Event::Connected(1)) && world.saw(&Event::Connected(2)));
    assert!(world.saw(&Event::Track(1, Kind::Audio, true)) && world.saw(&Event::Track(1, Kind::Video, true)));
    for (pid, other) in [(1, 2), (2, 1)] {
        assert!(
            world.got(pid, other, Kind::Audio) > 100,
            "audio: {}",
            world.got(pid, other, Kind::Audio)
        );
        assert!(
            world.got(pid, other, Kind::Video) > 60,
            "video: {}",
            world.got(pid, other, Kind::Video)
        );
        let first = &world.browsers[&pid].got[&(other, Kind::Video)][0];
        assert!(first.starts_with(b"video "));
    }
    let (totals, each) = world.sfu.stats();
    assert_eq!(totals.participants, 2);
    assert!(totals.forwarded > 300 && totals.unknown == 0 && totals.faults == 0);
    assert!(each[&1].connected && each[&1].packets_forwarded > 100 && each[&1].bytes_received > 0);
    assert_eq!(each[&1].remote, Some(world.browsers[&1].address));
    assert_eq!(each[&1].subscriptions, 1);
}

#[test]
fn media_survives_a_lossy_link() {
    let mut world = World::new();
    world.loss = Some(20);
    world.join(1, BOTH);
    world.join(2, BOTH);
    world.run(seconds(10));
    let sent = 8 * 30;
    assert!(
        world.got(2, 1, Kind::Video) > sent * 9 / 10,
        "video: {}",
        world.got(2, 1, Kind::Video)
    );
    assert!(world.got(2, 1, Kind::Audio) > 8 * 50 * 8 / 10);
    let (_, each) = world.sfu.stats();
    assert!(each[&1].loss_in.is_some());
}

#[test]
fn a_late_third_is_seen_and_gone_again() {
    let mut world = World::new();
    world.join(1, BOTH);
    world.join(2, BOTH);
    world.run(seconds(3));
    world.join(3, BOTH);
    world.run(seconds(3));
    for (pid, other) in [(1, 3), (2, 3), (3, 1), (3, 2)] {
        assert!(world.got(pid, other, Kind::Audio) > 50, "{pid} hears {other}");
        assert!(world.got(pid, other, Kind::Video) > 30, "{pid} sees {other}");
    }
    world.leave(3);
    world.run(seconds(1));
    let offer = world.browsers[&1].offer.clone().unwrap();
    assert!(offer.tracks.iter().all(|track| track.publisher == 2));
    let before = world.got(1, 2, Kind::Video);
    world.run(seconds(1));
    assert!(world.got(1, 2, Kind::Video) > before + 20);
}

#[test]
fn sections_are_used_again_with_fresh_sources() {
    let mut world = World::new();
    world.join(1, BOTH);
    world.join(2, BOTH);
    world.run(seconds(3));
    let sections = |world: &World| world.browsers[&1].offer.as_ref().unwrap().sdp.matches("\r\nm=").count();
    let first = sections(&world);
    let old = world.browsers[&1].ssrcs[&(2, Kind::Video)].clone();
    for newcomer in 3..6 {
        world.leave(newcomer - 1);
        world.run(seconds(1));
        world.join(newcomer, BOTH);
        world.run(seconds(3));
        assert_eq!(sections(&world), first);
        assert!(world.got(1, newcomer, Kind::Video) > 30, "1 sees {newcomer}");
        assert!(world.browsers[&1].ssrcs[&(newcomer, Kind::Video)].is_disjoint(&old));
    }
}

#[test]
fn keyframes_are_asked_for_at_the_start_and_throttled_later() {
    let mut world = World::new();
    world.join(1, BOTH);
    world.join(2, BOTH);
    world.run(seconds(4));
    let start = world.browsers[&1].keyframe_requests;
    assert!(start >= 1);
    for _ in 0..20 {
        let now = world.now;
        world.browsers.get_mut(&2).unwrap().want_keyframe(1, now);
        world.run(Duration::from_millis(50));
    }
    world.run(seconds(1));
    let asked = world.browsers[&1].keyframe_requests - start;
    assert!((2..=4).contains(&asked), "asked {asked} times in a second");
}

#[test]
fn a_listener_without_devices_still_receives() {
    let mut world = World::new();
    world.join(1, BOTH);
    world.join(2, [true, false]);
    world.run(seconds(3));
    assert!(world.got(2, 1, Kind::Video) > 30);
    assert!(world.got(1, 2, Kind::Audio) > 50);
    let offer = world.browsers[&1].offer.clone().unwrap();
    assert_eq!(offer.tracks.iter().filter(|track| track.kind == Kind::Video).count(), 0);
    world.browsers.get_mut(&2).unwrap().publishes = BOTH;
    world.sfu.republish(2).unwrap();
    world.run(seconds(3));
    assert!(world.saw(&Event::Track(2, Kind::Video, true)));
    assert!(
        world.got(1, 2, Kind::Video) > 30,
        "the camera came later: {}",
        world.got(1, 2, Kind::Video)
    );
}

#[test]
fn unsubscribing_ends_the_stream() {
    let mut world = World::new();
    world.join(1, BOTH);
    world.join(2, BOTH);
    world.run(seconds(3));
    world.sfu.unsubscribe(1, 2);
    world.run(seconds(1));
    let before = world.got(1, 2, Kind::Audio);
    world.run(seconds(1));
    assert_eq!(world.got(1, 2, Kind::Audio), before);
    assert!(world.browsers[&1].offer.as_ref().unwrap().tracks.is_empty());
    world.sfu.subscribe(1, 2).unwrap();
    world.run(seconds(2));
    assert!(world.got(1, 2, Kind::Audio) > before + 50);
}

#[test]
fn publishers_are_told_how_much_video_fits() {
    let mut world = World::new();
    world.join(1, BOTH);
    world.join(2, BOTH);
    world.run(seconds(6));
    let limit = world.browsers[&1].remb.expect("a limit was sent");
    assert!((200_000..=2_500_000).contains(&limit));
}

#[test]
fn a_peer_that_vanishes_is_given_up() {
    let mut world = World::new();
    world.join(1, BOTH);
    world.join(2, BOTH);
    world.run(seconds(3));
    world.cut(2);
    world.run(seconds(40));
    assert!(world.saw(&Event::Disconnected(2, Reason::Lost)));
    assert!(world.browsers[&1].offer.as_ref().unwrap().tracks.is_empty());
    assert_eq!(world.sfu.stats().0.participants, 1);
}

#[test]
fn a_peer_that_never_checks_is_given_up() {
    let mut world = World::new();
    world.join(1, BOTH);
    world.cut(1);
    world.run(seconds(40));
    assert!(
        world.saw(&Event::Disconnected(1, Reason::NeverConnected)),
        "{:?}",
        world.events
    );
    assert_eq!(world.sfu.deadline(), None);
}

#[test]
fn a_peer_that_closes_is_noticed_at_once() {
    let mut world = World::new();
    world.join(1, BOTH);
    world.run(seconds(3));
    world.browsers.get_mut(&1).unwrap().rtc.close().unwrap();
    world.run(seconds(1));
    assert!(world
        .events
        .iter()
        .any(|event| matches!(event, Event::Disconnected(1, _))));
}

#[test]
fn rubbish_is_counted_and_ignored() {
    let mut world = World::new();
    world.join(1, BOTH);
    world.run(seconds(2));
    let stranger = ([203, 0, 113, 9], 9).into();
    let samples: [&[u8]; 6] = [&[], &[0; 20], &[0x80; 60], &[22; 100], &[255; 1400], &[0x80; 1600]];
    for data in samples {
        world.sfu.receive(data, stranger, world.now);
        world.sfu.receive(data, world.browsers[&1].address, world.now);
    }
    world.run(seconds(1));
    assert!(world.sfu.stats().0.unknown >= samples.len() as u64);
    assert!(!world
        .events
        .iter()
        .any(|event| matches!(event, Event::Disconnected(..))));
}

#[test]
fn mangled_datagrams_do_no_harm() {
    let mut world = World::new();
    world.mangle = true;
    world.join(1, BOTH);
    world.join(2, BOTH);
    world.run(seconds(6));
    assert!(
        world.got(1, 2, Kind::Video) > 100,
        "video: {}",
        world.got(1, 2, Kind::Video)
    );
    assert!(world.got(2, 1, Kind::Audio) > 150);
    let (totals, _) = world.sfu.stats();
    assert_eq!((totals.participants, totals.faults), (2, 0));
}

#[test]
fn answers_must_fit_their_offer() {
    let mut world = World::new();
    world.sfu.add(1, world.now).unwrap();
    let offer = world.sfu.offer(1, world.now).unwrap().unwrap();
    assert_eq!(offer.publish.len(), 2);
    assert!(offer.sdp.contains("a=ice-lite") && offer.sdp.contains("192.0.2.1 16384"));
    assert_eq!(world.sfu.offer(1, world.now).unwrap(), None);
    for (seq, sdp) in [(7, ""), (offer.seq, ""), (offer.seq, "v=0"), (offer.seq, "\u{0}\u{1}")] {
        assert!(matches!(
            world.sfu.answer(1, seq, sdp, world.now),
            Err(SfuError::Protocol(_))
        ));
    }
    assert!(matches!(world.sfu.answer(9, 1, "", world.now), Err(SfuError::Usage(_))));
}

#[test]
fn bounds_are_kept() {
    let mut world = World::with(|config| {
        config.max_participants = 3;
        config.max_subscriptions = 1;
    });
    for pid in 1..=3 {
        world.sfu.add(pid, world.now).unwrap();
    }
    assert!(matches!(world.sfu.add(4, world.now), Err(SfuError::Limit(_))));
    assert!(matches!(world.sfu.add(3, world.now), Err(SfuError::Usage(_))));
    world.sfu.subscribe(1, 2).unwrap();
    world.sfu.subscribe(1, 2).unwrap();
    assert!(matches!(world.sfu.subscribe(1, 3), Err(SfuError::Limit(_))));
    assert!(matches!(world.sfu.subscribe(1, 1), Err(SfuError::Usage(_))));
}

#[test]
fn candidates_must_be_addresses_one_can_send_to() {
    assert!(matches!(
        Sfu::new(Config::new(vec![])).err(),
        Some(ConfigError::NoCandidate)
    ));
    let any = ([0, 0, 0, 0], 16384).into();
    assert!(matches!(
        Sfu::new(Config::new(vec![any])).err(),
        Some(ConfigError::BadCandidate(_))
    ));
    assert!(Sfu::new(Config::new(vec![SERVER.into()])).is_ok());
}
