use proptest::prelude::*;
use rstest::rstest;

use super::*;

const SCALE_A_HEAD: Option<Scales> = Some(Scales { bits: 32, group: 128 });

fn llama(codec: KvCodec) -> KvLayout {
    KvLayout::whole(32, 8, PageShape::keys_and_values(128, 16), codec)
}

fn integers(bits: u32, scales: Option<Scales>) -> KvCodec {
    let numbers = Numbers { exponent_bits: 0, fraction_bits: bits - 1 };
    KvCodec { name: "integers", numbers, scales }
}

/// Bytes a token of an 8B model, as published of each form.
#[rstest]
#[case::floats(KvCodec::F32, 262_144)]
#[case::brain_floats(KvCodec::BF16, 131_072)]
#[case::halves(KvCodec::F16, 131_072)]
#[case::fixed_scale(KvCodec { name: "e4m3", numbers: Numbers { exponent_bits: 4, fraction_bits: 3 }, scales: None }, 65_536)]
#[case::bytes_with_a_scale(integers(8, SCALE_A_HEAD), 67_584)]
#[case::nibbles_with_a_scale(integers(4, SCALE_A_HEAD), 34_816)]
#[case::nibbles_in_groups(integers(4, Some(Scales { bits: 8, group: 16 })), 36_864)]
fn a_token_takes_what_its_codec_says(#[case] codec: KvCodec, #[case] token_bytes: usize) {
    assert_eq!(llama(codec).block_bytes(), 16 * token_bytes);
}

#[test]
fn a_latent_page_has_one_vector_for_keys_and_values() {
    let page = PageShape { vectors: 1, head_dim: 512 + 64, block_tokens: 64 };
    let latent = KvLayout::whole(61, 1, page, KvCodec::BF16);
    assert_eq!(latent.page_bytes(), 64 * 576 * 2);
    assert_eq!(latent.block_bytes(), 61 * latent.page_bytes());
    assert_eq!(latent.numbers_at(0, 0), 0..latent.page_bytes());
}

#[test]
fn a_shard_has_its_own_layers_and_heads_only() {
    let whole = llama(KvCodec::BF16);
    let shard = KvShard { layers: Held::part(16..32, 32), heads: Held::part(2..4, 8) };
    let part = KvLayout { shard, ..whole.clone() };
    assert_eq!((part.layers(), part.kv_heads()), (16, 2));
    assert_eq!(8 * part.block_bytes(), whole.block_bytes());
}

#[rstest]
#[case(llama(KvCodec::BF16))]
#[case(llama(integers(4, SCALE_A_HEAD)))]
#[case(KvLayout { page: PageShape { vectors: 1, head_dim: 576, block_tokens: 64 }, ..llama(KvCodec::F16) })]
fn numbers_and_then_scales_fill_a_page_head_by_head(#[case] layout: KvLayout) {
    let (vectors, heads) = (layout.page.vectors, layout.kv_heads());
    let places = || (0..vectors).flat_map(|vector| (0..heads).map(move |head| (vector, head)));
    let numbers = places().map(|(vector, head)| layout.numbers_at(vector, head));
    let scales = places().map(|(vector, head)| layout.scales_at(vector, head));
    let mut end = 0;
    for range in numbers.chain(scales) {
        assert_eq!(range.start, end, "{range:?} of {layout}");
        end = range.end;
    }
    assert_eq!(end, layout.page_bytes());
}

/// A change here makes a new release's workers deaf to the old one's cache.
#[rstest]
#[case(llama(KvCodec::BF16), "layers=32 kv_heads=8 head_dim=128 block_tokens=16 dtype=bf16")]
#[case(
    KvLayout::whole(2, 1, PageShape::keys_and_values(8, 4), KvCodec::F32),
    "layers=2 kv_heads=1 head_dim=8 block_tokens=4 dtype=f32"
)]
#[case(
    KvLayout::whole(61, 1, PageShape { vectors: 1, head_dim: 576, block_tokens: 64 }, KvCodec::F16),
    "layers=61 kv_heads=1 head_dim=576 block_tokens=64 dtype=f16 vectors=1"
)]
#[case(
    KvLayout {
        shard: KvShard { layers: Held::part(0..16, 32), heads: Held::part(4..8, 8) },
        ..llama(KvCodec::BF16)
    },
    "layers=0..16/32 kv_heads=4..8/8 head_dim=128 block_tokens=16 dtype=bf16"
)]
fn text_says_all_and_is_read_again(#[case] layout: KvLayout, #[case] text: &str) {
    assert_eq!(layout.to_string(), text);
    assert_eq!(text.parse(), Ok(layout));
}

