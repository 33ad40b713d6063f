//! Files that an operator got from somebody.

pub(super) mod certificate;
pub(super) mod keys_file;
pub(super) mod model_folder;
pub(super) mod template;
pub(super) mod tokenizer;
pub(super) mod weights;
