use rstest::rstest;

use super::*;

#[rstest]
#[case(1, 1)]
#[case(3, 4)]
#[case(48, 64)]
#[case(64, 64)]
#[case(65, 96)]
#[case(96, 96)]
#[case(97, 128)]
#[case(8192, 8192)]
#[case(8193, 12288)]
fn rows_fall_into_buckets(#[case] rows: usize, #[case] want: usize) {
    assert_eq!(bucket(rows), want);
}

#[test]
fn buckets_follow_each_other() {
    let mut tops: Vec<_> = (1..300).map(bucket).collect();
    tops.dedup();
    assert_eq!(tops, [1, 2, 4, 8, 16, 32, 64, 96, 128, 192, 256, 384]);
    assert!((1..5000).all(|rows| (rows..2 * rows).contains(&bucket(rows))));
}

#[test]
fn nonsense_is_no_product() {
    let product = Product {
        x: Address::pretended(256),
        weight: Address::pretended(512),
        bias: None,
        out: Address::pretended(1024),
        rows: 2,
        outputs: 8,
        inputs: 4,
        x_stride: 4,
        out_stride: 8,
        element: ElementType::Bf16,
        out_element: ElementType::F32,
    };
    assert!(product.shape().is_ok_and(|shape| shape.is_some()));
    assert_eq!(product.alignment(), 16);
    assert_eq!(Product { x: Address::pretended(258), ..product }.alignment(), 2);
    assert!(Product { rows: 0, ..product }.shape().is_ok_and(|shape| shape.is_none()));
    for nonsense in [
        Product { x_stride: 3, ..product },
        Product { out_stride: 7, ..product },
        Product { element: ElementType::F32, ..product },
        Product { bias: Some(Address::pretended(64)), ..product },
        Product { out_element: ElementType::F16, ..product },
    ] {
        assert!(nonsense.shape().is_err(), "{nonsense:?}");
    }
}
