//! Variables that are settings, and those that begin as they do and are none.

use figment::value::{Dict, Map};
use figment::{Metadata, Profile, Provider};

use super::schema::{KNOWN, Known, PREFIX, nearest};

/// What clients (`baton chat`, `baton bench serve`) and the tests of this repository read.
const OF_OTHERS: [&str; 3] = ["BATON_API_KEY", "BATON_TEST_", "BATON_BIN"];
/// What composing and deploying tools have names like, for purposes of their own.
const OF_MANY: [&str; 2] = ["BATON_HOST", "BATON_PORT"];

/// Variables that are settings, as text: one that looks like a number may be a name, or a key.
pub(super) struct Variables(Dict);

/// A variable that is no setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unknown {
    /// Its name.
    pub name: String,
    /// Whether it can only be meant for Baton: it has a group and a name, or the name of a flag.
    pub is_setting: bool,
}

// === impl Variables ===

impl Variables {
    /// Those among the variables of `environment`.
    pub(super) fn among(environment: impl Iterator<Item = (String, String)>) -> Self {
        let mut groups = Map::<&str, Dict>::new();
        for (name, value) in environment.filter(|(name, _)| name.starts_with(PREFIX)) {
            if let Some(known) = known(&name) {
                groups.entry(known.group).or_default().insert(known.key.clone(), value.into());
            }
        }
        Self(groups.into_iter().map(|(group, keys)| (group.to_owned(), keys.into())).collect())
    }
}

impl Provider for Variables {
    fn metadata(&self) -> Metadata {
        Metadata::named("environment variables")
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.0.clone()))
    }
}

// === impl Unknown ===

impl Unknown {
    /// Those among the variables of `environment`, in order.
    pub(super) fn among(environment: impl Iterator<Item = (String, String)>) -> Vec<Self> {
        let mut unknown: Vec<Self> = environment
            .filter(|(name, value)| name.starts_with(PREFIX) && !is_anothers(name, value))
            .filter(|(name, _)| known(name).is_none())
            .map(|(name, _)| Self { is_setting: name.contains("__") || is_a_flags(&name), name })
            .collect();
        unknown.sort_by(|one, other| one.name.cmp(&other.name));
        unknown
    }

    /// What to say of it.
    pub(super) fn remark(&self) -> String {
        let name = &self.name;
        match meant(name) {
            Some(variable) => format!("{name} is no setting: did you mean {variable}?"),
            None => format!(
                "{name} is no setting: those are BATON_GROUP__NAME, `baton up --help` lists them"
            ),
        }
    }
}

/// The setting of a variable.
fn known(name: &str) -> Option<&'static Known> {
    let name = name.to_uppercase();
    KNOWN.iter().find(|known| known.variable() == name)
}

/// The variable that somebody had in mind: by its flag, by its key, or spelled almost so.
fn meant(name: &str) -> Option<String> {
    let word = name.strip_prefix(PREFIX)?.to_lowercase();
    let word = word.split_once("__").map_or(word.as_str(), |(_, key)| key);
    let as_flag = word.replace('_', "-");
    let by_name = KNOWN.iter().find(|known| known.flag.as_deref() == Some(as_flag.as_str()));
    let by_key = || KNOWN.iter().find(|known| known.key == word);
    if let Some(known) = by_name.or_else(by_key) {
        return Some(known.variable());
    }
    let variables: Vec<String> = KNOWN.iter().map(Known::variable).collect();
    nearest(name, variables.iter().map(String::as_str)).map(str::to_owned)
}

/// Whether a variable has the name of a flag, and none that others give to theirs.
fn is_a_flags(name: &str) -> bool {
    let flag = name.trim_start_matches(PREFIX).to_lowercase().replace('_', "-");
    !OF_MANY.contains(&name) && KNOWN.iter().any(|known| known.flag.as_deref() == Some(&flag))
}

/// Whether a variable is for somebody else: tests, or one of those that Kubernetes sets for a service
/// that is called `baton`.
fn is_anothers(name: &str, value: &str) -> bool {
    let of_service = name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || (name.contains("_PORT") && ["tcp", "udp"].iter().any(|it| value.starts_with(it)))
        || name.contains("_TCP_")
        || name.contains("_UDP_");
    of_service || OF_OTHERS.iter().any(|begin| name.starts_with(begin))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::by_flag("BATON_MODEL", "BATON_MODEL__SOURCE")]
    #[case::by_key("BATON_ENDPOINTS", "BATON_ETCD__ENDPOINTS")]
    #[case::one_underscore("BATON_ENGINE_KV_BLOCKS", "BATON_ENGINE__KV_BLOCKS")]
    #[case::both("BATON_PORT", "BATON_GATEWAY__PORT")]
    #[case::log("BATON_LOG", "BATON_TELEMETRY__LOG")]
    #[case::misspelled("BATON_ENGINE__KV_BLOKS", "BATON_ENGINE__KV_BLOCKS")]
    #[case::another_group("BATON_ENGINE__MODEL", "BATON_MODEL__SOURCE")]
    #[case::nothing_like_it("BATON_COLOUR", "`baton up --help` lists them")]
    fn a_variable_that_is_not_read_is_told_with_the_one_meant(
        #[case] name: &str,
        #[case] told: &str,
    ) {
        let unknown = Unknown::among(std::iter::once((name.to_owned(), "8000".to_owned())));
        let said = unknown[0].remark();
        assert!(said.starts_with(name) && said.contains(told), "{said}");
        let is_setting = name.contains("__") || ["BATON_MODEL", "BATON_LOG"].contains(&name);
        assert_eq!(unknown[0].is_setting, is_setting);
    }

    #[rstest]
    #[case("BATON_ENGINE__KV_BLOCKS", "3")]
    #[case("BATON_TEST_MODEL", "random")]
    #[case("BATON_SERVICE_HOST", "10.0.0.1")]
    #[case("BATON_ROUTER_SERVICE_PORT_HTTP", "8000")]
    #[case("BATON_PORT", "tcp://10.0.0.1:8000")]
    #[case("BATON_PORT_8000_TCP_ADDR", "10.0.0.1")]
    #[case("BATONS", "3")]
    fn what_is_read_or_is_anothers_is_not_told(#[case] name: &str, #[case] value: &str) {
        let unknown = Unknown::among(std::iter::once((name.to_owned(), value.to_owned())));
        assert!(unknown.is_empty(), "{unknown:?}");
    }
}
