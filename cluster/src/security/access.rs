//! What each role may call on a worker: one table.

use super::NodeRole;

/// Who may call a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Whoever got a connection: it tells nothing but whether the node serves.
    Anyone,
    /// Any node of the cluster.
    Members,
    /// Nodes of this role.
    Only(NodeRole),
}

/// Every method on a worker's port. What isn't here is called by nobody.
const TABLE: &[(&str, Access)] = &[
    ("/baton.v1.Decode/Generate", Access::Only(NodeRole::Router)),
    ("/baton.v1.Prefill/Prefill", Access::Only(NodeRole::Decode)),
    ("/baton.v1.KvTransfer/Push", Access::Only(NodeRole::Prefill)),
    ("/baton.v1.Worker/Report", Access::Only(NodeRole::Router)),
    // A whole service: all its methods tell the same.
    ("/grpc.health.v1.Health/", Access::Anyone),
    ("/grpc.reflection.v1.ServerReflection/", Access::Members),
    ("/grpc.reflection.v1alpha.ServerReflection/", Access::Members),
];

/// Who may call the method with this path; `None`: nobody.
#[must_use]
pub fn of(path: &str) -> Option<Access> {
    let is_it = |known: &str| match known.ends_with('/') {
        true => path.starts_with(known),
        false => path == known,
    };
    TABLE.iter().find(|(known, _)| is_it(known)).map(|(_, access)| *access)
}

// === impl Access ===

impl Access {
    /// Whether a caller of `role` is let in; `None`: a stranger.
    #[must_use]
    pub fn admits(self, role: Option<NodeRole>) -> bool {
        match self {
            Self::Anyone => true,
            Self::Members => role.is_some(),
            Self::Only(only) => role == Some(only),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use prost::Message as _;
    use prost_types::FileDescriptorSet;

    use super::*;

    /// Every method of every service in the descriptions, by its path.
    fn methods(descriptions: &[&[u8]]) -> Vec<String> {
        let files =
            descriptions.iter().flat_map(|set| FileDescriptorSet::decode(*set).unwrap().file);
        let mut methods = Vec::new();
        for file in files {
            for service in &file.service {
                let name = format!("/{}.{}/", file.package(), service.name());
                methods.extend(service.method.iter().map(|method| name.clone() + method.name()));
            }
        }
        methods
    }

    /// A row for each method: stranger, router, prefill, decode.
    #[test]
    fn every_method_is_for_those_who_need_it() {
        let (yes, no) = (true, false);
        let wanted = BTreeMap::from([
            // The public service is the router's; its clients bring API keys. No worker has it.
            ("/baton.v1.Inference/Generate", [no, no, no, no]),
            ("/baton.v1.Inference/ListModels", [no, no, no, no]),
            ("/baton.v1.Decode/Generate", [no, yes, no, no]),
            ("/baton.v1.Prefill/Prefill", [no, no, no, yes]),
            ("/baton.v1.KvTransfer/Push", [no, no, yes, no]),
            ("/baton.v1.Worker/Report", [no, yes, no, no]),
            ("/grpc.health.v1.Health/Check", [yes, yes, yes, yes]),
            ("/grpc.health.v1.Health/List", [yes, yes, yes, yes]),
            ("/grpc.health.v1.Health/Watch", [yes, yes, yes, yes]),
            ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", [no, yes, yes, yes]),
        ]);
        let callers =
            [None, Some(NodeRole::Router), Some(NodeRole::Prefill), Some(NodeRole::Decode)];
        let all = methods(&[
            proto::v1::FILE_DESCRIPTOR_SET,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        ]);
        assert!(all.len() >= 8, "{all:?}");
        for method in &all {
            let wanted = wanted.get(method.as_str());
            let wanted = wanted.unwrap_or_else(|| panic!("{method}: say who may call it"));
            let admitted = callers.map(|role| of(method).is_some_and(|access| access.admits(role)));
            assert_eq!(&admitted, wanted, "{method}");
        }
    }

    #[test]
    fn what_nobody_knows_is_for_nobody() {
        assert_eq!(of("/baton.v1.Decode/Other"), None);
        assert_eq!(of("/baton.v1.Decode/Generate/"), None);
        assert_eq!(of("/"), None);
    }
}
