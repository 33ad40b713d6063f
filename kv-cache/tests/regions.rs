//! Pages in main memory, as every region has to keep them.

use std::sync::Arc;

use kv_cache::region::conformance::{Subject, conformance};
use kv_cache::{Fence, Held, HostRegion, KvCodec, KvLayout, KvShard, Numbers, PageShape, Scales};

#[test]
fn host_memory_conforms() {
    let page = PageShape::keys_and_values(8, 4);
    let plain = KvLayout::whole(3, 2, page, KvCodec::BF16);
    let numbers = Numbers { exponent_bits: 0, fraction_bits: 3 };
    let scales = Some(Scales { bits: 16, group: 8 });
    let nibbles = KvLayout { codec: KvCodec { name: "int4", numbers, scales }, ..plain.clone() };
    let shard = KvShard { layers: Held::part(1..3, 3), heads: Held::part(0..1, 2) };
    let part = KvLayout { shard, ..plain.clone() };
    let one_vector = PageShape { vectors: 1, ..page };
    let latent = KvLayout { page: one_vector, ..plain.clone() };
    conformance(&[plain, nibbles, part, latent], |layout, blocks| Subject {
        region: Arc::new(HostRegion::new(layout.clone(), blocks)),
        fence: Box::new(Fence::default),
    });
}
