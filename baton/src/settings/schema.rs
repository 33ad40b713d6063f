//! Every setting by its names: the flag, the variable, and the key in the file.
//!
//! Taken from the flags, which are declared once, in `groups`.

use std::any::TypeId;
use std::num::{NonZeroU32, NonZeroUsize};
use std::str::FromStr;
use std::sync::LazyLock;

use clap::{Arg, Args, Command};

use super::groups::{
    EngineArgs, EtcdArgs, GatewayArgs, ModelArgs, SecurityArgs, TargetArgs, TelemetryArgs,
    WorkerArgs,
};

/// The beginning of all variables.
pub(super) const PREFIX: &str = "BATON_";

/// One setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    /// The table in the file.
    pub group: &'static str,
    /// The key in it.
    pub key: String,
    /// Without its dashes; `None` for what is no flag.
    pub flag: Option<String>,
}

/// All settings.
pub(crate) static KNOWN: LazyLock<Vec<Known>> = LazyLock::new(|| {
    let mut known = Vec::new();
    known.extend(group::<ModelArgs>("model"));
    known.extend(group::<EngineArgs>("engine"));
    known.extend(group::<GatewayArgs>("gateway"));
    known.extend(group::<WorkerArgs>("worker"));
    known.extend(group::<EtcdArgs>("etcd"));
    known.extend(group::<SecurityArgs>("security"));
    known.extend(group::<TargetArgs>("targets"));
    known.extend(group::<TelemetryArgs>("telemetry"));
    known.push(Known { group: "security", key: "cluster_secret".to_owned(), flag: None });
    known
});

// === impl Known ===

impl Known {
    /// The variable.
    pub(crate) fn variable(&self) -> String {
        format!("{PREFIX}{}__{}", self.group, self.key).to_uppercase()
    }

    /// The table and key in the file.
    pub(crate) fn path(&self) -> String {
        format!("{}.{}", self.group, self.key)
    }
}

/// Says at each flag of `command`, and of its subcommands, by which variable and which key it is set, too; and
/// which numbers it takes, where it was given none.
pub(crate) fn teach(command: Command) -> Command {
    command.mut_subcommands(teach).mut_args(counting).mut_args(|arg| match of(&arg) {
        Some(known) => {
            let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
            let names = format!("[env: {}, file: {}]", known.variable(), known.path());
            arg.help(format!("{help} {names}").trim_start().to_owned())
        }
        None => arg,
    })
}

/// A flag whose number is read by somebody who knows what to say of what is none. Replaces whatever read it before:
/// a range goes by its type (`NonZeroU32`), or is looked at later.
fn counting(arg: Arg) -> Arg {
    let of = arg.get_value_parser().type_id();
    let is = |id: TypeId| of == id;
    let arg = if is(TypeId::of::<u16>()) {
        arg.value_parser(whole_number::<u16>)
    } else if is(TypeId::of::<u32>()) {
        arg.value_parser(whole_number::<u32>)
    } else if is(TypeId::of::<u64>()) {
        arg.value_parser(whole_number::<u64>)
    } else if is(TypeId::of::<usize>()) {
        arg.value_parser(whole_number::<usize>)
    } else if is(TypeId::of::<NonZeroU32>()) {
        arg.value_parser(count::<NonZeroU32>)
    } else if is(TypeId::of::<NonZeroUsize>()) {
        arg.value_parser(count::<NonZeroUsize>)
    } else if is(TypeId::of::<f32>()) {
        arg.value_parser(number)
    } else {
        return arg;
    };
    // So that -1 is a number that it can't be, rather than a flag that nobody knows.
    arg.allow_negative_numbers(true)
}

fn number(text: &str) -> Result<f32, String> {
    text.trim().parse().map_err(|_| "want a number".to_owned())
}

fn whole_number<N: FromStr>(text: &str) -> Result<N, String> {
    text.trim().parse().map_err(|_| wanted::<N>(0, text))
}

fn count<N: FromStr>(text: &str) -> Result<N, String> {
    text.trim().parse().map_err(|_| wanted::<N>(1, text))
}

/// Which numbers there are from `least` on; up to which, where that is what `text` may not have known.
fn wanted<N>(least: u64, text: &str) -> String {
    let most = u64::MAX >> (64 - 8 * size_of::<N>());
    let digits = text.trim();
    let is_too_large = digits.len() >= 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    match (least, most) {
        (0, u64::MAX) if !is_too_large => "want a whole number".to_owned(),
        (_, u64::MAX) if !is_too_large => format!("want a whole number from {least} on"),
        _ => format!("want a whole number from {least} to {most}"),
    }
}

/// The setting of a flag. Two groups have some keys in common; a flag is of the group under whose heading
/// it stands.
fn of(arg: &Arg) -> Option<&'static Known> {
    let flag = arg.get_long()?;
    let heading = arg.get_help_heading()?.to_lowercase();
    let mut same = KNOWN.iter().filter(|known| known.flag.as_deref() == Some(flag));
    let first = same.clone().next();
    same.find(|known| known.group == heading).or(first)
}

fn group<G: Args>(group: &'static str) -> Vec<Known> {
    let command = G::augment_args(Command::new(group));
    let arguments = command.get_arguments();
    let known = arguments.map(|arg| Known {
        group,
        key: arg.get_id().to_string(),
        flag: arg.get_long().map(str::to_owned),
    });
    known.collect()
}

/// Of `names`, the one that is most like `word`, if any is.
pub(super) fn nearest<'n>(word: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let far = |name: &str| {
        let (word, name) = (word.to_lowercase(), name.to_lowercase());
        edits(&word, &name)
    };
    names
        .map(|name| (far(name), name))
        .filter(|(far, name)| far * 3 <= name.len())
        .min_by_key(|(far, _)| *far)
        .map(|(_, name)| name)
}

/// Letters to change, add or leave out until one word is the other.
fn edits(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (line, a) in one.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], line + 1);
        for (column, b) in other.iter().enumerate() {
            let change = diagonal + usize::from(a != *b);
            diagonal = row[column + 1];
            row[column + 1] = change.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_have_three_names() {
        let find = |path: &str| KNOWN.iter().find(|known| known.path() == path).unwrap();
        assert_eq!(find("model.source").variable(), "BATON_MODEL__SOURCE");
        assert_eq!(find("model.source").flag.as_deref(), Some("model"));
        assert_eq!(find("etcd.endpoints").flag.as_deref(), Some("etcd"));
        assert_eq!(find("security.cluster_secret").flag, None);
    }

    #[test]
    fn the_nearest_name_is_near() {
        let names = ["kv_blocks", "kv_memory_mib", "threads"];
        let near = |word: &str| nearest(word, names.iter().copied());
        assert_eq!(near("kv_bloks"), Some("kv_blocks"));
        assert_eq!(near("KV_MEMORY_MB"), Some("kv_memory_mib"));
        assert_eq!(near("colour"), None);
        assert_eq!(edits("kitten", "sitting"), 3);
    }
}
