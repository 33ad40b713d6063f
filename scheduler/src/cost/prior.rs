//! What is assumed before anything was measured.

/// Prompt tokens per second: an 8B model in bf16 on one H200 computes batched prompts at about 43,000.
pub const PREFILL_TOKENS_PER_S: f64 = 40_000.0;

/// Seconds of a decode step of few sequences, of the same model.
pub const DECODE_STEP_S: f64 = 4.9e-3;

/// Output tokens of a request: public chat traces have a median between 100 and 400.
pub const OUTPUT_TOKENS: f64 = 256.0;

/// Seconds to fetch a token's KV, 128 KiB, from the host's memory: PCIe 5 with 16 lanes moves 50 GB/s.
pub const HOST_S_PER_TOKEN: f64 = 2.6e-6;

/// The same from a local disk: an NVMe drive reads 3 GB/s or more.
pub const DISK_S_PER_TOKEN: f64 = 4.4e-5;
