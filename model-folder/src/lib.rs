//! What the small files of a Hugging Face folder say of a model: everything but weights and
//! vocabulary.
//!
//! Engine and router both read them, and a model that the two understand differently answers
//! wrongly; so each question has its one answer here. `docs/models.md` is the list for people.
//!
//! ```
//! use model_folder::ModelFolder;
//!
//! let dir = tempfile::tempdir()?;
//! std::fs::write(dir.path().join("config.json"), r#"{ "eos_token_id": 2, "hidden_size": 64 }"#)?;
//! // Fine-tunes change this file, and not the other.
//! std::fs::write(dir.path().join("generation_config.json"), r#"{ "eos_token_id": [7, 2] }"#)?;
//!
//! let folder = ModelFolder::open(dir.path())?;
//! assert_eq!(folder.end_tokens()?, [7, 2]);
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

mod chat_templates;
mod context;
mod end_tokens;
mod error;
mod fields;
mod folder;
mod special_tokens;

pub use chat_templates::NamedTemplate;
pub use context::{rope_scaling, rope_type_field};
pub use error::{FolderError, shortened};
pub use fields::{Fields, without_mark};
pub use folder::ModelFolder;
pub use special_tokens::{AddedToken, SpecialTokens};
