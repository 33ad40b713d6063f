use proptest::prelude::*;
use rstest::rstest;

use super::*;

fn hasher() -> ChainHasher {
    ChainHasher::new("model", b"")
}

/// A change here renames every cached block in a running cluster: it needs a new [`HASH_VERSION`].
#[rstest]
#[case("model", b"", vec![vec![1, 2, 3, 4]], "d1c6850a0645e42d032e7860dcdcbab7")]
#[case("model", b"", vec![vec![1, 2, 3, 4], vec![5, 6, 7, 8]], "73f7593aff669c84cdcb25f9c7e5d537")]
#[case("model", b"tenant", vec![vec![1, 2, 3, 4]], "2ca4c5f90ccb45b78edb680477baf5b6")]
#[case("other", b"", vec![vec![1, 2, 3, 4]], "581c2a2aa7015aaa83880e1ef06df3db")]
#[case("model", b"", vec![vec![0; 16], vec![u32::MAX; 16]], "354f212d60b24897aa5e8b39436de414")]
#[case("model", b"", vec![vec![7; 64]], "154879333d4af718c27a7c48a6763e8f")]
fn names_are_pinned(
    #[case] model: &str,
    #[case] salt: &[u8],
    #[case] blocks: Vec<Vec<TokenId>>,
    #[case] want: &str,
) {
    let hasher = ChainHasher::new(model, salt);
    let last = blocks.iter().fold(None, |parent, block| Some(hasher.extend(parent, block)));
    assert_eq!(HASH_VERSION, 1);
    assert_eq!(last.expect("a block").to_string(), want);
}

#[test]
fn a_zero_parent_is_not_no_parent() {
    assert_ne!(hasher().extend(None, &[1]), hasher().extend(Some(BlockHash(0)), &[1]));
}

#[test]
fn model_and_salt_do_not_run_into_each_other() {
    let ab_c = ChainHasher::new("ab", b"c").extend(None, &[1]);
    let a_bc = ChainHasher::new("a", b"bc").extend(None, &[1]);
    assert_ne!(ab_c, a_bc);
}

#[test]
fn stack_and_heap_messages_agree_at_the_border() {
    let border = (STACK_BYTES - HEADER_BYTES) / size_of::<TokenId>();
    for len in [border, border + 1] {
        let tokens = vec![9; len];
        let mut message = vec![0; HEADER_BYTES + len * 4];
        assert_eq!(
            hasher().extend(None, &tokens),
            hasher().hash_message(None, &tokens, &mut message)
        );
    }
}

#[test]
fn the_key_is_not_printed() {
    assert_eq!(format!("{:?}", hasher()), "ChainHasher { .. }");
}

proptest! {
    #[test]
    fn bytes_round_trip(value: u128) {
        prop_assert_eq!(BlockHash::from_bytes(BlockHash(value).to_bytes()), BlockHash(value));
    }

    #[test]
    fn a_chain_can_be_continued_anywhere(
        tokens in prop::collection::vec(any::<TokenId>(), 0..80),
        block_tokens in 1_u32..20,
        cut in 0_usize..10,
    ) {
        let hasher = hasher();
        let whole = hasher.hash_blocks(None, &tokens, block_tokens);
        prop_assert_eq!(whole.len(), tokens.len() / block_tokens as usize);
        let cut = cut.min(whole.len());
        let parent = cut.checked_sub(1).map(|last| whole[last]);
        let rest = hasher.hash_blocks(parent, &tokens[cut * block_tokens as usize..], block_tokens);
        prop_assert_eq!(&whole[cut..], &rest[..]);
    }

    #[test]
    fn names_differ_from_the_first_differing_token_on(
        tokens in prop::collection::vec(any::<TokenId>(), 16..64),
        at in any::<prop::sample::Index>(),
    ) {
        let at = at.index(tokens.len() / 4 * 4);
        let mut other = tokens.clone();
        other[at] ^= 1;
        let (a, b) = (hasher().hash_blocks(None, &tokens, 4), hasher().hash_blocks(None, &other, 4));
        for (index, (a, b)) in a.iter().zip(&b).enumerate() {
            prop_assert_eq!(a == b, index < at / 4);
        }
    }
}
