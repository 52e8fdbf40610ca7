//! Browsers, a lossy link and a clock, all in memory: conversations with the machine that run faster than time.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use moim_sfu::{Config, Event, Kind, Offer, Pid, Sfu};
use str0m::change::SdpOffer;
use str0m::format::Codec;
use str0m::media::{KeyframeRequestKind, Mid};
use str0m::net::{Protocol, Receive};
use str0m::rtp::{ExtensionValues, RtpWrite};
use str0m::{Candidate, Input, Output, Rtc};

pub const SERVER: ([u8; 4], u16) = ([192, 0, 2, 1], 16384);
const AUDIO_EVERY: Duration = Duration::from_millis(20);
const VIDEO_EVERY: Duration = Duration::from_millis(33);

/// A browser: answers every offer, publishes what it was told to, and writes down what arrives.
pub struct Browser {
    pub rtc: Rtc,
    pub address: SocketAddr,
    pub publishes: [bool; 2],
    pub offer: Option<Offer>,
    /// Payloads by publisher and kind, as the layout of the latest offer has it.
    pub got: HashMap<(Pid, Kind), Vec<Vec<u8>>>,
    pub ssrcs: HashMap<(Pid, Kind), HashSet<u32>>,
    pub keyframe_requests: usize,
    pub remb: Option<u64>,
    pub connected: bool,
    deadline: Instant,
    sequence: [u64; 2],
    next: [Option<Instant>; 2],
}

pub struct World {
    pub sfu: Sfu,
    pub browsers: BTreeMap<Pid, Browser>,
    pub now: Instant,
    pub events: Vec<Event>,
    /// One datagram in `loss` is lost, when set.
    pub loss: Option<u64>,
    pub latency: Duration,
    /// Besides each datagram, a copy with some bytes changed arrives.
    pub mangle: bool,
    in_flight: BTreeMap<(Instant, u64), (SocketAddr, SocketAddr, Vec<u8>)>,
    silent: HashSet<SocketAddr>,
    count: u64,
    random: u64,
}

impl World {
    #[allow(clippy::disallowed_methods)]
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    #[allow(clippy::disallowed_methods)]
    pub fn with(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::new(vec![SERVER.into()]);
        change(&mut config);
        Self {
            sfu: Sfu::new(config).unwrap(),
            browsers: BTreeMap::new(),
            now: Instant::now(),
            events: Vec::new(),
            loss: None,
            latency: Duration::from_millis(15),
            mangle: false,
            in_flight: BTreeMap::new(),
            silent: HashSet::new(),
            count: 0,
            random: 0x9e37_79b9_7f4a_7c15,
        }
    }

    /// A browser that publishes the given kinds, subscribed to everybody and everybody to it.
    pub fn join(&mut self, pid: Pid, publishes: [bool; 2]) {
        self.sfu.add(pid, self.now).unwrap();
        let address = SocketAddr::from(([198, 51, 100, pid as u8], 40_000));
        let mut rtc = Rtc::builder().set_rtp_mode(true).build(self.now);
        rtc.add_local_candidate(Candidate::host(address, "udp").unwrap());
        let browser = Browser {
            rtc,
            address,
            publishes,
            offer: None,
            got: HashMap::new(),
            ssrcs: HashMap::new(),
            keyframe_requests: 0,
            remb: None,
            connected: false,
            deadline: self.now,
            sequence: [60_000 + pid * 100_000; 2],
            next: [None; 2],
        };
        for other in self.browsers.keys() {
            self.sfu.subscribe(pid, *other).unwrap();
            self.sfu.subscribe(*other, pid).unwrap();
        }
        self.browsers.insert(pid, browser);
    }

    pub fn leave(&mut self, pid: Pid) {
        self.browsers.remove(&pid);
        self.sfu.remove(pid, self.now);
    }

    /// Datagrams from and to the browser vanish from now on.
    pub fn cut(&mut self, pid: Pid) {
        self.silent.insert(self.browsers[&pid].address);
    }

