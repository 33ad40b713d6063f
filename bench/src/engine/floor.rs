//! The least time that the hardware's rates allow for a model's steps.
//!
//! Taken operation by operation: each reads its weights or its KV once, at the rate of reading, or
//! multiplies at the rate of the largest products, whichever takes longer. Activations count nothing.

use engine::ModelConfig;

use crate::ceilings::Ceilings;

/// Bytes of a weight and of an element of KV.
const ELEMENT_BYTES: f64 = 2.0;

/// What one model costs on one card; nothing where the card's rates are unknown.
#[derive(Clone, Debug)]
pub(super) struct Floor {
    model: Cost,
    ceilings: Option<Ceilings>,
}

/// A model in numbers.
#[derive(Clone, Debug)]
struct Cost {
    layers: f64,
    /// Weights of a layer's four products.
    products: [f64; 4],
    /// Weights of the output projection.
    head: f64,
    /// Queries' width.
    q_width: f64,
    /// Elements of a token's keys and values in one layer.
    kv_width: f64,
    /// How far back each layer sees.
    windows: Vec<Option<u32>>,
}

// === impl Floor ===

impl Floor {
    pub(super) fn new(config: &ModelConfig, ceilings: Option<Ceilings>) -> Self {
        let shape = config.head_shape();
        let (hidden, width) = (f64::from(config.hidden_size), f64::from(config.intermediate_size));
        let (q_width, qkv_width) = (shape.q_width() as f64, shape.qkv_width() as f64);
        let model = Cost {
            layers: f64::from(config.layers),
            products: [hidden * qkv_width, q_width * hidden, hidden * 2.0 * width, width * hidden],
            head: hidden * f64::from(config.vocab_size),
            q_width,
            kv_width: 2.0 * shape.kv_width() as f64,
            windows: config.windows.clone(),
        };
        Self { model, ceilings }
    }

    /// A step of `batch` sequences, one row each, that see `context` tokens.
    pub(super) fn decode_ms(&self, batch: usize, context: f64) -> Option<f64> {
        let (rows, ceilings) = (batch as f64, self.ceilings?);
        let products = self.model.products_ms(&ceilings, rows);
        let head = product_ms(&ceilings, self.model.head, rows);
        Some(products + head + ceilings.read_ms(rows * self.model.kv_bytes(context)))
    }

    /// `count` prompts of `tokens` tokens, to their last rows' hidden states.
    pub(super) fn prefill_ms(&self, count: usize, tokens: usize) -> Option<f64> {
        let (count, tokens, ceilings) = (count as f64, tokens as f64, self.ceilings?);
        let products = self.model.products_ms(&ceilings, count * tokens);
        Some(products + count * ceilings.product_ms(self.model.attention_flops(tokens)))
    }

    /// A step in which a prompt joins `batch` sequences that see `context` tokens.
    pub(super) fn mixed_ms(&self, batch: usize, context: f64, prompt: usize) -> Option<f64> {
        let (rows, tokens, ceilings) = (batch as f64, prompt as f64, self.ceilings?);
        let products = self.model.products_ms(&ceilings, rows + tokens);
        let decoding = ceilings.read_ms(rows * self.model.kv_bytes(context));
        Some(products + decoding + ceilings.product_ms(self.model.attention_flops(tokens)))
    }

    /// Requests of which `at_once` run together: their prompts, then all their steps.
    pub(super) fn offline_ms(
        &self,
        count: usize,
        prompt: usize,
        tokens: usize,
        at_once: usize,
    ) -> Option<f64> {
        let batch = count.min(at_once);
        let waves = count as f64 / batch as f64;
        let context = prompt as f64 + tokens as f64 / 2.0;
        let steps_ms = tokens as f64 * self.decode_ms(batch, context)?;
        Some(self.prefill_ms(count, prompt)? + waves * steps_ms)
    }
}

fn product_ms(ceilings: &Ceilings, weights: f64, rows: f64) -> f64 {
    let read_ms = ceilings.read_ms(weights * ELEMENT_BYTES);
    read_ms.max(ceilings.product_ms(2.0 * weights * rows))
}

// === impl Cost ===

impl Cost {
    /// All layers' products.
    fn products_ms(&self, ceilings: &Ceilings, rows: f64) -> f64 {
        let of_layer = self.products.iter().map(|&weights| product_ms(ceilings, weights, rows));
        self.layers * of_layer.sum::<f64>()
    }

    /// KV of all layers that a row with this context reads.
    fn kv_bytes(&self, context: f64) -> f64 {
        let seen =
            self.windows.iter().map(|window| window.map_or(context, |w| context.min(w.into())));
        seen.sum::<f64>() * self.kv_width * ELEMENT_BYTES
    }

    /// Causal attention of a whole prompt, all layers: scores and sums over half the square.
    fn attention_flops(&self, tokens: f64) -> f64 {
        let seen = self.windows.iter().map(|window| {
            let reach = window.map_or(tokens, |window| tokens.min(window.into()));
            tokens * reach - reach * reach / 2.0
        });
        4.0 * self.q_width * seen.sum::<f64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::{Checkpoint, ModelSource};

    /// Llama-3.1-8B on the H200 of the anchors.
    fn llama() -> Floor {
        let shape = ModelSource::Shape("llama-3.1-8b".parse().unwrap());
        let checkpoint = Checkpoint::open(&shape).unwrap();
        let config = ModelConfig::load(checkpoint.dir()).unwrap();
        Floor::new(&config, Some(Ceilings::H200))
    }

    #[test]
    fn decoding_has_the_anchors_floors() {
        for (batch, wanted_ms) in
            [(1, 3.53), (8, 3.76), (32, 4.58), (64, 5.68), (128, 7.86), (256, 13.6)]
        {
            let floor_ms = llama().decode_ms(batch, 1120.0).unwrap();
            assert!((floor_ms / wanted_ms - 1.0).abs() < 0.01, "{batch}: {floor_ms}");
        }
    }

    #[test]
    fn prompts_have_the_anchors_floors() {
        for (tokens, wanted_ms) in [(512, 9.1), (2048, 37.6), (8192, 167.0), (32_768, 935.0)] {
            let floor_ms = llama().prefill_ms(1, tokens).unwrap();
            assert!((floor_ms / wanted_ms - 1.0).abs() < 0.01, "{tokens}: {floor_ms}");
        }
        let floor_ms = llama().prefill_ms(32, 2048).unwrap();
        let rate = 32.0 * 2048.0 / floor_ms * 1e3;
        assert!((rate / 54_500.0 - 1.0).abs() < 0.01, "{rate}");
    }
}