#[rstest]
#[case::nothing("", "no dtype")]
#[case::a_codec_of_tomorrow(
    "layers=2 kv_heads=1 head_dim=8 block_tokens=4 dtype=int3",
    "unknown dtype"
)]
#[case::no_layers("kv_heads=1 head_dim=8 block_tokens=4 dtype=f32", "no layers")]
#[case::zero("layers=0 kv_heads=1 head_dim=8 block_tokens=4 dtype=f32", "can't be")]
#[case::a_field_of_tomorrow(
    "layers=2 kv_heads=1 head_dim=8 block_tokens=4 dtype=f32 window=4",
    "more than is known"
)]
#[case::twice("layers=2 layers=2 kv_heads=1 head_dim=8 block_tokens=4 dtype=f32", "more than")]
#[case::other_digits("layers=02 kv_heads=1 head_dim=8 block_tokens=4 dtype=f32", "more than")]
#[case::no_number("layers=x kv_heads=1 head_dim=8 block_tokens=4 dtype=f32", "no count")]
#[case::past_the_end("layers=1..4/3 kv_heads=1 head_dim=8 block_tokens=4 dtype=f32", "can't be")]
#[case::backwards("layers=3..1/4 kv_heads=1 head_dim=8 block_tokens=4 dtype=f32", "can't be")]
#[case::more_than_bytes_can_count(
    "layers=4294967295 kv_heads=4294967295 head_dim=4294967288 block_tokens=4 dtype=f32",
    "can't be"
)]
fn what_is_no_layout_is_refused(#[case] text: &str, #[case] reason: &str) {
    let refused = text.parse::<KvLayout>().unwrap_err();
    assert!(refused.reason.contains(reason), "{refused}");
}

#[rstest]
#[case::one_number_is_no_byte(1, integers(4, None), false)]
#[case::two_are(2, integers(4, None), true)]
#[case::a_group_too_long(8, integers(8, Some(Scales { bits: 16, group: 16 })), false)]
#[case::scales_of_half_a_byte(8, integers(8, Some(Scales { bits: 4, group: 8 })), false)]
#[case::no_group(8, integers(8, Some(Scales { bits: 16, group: 0 })), false)]
fn vectors_end_with_a_byte(#[case] head_dim: u32, #[case] codec: KvCodec, #[case] whole: bool) {
    assert_eq!(codec.divides(head_dim), whole);
}

#[rstest]
#[case::same(|_: &mut KvLayout| (), Ok(()))]
#[case::codec(
    |it: &mut KvLayout| it.codec = KvCodec::F16,
    Err(Misfit::Unconverted(Conversion { codec: true, ..Conversion::default() }))
)]
#[case::blocks(
    |it: &mut KvLayout| it.page.block_tokens = 32,
    Err(Misfit::Unconverted(Conversion { block_tokens: true, ..Conversion::default() }))
)]
#[case::half_of_it(
    |it: &mut KvLayout| it.shard.heads = Held::part(0..4, 8),
    Err(Misfit::Unconverted(Conversion { shard: true, ..Conversion::default() }))
)]
#[case::layers(|it: &mut KvLayout| it.shard.layers = Held::all(31), Err(Misfit::Foreign))]
#[case::heads(|it: &mut KvLayout| it.shard.heads = Held::all(4), Err(Misfit::Foreign))]
#[case::vectors(|it: &mut KvLayout| it.page.vectors = 1, Err(Misfit::Foreign))]
#[case::head_dim(|it: &mut KvLayout| it.page.head_dim = 64, Err(Misfit::Foreign))]
fn layouts_fit_where_no_page_has_to_change(
    #[case] change: fn(&mut KvLayout),
    #[case] want: Result<(), Misfit>,
) {
    let (ours, mut theirs) = (llama(KvCodec::BF16), llama(KvCodec::BF16));
    change(&mut theirs);
    assert_eq!(ours.fits(&theirs), want);
    assert_eq!(theirs.fits(&ours), want, "the other way");
}

#[test]
fn a_misfit_says_everything_that_is_in_the_way() {
    let ours = llama(KvCodec::BF16);
    let mut theirs = llama(KvCodec::F16);
    theirs.page.block_tokens = 32;
    let said = ours.fits(&theirs).unwrap_err().to_string();
    assert_eq!(said, "no transfer converts the size of blocks, the element type");
}

#[test]
fn a_page_is_an_array_where_its_numbers_mean_what_they_say() {
    assert_eq!(KvCodec::BF16.plain(), Some(Numbers { exponent_bits: 8, fraction_bits: 7 }));
    assert_eq!(integers(8, SCALE_A_HEAD).plain(), None, "nothing without its scale");
    for codec in KvCodec::ALL {
        assert_eq!(KvCodec::named(codec.name), Some(codec));
    }
}

/// A count as strangers write them: small, or anything.
fn a_count() -> impl Strategy<Value = u32> {
    prop_oneof![0..9_u32, any::<u32>()]
}

proptest! {
    /// Workers read what others say of themselves.
    #[test]
    fn what_is_read_reads_the_same_and_has_pages(
        layers in (a_count(), a_count(), a_count()),
        heads in (a_count(), a_count(), a_count()),
        page in (a_count(), a_count(), a_count()),
        codec in 0..KvCodec::ALL.len(),
    ) {
        let held = |(first, count, of): (u32, u32, u32)| Held { first, count, of };
        let page = PageShape { vectors: page.0, head_dim: page.1, block_tokens: page.2 };
        let shard = KvShard { layers: held(layers), heads: held(heads) };
        let text = KvLayout { shard, page, codec: KvCodec::ALL[codec] }.to_string();
        if let Ok(layout) = text.parse::<KvLayout>() {
            prop_assert_eq!(layout.to_string(), text);
            prop_assert!(layout.page_bytes() > 0 && layout.block_bytes() >= layout.page_bytes());
            prop_assert_eq!(layout.fits(&layout), Ok(()));
        }
    }

    #[test]
    fn no_text_is_more_than_refused(text in "[a-z_=0-9./ ]{0,80}") {
        prop_assert!(text.parse::<KvLayout>().is_err());
    }
}
