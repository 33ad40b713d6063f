//! What the small files of a Hugging Face folder say of a model: everything but weights and
//! vocabulary.
//!
//! Engine and router both read them, and a model that the two understand differently answers
//! wrongly; so each question has its one answer here. `docs/models.md` is the list for people.

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
