//! The ways in, one a file.

use crate::Target;

mod calls;
mod files;
mod nodes;

/// Every target.
pub const ALL: &[Target] = &[
    files::certificate::TARGET,
    calls::chat::TARGET,
    calls::completions::TARGET,
    nodes::etcd_entry::TARGET,
    nodes::generation::TARGET,
    calls::http_call::TARGET,
    calls::inference::TARGET,
    files::keys_file::TARGET,
    files::model_folder::TARGET,
    nodes::push::TARGET,
    nodes::push_reply::TARGET,
    nodes::status::TARGET,
    files::template::TARGET,
    calls::text::TARGET,
    files::tokenizer::TARGET,
    files::weights::TARGET,
    nodes::worker_answer::TARGET,
    nodes::worker_report::TARGET,
];