    /// Lets time pass, with everything that happens in it.
    pub fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            self.settle();
            let next = self.next_moment();
            if next > end {
                break;
            }
            self.now = next.max(self.now);
            self.deliver();
            self.sfu.tick(self.now);
            for browser in self.browsers.values_mut() {
                browser.publish(self.now);
                if browser.deadline <= self.now {
                    browser.rtc.handle_input(Input::Timeout(self.now)).unwrap();
                    browser.deadline = self.now + Duration::from_millis(1);
                }
            }
        }
        self.now = end;
    }

    fn next_moment(&self) -> Instant {
        let far = self.now + Duration::from_secs(3600);
        let mut next = self.sfu.deadline().unwrap_or(far);
        for browser in self.browsers.values() {
            next = next.min(browser.deadline);
            if browser.connected {
                next = browser.next.iter().flatten().fold(next, |a, b| a.min(*b));
            }
        }
        if let Some(((at, _), _)) = self.in_flight.first_key_value() {
            next = next.min(*at);
        }
        next
    }

    fn settle(&mut self) {
        while let Some(datagram) = self.sfu.next_output() {
            self.send(SERVER.into(), datagram.destination, datagram.contents.to_vec());
        }
        while let Some(event) = self.sfu.next_event() {
            if let Event::Negotiate(pid) = event {
                self.negotiate(pid);
            }
            self.events.push(event);
        }
        let pids: Vec<Pid> = self.browsers.keys().copied().collect();
        for pid in pids {
            let browser = self.browsers.get_mut(&pid).unwrap();
            let mut out = Vec::new();
            loop {
                match browser.rtc.poll_output().unwrap() {
                    Output::Timeout(at) => {
                        browser.deadline = at.max(self.now);
                        break;
                    }
                    Output::Transmit(t) => out.push((t.source, t.destination, t.contents.to_vec())),
                    Output::Event(event) => browser.event(event),
                }
            }
            for (source, destination, data) in out {
                self.send(source, destination, data);
            }
        }
        if self.sfu.deadline().is_some_and(|at| at <= self.now) {
            self.sfu.tick(self.now);
            while let Some(datagram) = self.sfu.next_output() {
                self.send(SERVER.into(), datagram.destination, datagram.contents.to_vec());
            }
        }
    }

    fn negotiate(&mut self, pid: Pid) {
        let Some(browser) = self.browsers.get_mut(&pid) else {
            return;
        };
        let Some(offer) = self.sfu.offer(pid, self.now).unwrap() else {
            return;
        };
        let answer = browser.answer(offer.clone(), self.now);
        self.sfu.answer(pid, offer.seq, &answer, self.now).unwrap();
    }

    fn send(&mut self, source: SocketAddr, destination: SocketAddr, data: Vec<u8>) {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let lost = self
            .loss
            .is_some_and(|one_in| (self.random >> 33).is_multiple_of(one_in));
        if lost || self.silent.contains(&source) || self.silent.contains(&destination) {
            return;
        }
        self.count += 1;
        self.in_flight
            .insert((self.now + self.latency, self.count), (source, destination, data));
    }

    fn deliver(&mut self) {
        while let Some(entry) = self.in_flight.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let (source, destination, data) = entry.remove();
            if destination == SocketAddr::from(SERVER) {
                self.sfu.receive(&data, source, self.now);
            } else if let Some(browser) = self.browsers.values_mut().find(|b| b.address == destination) {
                browser.receive(&data, source, self.now);
            }
        }
    }

    pub fn got(&self, pid: Pid, publisher: Pid, kind: Kind) -> usize {
        self.browsers[&pid].got.get(&(publisher, kind)).map_or(0, Vec::len)
    }

    pub fn saw(&self, event: &Event) -> bool {
        self.events.contains(event)
    }
}

impl Browser {
    fn answer(&mut self, offer: Offer, now: Instant) -> String {
        let parsed = SdpOffer::from_sdp_string(&offer.sdp).unwrap();
        let mut answer = self.rtc.sdp_api().accept_offer(parsed).unwrap().to_sdp_string();
        for (kind, mid) in &offer.publish {
            if !self.publishes[kind.index_for_tests()] {
                answer = decline(&answer, mid);
            } else if self.next[kind.index_for_tests()].is_none() {
                self.next[kind.index_for_tests()] = Some(now);
            }
        }
        self.rtc.handle_input(Input::Timeout(now)).unwrap();
        self.deadline = now;
        self.offer = Some(offer);
        answer
    }

