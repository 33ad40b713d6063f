//! The last word of a command that failed: one line, each cause once.

/// What went wrong, outermost first.
///
/// Some errors say their cause themselves, some leave it to whoever prints them: what was said is not
/// said again.
pub(crate) fn one_line(error: &anyhow::Error) -> String {
    let mut said = String::new();
    for cause in error.chain() {
        let words: Vec<String> = cause.to_string().split_whitespace().map(str::to_owned).collect();
        let cause = words.join(" ");
        if said.contains(&cause) {
            continue;
        }
        if !said.is_empty() {
            said.push_str(": ");
        }
        said.push_str(&cause);
    }
    said
}

#[cfg(test)]
mod tests {
    use std::io;

    use anyhow::Context as _;
    use cluster::ClusterError;

    use super::*;

    #[test]
    fn a_cause_that_was_said_is_not_said_again_and_all_is_one_line() {
        let source = io::Error::from(io::ErrorKind::ConnectionRefused);
        let cause = source.to_string();
        let addr = "127.0.0.1:1".parse().unwrap();
        let bind: anyhow::Result<()> = Err(ClusterError::Bind { addr, source }.into());
        let said = one_line(&bind.context("--http\n").unwrap_err());
        assert_eq!(said, format!("--http: cannot listen on 127.0.0.1:1: {cause}"));
    }
}
