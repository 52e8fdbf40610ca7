//! How a subscriber's estimated bandwidth is shared among its video streams.

/// Kept free for one audio stream, bit/s: Opus with its headers.
const AUDIO: u64 = 48_000;
/// What may be used of an estimate, in percent; the rest absorbs retransmissions.
const USABLE: u64 = 90;
/// A stream comes back only when the share would be this much above the minimum, in percent.
const RESUME: u64 = 130;

/// The outcome for one subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    /// Video streams that are forwarded; the others pause.
    pub streams: usize,
    /// Bit/s that each of them may use.
    pub rate: u64,
}

/// Shares `estimate` bit/s among `videos` streams, of which `current` are forwarded now.
pub(crate) fn share(estimate: u64, audios: usize, videos: usize, current: usize, minimum: u64, maximum: u64) -> Share {
    let usable = (estimate * USABLE / 100).saturating_sub(AUDIO * audios as u64);
    let each = |streams: usize| usable / streams.max(1) as u64;
    let fits = |streams: usize| {
        let needed = if streams > current {
            minimum * RESUME / 100
        } else {
            minimum
        };
        each(streams) >= needed
    };
    let streams = (1..=videos).rev().find(|streams| fits(*streams)).unwrap_or(0);
    Share {
        streams,
        rate: each(streams).clamp(minimum, maximum.max(minimum)),
    }
}

#[cfg(test)]
mod tests {
    use super::{share, Share};

    #[test]
    fn plenty_gives_everybody_the_maximum() {
        assert_eq!(
            share(50_000_000, 3, 3, 3, 200_000, 2_500_000),
            Share {
                streams: 3,
                rate: 2_500_000
            }
        );
    }

    #[test]
    fn scarcity_pauses_streams_before_it_starves_them() {
        let got = share(700_000, 4, 4, 4, 200_000, 2_500_000);
        assert_eq!(got.streams, 2);
        assert!(got.rate >= 200_000);
        assert_eq!(share(60_000, 4, 4, 4, 200_000, 2_500_000).streams, 0);
    }

    #[test]
    fn a_stream_resumes_only_with_room_to_spare() {
        let (minimum, maximum) = (200_000, 2_500_000);
        let enough = (2 * 200_000 + 2 * 48_000) * 100 / 90 + 10;
        assert_eq!(share(enough, 2, 2, 2, minimum, maximum).streams, 2);
        assert_eq!(share(enough, 2, 2, 1, minimum, maximum).streams, 1);
        assert_eq!(share(enough * 13 / 10, 2, 2, 1, minimum, maximum).streams, 2);
    }

    #[test]
    fn no_video_is_no_division() {
        assert_eq!(share(1_000_000, 1, 0, 0, 200_000, 2_500_000).streams, 0);
    }
}