    fn receive(&mut self, data: &[u8], source: SocketAddr, now: Instant) {
        let contents = data.try_into().unwrap();
        let receive = Receive {
            proto: Protocol::Udp,
            source,
            destination: self.address,
            contents,
        };
        self.rtc.handle_input(Input::Receive(now, receive)).unwrap();
        self.deadline = now;
    }

    fn event(&mut self, event: str0m::Event) {
        match event {
            str0m::Event::Connected => self.connected = true,
            str0m::Event::KeyframeRequest(_) => self.keyframe_requests += 1,
            str0m::Event::EgressBitrateEstimate(str0m::bwe::BweKind::Remb { estimate, .. }) => {
                self.remb = Some(estimate.as_u64());
            }
            str0m::Event::RtpPacket(packet) => {
                let Some(mid) = self.rtc.direct_api().stream_rx(&packet.header.ssrc).map(|s| s.mid()) else {
                    return;
                };
                let offer = self.offer.as_ref().unwrap();
                if let Some(track) = offer.tracks.iter().find(|track| Mid::from(track.mid.as_str()) == mid) {
                    let key = (track.publisher, track.kind);
                    self.got.entry(key).or_default().push(packet.payload.to_vec());
                    self.ssrcs.entry(key).or_default().insert(*packet.header.ssrc);
                }
            }
            _ => {}
        }
    }

    fn publish(&mut self, now: Instant) {
        for kind in Kind::ALL {
            let index = kind.index_for_tests();
            if !self.connected || self.next[index].is_none_or(|at| at > now) {
                continue;
            }
            let (every, codec, clock) = match kind {
                Kind::Audio => (AUDIO_EVERY, Codec::Opus, 48),
                Kind::Video => (VIDEO_EVERY, Codec::Vp8, 90),
            };
            self.next[index] = Some(now + every);
            self.sequence[index] += 1;
            let sequence = self.sequence[index];
            let time = (sequence as u32).wrapping_mul(every.as_millis() as u32 * clock);
            let pt = self
                .rtc
                .codec_config()
                .find(|params| params.spec().codec == codec)
                .unwrap()
                .pt();
            let mid = self.publish_mid(kind);
            let mut api = self.rtc.direct_api();
            let stream = api.stream_tx_by_mid(mid, None).unwrap();
            let extensions = ExtensionValues {
                audio_level: Some(-30),
                ..Default::default()
            };
            let mut payload = format!("{} {sequence} ", kind.name()).into_bytes();
            payload.resize(if kind == Kind::Video { 1000 } else { 80 }, b'.');
            // Sequence numbers below 2^16 at first, as every sender must (RFC 3711 section 3.3.1).
            let write = RtpWrite::new(pt, (sequence % 60_000).into(), time, now, payload);
            stream.write_rtp(write.marker(true).nackable(kind == Kind::Video).ext_vals(extensions));
            self.deadline = now;
        }
    }

    pub fn publish_mid(&self, kind: Kind) -> Mid {
        let offer = self.offer.as_ref().unwrap();
        let (_, mid) = offer.publish.iter().find(|(of, _)| *of == kind).unwrap();
        mid.as_str().into()
    }

    /// Asks for a keyframe of somebody's video, as a decoder does after loss.
    pub fn want_keyframe(&mut self, publisher: Pid, now: Instant) {
        let offer = self.offer.as_ref().unwrap();
        let track = offer
            .tracks
            .iter()
            .find(|t| t.publisher == publisher && t.kind == Kind::Video)
            .unwrap();
        let mid: Mid = track.mid.as_str().into();
        let mut api = self.rtc.direct_api();
        api.stream_rx_by_mid(mid, None)
            .unwrap()
            .request_keyframe(KeyframeRequestKind::Pli);
        self.deadline = now;
    }
}

trait Index {
    fn index_for_tests(self) -> usize;
}

impl Index for Kind {
    fn index_for_tests(self) -> usize {
        usize::from(self == Kind::Video)
    }
}

/// Turns one section of an answer into `inactive`, as a browser without that device answers.
fn decline(sdp: &str, mid: &str) -> String {
    let mut sections: Vec<String> = sdp.split("\r\nm=").map(str::to_owned).collect();
    for section in &mut sections {
        if section.contains(&format!("a=mid:{mid}\r\n")) {
            *section = section
                .replace("a=sendonly", "a=inactive")
                .replace("a=sendrecv", "a=inactive");
        }
    }
    sections.join("\r\nm=")
}
