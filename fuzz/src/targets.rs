//! The ways in, one a file.

use crate::Target;

mod certificate;
mod chat;
mod completions;
mod etcd_entry;
mod generation;
mod http_call;
mod inference;
mod keys_file;
mod model_folder;
mod push;
mod push_reply;
mod status;
mod template;
mod text;
mod tokenizer;
mod weights;
mod worker_answer;
mod worker_report;

/// Every target.
pub const ALL: &[Target] = &[
    certificate::TARGET,
    chat::TARGET,
    completions::TARGET,
    etcd_entry::TARGET,
    generation::TARGET,
    http_call::TARGET,
    inference::TARGET,
    keys_file::TARGET,
    model_folder::TARGET,
    push::TARGET,
    push_reply::TARGET,
    status::TARGET,
    template::TARGET,
    text::TARGET,
    tokenizer::TARGET,
    weights::TARGET,
    worker_answer::TARGET,
    worker_report::TARGET,
];
