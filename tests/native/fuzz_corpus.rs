//! The fuzz targets without a fuzzer: the whole corpus, and some variations of it. `./build.sh fuzz` does it
//! thoroughly.

#[allow(clippy::pedantic, unreachable_pub)]
#[path = "../../fuzz/src/filter/mod.rs"]
mod filter;

use testkit::artifacts::repository;

/// How many variations each target is given.
const VARIATIONS: u64 = 500;

/// Numbers that look random and are the same each time (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let end = u64::try_from(end.max(1)).expect("it fits");
        usize::try_from((mixed ^ (mixed >> 31)) % end).expect("it fits")
    }
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = repository().join("fuzz/corpus").join(target);
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .expect("the corpus is there")
        .map(|entry| entry.expect("a folder can be listed").path())
        .collect();
    files.sort();
    let read = |path| std::fs::read(path).expect("an input can be read");
    files.into_iter().map(read).collect()
}

/// One input with bytes replaced, taken out and put in, and perhaps the end of another.
fn varied(corpus: &[Vec<u8>], numbers: &mut Numbers) -> Vec<u8> {
    let mut input = corpus[numbers.below(corpus.len())].clone();
    for _ in 0..=numbers.below(4) {
        let place = numbers.below(input.len() + 1);
        let byte = u8::try_from(numbers.below(256)).expect("it is a byte");
        match numbers.below(4) {
            0 => input.insert(place, byte),
            1 if place < input.len() => drop(input.remove(place)),
            2 if place < input.len() => input[place] = byte,
            _ => {
                let other = &corpus[numbers.below(corpus.len())];
                input.truncate(place);
                input.extend_from_slice(&other[numbers.below(other.len() + 1)..]);
            }
        }
    }
    input
}

fn replay(target: &str, run: fn(&[u8])) {
    let corpus = corpus(target);
    assert!(corpus.len() > 10, "{} inputs", corpus.len());
    for input in &corpus {
        run(input);
    }
    let mut numbers = Numbers(1);
    for _ in 0..VARIATIONS {
        run(&varied(&corpus, &mut numbers));
    }
}

#[test]
fn any_bytes_as_configuration_are_taken_or_refused_with_a_reason() {
    replay("configuration", filter::configuration);
}

#[test]
fn any_request_is_decided_as_the_rules_say() {
    replay("decide", filter::decide);
}

#[test]
fn any_signal_means_what_its_form_says() {
    replay("signals", filter::signals);
}

#[test]
fn any_peer_is_known_as_the_standard_library_reads_it() {
    replay("peer", filter::peer);
}
