//! What can be found in a worker's caches, in both directions.

use kv_cache::{BlockHash, IndexDigest, Tier};
use words::{KvNews, KvNewsKind, KvRun};

use super::WireError;
use crate::v1;

/// Bytes of a name.
const HASH_BYTES: usize = 16;

// === impl KvNews ===

impl From<&KvNews> for v1::KvNews {
    fn from(news: &KvNews) -> Self {
        let (snapshot, first, last) = match news.kind {
            KvNewsKind::Changes => (false, false, false),
            KvNewsKind::Snapshot { is_first, is_last } => (true, is_first, is_last),
        };
        let runs = news.runs.iter().map(Into::into).collect();
        let digest = news.digest.map(|it| v1::KvDigest { sum: it.sum, blocks: it.blocks });
        Self { number: news.number, snapshot, first, last, runs, digest }
    }
}

impl TryFrom<v1::KvNews> for KvNews {
    type Error = WireError;

    fn try_from(wire: v1::KvNews) -> Result<Self, WireError> {
        let v1::KvNews { number, snapshot, first, last, runs, digest } = wire;
        let kind = match snapshot {
            true => KvNewsKind::Snapshot { is_first: first, is_last: last },
            false => KvNewsKind::Changes,
        };
        let runs: Vec<KvRun> = runs.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?;
        let digest = digest.map(|it| IndexDigest { sum: it.sum, blocks: it.blocks });
        let news = Self { number, kind, runs, digest };
        match kind {
            KvNewsKind::Changes if news.blocks() as u64 > number => {
                Err(WireError::invalid("kv.number", "is less than the changes told"))
            }
            KvNewsKind::Snapshot { .. } if news.runs.iter().any(|run| !run.is_there) => {
                Err(WireError::invalid("kv.runs", "has blocks that are gone in a snapshot"))
            }
            _ => Ok(news),
        }
    }
}

// === impl KvRun ===

impl From<&KvRun> for v1::KvRun {
    fn from(run: &KvRun) -> Self {
        Self {
            tier: v1::KvTier::from(run.tier).into(),
            gone: !run.is_there,
            hashes: run.hashes.iter().flat_map(|hash| hash.to_bytes()).collect(),
        }
    }
}

impl TryFrom<v1::KvRun> for KvRun {
    type Error = WireError;

    fn try_from(wire: v1::KvRun) -> Result<Self, WireError> {
        let tier = wire.tier().try_into()?;
        let (hashes, rest) = wire.hashes.as_chunks::<HASH_BYTES>();
        if !rest.is_empty() {
            return Err(WireError::invalid("kv.hashes", "has a part of a name"));
        }
        let hashes = hashes.iter().map(|bytes| BlockHash::from_bytes(*bytes)).collect();
        Ok(Self { tier, is_there: !wire.gone, hashes })
    }
}

// === impl Tier ===

impl From<Tier> for v1::KvTier {
    fn from(tier: Tier) -> Self {
        match tier {
            Tier::Device => Self::Device,
            Tier::Host => Self::Host,
            Tier::Disk => Self::Disk,
        }
    }
}

impl TryFrom<v1::KvTier> for Tier {
    type Error = WireError;

    fn try_from(wire: v1::KvTier) -> Result<Self, WireError> {
        match wire {
            v1::KvTier::Unspecified => Err(WireError::invalid("kv.tier", "is unspecified")),
            v1::KvTier::Device => Ok(Self::Device),
            v1::KvTier::Host => Ok(Self::Host),
            v1::KvTier::Disk => Ok(Self::Disk),
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn run(tier: Tier, is_there: bool) -> KvRun {
        KvRun { tier, is_there, hashes: vec![BlockHash(1), BlockHash(u128::MAX - 7)] }
    }

    #[rstest]
    fn news_survive_the_wire(#[values(Tier::Device, Tier::Host, Tier::Disk)] tier: Tier) {
        let changes = KvNews {
            number: 4,
            kind: KvNewsKind::Changes,
            runs: vec![run(tier, true), run(tier, false)],
            digest: Some(IndexDigest { sum: u64::MAX - 3, blocks: 9 }),
        };
        let snapshot = |is_first, is_last| KvNews {
            kind: KvNewsKind::Snapshot { is_first, is_last },
            runs: vec![run(tier, true)],
            ..changes
        };
        for news in [snapshot(true, false), snapshot(false, true), changes.clone()] {
            assert_eq!(KvNews::try_from(v1::KvNews::from(&news)), Ok(news));
        }
    }

    #[rstest]
    #[case::no_tier(|news: &mut v1::KvNews| news.runs[0].tier = 0, "kv.tier")]
    #[case::tier_of_the_future(|news: &mut v1::KvNews| news.runs[0].tier = 9, "kv.tier")]
    #[case::half_a_name(|news: &mut v1::KvNews| news.runs[0].hashes = vec![0; 17], "kv.hashes")]
    #[case::more_than_there_were(|news: &mut v1::KvNews| news.number = 1, "kv.number")]
    #[case::gone_at_the_start(
        |news: &mut v1::KvNews| (news.snapshot, news.runs[0].gone) = (true, true),
        "kv.runs"
    )]
    fn nonsense_is_refused_by_field(#[case] spoil: fn(&mut v1::KvNews), #[case] field: &str) {
        let runs = vec![run(Tier::Host, true)];
        let news = KvNews { number: 2, kind: KvNewsKind::Changes, runs, digest: None };
        let mut wire = (&news).into();
        spoil(&mut wire);
        assert_eq!(KvNews::try_from(wire).unwrap_err().field, field);
    }
}
