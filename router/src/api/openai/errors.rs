//! Errors in OpenAI's shape.

use serde::Serialize;

use crate::http::error::HttpError;

#[derive(Serialize)]
struct Whole<'a> {
    error: Error<'a>,
}

#[derive(Serialize)]
struct Error<'a> {
    message: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    param: Option<&'a str>,
    code: Option<&'static str>,
}

/// `{"error": {"message", "type", "param", "code"}}`.
pub(crate) fn body(error: &HttpError) -> Vec<u8> {
    let HttpError { message, kind, param, name: code, .. } = error;
    let error = Error { message, kind, param: param.as_deref(), code: *code };
    // Texts and names always can be written.
    serde_json::to_vec(&Whole { error }).unwrap_or_default()
}
