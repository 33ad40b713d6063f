//! What is assumed before anything was measured.

/// Prompt tokens per second: an 8B model in bf16 on one H200 computes batched prompts at about 43,000.
pub const PREFILL_TOKENS_PER_S: f64 = 40_000.0;

/// Seconds of a decode step of few sequences, of the same model.
pub const DECODE_STEP_S: f64 = 4.9e-3;

/// Output tokens of a request: public chat traces have a median between 100 and 400.
pub const OUTPUT_TOKENS: f64 = 256.0;
