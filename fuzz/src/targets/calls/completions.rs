//! The body of `POST /v1/completions`.

use http::StatusCode;

use super::chat::{check, post};
use crate::Target;

pub(in crate::targets) const TARGET: Target = Target::new("completions", run);

fn run(body: &[u8]) {
    let answer = post("/v1/completions", body);
    if answer.head.status() == StatusCode::OK {
        check(&answer, body, "text_completion");
    }
}
