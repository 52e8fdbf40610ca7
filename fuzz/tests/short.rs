//! The short form of every target: its corpus, then mutations of it that are the same each time.

use std::path::Path;
use std::time::{Duration, Instant};

use moim_fuzz::TARGETS;

/// A small generator of numbers.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound
    }
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let mut paths: Vec<_> = folder
        .read_dir()
        .expect("every target has a corpus")
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

fn mutated(random: &mut Random, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = corpus[random.below(corpus.len())].clone();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() + 1);
        match random.below(5) {
            0 if at < bytes.len() => bytes[at] = random.below(256) as u8,
            1 => bytes.insert(at, random.below(256) as u8),
            2 => drop(bytes.drain(at..(at + random.below(9)).min(bytes.len()))),
            3 => {
                let other = &corpus[random.below(corpus.len())];
                let from = random.below(other.len() + 1);
                let to = (from + random.below(64)).min(other.len());
                drop(bytes.splice(at..at, other[from..to].iter().copied()));
            }
            _ => {
                let copy = bytes[at..(at + random.below(40)).min(bytes.len())].to_vec();
                drop(bytes.splice(at..at, copy));
            }
        }
    }
    bytes
}

#[test]
fn corpora_and_mutations() {
    for (name, run) in TARGETS {
        let corpus = corpus(name);
        assert!(!corpus.is_empty(), "{name}");
        corpus.iter().for_each(|input| run(input));
        let mut random = Random(0x9E37_79B9_7F4A_7C15);
        let end = Instant::now() + Duration::from_secs(1);
        for _ in 0..5000 {
            if Instant::now() > end {
                break;
            }
            let input = mutated(&mut random, &corpus);
            if std::panic::catch_unwind(|| run(&input)).is_err() {
                panic!("{name} fails on {}", input.escape_ascii());
            }
        }
    }
}
