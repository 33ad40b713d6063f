//! What went wrong, in one line that says what to do.

use anyhow::{Error, anyhow};
use bench::ServerError;
use bench::server::Refusal;

/// OpenAI's name for what doesn't fit.
const TOO_LONG: &str = "context_length_exceeded";

/// Whether the conversation has more than the model's context holds.
pub(super) fn is_too_long(error: &Error) -> bool {
    let error = error.downcast_ref();
    matches!(error, Some(ServerError::Refused(refusal)) if refusal.code.as_deref() == Some(TOO_LONG))
}

/// The error for the user's eyes.
pub(super) fn told(error: Error) -> Error {
    let error = match error.downcast::<ServerError>() {
        Ok(error) => error,
        Err(other) => return other,
    };
    match &error {
        ServerError::Unreachable { .. } => anyhow!("{error}; start one with `baton up`"),
        ServerError::Untrusted { .. } => {
            anyhow!("{error}; call it by a name that it has, or say whom to trust: --ca FILE")
        }
        ServerError::Refused(refusal) => anyhow!("{}", of_refusal(refusal)),
        ServerError::Broken(cause) => anyhow!(
            "the server went away before its answer was whole ({cause}): is it still running? Then ask again"
        ),
        ServerError::TimedOut | ServerError::Misunderstood(_) | ServerError::NoModel => {
            anyhow!("{error}")
        }
    }
}

fn of_refusal(refusal: &Refusal) -> String {
    let Refusal { status, code, retry_after, message } = refusal;
    match (status, code.as_deref(), retry_after) {
        (401 | 403, _, _) => {
            format!("the server wants another API key, in --api-key or BATON_API_KEY: {refusal}")
        }
        (_, Some(TOO_LONG), _) => {
            format!(
                "this message alone is too long for the model; shorten it, or lower --max-tokens: {refusal}"
            )
        }
        (503, _, Some(after)) => {
            let seconds = after.as_secs_f64().ceil().max(1.0);
            format!("the server can't answer yet, try again (/retry) in {seconds:.0} s: {refusal}")
        }
        (_, _, Some(after)) => {
            let seconds = after.as_secs_f64().ceil().max(1.0);
            format!("the server is busy, try again (/retry) in {seconds:.0} s: {refusal}")
        }
        (429, _, None) => format!("the server is busy, try again (/retry) later: {refusal}"),
        (0, _, _) => format!("the answer broke off: {message}"),
        _ => refusal.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rstest::rstest;

    use super::*;

    fn refused(status: u16, code: &str, after_ms: Option<u64>) -> ServerError {
        ServerError::Refused(Refusal {
            status,
            code: Some(code.into()),
            message: "no".into(),
            retry_after: after_ms.map(Duration::from_millis),
        })
    }

    #[rstest]
    #[case::busy(refused(429, "rate_limit_exceeded", Some(2100)), "in 3 s: no (429)")]
    #[case::unavailable(refused(503, "unavailable", Some(1000)), "in 1 s: no (503)")]
    #[case::busy_for_long(refused(429, "rate_limit_exceeded", None), "later: no (429)")]
    #[case::a_key(refused(401, "invalid_api_key", None), "BATON_API_KEY: no (401)")]
    #[case::too_long(refused(400, TOO_LONG, None), "shorten it")]
    #[case::half_way(refused(0, "internal_error", None), "broke off: no")]
    #[case::wrong(refused(400, "other", None), "no (400)")]
    #[case::gone(ServerError::Broken("reset".into()), "the server went away before its answer was whole (reset)")]
    #[case::nobody(
        ServerError::Unreachable { url: "http://h".into(), cause: "refused".into() },
        "no server answers at http://h: refused; start one with `baton up`"
    )]
    fn trouble_says_what_to_do_in_one_line(#[case] error: ServerError, #[case] said: &str) {
        let told = format!("{:#}", told(error.into()));
        assert!(told.contains(said) && !told.contains('\n'), "{told}");
    }
}
