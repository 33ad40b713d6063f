//! How long a sequence may be.

use crate::{Fields, FolderError, ModelFolder};

/// The object that says how rotary embeddings are stretched: `rope_scaling`, the older form, which
/// wins as it does in transformers, or `rope_parameters`.
///
/// # Errors
/// [`FolderError::Field`] if it is no object.
pub fn rope_scaling(config: &Fields) -> Result<Option<Fields>, FolderError> {
    match config.object("rope_scaling")? {
        Some(scaling) => Ok(Some(scaling)),
        None => config.object("rope_parameters"),
    }
}

/// Which of its two names the kind of stretching has in `scaling`.
#[must_use]
pub fn rope_type_field(scaling: &Fields) -> &'static str {
    if scaling.get("rope_type").is_some() { "rope_type" } else { "type" }
}

impl ModelFolder {
    /// The most tokens that prompt and answer may have together, if the model says so.
    ///
    /// That is `max_position_embeddings`; with dynamic scaling, where the file names the length
    /// before stretching, as many times that as `factor` says.
    ///
    /// # Errors
    /// [`FolderError::Field`] if a number is none.
    pub fn context_tokens(&self) -> Result<Option<u32>, FolderError> {
        let config = self.text_config();
        let Some(max_position) = config.positive_u32("max_position_embeddings")? else {
            return Ok(None);
        };
        let Some(scaling) = rope_scaling(config)? else { return Ok(Some(max_position)) };
        let factor = match scaling.str(rope_type_field(&scaling))?.as_deref() {
            Some("dynamic") => scaling.positive_f64("factor")?.unwrap_or(1.0),
            _ => 1.0,
        };
        Ok(Some((f64::from(max_position) * factor.max(1.0)) as u32))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::plain(r#"{"max_position_embeddings": 32}"#, Some(32))]
    #[case::unknown("{}", None)]
    #[case::dynamic(
        r#"{"max_position_embeddings": 32, "rope_scaling": {"type": "dynamic", "factor": 4.0}}"#,
        Some(128)
    )]
    #[case::dynamic_new_form(
        r#"{"max_position_embeddings": 32, "rope_parameters": {"rope_type": "dynamic", "factor": 4}}"#,
        Some(128)
    )]
    #[case::linear(
        r#"{"max_position_embeddings": 32, "rope_scaling": {"type": "linear", "factor": 4.0}}"#,
        Some(32)
    )]
    #[case::of_the_language_model(
        r#"{"text_config": {"max_position_embeddings": 64}, "max_position_embeddings": 8}"#,
        Some(64)
    )]
    fn contexts_are_as_long_as_the_engine_computes(
        #[case] config: &str,
        #[case] tokens: Option<u32>,
    ) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), config).unwrap();
        assert_eq!(ModelFolder::open(dir.path()).unwrap().context_tokens(), Ok(tokens));
    }
}
