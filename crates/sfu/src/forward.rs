//! One published packet to one subscriber, and the subscriber's share of bandwidth.

use std::time::Instant;

use str0m::rtp::{ExtensionValues, RtpWrite};

use crate::allocate::share;
use crate::config::Config;
use crate::participant::{LineState, Packet, Participant};
use crate::{Kind, Pid};

/// What bandwidth estimation should find room for per audio stream, bit/s.
const AUDIO: u64 = 48_000;
/// Reviews that must agree before a stream pauses: an estimate dips for a moment whenever media starts.
const PATIENCE: u32 = 3;

impl Participant {
    /// Writes the packet to the section that carries its publisher; true when it was taken.
    pub fn forward(&mut self, packet: &Packet, now: Instant) -> bool {
        let written = self.write(packet, now).is_some();
        if written {
            self.stats.packets_forwarded += 1;
        } else {
            self.stats.packets_dropped += 1;
        }
        written
    }

    fn write(&mut self, packet: &Packet, now: Instant) -> Option<()> {
        if !self.connected {
            return None;
        }
        let slot = self.slots.get_mut(*self.slot_of.get(&packet.publisher)?)?;
        let line = slot.lines[packet.kind.index()].as_mut()?;
        if line.state != LineState::Active || line.paused {
            return None;
        }
        let mid = line.mid;
        let header = &packet.rtp.header;
        let pt = match line.codec {
            Some((theirs, ours)) if theirs == header.payload_type => ours,
            _ => {
                let ours = self
                    .rtc
                    .codec_config()
                    .match_params(packet.params)
                    .map(|params| params.pt());
                let ours = ours.filter(|pt| self.rtc.media(mid).is_some_and(|m| m.remote_pts().contains(pt)));
                line.codec = Some((header.payload_type, ours));
                ours
            }
        }?;
        let (seq, time) = line
            .rewriter
            .map(*header.ssrc, *packet.rtp.seq_no, header.timestamp, now)?;
        let mut api = self.rtc.direct_api();
        let stream = api.stream_tx_by_mid(mid, None)?;
        // Only what describes the media itself goes on: the rest of the extensions belong to the publisher's hop.
        let extensions = ExtensionValues {
            audio_level: header.ext_vals.audio_level,
            voice_activity: header.ext_vals.voice_activity,
            video_orientation: header.ext_vals.video_orientation,
            ..Default::default()
        };
        let write = RtpWrite::new(pt, seq.into(), time, packet.rtp.timestamp, packet.rtp.payload.clone())
            .marker(header.marker)
            .nackable(packet.kind == Kind::Video)
            .ext_vals(extensions);
        stream.write_rtp(write);
        Some(())
    }

    /// Shares the estimated bandwidth out; gives the publishers whose video resumed and needs a keyframe.
    pub fn review(&mut self, config: &Config) -> Vec<Pid> {
        let mut audios = 0;
        let mut videos = Vec::new();
        for slot in &mut self.slots {
            let active = |kind: Kind| {
                slot.lines[kind.index()]
                    .as_ref()
                    .is_some_and(|l| l.state == LineState::Active)
            };
            audios += usize::from(active(Kind::Audio));
            if active(Kind::Video) {
                let publisher = slot.publisher;
                videos.extend(slot.lines[Kind::Video.index()].as_mut().map(|line| (publisher, line)));
            }
        }
        let current = videos.iter().filter(|(_, line)| !line.paused).count();
        let estimate = self.estimate.unwrap_or(u64::MAX / 128);
        let (minimum, maximum) = (config.min_video_bitrate, config.max_video_bitrate);
        let mut share = share(estimate, audios, videos.len(), current, minimum, maximum);
        self.scarce = if share.streams < current { self.scarce + 1 } else { 0 };
        if (1..PATIENCE).contains(&self.scarce) {
            share.streams = current;
        }
        let mut resumed = Vec::new();
        for (position, (publisher, line)) in videos.iter_mut().enumerate() {
            let paused = position >= share.streams;
            if line.paused && !paused {
                resumed.extend(*publisher);
            }
            line.paused = paused;
        }
        let count = videos.len();
        self.stats.paused = count - share.streams.min(count);
        self.video_rate = (count > 0).then_some(share.rate);
        self.set_desired(audios as u64 * AUDIO + count as u64 * config.max_video_bitrate);
        resumed
    }

    /// Video sections that are negotiated, paused or not.
    pub fn videos(&self) -> usize {
        let lines = self
            .slots
            .iter()
            .filter_map(|slot| slot.lines[Kind::Video.index()].as_ref());
        lines.filter(|line| line.state == LineState::Active).count()
    }

    /// Whether this subscriber is sent the publisher's video now.
    pub fn shows(&self, publisher: Pid) -> bool {
        self.slot_of
            .get(&publisher)
            .and_then(|index| self.slots[*index].lines[Kind::Video.index()].as_ref())
            .is_some_and(|line| line.state == LineState::Active && !line.paused)
    }
}
