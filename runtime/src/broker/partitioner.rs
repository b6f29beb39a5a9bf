//! Which partition a key belongs to: the same as Kafka's Java producer decides.

/// The partition of a key among `partitions`; an empty key is a key like any other.
///
/// Answers 0 where there is at most one partition.
pub fn partition_of(key: &[u8], partitions: u32) -> u32 {
    if partitions <= 1 {
        return 0;
    }
    // The sign bit is cleared, not negated: the most negative hash has no positive counterpart.
    (murmur2(key) & 0x7fff_ffff) % partitions
}

/// MurmurHash2, 32 bits, with the seed that Kafka's clients use.
pub fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const MULTIPLIER: u32 = 0x5bd1_e995;
    let mut hash = SEED ^ data.len() as u32;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut mixed = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
        mixed = mixed.wrapping_mul(MULTIPLIER);
        mixed ^= mixed >> 24;
        mixed = mixed.wrapping_mul(MULTIPLIER);
        hash = hash.wrapping_mul(MULTIPLIER) ^ mixed;
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        for (place, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * place);
        }
        hash = hash.wrapping_mul(MULTIPLIER);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(MULTIPLIER);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of Kafka's `UtilsTest.testMurmur2`: a drift would put a key elsewhere than a
    /// Java producer does.
    #[test]
    fn hashes_are_those_of_kafkas_java_producer() {
        let vectors: [(&[u8], i32); 6] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (
                b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
                -58_897_971,
            ),
            (b"abc", 479_470_107),
        ];
        for (key, expected) in vectors {
            assert_eq!(murmur2(key) as i32, expected, "{key:?}");
        }
    }

    /// An empty key has a place of its own: the hash of nothing, not the treatment of null.
    #[test]
    fn an_empty_key_is_hashed() {
        assert_eq!(murmur2(b""), 275_646_681);
        assert_eq!(partition_of(b"", 4), 275_646_681 % 4);
    }

    #[test]
    fn a_partition_is_always_within_the_count() {
        for key in 0_u32..1_000 {
            for partitions in [0, 1, 3, 4, 7, 1000] {
                assert!(partition_of(&key.to_le_bytes(), partitions) < partitions.max(1));
            }
        }
    }
}
